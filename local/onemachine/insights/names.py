"""Which names a query may use where: each is made once, and after `stats` there is only what it made. Pure.

The service's rules are on CWL_QuerySyntax-Stats; its words for a name that is made twice ("Ephemeral field is
already defined") and for one that is gone ("Unknown symbols found in or after stats") are those that users
report of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from onemachine.insights import syntax
from onemachine.insights.fields import SYSTEM_FIELDS

# What looks at @timestamp without naming it.
_TIMED = frozenset({"bin", "earliest", "latest"})


def check(commands: Sequence[syntax.Command], query: str) -> None:
    """Check the names that a query uses and makes.

    Args:
        commands: The query, read.
        query: Its text, of which a refusal names the part.

    Raises:
        MalformedQueryError: If a name is made twice, is gone, or is not for this use.
    """
    names = _Names(query)
    for command in commands:
        names.pass_through(command)


class _Names:
    def __init__(self, query: str) -> None:
        self.query = query
        self.made: set[str] = set()
        self.shown: set[str] = set()
        self.structures: set[str] = set()
        self.left: set[str] | None = None  # what a stats command left; before the first, any event's fields

    def pass_through(self, command: syntax.Command) -> None:
        match command:
            case syntax.Fields(items) | syntax.Display(items):
                self._of_values(items, display=isinstance(command, syntax.Display))
            case syntax.Filter(condition):
                self._use(condition)
            case syntax.Parse(source=source, names=names):
                self._use(source)
                for name in names:
                    self._make(name, 0, len(self.query))
            case syntax.Stats():
                self._of_groups(command)
            case syntax.Sort(keys):
                self._keys([key for key, _ in keys], "sort")
            case syntax.Dedup(keys):
                self._keys(keys, "dedup")
            case syntax.Unnest(source, name):
                self._use(source)
                self._make(name, 0, len(self.query))

    def _of_values(self, items: Sequence[syntax.Named], *, display: bool) -> None:
        structures: set[str] = set()
        for item in items:
            self._use(item.expression)
            for used in _fields(item.expression):
                if len(used.path) > 1 and used.path[0] in structures:
                    # The service shows nothing for it, without a word.
                    raise self._refusal(
                        f"{used.name} is into what the same command makes; put it in a second fields command",
                        item.start,
                        item.end,
                    )
            if item.is_alias:
                self._make(item.name, item.start, item.end)
                if isinstance(item.expression, syntax.Call) and item.expression.function == "jsonparse":
                    structures.add(item.name)
            elif not display and item.name in self.made:
                raise self._twice(item.name, item.start, item.end)
            elif not display:
                self.shown.add(item.name)
        self.structures |= structures

    def _of_groups(self, command: syntax.Stats) -> None:
        for by in command.by:
            self._use(by.expression)
            self._no_structure(by.expression, "stats")
            if by.is_alias:
                self._make(by.name, by.start, by.end)
        made = {by.name for by in command.by}
        for item in command.items:
            for aggregate in _aggregates(item.expression):
                self._use(aggregate)
                for argument in aggregate.arguments:
                    self._no_structure(argument, "stats")
            gone = [name for name, _ in _used(item.expression, outside_aggregates=True) if name not in made]
            if gone:
                raise self._unknown(gone[0], item.start, item.end)
            if item.is_alias:
                self._make(item.name, item.start, item.end)
            made.add(item.name)
        self.left = made
        self.made |= made
        self.structures -= made

    def _keys(self, keys: Sequence[syntax.Field], command: str) -> None:
        for key in keys:
            self._use(key)
            self._no_structure(key, command)

    def _use(self, expression: syntax.Expression) -> None:
        for name, at in _used(expression):
            if self.left is not None and name not in self.left and not self._is_into(name, self.left):
                raise self._unknown(name, at, at + len(name))

    @staticmethod
    def _is_into(name: str, left: set[str]) -> bool:
        return any(name.startswith((f"{known}.", f"{known}[")) for known in left)

    def _make(self, name: str, start: int, end: int) -> None:
        if name in SYSTEM_FIELDS:
            raise self._refusal(f"{name} is every event's; a query cannot make it", start, end)
        if name in self.made or name in self.shown:
            raise self._twice(name, start, end)
        self.made.add(name)
        if self.left is not None:
            self.left.add(name)

    def _no_structure(self, of: syntax.Expression, command: str) -> None:
        if isinstance(of, syntax.Field) and of.name in self.structures:
            # https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/CWL_QuerySyntax-operations-functions.html
            raise self._refusal(
                f"{command} does not take a map or a list: {of.name}", of.at, of.at + len(of.name)
            )

    def _twice(self, name: str, start: int, end: int) -> syntax.MalformedQueryError:
        return self._refusal(f"Ephemeral field is already defined: {name}", start, end)

    def _unknown(self, name: str, start: int, end: int) -> syntax.MalformedQueryError:
        return self._refusal(f"Unknown symbols found in or after stats: {name}", start, end)

    def _refusal(self, why: str, start: int, end: int) -> syntax.MalformedQueryError:
        until = len(self.query[:end].rstrip())
        return syntax.MalformedQueryError(f"{why} ([{start},{until}])", start, until)


def _fields(expression: syntax.Expression) -> Iterator[syntax.Field]:
    return (part for part in syntax.parts(expression) if isinstance(part, syntax.Field))


def _aggregates(expression: syntax.Expression) -> Iterator[syntax.Call]:
    return (
        part
        for part in syntax.parts(expression)
        if isinstance(part, syntax.Call) and part.function in syntax.AGGREGATES
    )


def _used(expression: syntax.Expression, *, outside_aggregates: bool = False) -> Iterator[tuple[str, int]]:
    """Walk the names that an expression looks at, and where they are in the query."""
    if isinstance(expression, syntax.Field):
        yield expression.name, expression.at
        return
    inner: tuple[syntax.Expression, ...] = ()
    if isinstance(expression, syntax.Call):
        if outside_aggregates and expression.function in syntax.AGGREGATES:
            return
        if expression.function in _TIMED:
            yield "@timestamp", 0
        inner = expression.arguments
    elif isinstance(expression, syntax.Into):
        inner = (expression.structure,)
    elif isinstance(expression, syntax.Match):
        inner = (expression.subject,)
    for part in inner:
        yield from _used(part, outside_aggregates=outside_aggregates)
