"""The text of a Logs Insights query, read into commands; what is not understood is refused by name. Pure.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/CWL_QuerySyntax.html
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from onemachine.insights.values import Value
from onemachine.linear_regex import LinearRegex, quoted

T = TypeVar("T")

# https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_StartQuery.html
MAX_QUERY_CHARACTERS = 10_000
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/CWL_QuerySyntax-Limit.html
DEFAULT_LIMIT = 10_000
MAX_LIMIT = 100_000
# "A query can have a maximum of two stats commands."
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/CWL_QuerySyntax-Stats.html
MAX_STATS = 2

# A sum or a product of more terms would not fit on the stack.
MAX_DEPTH = 200

# AWS has these, and more will come; a query that uses one is refused by name.
_COMMANDS_ELSEWHERE = frozenset(
    {"addtotals", "anomaly", "diff", "estimate", "expand", "filterindex", "head", "join", "lookup", "order"}
    | {"pattern", "relevantfields", "search", "source", "subqueries", "tail", "unmask"}
)
_PARSERS_ELSEWHERE = frozenset({"csv", "json", "logfmt", "xml"})

AGGREGATES = frozenset(
    {"avg", "count", "count_distinct", "earliest", "latest", "max", "min", "pct", "stddev", "sum"}
    | {"sortsfirst", "sortslast"}
)
# How many arguments a function takes, at least and at most.
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/CWL_QuerySyntax-operations-functions.html
_ANY = 1_000
ARGUMENTS = {
    **dict.fromkeys(AGGREGATES, (1, 1)),
    "count": (0, 1),
    "pct": (2, 2),
    **dict.fromkeys(("abs", "ceil", "floor", "log", "sqrt"), (1, 1)),
    **dict.fromkeys(("greatest", "least", "coalesce", "concat"), (1, _ANY)),
    **dict.fromkeys(("ispresent", "isempty", "isblank", "strlen", "toupper", "tolower"), (1, 1)),
    **dict.fromkeys(("ltrim", "rtrim", "trim"), (1, 2)),
    "substr": (2, 3),
    "replace": (3, 3),
    "strcontains": (2, 2),
    "bin": (1, 1),
    "datefloor": (2, 2),
    "dateceil": (2, 2),
    "now": (0, 0),
    **dict.fromkeys(("frommillis", "tomillis", "jsonparse", "jsonstringify"), (1, 1)),
    **dict.fromkeys(("isvalidip", "isvalidipv4", "isvalidipv6"), (1, 1)),
    **dict.fromkeys(("isipinsubnet", "isipv4insubnet", "isipv6insubnet"), (2, 2)),
}

_UNITS = {
    "ms": ("ms", "msec", "msecs", "millisecond", "milliseconds"),
    "s": ("s", "sec", "secs", "second", "seconds"),
    "m": ("m", "min", "mins", "minute", "minutes"),
    "h": ("h", "hr", "hrs", "hour", "hours"),
    "d": ("d", "day", "days"),
    "w": ("w", "week", "weeks"),
    "mo": ("mo", "mos", "mon", "mons", "month", "months"),
    "q": ("q", "qtr", "qtrs", "quarter", "quarters"),
    "y": ("y", "yr", "yrs", "year", "years"),
}
_UNIT_OF = {spelling: unit for unit, spellings in _UNITS.items() for spelling in spellings}
# A larger number counts as this one: bin(300s) is bin(60s), not five minutes.
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/CWL_QuerySyntax-operations-functions.html
_CAPS = {"ms": 1000, "s": 60, "m": 60, "h": 24}

_SPACE = re.compile(r"(?:\s|#[^\n]*)*")
_WORD = re.compile(r"[A-Za-z_@][A-Za-z0-9_@]*")
_NUMBER = re.compile(r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?(?![A-Za-z0-9_@.])")
_PERIOD = re.compile(r"(\d{1,9})\s*([A-Za-z]+)")
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"|\'((?:[^\'\\]|\\.)*)\'', re.DOTALL)
_QUOTED_NAME = re.compile(r"`([^`]+)`")
_REGEX = re.compile(r"/((?:[^/\\\n]|\\.)+)/")
_SYMBOL = re.compile(r"<=|>=|!=|=~|[=<>+\-*/^%(),|.\[\]]")
_WORD_OR_SYMBOL = re.compile(r"[A-Za-z0-9_@]+|\S|\Z")
_RESERVED = frozenset(
    ["and", "or", "not", "in", "like", "as", "by", "asc", "desc", "into", "true", "false", "null"]
)


class MalformedQueryError(ValueError):
    """A query that the service refuses, or that is not understood here; the message names the part.

    Args:
        message: What is wrong.
        start: Where that part begins in the query, in characters.
        end: Where it ends.
    """

    def __init__(self, message: str, start: int, end: int) -> None:
        super().__init__(message)
        self.start = start
        self.end = end


# ---- what a query is made of -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Literal:
    """A text or a number in a query."""

    value: Value


@dataclass(frozen=True)
class Field:
    """A field by its name; if no field has that name, the path leads into a map or list."""

    name: str
    path: tuple[str | int, ...]
    at: int


@dataclass(frozen=True)
class Call:
    """A function, or an operator by its sign, and its arguments."""

    function: str
    arguments: tuple[Expression, ...]

    @cached_property
    def depth(self) -> int:
        """How many calls are in one another here."""
        return 1 + max((each.depth for each in self.arguments if isinstance(each, Call)), default=0)


@dataclass(frozen=True)
class Into:
    """A path into what an expression gives: `jsonParse(x).a[0]`."""

    structure: Expression
    path: tuple[str | int, ...]


@dataclass(frozen=True)
class Match:
    """`like`: whether a text contains another, or what a regular expression describes."""

    subject: Expression
    pattern: LinearRegex


@dataclass(frozen=True)
class Period:
    """A length of time: how many of which unit."""

    size: int
    unit: str


Expression = Literal | Field | Call | Into | Match | Period


@dataclass(frozen=True)
class Named:
    """An expression and the name that its value gets."""

    expression: Expression
    name: str
    is_alias: bool
    start: int
    end: int


@dataclass(frozen=True)
class Fields:
    """`fields`: computes values and shows them."""

    items: tuple[Named, ...]


@dataclass(frozen=True)
class Display:
    """`display`: shows these and nothing else."""

    items: tuple[Named, ...]


@dataclass(frozen=True)
class Filter:
    """`filter`: keeps the rows for which the condition holds."""

    condition: Expression


@dataclass(frozen=True)
class Parse:
    """`parse`: new fields from the parts of a text, one per group of the pattern."""

    source: Field
    pattern: LinearRegex
    names: tuple[str, ...]


@dataclass(frozen=True)
class Stats:
    """`stats`: one row per group."""

    items: tuple[Named, ...]
    by: tuple[Named, ...]


@dataclass(frozen=True)
class Sort:
    """`sort`: the order of rows; each key is a field and whether it descends."""

    keys: tuple[tuple[Field, bool], ...]


@dataclass(frozen=True)
class Limit:
    """`limit`: how many rows at most."""

    rows: int


@dataclass(frozen=True)
class Dedup:
    """`dedup`: the first row of each combination of values."""

    keys: tuple[Field, ...]


@dataclass(frozen=True)
class Unnest:
    """`unnest`: one row per item of a list."""

    source: Field
    name: str


Command = Fields | Display | Filter | Parse | Stats | Sort | Limit | Dedup | Unnest


def parts(expression: Expression) -> Iterator[Expression]:
    """Walk an expression and all that is in it."""
    yield expression
    if isinstance(expression, Call):
        for argument in expression.arguments:
            yield from parts(argument)
    elif isinstance(expression, Into):
        yield from parts(expression.structure)
    elif isinstance(expression, Match):
        yield from parts(expression.subject)


# ---- reading -----------------------------------------------------------------------------------------------


def read(query: str) -> tuple[Command, ...]:
    """Read a query.

    Args:
        query: Its text.

    Returns:
        Its commands, in their order.

    Raises:
        MalformedQueryError: If it is not understood.
    """
    if len(query) > MAX_QUERY_CHARACTERS:
        raise MalformedQueryError(
            f"the query has {len(query)} characters, more than {MAX_QUERY_CHARACTERS}", 0, len(query)
        )
    try:
        return tuple(_Reader(query).commands())
    except RecursionError:
        raise MalformedQueryError("the query is nested too deeply", 0, len(query)) from None


class _Reader:
    """Reads a query from left to right; `at` is where it is."""

    def __init__(self, query: str) -> None:
        self.query = query
        self.at = 0
        self._aggregates = False  # whether an expression may have them here
        self._skip()

    # -- characters and words

    def _skip(self) -> None:
        space = _SPACE.match(self.query, self.at)
        assert space is not None
        self.at = space.end()

    def take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """Take what is next if it is of a form, and the space after it."""
        found = pattern.match(self.query, self.at)
        if found is not None:
            self.at = found.end()
            self._skip()
        return found

    def symbol(self, *symbols: str) -> str | None:
        """Take one of these signs, if it is next."""
        found = _SYMBOL.match(self.query, self.at)
        return self.take(_SYMBOL)[0] if found and found[0] in symbols else None  # type: ignore[index]

    def word(self, *words: str) -> str | None:
        """Take one of these words, if it is next; case does not matter."""
        found = _WORD.match(self.query, self.at)
        if found is None or found[0].lower() not in words:
            return None
        self.take(_WORD)
        return found[0].lower()

    def expect(self, symbol: str) -> None:
        if self.symbol(symbol) is None:
            raise self.unexpected()

    def unexpected(self) -> MalformedQueryError:
        """Say, in the service's words, that what is next should not be there."""
        found = _WORD_OR_SYMBOL.match(self.query, self.at)
        assert found is not None
        before = self.query[: self.at]
        line, column = before.count("\n") + 1, self.at - (before.rfind("\n") + 1)
        what = found[0] or "<EOF>"
        return MalformedQueryError(
            f"unexpected symbol found {what} at line {line} and position {column}", self.at, found.end()
        )

    def refused(self, why: str, start: int, end: int | None = None) -> MalformedQueryError:
        """Say what is wrong with a part of the query, by default up to here."""
        until = len(self.query[: self.at].rstrip()) if end is None else end
        return MalformedQueryError(f"{why} ([{start},{until}])", start, until)

    # -- commands

    def commands(self) -> list[Command]:
        commands: list[Command] = []
        while True:
            commands.append(self._command(commands))
            if self.at == len(self.query):
                return commands
            self.expect("|")

    def _command(self, before: list[Command]) -> Command:
        start = self.at
        word = _WORD.match(self.query, self.at)
        name = word[0].lower() if word else ""
        if name != "limit" and any(isinstance(command, Dedup) for command in before):
            # https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/CWL_QuerySyntax-Dedup.html
            raise self.unexpected()
        if name == "stats" and (why := _why_no_stats(before)):
            raise self.refused(why, start, start + len(name))
        if name in _COMMANDS_ELSEWHERE:
            raise self.refused(
                f"the command {name} is not supported on one machine", start, start + len(name)
            )
        read_rest = COMMANDS.get(name)
        if read_rest is None:
            raise self.unexpected()
        self.take(_WORD)
        return read_rest(self)

    def fields(self) -> Fields:
        return Fields(self._list(self._named))

    def display(self) -> Display:
        return Display(self._list(self._named))

    def filter(self) -> Filter:
        return Filter(self.expression())

    def parse(self) -> Parse:
        start = self.at
        source = Field("@message", ("@message",), start) if self._at_string_or_regex() else self.field()
        kind = _WORD.match(self.query, self.at)
        if kind and kind[0].lower() in _PARSERS_ELSEWHERE:
            raise self.refused(
                f"parse as {kind[0]} is not supported on one machine", kind.start(), kind.end()
            )
        if self.query.startswith("/", self.at):
            pattern, groups = self.regex()
            if not groups or "" in groups:
                raise self.refused("parse takes a regular expression with named groups only", start)
            return Parse(source, pattern, groups)
        glob = self.string()
        if self.word("as") is None:
            raise self.unexpected()
        names = self._list(self.new_name)
        if glob.count("*") != len(names):
            raise self.refused(f"{glob.count('*')} wildcards for {len(names)} names", start)
        return Parse(source, _glob(glob), names)

    def _at_string_or_regex(self) -> bool:
        return self.query.startswith(("'", '"', "/"), self.at)

    def stats(self) -> Stats:
        items = self._list(self._aggregate)
        return Stats(items, self._list(self._named) if self.word("by") else ())

    def _aggregate(self) -> Named:
        return self._named(aggregates=True)

    def sort(self) -> Sort:
        self.word("by")
        return Sort(self._list(self._sort_key))

    def _sort_key(self) -> tuple[Field, bool]:
        key = self.field()
        return key, self.word("asc", "desc") == "desc"

    def limit(self) -> Limit:
        self.word("any")  # any rows may be returned, so these may
        start = self.at
        found = self.take(re.compile(r"\d+(?![\w.])"))
        if found is None:
            raise self.unexpected()
        if not 1 <= int(found[0]) <= MAX_LIMIT:
            raise self.refused(f"limit is {found[0]}; it must be between 1 and {MAX_LIMIT}", start)
        return Limit(int(found[0]))

    def dedup(self) -> Dedup:
        return Dedup(self._list(self.field))

    def unnest(self) -> Unnest:
        source = self.field()
        if self.word("into") is None:
            raise self.unexpected()
        return Unnest(source, self.new_name())

    def _list(self, read_one: Callable[[], T]) -> tuple[T, ...]:
        items = [read_one()]
        while self.symbol(","):
            items.append(read_one())
        return tuple(items)

    def _named(self, *, aggregates: bool = False) -> Named:
        start = self.at
        expression = self.expression(aggregates=aggregates)
        end = len(self.query[: self.at].rstrip())
        if self.word("as"):
            name = self.new_name()
            return Named(expression, name, is_alias=True, start=start, end=self.at)
        if isinstance(expression, Field):
            return Named(expression, expression.name, is_alias=False, start=start, end=end)
        return Named(expression, self.query[start:end], is_alias=False, start=start, end=end)

    # -- names, texts, patterns

    def field(self) -> Field:
        start = self.at
        path: list[str | int] = []
        name = ""
        while True:
            at_sign = "@" if self.query.startswith("@`", self.at) else ""
            self.at += len(at_sign)
            part = _QUOTED_NAME.match(self.query, self.at) or re.compile(
                _WORD.pattern if not path else r"[A-Za-z0-9_@]+"
            ).match(self.query, self.at)
            if part is None or (not path and part[0].lower() in _RESERVED):
                raise self.unexpected()
            key = at_sign + (part[1] if part[0].startswith("`") else part[0])
            path.append(key)
            name += f".{key}" if name else key
            self.at = part.end()
            while index := re.compile(r"\[(\d{1,9})\]").match(self.query, self.at):
                path.append(int(index[1]))
                name += index[0]
                self.at = index.end()
            if not self.query.startswith(".", self.at):
                break
            self.at += 1
        self._skip()
        return Field(name, tuple(path), start)

    def new_name(self) -> str:
        return self.field().name

    def string(self) -> str:
        found = self.take(_STRING)
        if found is None:
            raise self.unexpected()
        return re.sub(r"""\\(["'\\])""", r"\1", found[1] if found[1] is not None else found[2])

    def regex(self) -> tuple[LinearRegex, tuple[str, ...]]:
        """Take a regular expression, and the names of its groups; of one without a name, an empty text."""
        start = self.at
        found = self.take(_REGEX)
        if found is None:
            raise self.unexpected()
        expression, groups = _without_names(found[1])
        try:
            return LinearRegex(expression), groups
        except ValueError as error:
            raise self.refused(f"not a regular expression that is understood here: {error}", start) from None

    def period(self) -> Period:
        start = self.at
        found = self.take(_PERIOD)
        unit = _UNIT_OF.get(found[2].lower()) if found else None
        if found is None or unit is None:
            self.at = start
            raise self.unexpected()
        size = int(found[1])
        if size < 1:
            raise self.refused("a period is at least 1", start)
        if unit == "w" or (unit not in _CAPS and size > 1):
            # AWS does not document when a week begins, nor when two months do.
            raise self.refused(f"the period {found[0]} is not supported on one machine", start)
        return Period(min(size, _CAPS.get(unit, size)), unit)

    # -- expressions, from what binds least to what binds most

    def expression(self, *, aggregates: bool = False) -> Expression:
        outer, self._aggregates = self._aggregates, aggregates
        try:
            return self._or()
        finally:
            self._aggregates = outer

    def _or(self) -> Expression:
        return self._joined("or", self._and)

    def _and(self) -> Expression:
        return self._joined("and", self._not)

    def _joined(self, word: str, read_one: Callable[[], Expression]) -> Expression:
        sides = [read_one()]
        while self.word(word):
            sides.append(read_one())
        return sides[0] if len(sides) == 1 else Call(word, tuple(sides))

    def _not(self) -> Expression:
        if self.word("not"):
            return Call("not", (self._not(),))
        return self._comparison()

    def _comparison(self) -> Expression:
        left = self._sum()
        if sign := self.symbol("=", "!=", "<", "<=", ">", ">="):
            return Call(sign, (left, self._sum()))
        if self.symbol("=~"):
            return Match(left, self._pattern())
        before = self.at
        negated = self.word("not") is not None
        if self.word("like"):
            found: Expression = Match(left, self._pattern())
        elif self.word("in"):
            self.expect("[")
            found = Call("in", (left, *self._list(self._sum)))
            self.expect("]")
        else:
            self.at = before
            return left
        return Call("not", (found,)) if negated else found

    def _pattern(self) -> LinearRegex:
        if self.query.startswith("/", self.at):
            return self.regex()[0]
        return LinearRegex(quoted(self.string()))

    def _sum(self) -> Expression:
        left = self._product()
        while sign := self.symbol("+", "-"):
            left = self._shallow(Call(sign, (left, self._product())))
        return left

    def _product(self) -> Expression:
        left = self._sign()
        while sign := self.symbol("*", "/", "%"):
            left = self._shallow(Call(sign, (left, self._sign())))
        return left

    def _shallow(self, call: Call) -> Call:
        if call.depth > MAX_DEPTH:
            raise MalformedQueryError("the query is nested too deeply", 0, len(self.query))
        return call

    def _sign(self) -> Expression:
        if self.symbol("-"):
            return Call("-", (Literal(0), self._sign()))
        return self._power()

    def _power(self) -> Expression:
        left = self._operand()
        if not self.symbol("^"):
            return left
        negative = self.symbol("-")
        right = self._operand()
        if self.query.startswith("^", self.at):
            raise self.unexpected()  # no page documents which of two powers comes first
        return Call("^", (left, Call("-", (Literal(0), right)) if negative else right))

    def _operand(self) -> Expression:
        if self.symbol("("):
            inner = self._or()
            self.expect(")")
            return inner
        if self.query.startswith(("'", '"'), self.at):
            return Literal(self.string())
        if found := self.take(_NUMBER):
            return Literal(int(found[0]) if found[0].isdecimal() else float(found[0]))
        word = _WORD.match(self.query, self.at)
        if word and re.compile(r"\s*\(").match(self.query, word.end()):
            if word[0].lower() in _RESERVED:
                raise self.unexpected()
            return self._call()
        return self.field()

    def _call(self) -> Expression:
        start = self.at
        word = self.take(_WORD)
        assert word is not None
        function = word[0].lower()
        if function not in ARGUMENTS:
            raise self.refused(
                f"the function {word[0]} is not supported on one machine", start, start + len(word[0])
            )
        if function in AGGREGATES and not self._aggregates:
            self.at = start + len(word[0])
            self._skip()
            raise self.unexpected()
        self.expect("(")
        arguments = () if self.symbol(")") else self._arguments(function)
        fewest, most = ARGUMENTS[function]
        if not fewest <= len(arguments) <= most:
            raise self.refused(f"{word[0]} takes {fewest} to {most} arguments, not {len(arguments)}", start)
        path = self._path()
        call = Call(function, arguments)
        return Into(call, path) if path else call

    def _arguments(self, function: str) -> tuple[Expression, ...]:
        if function == "count" and self.symbol("*"):
            self.expect(")")
            return ()
        if function == "bin":
            arguments: tuple[Expression, ...] = (self.period(),)
        elif function in ("datefloor", "dateceil"):
            first = self._or()
            self.expect(",")
            arguments = (first, self.period())
        else:
            # Aggregates are of rows, not of aggregates.
            aggregates = self._aggregates and function not in AGGREGATES
            arguments = self._list(lambda: self.expression(aggregates=aggregates))
        if function == "ispresent" and not isinstance(arguments[0], (Field, Into)):
            raise self.unexpected()
        self.expect(")")
        return arguments

    def _path(self) -> tuple[str | int, ...]:
        """Take the path that follows a call directly, as in jsonParse(x).a[0]."""
        path: list[str | int] = []
        while found := self.take(re.compile(r"\.(?:`([^`]+)`|([A-Za-z0-9_@]+))|\[(\d{1,9})\]")):
            path.append(int(found[3]) if found[3] else found[1] or found[2])
        return tuple(path)


