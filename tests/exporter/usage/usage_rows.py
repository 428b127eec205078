"""Rows of records and roll-ups of them, for the tests of usage."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

from exporter.usage.counting import usage_of_rows
from exporter.usage.groups import COLUMNS
from exporter.usage.rollup import RollUp

Row = tuple[str | None, ...]
TYPE = "api_request"
START = datetime(2026, 11, 1, tzinfo=UTC)


def row(
    time: datetime,
    route: str | None = "/pets",
    client: str | None = "acme",
    *,
    type_: str = TYPE,
    method: str | None = "GET",
    status: float | None = 200,
    error_type: str | None = None,
    duration_ms: float | None = 20.0,
    size: float | None = None,
    timed_out: bool = False,
    unfinished: bool = False,
) -> Row:
    """Return a record as the store and the lake write it."""
    return (
        f"{time:%Y-%m-%d %H:%M:%S}.000000000",
        type_,
        method,
        route,
        client,
        None if status is None else repr(float(status)),
        error_type,
        None if duration_ms is None else repr(float(duration_ms)),
        None if size is None else repr(float(size)),
        "true" if timed_out else None,
        "true" if unfinished else None,
    )


def rolled(
    rows: Iterable[Row],
    start: datetime,
    hours: int = 24,
    *,
    through: datetime | None = None,
    columns: Sequence[str] = COLUMNS,
) -> RollUp:
    """Return the roll-up of rows, complete unless its data end before."""
    end = start + timedelta(hours=hours)
    return RollUp(start, end, TYPE, through or end, usage_of_rows(columns, rows, TYPE))


def traffic(days: int, routes: int, clients: int, requests: int, seed: int = 0) -> list[list[Row]]:
    """Return days of requests as an API has them: busy by day, a few busy routes, a few failures.

    Args:
        days: How many days, from `START`.
        routes: How many routes.
        clients: How many clients.
        requests: How many requests a day, about.
        seed: Another one makes other requests.
    """
    chance = random.Random(seed)
    methods = [chance.choice(("GET", "GET", "GET", "POST", "PUT", "DELETE")) for _ in range(routes)]
    slowness = [chance.lognormvariate(3, 0.7) for _ in range(routes)]
    return [
        [
            _request(chance, START + timedelta(days=day), methods, slowness, clients)
            for _ in range(int(requests * chance.uniform(0.8, 1.2)))
        ]
        for day in range(days)
    ]


def _request(
    chance: random.Random, day: datetime, methods: list[str], slowness: list[float], clients: int
) -> Row:
    number = min(len(methods) - 1, int(chance.paretovariate(0.6)) - 1)
    hour = int(chance.triangular(0, 24, 14))
    status = chance.choices((200, 201, 304, 404, 400, 401, 429, 500, 503), (80, 6, 5, 4, 2, 1, 1, 0.7, 0.3))[
        0
    ]
    return row(
        day + timedelta(hours=hour, minutes=chance.randrange(60)),
        f"/v1/resource-{number}/{{id}}",
        f"client-{min(clients, int(chance.paretovariate(0.5)))}",
        method=methods[number],
        status=status,
        error_type="TimeoutError" if status == 503 else None,
        duration_ms=chance.lognormvariate(0, 0.5) * slowness[number],
        size=chance.randrange(200, 40_000),
    )
