"""Questions to the API of usage: their parameters, parsed and checked. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from exporter.downloads.parameters import EVERYONE, ForbiddenError, InvalidParameterError, shown, tenant_of
from exporter.usage.names import SORTS
from exporter.usage.questions import ALL, DAY, HOUR, PRESETS, Filter, Range, preset
from exporter.usage.rollup import NAMES
from exporter.usage_api.openapi import (
    DEFAULT_RANGE,
    FORMATS,
    MAX_LIMIT,
    MAX_TEXT,
    MOST_DAYS,
    MOST_DAYS_BY_HOUR,
    MOST_NARROWED_DAYS_BY_HOUR,
    MOST_SEED_DAYS,
    PARAMETERS,
)

INTERVALS = {"hour": HOUR, "day": DAY}
_DETAILS = {
    "/usage": {NAMES},
    "/usage/routes": {"routes"},
    "/usage/clients": {"clients"},
    "/usage/route": {"routes", "pairs", "errors"},
    "/usage/client": {"clients", "pairs"},
    "/api/analytics/usage": {"routes"},
}
_TIME = re.compile(r"[12]\d{3}-\d{2}-\d{2}(T\d{2}(:00(:00)?)?Z)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked.

    Attributes:
        path: The path, one of `PARAMETERS`.
        range: A name of `PRESETS`; None if times are given.
        start: The beginning, if times are given.
        end: The end, exclusive, if times are given.
        interval: How long the parts of a series are; None for what fits the range.
        only: Which requests count.
        sort: The figure that orders rows; empty for the requests.
        search: A text that the rows' names have.
        limit: How many rows.
        csv: Whether CSV is asked for.
        days: How many days, where only these are asked for.
    """

    path: str
    range: str | None = DEFAULT_RANGE
    start: datetime | None = None
    end: datetime | None = None
    interval: timedelta | None = None
    only: Filter = ALL
    sort: str = "requests"
    search: str = ""
    limit: int = MAX_LIMIT
    csv: bool = False
    days: int = 7

    def range_until(self, data_through: datetime) -> Range:
        """Return the range.

        Args:
            data_through: Until when there are numbers, in UTC.
        """
        if self.start is not None and self.end is not None:
            return Range(self.start, self.end, self.interval or _step(self.start, self.end))
        named = preset(self.range or DEFAULT_RANGE, data_through)
        return named if self.interval is None else Range(named.start, named.end, self.interval)

    @property
    def is_narrowed(self) -> bool:
        """Whether only some requests count."""
        return self.only != ALL

    @property
    def details(self) -> set[str]:
        """Which details of roll-ups are needed, of `exporter.usage.rollup.DETAILS`."""
        filtered = {"routes"} if self.only.of_route else {"clients"} if self.only.client else set()
        return filtered | _DETAILS.get(self.path, set())

    @property
    def is_plain(self) -> bool:
        """Whether it is about a range of `PRESETS`, and nothing is narrowed, sorted or cut."""
        return self == Question(self.path, self.range, csv=self.csv) and self.range is not None


def parse(path: str, given: Mapping[str, str], accept: str = "", tenant: str | None = None) -> Question:
    """Return the question that parameters describe.

    Args:
        path: The path, one of `PARAMETERS`.
        given: The query's parameters.
        accept: The header `Accept`: `text/csv` asks for CSV, as `format=csv` does.
        tenant: The client that the caller is; None for a caller that may have all numbers.

    Raises:
        InvalidParameterError: If a parameter is unknown or cannot be used.
        ForbiddenError: If other clients' numbers are asked for.
    """
    known = PARAMETERS[path]
    for name in given:
        if name not in known:
            takes = f"the parameters are {', '.join(known)}" if known else "there are no parameters"
            raise InvalidParameterError(shown(name), f"{shown(name)!r} is not a parameter here; {takes}")
    if path == "/api/analytics/usage":
        return Question(path, days=_number(given, "days", 7, MOST_SEED_DAYS))
    start, end = _times(given)
    interval = _choice(given, "interval", INTERVALS)
    only = _filter(path, given, tenant)
    _check_length(
        start, end, _preset(given), by_hour=interval == "hour", narrowed=only != ALL or tenant is not None
    )
    return Question(
        path,
        None if start is not None else _preset(given),
        start,
        end,
        None if interval is None else INTERVALS[interval],
        only,
        _choice(given, "sort", SORTS) or "requests",
        _text(given, "search") or "",
        _number(given, "limit", MAX_LIMIT, MAX_LIMIT),
        (_choice(given, "format", FORMATS) or ("csv" if "text/csv" in accept else "json")) == "csv",
    )


