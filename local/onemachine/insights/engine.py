"""Runs a Logs Insights query over log events. Pure: the time and the events are given.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/CWL_QuerySyntax.html
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from onemachine.insights import syntax
from onemachine.insights.fields import Event
from onemachine.insights.functions import AGGREGATES, FUNCTIONS, group_value, percentile, truth
from onemachine.insights.values import Timestamp, Value, ceil_time, floor_time, number, order, printed, text


@dataclass(frozen=True)
class Result:
    """What a query found.

    Attributes:
        rows: For each row the fields that have a value, as name and text, in the order in which they are
            shown; the last is `@ptr`, where the row is a log event.
        matched: How many of the events the query's filters let through.
        scanned: How many events there were.
        bytes_scanned: The size of their messages in UTF-8.
    """

    rows: tuple[tuple[tuple[str, str], ...], ...]
    matched: int
    scanned: int
    bytes_scanned: int


@dataclass(slots=True)
class _Row:
    """What a command hands to the next: the values that the query made, and the event that is behind them."""

    values: dict[str, Value] = field(default_factory=dict)
    event: Event | None = None

    def field(self, name: str) -> Value:
        if name in self.values:
            return self.values[name]
        return None if self.event is None else self.event.field(name)


def execute(
    commands: Sequence[syntax.Command], events: Iterable[Event], *, now_s: int, limit: int | None
) -> Result:
    """Run commands that were checked.

    Args:
        commands: The query.
        events: The events of its groups in its time, in the order in which they were ingested.
        now_s: The time in seconds since 1970 that `now()` gives.
        limit: How many rows at most, whatever the query's limit; None for the query's limit, and 10,000 if it
            has none.

    Raises:
        UnsupportedValueError: If a value turns up that a command does not take.
    """
    scanned = list(events)
    by_time = sorted(scanned, key=lambda event: event.timestamp)
    run = _Run(now_s, [_Row(event=event) for event in reversed(by_time)])
    for command in commands:
        run.apply(command)
    if limit is None and not any(isinstance(command, syntax.Limit) for command in commands):
        limit = syntax.DEFAULT_LIMIT
    return Result(
        tuple(run.shown(row) for row in run.rows[:limit]),
        len(run.rows) if run.matched is None else run.matched,
        len(scanned),
        sum(len(event.message.encode("utf-8", "surrogatepass")) for event in scanned),
    )


class _Run:
    def __init__(self, now_s: int, rows: list[_Row]) -> None:
        self.now_s = now_s
        self.rows = rows
        self.matched: int | None = None
        self.named: list[str] = []  # by fields and stats, parse and unnest
        self.parsed: list[str] = []
        self.displayed: list[str] | None = None

    def apply(self, command: syntax.Command) -> None:  # noqa: C901 - one case per command
        if self.matched is None and isinstance(
            command, (syntax.Stats, syntax.Limit, syntax.Dedup, syntax.Unnest)
        ):
            self.matched = len(self.rows)
        match command:
            case syntax.Fields(items):
                self.compute(items)
                self.named += [item.name for item in items]
            case syntax.Display(items):
                self.compute(items)
                self.displayed = [item.name for item in items]
            case syntax.Filter(condition):
                self.rows = [row for row in self.rows if truth(self.value(condition, row))]
            case syntax.Parse():
                self.parse(command)
            case syntax.Stats():
                self.stats(command)
            case syntax.Sort(keys):
                self.sort(keys)
            case syntax.Limit(count):
                self.rows = self.rows[:count]
            case syntax.Dedup(keys):
                self.dedup(keys)
            case syntax.Unnest():
                self.unnest(command)

    def compute(self, items: Sequence[syntax.Named]) -> None:
        for item in items:
            if item.expression == syntax.Field(item.name, (item.name,), item.start):
                continue  # it has that value already
            for row in self.rows:
                row.values[item.name] = self.value(item.expression, row)

    def parse(self, command: syntax.Parse) -> None:
        self.parsed += command.names
        for row in self.rows:
            source = text(self.value(command.source, row))
            found = None if source is None else command.pattern.groups(source)
            row.values.update(zip(command.names, found or [None] * len(command.names), strict=True))

    def stats(self, command: syntax.Stats) -> None:
        groups: dict[tuple[str | None, ...], tuple[list[Value], list[_Row]]] = {}
        for row in self.rows:
            values = [group_value(self.value(by.expression, row)) for by in command.by]
            key = tuple(None if value is None else printed(value) for value in values)
            groups.setdefault(key, (values, []))[1].append(row)
        if not groups and not command.by:
            groups[()] = ([], [])
        self.rows = []
        for values, rows in groups.values():
            made = _Row(dict(zip((by.name for by in command.by), values, strict=True)))
            for item in command.items:
                made.values[item.name] = self.aggregate(item.expression, made, rows)
            self.rows.append(made)
        self.named = [item.name for item in (*command.by, *command.items)]
        self.parsed, self.displayed = [], None

    def sort(self, keys: Sequence[tuple[syntax.Field, bool]]) -> None:
        # AWS does not document the order of equal rows; here those of one millisecond stay as ingested.
        if not keys[0][1]:
            self.rows.reverse()
        for key, descends in reversed(keys):
            self.rows.sort(key=partial(self.place, key), reverse=descends)

    def place(self, key: syntax.Field, row: _Row) -> tuple[Any, ...]:
        return order(self.key(key, row))

    def dedup(self, keys: Sequence[syntax.Field]) -> None:
        seen: set[tuple[str, ...]] = set()
        kept: list[_Row] = []
        for row in self.rows:
            values = [self.key(key, row) for key in keys]
            combination = tuple(printed(value) for value in values if value is not None)
            # Rows with a missing value are never duplicates.
            if len(combination) < len(keys) or combination not in seen:
                seen.add(combination)
                kept.append(row)
        self.rows = kept

    def unnest(self, command: syntax.Unnest) -> None:
        self.parsed.append(command.name)
        self.rows = [
            _Row({**row.values, command.name: item}, row.event)
            for row in self.rows
            for item in _items(self.value(command.source, row))
        ]

    def shown(self, row: _Row) -> tuple[tuple[str, str], ...]:
        names = self.displayed
        if names is None:
            names = (self.named or ["@timestamp", "@message"]) + self.parsed
        values = {name: row.field(name) for name in names}
        cells = [(name, printed(value)) for name, value in values.items() if value is not None]
        if row.event is not None and "@ptr" not in values:
            cells.append(("@ptr", row.event.pointer))
        return tuple(cells)

    def key(self, key: syntax.Field, row: _Row) -> Value:
        return group_value(self.value(key, row))

    # -- expressions

    def value(self, expression: syntax.Expression, row: _Row) -> Value:  # noqa: C901 - one case per kind
        match expression:
            case syntax.Literal(value):
                return value
            case syntax.Field():
                return _field(expression, row)
            case syntax.Match(subject, pattern):
                whole = text(self.value(subject, row))
                return whole is not None and pattern.is_in(whole)
            case syntax.Into(structure, path):
                return _step_into(self.value(structure, row), path)
            case syntax.Call("and", sides):
                return all(truth(self.value(side, row)) for side in sides)
            case syntax.Call("or", sides):
                return any(truth(self.value(side, row)) for side in sides)
            case syntax.Call("now"):
                return self.now_s
            case syntax.Call("bin", (syntax.Period() as period,)):
                return _in_period("datefloor", row.field("@timestamp"), period)
            case syntax.Call("datefloor" | "dateceil" as rounding, (time, syntax.Period() as period)):
                return _in_period(rounding, self.value(time, row), period)
            case syntax.Call(function, arguments):
                return FUNCTIONS[function](*[self.value(argument, row) for argument in arguments])
        raise AssertionError(expression)

    def aggregate(  # noqa: C901 - one case per kind
        self, expression: syntax.Expression, made: _Row, rows: list[_Row]
    ) -> Value:
        """Return what an expression of `stats` gives for a group; `made` is what is known of it so far."""
        match expression:
            case syntax.Call("count", ()):
                return len(rows)
            case syntax.Call("pct", (of, percent)):
                return percentile(self.present(of, rows), self.value(percent, made))
            case syntax.Call("earliest", (of,)):
                return self.first_by_time(of, rows)
            case syntax.Call("latest", (of,)):
                return self.first_by_time(of, rows, latest=True)
            case syntax.Call(function, (of,)) if function in AGGREGATES:
                return _as_number(AGGREGATES[function](self.present(of, rows)))
            case syntax.Call("datefloor" | "dateceil" as rounding, (time, syntax.Period() as period)):
                return _in_period(rounding, self.aggregate(time, made, rows), period)
            case syntax.Call("and" | "or" as function, sides):
                truths = (truth(self.aggregate(side, made, rows)) for side in sides)
                return all(truths) if function == "and" else any(truths)
            case syntax.Call(function, arguments) if function in FUNCTIONS:
                return FUNCTIONS[function](*[self.aggregate(argument, made, rows) for argument in arguments])
            case syntax.Match(subject, pattern):
                whole = text(self.aggregate(subject, made, rows))
                return whole is not None and pattern.is_in(whole)
            case syntax.Into(structure, path):
                return _step_into(self.aggregate(structure, made, rows), path)
        return self.value(expression, made)

    def present(self, of: syntax.Expression, rows: list[_Row]) -> list[Value]:
        values = [group_value(self.value(of, row)) for row in rows]
        return [value for value in values if value is not None]

    def first_by_time(self, of: syntax.Expression, rows: list[_Row], *, latest: bool = False) -> Value:
        """Return the value of the earliest event that has one, or of the latest."""
        # Rows come newest first: of one millisecond, the one that was ingested first is the earliest.
        newest_first = sorted(rows, key=lambda row: -row.event.timestamp if row.event else 0)
        for row in newest_first if latest else reversed(newest_first):
            value = group_value(self.value(of, row))
            if value is not None:
                return _as_number(value)
        return None


def _items(value: Value) -> list[Value]:
    """Return what `unnest` makes rows of: anything but a list is one item."""
    return value if isinstance(value, list) else [value]


def _as_number(value: Value) -> Value:
    """Return what an aggregate of times gives: milliseconds since 1970, which fromMillis makes a date."""
    return int(value) if isinstance(value, Timestamp) else value


def _in_period(rounding: str, time: Value, period: syntax.Period) -> Value:
    milliseconds = number(time) if not isinstance(time, str) else None
    if milliseconds is None:
        return None
    rounded = floor_time if rounding == "datefloor" else ceil_time
    return rounded(int(milliseconds), period.size, period.unit)


def _field(wanted: syntax.Field, row: _Row) -> Value:
    """Return a field by its name; where the query made a map or list, the name may lead into it."""
    if len(wanted.path) == 1 or wanted.name in row.values:
        return row.field(wanted.name)
    name = ""
    for depth, step in enumerate(wanted.path[:-1], start=1):
        if isinstance(step, int):
            break
        name += f".{step}" if name else step
        if name in row.values:
            return _step_into(row.values[name], wanted.path[depth:])
    return row.field(wanted.name)


def _step_into(structure: Value, path: Sequence[str | int]) -> Value:
    for step in path:
        if isinstance(structure, dict) and isinstance(step, str):
            structure = structure.get(step)
        elif isinstance(structure, list) and isinstance(step, int) and step < len(structure):
            structure = structure[step]
        else:
            return None
    return structure
