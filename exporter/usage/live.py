"""The minutes that no roll-up has yet: what the page and the answers show of them. Pure.

They are provisional, and never added to the other numbers, which have some of them already: the consumer
counts what arrives, and only the roll-up asks the store, which has each row once.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from consumers.accounts.minutes import OTHER, WINDOW_MINUTES, MinuteCell
from exporter.usage.rollup import Numbers, total

# So many routes are named, those with most requests.
SHOWN_ROUTES = 6

_MINUTE = timedelta(minutes=1)
_MOST = timedelta(minutes=WINDOW_MINUTES)


def since(data_through: datetime, now: datetime) -> datetime:
    """Return the first minute that is shown: the one in which the roll-ups end, or a later one."""
    return max(data_through, now - _MOST).astimezone(UTC).replace(second=0, microsecond=0)


def summarize(counts: Mapping[MinuteCell, int], first: datetime, now: datetime) -> dict[str, Any] | None:
    """Return the minutes from one on up to the current one; None if they have no requests.

    Args:
        counts: Requests by minute, method, route and status.
        first: The first minute.
        now: The time.
    """
    length = (now - first) // _MINUTE + 1
    begin = int(first.timestamp()) // 60
    minutes = [Numbers() for _ in range(length)]
    routes: dict[tuple[str | None, str | None], Numbers] = {}
    for (minute, method, route, status), requests in counts.items():
        if not 0 <= minute - begin < length:
            continue
        numbers = Numbers({status: requests})
        minutes[minute - begin].add(numbers)
        routes.setdefault((method, route), Numbers()).add(numbers)
    whole = total(minutes)
    if not whole.requests:
        return None
    busiest = sorted(routes.items(), key=lambda each: (-each[1].requests, repr(each[0])))
    return {
        "from": _text(first),
        "to": _text(now),
        "total": _figures(whole),
        "minutes": [
            {"start": _text(first + number * _MINUTE), **_figures(numbers)}
            for number, numbers in enumerate(minutes)
        ],
        "routes": [
            {"method": route[0], "route": route[1], **_figures(numbers)}
            for route, numbers in busiest
            if route[1] != OTHER
        ][:SHOWN_ROUTES],
    }


def _figures(numbers: Numbers) -> dict[str, int]:
    return {
        "requests": numbers.requests,
        "client_errors": numbers.client_errors,
        "failures": numbers.failures,
        "rate_limited": numbers.rate_limited,
        "auth_failures": numbers.auth_failures,
    }


def _text(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