def _why_no_stats(before: list[Command]) -> str | None:
    """Say why there may be no `stats` after these commands.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/CWL_QuerySyntax-Stats.html
    """
    if sum(isinstance(command, Stats) for command in before) == MAX_STATS:
        return f"a query has at most {MAX_STATS} stats commands"
    if not any(isinstance(command, Stats) for command in before):
        return None
    return next(
        (
            f"{kind.__name__.lower()} must be after the second stats"
            for kind in (Sort, Limit)
            if any(isinstance(command, kind) for command in before)
        ),
        None,
    )


COMMANDS: dict[str, Callable[[_Reader], Command]] = {
    "fields": _Reader.fields,
    "display": _Reader.display,
    "filter": _Reader.filter,
    "where": _Reader.filter,
    "parse": _Reader.parse,
    "stats": _Reader.stats,
    "sort": _Reader.sort,
    "limit": _Reader.limit,
    "dedup": _Reader.dedup,
    "unnest": _Reader.unnest,
}


def _glob(glob: str) -> LinearRegex:
    """Return what a glob describes: each wildcard is as short as can be, but the one at the end takes all."""
    literals = glob.split("*")
    pattern = "(.*?)".join(map(quoted, literals))
    if len(literals) > 1 and not literals[-1]:
        pattern = pattern[: -len("(.*?)")] + "(.*)"
    return LinearRegex(pattern, over_lines=True)


# An escape, a class, and the beginning of a group, with its name or its flags.
_REGEX_PIECE = re.compile(
    r"\\.|\[\^?\]?(?:\\.|\[:\^?\w+:\]|[^\]\\])*\]|\((?:\?P?<(?P<name>[A-Za-z_@][A-Za-z0-9_@]*)>|\?)?",
    re.DOTALL,
)


def _without_names(expression: str) -> tuple[str, tuple[str, ...]]:
    """Take the names out of an expression's groups, which RE2 restricts more; a slash needs no escape."""
    names: list[str] = []

    def written(piece: re.Match[str]) -> str:
        if piece["name"]:
            names.append(piece["name"])
            return "("
        if piece[0] == "(":
            names.append("")
        return "/" if piece[0] == "\\/" else piece[0]

    return _REGEX_PIECE.sub(written, expression), tuple(names)