def _filter(path: str, given: Mapping[str, str], tenant: str | None) -> Filter:
    """Return which requests count. A tenant's roll-ups have no others, so its own name narrows nothing."""
    only = Filter(*(_text(given, name) for name in ("method", "route", "client")))
    if tenant is not None:
        if only.client not in (None, tenant):
            raise ForbiddenError(
                f"client is {shown(only.client)!r}, and you may have the numbers of {tenant!r} only"
            )
        if only.of_route or path == "/usage/route":
            raise ForbiddenError(
                "numbers of a route are those of all clients: ask for /usage/routes, which has yours"
            )
        return Filter(client=tenant) if path == "/usage/client" else ALL
    if only.of_route and only.client is not None:
        raise InvalidParameterError(
            "client", "numbers are kept by route and by client: give method and route, or client"
        )
    for name in {"/usage/route": ("method", "route"), "/usage/client": ("client",)}.get(path, ()):
        if name not in given:
            raise InvalidParameterError(name, f"{name} is missing: give the {name} whose numbers you want")
    return only


def client_of(event: Mapping[str, Any], claim: str, admin_scope: str) -> str | None:
    """Return the client whose numbers a caller may have; None for all.

    Args:
        event: The request's event.
        claim: The claim of a token that names the client; as `tenant_of` takes it.
        admin_scope: A token with this scope gives all numbers.

    Raises:
        ForbiddenError: If the token does not name whose numbers its bearer may have.
    """
    authorizer = event["requestContext"].get("authorizer") or {}
    claims = authorizer.get("jwt", {}).get("claims", {})
    # API Gateway writes a list as `[a b]`.
    scopes = str(claims.get("scope") or claims.get("scp") or "").strip("[]").split()
    if claim and claim != EVERYONE and admin_scope in scopes:
        return None
    return tenant_of(event, claim)


def _times(given: Mapping[str, str]) -> tuple[datetime | None, datetime | None]:
    """Return the given times; a day as the end is inclusive."""
    if "from" not in given and "to" not in given:
        return None, None
    if "range" in given:
        raise InvalidParameterError("range", "range is given together with from or to: give one of the two")
    start, _ = _time(given, "from")
    end, is_day = _time(given, "to")
    return start, end + DAY if is_day else end


def _time(given: Mapping[str, str], name: str) -> tuple[datetime, bool]:
    """Return a time, and whether it is given as a day."""
    value = given.get(name)
    if not value:
        raise InvalidParameterError(
            name, f"{name} is missing: give both, such as from=2026-11-01 and to=2026-11-19"
        )
    try:
        if _TIME.fullmatch(value):
            is_day = len(value) == len("2026-11-19")
            time = datetime.fromisoformat(value if is_day else f"{value[:13]}:00:00")
            return time.replace(tzinfo=UTC), is_day
    except ValueError:
        pass
    raise InvalidParameterError(
        name, f"{name} is {shown(value)!r}, not a day such as 2026-11-19 or an hour such as 2026-11-19T13Z"
    )


def _check_length(
    start: datetime | None, end: datetime | None, named: str, *, by_hour: bool, narrowed: bool
) -> None:
    if start is None or end is None:
        field, length = "interval", PRESETS[named][0]
    else:
        field, length = "to", end - start
        if length <= timedelta():
            raise InvalidParameterError("to", f"to is {end:%Y-%m-%dT%HZ}, which is not after from")
    most, what = MOST_DAYS, "at once"
    if by_hour:
        most, what = MOST_DAYS_BY_HOUR, "by the hour"
        if narrowed:
            most, what = MOST_NARROWED_DAYS_BY_HOUR, "by the hour, of some requests only"
    if length > most * DAY:
        raise InvalidParameterError(
            field, f"the range has {length // DAY} days; at most {most} can be asked for {what}"
        )


def _step(start: datetime, end: datetime) -> timedelta:
    """Return how long the parts of a series are that fit a range."""
    return HOUR if end - start < 3 * DAY else DAY


def _preset(given: Mapping[str, str]) -> str:
    return _choice(given, "range", PRESETS) or DEFAULT_RANGE


def _choice(given: Mapping[str, str], name: str, choices: Collection[str]) -> str | None:
    value = given.get(name)
    if value is None or value in choices:
        return value
    raise InvalidParameterError(name, f"{name} is {shown(value)!r}, not one of {', '.join(choices)}")


def _text(given: Mapping[str, str], name: str) -> str | None:
    value = given.get(name)
    if value is None or 0 < len(value) <= MAX_TEXT:
        return value
    raise InvalidParameterError(name, f"{name} has {len(value)} characters; it must have 1 to {MAX_TEXT}")


def _number(given: Mapping[str, str], name: str, default: int, most: int) -> int:
    value = given.get(name)
    if value is None:
        return default
    if value.isascii() and value.isdigit() and len(value) <= len(str(most)) and 1 <= int(value) <= most:
        return int(value)
    raise InvalidParameterError(name, f"{name} is {shown(value)!r}, not a whole number from 1 to {most}")
