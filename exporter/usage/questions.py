"""Questions to roll-ups and their answers: sums, series, rows, and the comparison with the time before. Pure.

Days and hours are in UTC. Every answer states until when its numbers are complete.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from consumers.accounts.minutes import NO_STATUS, UNANSWERED
from exporter.usage.buckets import ERROR_BOUND, percentiles
from exporter.usage.names import SORTS
from exporter.usage.rollup import Completeness, Numbers, Other, RollUp, Route, Usage, check_disjoint, total

HOUR, DAY, WEEK = timedelta(hours=1), timedelta(days=1), timedelta(days=7)
# How long each range is, and each of its parts in a chart.
PRESETS = {"24h": (DAY, HOUR), "7d": (WEEK, 6 * HOUR), "30d": (30 * DAY, DAY), "90d": (90 * DAY, DAY)}
SHARES = (0.5, 0.9, 0.95, 0.99)
_US_PER_MS = 1_000
# What a spreadsheet takes for a formula: https://owasp.org/www-community/attacks/CSV_Injection
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True, slots=True)
class Range:
    """A time that is asked for.

    Attributes:
        start: Its beginning, a whole hour in UTC.
        end: Its end, exclusive, a whole hour in UTC.
        step: How long the parts of a series are.

    Raises:
        ValueError: If it does not hold at least one part, or does not begin and end at whole hours.
    """

    start: datetime
    end: datetime
    step: timedelta

    def __post_init__(self) -> None:
        if self.end - self.start < self.step or self.step < HOUR:
            raise ValueError(f"the range from {self.start} to {self.end} has no part of {self.step}")
        for time in (self.start, self.end):
            if time != floor(time, HOUR):
                raise ValueError(f"{time} is not a whole hour: ask for a time such as {floor(time, HOUR)}")

    @property
    def length(self) -> timedelta:
        """How long it is."""
        return self.end - self.start

    @property
    def shift(self) -> timedelta:
        """How much earlier the time lies that it is compared with: whole days, from 7 days on whole weeks."""
        unit = WEEK if self.length >= WEEK else DAY
        return math.ceil(self.length / unit) * unit

    @property
    def parts(self) -> list[tuple[datetime, datetime]]:
        """The beginning and end of each part of a series, the last one cut at the end."""
        count = math.ceil((self.end - self.start) / self.step)
        starts = [self.start + number * self.step for number in range(count)]
        return [(start, min(start + self.step, self.end)) for start in starts]


@dataclass(frozen=True, slots=True)
class Filter:
    """Which requests count; None does not narrow."""

    method: str | None = None
    route: str | None = None
    client: str | None = None

    def takes(self, route: Route) -> bool:
        """Tell whether a route counts."""
        return self.method in (None, route[0]) and self.route in (None, route[1])

    @property
    def of_route(self) -> bool:
        """Whether routes are narrowed."""
        return self.method is not None or self.route is not None


ALL = Filter()


@dataclass(frozen=True, slots=True)
class Period:
    """The roll-ups of a range, and of the time before that it is compared with.

    Attributes:
        range: The time.
        parts: Its roll-ups, by time; none where there are none.
        data_through: Until when the numbers are complete, at most the range's end.
        usage: Their numbers together.
        compared: The part of the range that is compared; None if nothing can be.
        shift: How much earlier the time lies that it is compared with.
        now: The numbers of the compared part.
        before: The numbers of the time before; None if its roll-ups are not kept any more.
    """

    range: Range
    parts: tuple[RollUp, ...]
    data_through: datetime
    usage: Usage
    compared: tuple[datetime, datetime] | None
    shift: timedelta
    now: Usage
    before: Usage | None

    @property
    def completeness(self) -> Completeness:
        """What is known of records that are not in the numbers."""
        known = Completeness()
        for part in self.parts:
            known += part.completeness
        return known

    @property
    def revision(self) -> str:
        """Name of this content, for an `ETag`: another revision of any roll-up has another name."""
        named = ",".join(
            f"{part.start.isoformat()} {part.revision} {part.data_through.isoformat()}" for part in self.parts
        )
        return hashlib.sha256(named.encode()).hexdigest()[:16]


def floor(time: datetime, grain: timedelta) -> datetime:
    """Return the last whole hour or day at or before a time."""
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    return time - (time - epoch) % grain


def data_through(rollups: Iterable[RollUp]) -> datetime:
    """Return until when all numbers are complete.

    Raises:
        ValueError: If there are no roll-ups.
    """
    parts = list(rollups)
    if not parts:
        raise ValueError("there are no roll-ups: run the roll-up first")
    unfinished = [part.data_through for part in parts if not part.complete]
    return min(unfinished, default=max(part.end for part in parts))


def preset(name: str, data_through: datetime) -> Range:
    """Return the range of a name, which ends with the hour or day that the data end in.

    Args:
        name: One of `PRESETS`.
        data_through: Until when there are data, in UTC.
    """
    length, step = PRESETS[name]
    grain = HOUR if length < WEEK else DAY
    end = floor(data_through, grain)
    if end < data_through:
        end += grain
    return Range(end - length, end, step)


def period(rollups: Iterable[RollUp], range_: Range) -> Period:
    """Return the numbers of a range, and of as much of the time before as of the range is over.

    The time before is earlier by the length of the range in whole days, and from a week on in whole weeks, so
    that weekdays meet. Compared are whole hours, and from a week on whole days.

    Args:
        rollups: Roll-ups of one type that share no time, such as days and, of the newest days, hours.
        range_: The time.

    Raises:
        OverlapError: If two share a time, or are of different types: a request would count twice.
        ValueError: If a roll-up lies across an end of the range: its numbers cannot be divided.
    """
    kept = sorted(rollups, key=lambda part: part.start)
    check_disjoint(kept)
    parts = _inside(kept, range_.start, range_.end)
    if parts is None:
        raise ValueError(
            f"the numbers of {range_.start} or {range_.end} are kept for longer times: ask for whole days"
        )
    grain = DAY if range_.length >= WEEK else HOUR
    shift = range_.shift
    through = min(data_through(kept), range_.end) if kept else range_.start
    until = floor(through, grain)
    # The first ones of `parts`.
    now = _inside(kept, range_.start, until)
    before = _inside(kept, range_.start - shift, until - shift)
    begun = bool(kept) and kept[0].start <= range_.start - shift
    if until <= range_.start or now is None or before is None or not begun:
        return Period(range_, parts, through, _together(parts), None, shift, Usage(), None)
    compared = (range_.start, until)
    over = _together(now)
    usage = over if len(now) == len(parts) else _together(parts[len(now) :], over)
    return Period(range_, parts, through, usage, compared, shift, over, _together(before))


def _inside(kept: Sequence[RollUp], start: datetime, end: datetime) -> tuple[RollUp, ...] | None:
    """Return the roll-ups of a time; None if one is also of another time."""
    if any(part.start < time < part.end for part in kept for time in (start, end)):
        return None
    return tuple(part for part in kept if start <= part.start and part.end <= end)


def _together(parts: tuple[RollUp, ...], known: Usage | None = None) -> Usage:
    """Return the numbers of roll-ups that share no time, and of others before them."""
    usage = Usage()
    if known is not None:
        usage.add(known)
    for part in parts:
        usage.add(part.usage)
    return usage


def narrowed(usage: Usage, only: Filter) -> Numbers:
    """Return the numbers of the requests that a filter takes.

    Raises:
        ValueError: If it names a route and a client: of the two together, only the requests are counted.
    """
    if only.of_route and only.client is not None:
        raise ValueError("numbers are kept by route and by client: ask for one of the two")
    if only.client is not None:
        return usage.clients.get(only.client, Numbers())
    if only.of_route:
        return total(numbers for route, numbers in usage.routes.items() if only.takes(route))
    return usage.total


def figures(numbers: Numbers) -> dict[str, Any]:
    """Return the figures of some requests.

    Rates are shares of all requests, and None if no request has a status or timed out: nothing is known then.
    Times are in milliseconds, and None if no request has a duration.
    """
    requests, timed = numbers.requests, numbers.timed
    known = requests if requests > numbers.statuses.get(NO_STATUS, 0) else 0
    p50, p90, p95, p99 = percentiles(numbers.buckets, SHARES, numbers.longest_us / _US_PER_MS)
    failures = numbers.failures
    return {
        "requests": requests,
        "client_errors": numbers.client_errors,
        "failures": failures,
        "rate_limited": numbers.rate_limited,
        "auth_failures": numbers.auth_failures,
        "client_error_rate": _share(numbers.client_errors, known),
        "failure_rate": _share(failures, known),
        "availability": _share(known - failures, known),
        "timed": timed,
        "mean_ms": numbers.duration_us / _US_PER_MS / timed if timed else None,
        "p50_ms": p50,
        "p90_ms": p90,
        "p95_ms": p95,
        "p99_ms": p99,
        "longest_ms": numbers.longest_us / _US_PER_MS if timed else None,
        "total_ms": numbers.duration_us / _US_PER_MS,
        "bytes": numbers.bytes,
    }


def relative_change(now: float | None, before: float | None) -> float | None:
    """Return the relative change; None if it is unknown, or nothing was there to grow from."""
    return None if now is None or not before else now / before - 1


def envelope(asked: Period) -> dict[str, Any]:
    """Return what every answer states of its numbers."""
    known = asked.completeness
    compared = None
    if asked.compared is not None:
        start, end = asked.compared
        compared = {
            "from": _text(start),
            "to": _text(end),
            "previous_from": _text(start - asked.shift),
            "previous_to": _text(end - asked.shift),
        }
    return {
        "range": {
            "from": _text(asked.range.start),
            "to": _text(asked.range.end),
            "interval_s": int(asked.range.step.total_seconds()),
        },
        "data_through": _text(asked.data_through),
        "compared": compared,
        "revision": asked.revision,
        "error_bound": round(ERROR_BOUND, 4),
        "base": asked.parts[0].type if asked.parts else None,
        "completeness": {"lost": known.lost, "quarantined": known.quarantined, "replayed": known.replayed},
    }


def summary(asked: Period, only: Filter = ALL) -> dict[str, Any]:
    """Return the figures of a range, those of the time before, and the changes.

    The changes compare equal elapsed times, so they leave out an hour or a day that is not over.
    """
    usage = asked.usage
    now = figures(narrowed(asked.now, only))
    before = None if asked.before is None else figures(narrowed(asked.before, only))
    names = usage.clients.keys() - {None}
    answer = {
        **envelope(asked),
        "total": figures(narrowed(usage, only)),
        "previous": before,
        "changes": None if before is None else _changes(now, before),
    }
    if only == ALL:
        known = None if asked.before is None or usage.other_clients.names else asked.before.clients.keys()
        answer["clients"] = len(names) + usage.other_clients.names
        answer["new_clients"] = None if known is None else len(names - known)
        answer["routes"] = len(usage.routes) + usage.other_routes.names
    return answer


# Shares change in points, everything else in proportion.
IN_POINTS = ("client_error_rate", "failure_rate", "availability")


def _changes(now: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, float | None]:
    changes: dict[str, float | None] = {}
    for name, value in now.items():
        if name in IN_POINTS:
            known = value is not None and before[name] is not None
            changes[name] = value - before[name] if known else None
        else:
            changes[name] = relative_change(value, before[name])
    return changes


def series(asked: Period, only: Filter = ALL) -> list[dict[str, Any]]:
    """Return the figures of each part of a range in order, those without requests too.

    With a filter, a part is at least as long as the longest roll-up, whose numbers cannot be divided.
    """
    range_ = asked.range
    if only == ALL:
        found = [(hour_of(hour), numbers) for hour, numbers in asked.usage.hours.items()]
    else:
        found = [(part.start, narrowed(part.usage, only)) for part in asked.parts]
        longest = max((part.end - part.start for part in asked.parts), default=range_.step)
        range_ = Range(range_.start, range_.end, max(range_.step, longest))
    parts = range_.parts
    sums = [Numbers() for _ in parts]
    for start, numbers in found:
        sums[(start - range_.start) // range_.step].add(numbers)
    through = asked.data_through
    return [
        {"start": _text(start), "end": _text(end), "complete": end <= through, **figures(numbers)}
        for (start, end), numbers in zip(parts, sums, strict=True)
    ]


def routes(asked: Period) -> list[dict[str, Any]]:
    """Return a row for each route, the most used first, and one for those that have none, if any."""
    before = None if asked.before is None else asked.before.routes
    found = [
        {"method": route[0], "route": route[1], **_row(numbers, route, asked.now.routes, before)}
        for route, numbers in asked.usage.routes.items()
    ]
    return [*_by_requests(found), *_other(asked.usage.other_routes, {"method": None, "route": None})]


def clients(asked: Period) -> list[dict[str, Any]]:
    """Return a row for each client, the most active first, and one for those that have none, if any."""
    before = None if asked.before is None else asked.before.clients
    last = _last_parts(asked)
    found = [
        {"client": client, "last_seen": last[client], **_row(numbers, client, asked.now.clients, before)}
        for client, numbers in asked.usage.clients.items()
    ]
    return [*_by_requests(found), *_other(asked.usage.other_clients, {"client": None, "last_seen": None})]


def route(asked: Period, method: str | None, path: str | None) -> dict[str, Any]:
    """Return one route: its figures, its series, and its requests by client."""
    key = (method, path)
    found = asked.usage.routes.get(key, Numbers())
    by_client = [(client, count) for (of, client), count in asked.usage.pairs.items() if of == key]
    only = Filter(method, path)
    return {
        **summary(asked, only),
        "method": method,
        "route": path,
        "statuses": _statuses(found),
        "errors": {error: count for (of, error), count in asked.usage.errors.items() if of == key},
        "series": series(asked, only),
        "clients": [
            {"client": client, "requests": count} for client, count in sorted(by_client, key=_most_first)
        ],
        "other_clients": found.requests - sum(count for _, count in by_client),
    }


def client(asked: Period, name: str) -> dict[str, Any]:
    """Return one client: its figures, its series, and its requests by route."""
    found = asked.usage.clients.get(name, Numbers())
    by_route = [(of, count) for (of, other), count in asked.usage.pairs.items() if other == name]
    only = Filter(client=name)
    return {
        **summary(asked, only),
        "client": name,
        "statuses": _statuses(found),
        "series": series(asked, only),
        "routes": [
            {"method": of[0], "route": of[1], "requests": count}
            for of, count in sorted(by_route, key=_most_first)
        ],
        "other_routes": found.requests - sum(count for _, count in by_route),
    }


def usage_by_date(rollups: Iterable[RollUp], days: int, data_through: datetime) -> dict[str, Any]:
    """Return the answer of `GET /api/analytics/usage?days=7`: requests by date and by route and method.

    Args:
        rollups: Roll-ups that share no time.
        days: How many days, the last of which is the day that the data end in.
        data_through: Until when there are data, in UTC.
    """
    last = floor(data_through, DAY)
    by_date: dict[str, dict[str, int]] = {f"{last - number * DAY:%Y-%m-%d}": {} for number in range(days)}
    for part in rollups:
        counts = by_date.get(f"{part.start:%Y-%m-%d}")
        if counts is None:
            continue
        for (method, path), numbers in part.usage.routes.items():
            name = f"{path or 'unknown'}:{method or 'unknown'}"
            counts[name] = counts.get(name, 0) + numbers.requests
        if part.usage.other_routes.names:
            counts["other"] = counts.get("other", 0) + part.usage.other_routes.numbers.requests
    return {"period_days": days, "usage_by_date": by_date}


def ordered(
    rows: Sequence[dict[str, Any]], *, sort: str = "requests", search: str = "", limit: int | None = None
) -> list[dict[str, Any]]:
    """Return rows of routes or clients whose name has a text, the largest first, unknown values last.

    Raises:
        ValueError: If the figure to sort by is unknown.
    """
    if sort not in SORTS:
        raise ValueError(f"cannot sort by {sort!r}: give one of {', '.join(SORTS)}")
    wanted = search.casefold()
    found = [row for row in rows if wanted in _name(row).casefold()]
    found.sort(key=lambda row: ("other" not in row, row[sort] is not None, row[sort] or 0), reverse=True)
    return found[:limit]


def to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as CSV with a header; text that a spreadsheet would take for a formula begins with `'`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    names = [name for name in (rows[0] if rows else ()) if name != "other"]
    writer.writerow(names)
    for row in rows:
        shown = row if "other" not in row else {**row, names[0]: f"({row['other']} others)"}
        writer.writerow([_cell(shown[name]) for name in names])
    return text.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        return f"'{value}" if value.startswith(_FORMULA) else value
    return round(value, 6) if isinstance(value, float) else value


def _row(
    numbers: Numbers, key: Any, now: Mapping[Any, Numbers], before: Mapping[Any, Numbers] | None
) -> dict[str, Any]:
    """Return a row's figures, and how its requests changed in equal elapsed times."""
    requests_now = now[key].requests if key in now else 0
    previous = None if before is None else before[key].requests if key in before else 0
    return {
        **figures(numbers),
        "previous_requests": previous,
        "change": relative_change(requests_now, previous),
    }


def _other(other: Other, named: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the row of those that have none."""
    if other.names:
        unknown = {"previous_requests": None, "change": None}
        yield {**named, **figures(other.numbers), **unknown, "other": other.names}


def _by_requests(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: (-row["requests"], _name(row)))


def _name(row: Mapping[str, Any]) -> str:
    return f"{row['method']} {row['route']}" if "route" in row else str(row["client"])


def _last_parts(asked: Period) -> dict[str | None, str]:
    """Return the beginning of the last roll-up that each client is in."""
    last: dict[str | None, str] = {}
    for part in asked.parts:
        last |= dict.fromkeys(part.usage.clients, _text(part.start))
    return last


def _statuses(numbers: Numbers) -> dict[str, int]:
    names = {NO_STATUS: "none", UNANSWERED: "unanswered"}
    return {names.get(status, str(status)): count for status, count in sorted(numbers.statuses.items())}


def _most_first(row: tuple[Any, int]) -> tuple[int, str]:
    return (-row[1], repr(row[0]))


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def hour_of(text: str) -> datetime:
    """Return the time of an hour as roll-ups write it."""
    return datetime.strptime(text, "%Y-%m-%d %H").replace(tzinfo=UTC)


def _text(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
