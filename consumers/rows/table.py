"""The table: which columns there are, of which types, and the row that a record becomes.

Every store holds these columns, and the exporter reads them. Names and types follow docs/reference/table.md.
What users declare (docs/reference/schema.md) arrives here as `Plans`.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from functools import cache, lru_cache
from math import isfinite
from re import compile as pattern
from typing import Any, Literal, NamedTuple

from tagline import Record, read, write

from consumers.errors import TaglineError
from consumers.rows.registry import LIMITS

# The mapping's revision is a row's version, with the schemas' revisions added to it: a replay after a change
# updates rows, and a replay without one leaves them. Raise it when the same record becomes a different row.
REVISION = 3

Type = Literal["BIGINT", "BOOLEAN", "DOUBLE", "VARCHAR"]

# What identifies a record's series. All its other fields are measures.
DIMENSIONS = ("route", "method", "client")
# The log group: the one dimension that every row has, because a store may require one.
SOURCE = "source"
# The partition of the lake, in the row itself, so that any query can group by it.
PARTITION = ("year", "month", "day")
ID, TRUNC, EXTRA, EMPTY, SAID, OVERFLOW = "_id", "_trunc", "_extra", "_empty", "_said", "_overflow"
# The measures that every row has, before its others: the identity, then those that follow from the time
# alone, which `timed_measures` computes.
FIXED = (ID, *PARTITION)
# Measures that the table adds, and that no field can have.
OWN_MEASURES = (*FIXED, TRUNC, EXTRA, EMPTY, SAID, OVERFLOW)
# What a dimension holds instead of a value that its schema does not list.
OTHER = "other"

# Names that a field of a user's cannot have as they are: the stores' and the table's own.
RESERVED = LIMITS.names | {SOURCE, *FIXED[1:]}
RESERVED_PREFIXES = LIMITS.prefixes
MAX_NAME_BYTES = LIMITS.name_bytes
MAX_MEASURES = LIMITS.measures
MAX_ID_BYTES = 200  # what is cut to fit a record is never its identity
MAX_DIMENSION_BYTES = 300  # all dimensions, and what the table adds, fit into a record together
# Deeper values than the C encoder takes are rare enough to be looked at level by level.
MAX_DEPTH = 300

_REMEMBERED = 5_000  # of how many names a plan keeps the columns, so that memory is bounded
DAY_MS = 86_400_000
SPAN_MS = DAY_MS  # of times whose measures in `FIXED` are the same, but for the identity
OFFSETS = 1_000_000  # nanoseconds in a millisecond
_OFFSET = hashlib.blake2b(digest_size=8)
_BIGINT = range(-(2**63), 2**63)
_OTHER = pattern(r"[^A-Za-z0-9_.-]|\.(?=x[0-9a-f]+\.)")
_ESCAPE = pattern(r"\.x([0-9a-f]+)\.")


class UnmappableError(TaglineError, ValueError):
    """A record that the table cannot hold; the message names the field, the value and the limit."""


class Measure(NamedTuple):
    """A typed value in a row."""

    type: Type
    value: bool | float | str


class Row(NamedTuple):
    """A record as the table holds it.

    Attributes:
        id: The record's identity.
        time: Milliseconds since 1970.
        type: Kind of record.
        dimensions: Text by column.
        measures: Typed values by column.
        not_numbers: How many values were left out because they are not finite numbers.
        version: Which mapping made it; of two rows at one point, the store keeps the higher.
        extra: How many fields have no column and are in `_extra`.
        others: How many dimensions hold `other` instead of the record's value.
    """

    id: str
    time: int
    type: str
    dimensions: Mapping[str, str]
    measures: Mapping[str, Measure]
    not_numbers: int = 0
    version: int = REVISION
    extra: int = 0
    others: int = 0


def offset(record_id: str, attempt: int) -> int:
    """Return the nanoseconds that are added to a record's millisecond, from 0 to 999,999.

    A store identifies a row by its dimensions, type and time, and CloudWatch's time has milliseconds only:
    without an offset, two requests of one millisecond would be one row. Derived from the identity, the offset
    is the same for every copy; another attempt gives another offset, if the store has another row there.
    """
    digest = hashlib.blake2b(f"{record_id}\0{attempt}".encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest, "big") % OFFSETS


def offsets(record_ids: Sequence[str]) -> list[int]:
    """Return the `offset` of the first attempt of each record, in a third of the time."""
    digests: list[bytes] = []
    for record_id in record_ids:
        hashed = _OFFSET.copy()
        hashed.update(record_id.encode("utf-8", "replace") + b"\x000")
        digests.append(hashed.digest())
    return [number % OFFSETS for number in struct.unpack(f">{len(digests)}Q", b"".join(digests))]


# --- Names -----------------------------------------------------------------------------------------------


def column_name(field: str) -> str:
    """Return the column of a user's field: letters, digits, `_`, `.` and `-` as they are, others escaped.

    `field_name` is the inverse. Names of the table's own, and those that begin with `_`, get `_` appended;
    a first letter is escaped where the store forbids the beginning.
    """
    if field.startswith("_") or field.rstrip("_") in RESERVED:
        field += "_"
    column = _OTHER.sub(lambda found: _escaped(found[0]), field)
    return _escaped(column[0]) + column[1:] if column.startswith(RESERVED_PREFIXES) else column


def field_name(column: str) -> str:
    """Return the user's name of a field by its column."""
    field = _ESCAPE.sub(lambda found: chr(int(found[1], 16)), column)
    if field.endswith("_") and (field.startswith("_") or field.rstrip("_") in RESERVED):
        field = field[:-1]
    return field


def _escaped(character: str) -> str:
    return f".x{ord(character):x}."


# --- Values ----------------------------------------------------------------------------------------------


class _NoMeasure(Enum):
    """Why a value cannot be a measure."""

    OUT = "there is nothing to store"
    EMPTY = "a store of time series has no empty text"
    NOT_A_NUMBER = "no column can hold NaN, infinities, and numbers beyond DOUBLE"
    UNFIT = "its column is of another type"


Convert = Callable[[Any], Measure | _NoMeasure]
_new = tuple.__new__  # a third of the time that calling the class takes, for every value of every record
_TRUE, _FALSE = Measure("BOOLEAN", True), Measure("BOOLEAN", False)


def _nothing(_value: None) -> _NoMeasure:
    return _NoMeasure.OUT


def _unfit(_value: Any) -> _NoMeasure:
    return _NoMeasure.UNFIT


def _boolean(value: bool) -> Measure:
    return _TRUE if value else _FALSE


def _double(value: float) -> Measure | _NoMeasure:
    try:
        number = float(value)
    except OverflowError:
        return _NoMeasure.NOT_A_NUMBER
    # Some stores refuse negative zero, and no reader distinguishes it from zero.
    return _new(Measure, ("DOUBLE", number or 0.0)) if isfinite(number) else _NoMeasure.NOT_A_NUMBER


def _decimal(value: Decimal) -> Measure | _NoMeasure:
    return _double(float(value)) if value.is_finite() else _NoMeasure.NOT_A_NUMBER


def _whole_decimal(value: Decimal) -> Measure | _NoMeasure:
    if not value.is_finite():
        return _NoMeasure.NOT_A_NUMBER
    # One of a million digits is not made a whole number to find out that it is too large.
    is_whole = value.adjusted() < len(str(2**63)) and value == value.to_integral_value()
    return _bigint(int(value)) if is_whole else _NoMeasure.UNFIT


def _bigint(value: float) -> Measure | _NoMeasure:
    if value.__class__ is float and not isfinite(value):
        return _NoMeasure.NOT_A_NUMBER
    whole = int(value) if value == value // 1 else None
    return _NoMeasure.UNFIT if whole is None or whole not in _BIGINT else _new(Measure, ("BIGINT", whole))


def _varchar(value: str) -> Measure | _NoMeasure:
    if not value:
        return _NoMeasure.EMPTY
    return _new(Measure, ("VARCHAR", value if value.isascii() else _text(value)))


def _nested(value: Any) -> Measure:
    return _new(Measure, ("VARCHAR", _json(value)))


# By the type of a column, and by the class of a value, what makes a measure of it.
_NONE: Mapping[type, Convert] = {type(None): _nothing}
_BY_VALUE: Mapping[type, Convert] = {
    **_NONE,
    str: _varchar,
    int: _double,
    float: _double,
    Decimal: _decimal,
    bool: _boolean,
    dict: _nested,
    list: _nested,
}
_STRICT: Mapping[type, Convert] = {**_NONE, **dict.fromkeys((bool, int, float, Decimal, dict, list), _unfit)}
_EMPTY_OR_UNFIT: Convert = lambda value: _NoMeasure.UNFIT if value else _NoMeasure.EMPTY  # noqa: E731 - one of a table
_BY_TYPE: Mapping[Type, Mapping[type, Convert]] = {
    "BIGINT": {
        **_STRICT,
        str: _EMPTY_OR_UNFIT,
        **dict.fromkeys((bool, int, float), _bigint),
        Decimal: _whole_decimal,
    },
    "BOOLEAN": {**_STRICT, str: _EMPTY_OR_UNFIT, bool: _boolean},
    "DOUBLE": {**_STRICT, str: _EMPTY_OR_UNFIT, int: _double, float: _double, Decimal: _decimal},
    "VARCHAR": {**_NONE, str: _varchar},
}
# Values that a column holds as they are: their class, what makes the measure, and its type.
_PLAIN: tuple[tuple[type, Convert, Type], ...] = (
    (str, _varchar, "VARCHAR"),
    (float, _double, "DOUBLE"),
    (int, _double, "DOUBLE"),
    (int, _bigint, "BIGINT"),
    (bool, _boolean, "BOOLEAN"),
    (dict, _nested, "VARCHAR"),
    (list, _nested, "VARCHAR"),
)
_DESCRIBED = {
    "BIGINT": "a whole number of 64 bits",
    "BOOLEAN": "true or false",
    "DOUBLE": "a number",
    "VARCHAR": "a text",
}


def measure(type_: Type, value: Any) -> Measure | None:
    """Return a value as a measure of a column's type, or None if it does not fit that."""
    made = _BY_TYPE[type_].get(value.__class__, _nested)(value)
    return made if isinstance(made, Measure) else None


def _text(text: str) -> str:
    """Return text that UTF-8 can encode: half a surrogate pair, which JSON lets through, becomes `?`."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _json(value: Any) -> str:
    """Return a value as JSON; NaN and infinity are null.

    Raises:
        UnmappableError: If it is nested deeper than 300 levels.
    """
    try:
        return _encoder()(value).decode()
    except TypeError:
        # It takes no numbers beyond 64 bits, no halves of surrogate pairs, and 254 levels.
        return _text(json.dumps(_storable(value, 0), ensure_ascii=False, separators=(",", ":")))


@cache
def _encoder() -> Callable[[Any], bytes]:
    # The exporter reads this module's names, and its functions ship without orjson.
    from orjson import dumps  # noqa: PLC0415 - see above

    return dumps


def _storable(value: Any, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise UnmappableError(f"a value is nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, dict):
        return {name: _storable(each, depth + 1) for name, each in value.items()}
    if isinstance(value, list):
        return [_storable(each, depth + 1) for each in value]
    if isinstance(value, Decimal):
        value = float(value) if value.is_finite() else None
    return None if isinstance(value, float) and not isfinite(value) else value


# --- Plans -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Limit:
    """Which values a dimension may have, so that a table has a bounded number of series.

    Attributes:
        values: Values that are kept. One `*` in a value stands for any text, and the value itself is kept.
        buckets: Over how many numbered others the rest is spread; 0 for one without a number.
    """

    values: frozenset[str] = frozenset()
    buckets: int = 0
    _wildcards: tuple[tuple[str, str], ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        wildcards = [value.partition("*") for value in sorted(self.values) if "*" in value]
        object.__setattr__(self, "_wildcards", tuple((start, end) for start, _, end in wildcards))

    def match(self, text: str) -> str | None:
        """Return the value that stands for a text, or None for one of the others."""
        if text in self.values:
            return text
        for start, end in self._wildcards:
            if len(text) >= len(start) + len(end) and text.startswith(start) and text.endswith(end):
                return f"{start}*{end}"
        return None

    def other(self, text: str) -> str:
        """Return which of the others a text is; the same for every copy of it."""
        return f"{OTHER}-{int(_hash(text, 8), 16) % self.buckets}" if self.buckets else OTHER


class Dimension(NamedTuple):
    """A dimension of a type of record.

    Attributes:
        field: The user's name of it.
        column: The table's.
        bytes: Its longest value; a longer one is cut, with a hash of the whole at its end.
        limit: Which values it may have; None for any.
    """

    field: str
    column: str
    bytes: int = MAX_DIMENSION_BYTES
    limit: Limit | None = None


class Declared(NamedTuple):
    """A measure that a schema declares.

    Attributes:
        field: The user's name of it.
        type: Its column's type.
        default: What a record has that lacks it; None for nothing.
    """

    field: str
    type: Type
    default: Measure | None = None


# What becomes of a field, by its name: its column (empty for `_extra`); what finds the conversion by the
# value's class; the column's type, as far as the name tells it; whether a value that does not fit goes into
# `_extra` and does not fail the record. A plain tuple: one with names unpacks in twice the time.
_Rule = tuple[str, Callable[[type, Convert], Convert], Type | None, bool]
_DIMENSION: _Rule = ("", _NONE.get, None, False)


class Plan:
    """What becomes of the fields of a type of record. Fields that it does not declare follow their values.

    Args:
        dimensions: The type's own dimensions; `route`, `method` and `client` are dimensions of every type.
        measures: What is declared.
        columns: Types of the table's columns that any type of record declares.
        dimensions_elsewhere: Fields that are dimensions of other types: a column cannot be both.
        extra: Whether undeclared fields go into `_extra`, so that the table has a bounded number of columns.
        lenient: Whether a value of another type than declared goes into `_extra` as well.
    """

    def __init__(
        self,
        dimensions: Mapping[str, Dimension] | None = None,
        measures: Mapping[str, Declared] | None = None,
        *,
        columns: Mapping[str, Type] | None = None,
        dimensions_elsewhere: frozenset[str] = frozenset(),
        extra: bool = False,
        lenient: bool = False,
    ) -> None:
        own = {name: Dimension(name, name) for name in DIMENSIONS} | dict(dimensions or {})
        # Plain tuples, as the rules are.
        self.dimensions = [(each.field, each.column, each.bytes, each.limit) for each in own.values()]
        self.measures = dict(measures or {})
        self.defaults = tuple(
            (each.field, column_name(each.field), each.default)
            for each in self.measures.values()
            if each.default is not None
        )
        # So many fields that are not declared have a column, beside all that are, and the table's own.
        self.room = MAX_MEASURES - len(OWN_MEASURES) - len(self.measures)
        self._columns = columns or {}
        self._elsewhere = dimensions_elsewhere
        self._extra = extra
        self._rules: dict[str, _Rule] = dict.fromkeys(own, _DIMENSION)
        for each in self.measures.values():
            self._rules[each.field] = (column_name(each.field), _BY_TYPE[each.type].get, each.type, lenient)
        self.known = self._rules.get

    def column(self, name: str) -> tuple[str, Mapping[type, Type]] | None:
        """Return the column of a field, and the type of the measure that a value of a class is there.

        For a shortcut around `row`: None if the field has no column; a class is missing if its values are
        not held there as they are.
        """
        column, convert, _, _ = self.known(name) or self.learn(name)
        types: dict[type, Type] = {
            kind: type_ for kind, make, type_ in _PLAIN if convert(kind, _nested) is make
        }
        return (column, types) if column else None

    def optional_columns(self, names: Iterable[str]) -> frozenset[str]:
        """Return the columns of fields that may be in `_extra` instead: no schema demands their type."""
        return frozenset(
            column
            for name in names
            for column, _, _, lenient in [self.known(name) or self.learn(name)]
            if column and (lenient or name not in self.measures)
        )

    def learn(self, name: str) -> _Rule:
        """Return what becomes of an undeclared field, and remember it."""
        rule = self._by_name(name)
        if len(name) <= MAX_NAME_BYTES and len(self._rules) < _REMEMBERED:
            self._rules[name] = rule
        return rule

    def _by_name(self, name: str) -> _Rule:
        column = column_name(name)
        if self._extra or not name or len(column) > MAX_NAME_BYTES or name in self._elsewhere:
            return "", _BY_VALUE.get, None, False
        if (type_ := self._columns.get(column)) is not None:
            return column, _BY_TYPE[type_].get, type_, True
        if name.endswith("_count"):
            return column, _BY_TYPE["BIGINT"].get, "BIGINT", True
        return column, _BY_VALUE.get, None, False


class Plans:
    """What becomes of records, by their type.

    Args:
        plans: The plan of each type that is declared.
        otherwise: The plan of the types that are not.
        revisions: The sum of the schemas' revisions.
    """

    def __init__(
        self,
        plans: Mapping[str, Plan] | None = None,
        otherwise: Plan | None = None,
        revisions: int = 0,
    ) -> None:
        self._plans = dict(plans or {})
        self._otherwise = otherwise or Plan()
        self._known: dict[str, tuple[str, Plan]] = {}
        # Both only ever rise, and so does their sum.
        self.version = REVISION + revisions

    @property
    def columns(self) -> dict[str, Type]:
        """The columns that are declared for any type of record, dimensions too, with their types."""
        found: dict[str, Type] = {}
        for plan in (*self._plans.values(), self._otherwise):
            found |= {column: "VARCHAR" for _, column, _, _ in plan.dimensions}
            found |= {column_name(each.field): each.type for each in plan.measures.values()}
        return found

    def of(self, type_: str) -> tuple[str, Plan]:
        """Return the name that the table has for a type of record, and the type's plan.

        Raises:
            UnmappableError: If the name is longer than 256 bytes.
        """
        found = self._known.get(type_)
        if found is None:
            name = column_name(type_)
            if len(name) > MAX_NAME_BYTES:
                raise UnmappableError(f"_type is {len(name)} bytes long, more than {MAX_NAME_BYTES}")
            found = name, self._plans.get(type_, self._otherwise)
            if len(self._known) < _REMEMBERED:
                self._known[type_] = found
        return found


UNDECLARED = Plans()


# --- Rows ------------------------------------------------------------------------------------------------


def row(record: Record, source: str, plans: Plans, left_out: Collection[str] = ()) -> Row:
    """Return the row for a record. It depends on nothing but these arguments: every copy makes the same.

    Args:
        record: The line's record.
        source: The log group that it came from.
        plans: What is declared.
        left_out: Columns that the row does not have: their fields go into `_extra`.

    Raises:
        UnmappableError: If a value does not fit its column's type, is nested too deeply, or the type's name,
            the identity or the time is beyond what a row can hold.
    """
    identity = record.id
    if len(identity) > MAX_ID_BYTES or len(identity.encode("utf-8", "replace")) > MAX_ID_BYTES:
        raise UnmappableError(f"_id is longer than {MAX_ID_BYTES} bytes: {identity[:50]!r}...")
    name, plan = plans.of(record.type)
    fields = record.fields
    timed = timed_measures(record.timestamp // SPAN_MS)
    measures = {ID: _new(Measure, ("VARCHAR", _text(identity))), **timed}
    if record.trunc:
        measures[TRUNC] = _nested(record.trunc)
    rest = _Leftovers()
    dimensions = _dimensions(fields, source, plan, measures, rest)
    _measures(fields, plan, measures, rest, left_out)
    return Row(
        identity,
        record.timestamp,
        name,
        dimensions,
        measures,
        rest.not_numbers,
        plans.version,
        len(rest.extra),
        rest.others,
    )


class _Leftovers:
    """The fields of a record that have no column."""

    __slots__ = ("empty", "extra", "not_numbers", "others")

    def __init__(self) -> None:
        self.empty: list[str] = []
        self.extra: dict[str, Any] = {}
        self.not_numbers = 0
        self.others = 0

    def add(self, name: str, value: Any, why: _NoMeasure, rule: _Rule) -> None:
        """Add a field whose value is not a measure."""
        if why is _NoMeasure.EMPTY:
            self.empty.append(name)
        elif why is _NoMeasure.NOT_A_NUMBER:
            self.not_numbers += 1
        elif why is _NoMeasure.UNFIT:
            _, _, type_, lenient = rule
            if not lenient:
                raise UnmappableError(f"{name} is {_json(value)[:100]}, not {_DESCRIBED[type_ or 'VARCHAR']}")
            self.extra[name] = value


def plain_dimensions(fields: Mapping[str, Any], source: str, plan: Plan) -> dict[str, str] | None:
    """Return a record's dimensions if they hold all that it has about them, for a shortcut around `row`."""
    measures: dict[str, Measure] = {}
    rest = _Leftovers()
    dimensions = _dimensions(fields, source, plan, measures, rest)
    return None if measures or rest.empty or rest.not_numbers or rest.others else dimensions


def _dimensions(
    fields: Mapping[str, Any], source: str, plan: Plan, measures: dict[str, Measure], rest: _Leftovers
) -> dict[str, str]:
    """Return a record's dimensions; the originals of those that are changed become the measure `_said`."""
    group, whole = _source(source)
    dimensions = {SOURCE: group}
    originals = {} if whole is None else {SOURCE: whole}
    for name, column, size, limit in plan.dimensions:
        value = fields.get(name)
        if value is None:
            continue
        if value.__class__ in {float, Decimal} and not isfinite(value):
            rest.not_numbers += 1
            continue
        text = _text(value) if isinstance(value, str) else _json(value)
        if not text:
            rest.empty.append(name)
            continue
        kept = text
        if limit is not None:
            listed = limit.match(text)
            rest.others += listed is None
            kept = limit.other(text) if listed is None else listed
        if len(kept) * 4 > size:
            kept = _bounded(kept, size)
        dimensions[column] = kept
        if kept is not text:
            originals[name] = text
    if originals:
        measures[SAID] = _nested(originals)
    return dimensions


def _measures(
    fields: Mapping[str, Any],
    plan: Plan,
    measures: dict[str, Measure],
    rest: _Leftovers,
    left_out: Collection[str],
) -> None:
    """Add the measures of the fields, and those by which the rest is kept."""
    known = plan.known
    for name, value in fields.items():
        rule = known(name) or plan.learn(name)
        if rule is _DIMENSION:
            continue
        column, convert, _, _ = rule
        made = convert(value.__class__, _nested)(value)
        if not isinstance(made, Measure):
            rest.add(name, value, made, rule)
        elif column and column not in left_out:
            measures[column] = made
        else:
            rest.extra[name] = value
    if len(measures) > plan.room:
        _make_room(fields, plan, measures, rest.extra)
    if plan.defaults:
        measures |= {column: made for name, column, made in plan.defaults if fields.get(name) is None}
    if rest.extra:
        measures[EXTRA] = _nested(rest.extra)
    if rest.empty:
        measures[EMPTY] = _nested(rest.empty)


def _make_room(
    fields: Mapping[str, Any], plan: Plan, measures: dict[str, Measure], extra: dict[str, Any]
) -> None:
    """Move into `_extra` the undeclared fields for which a record has no room, the last ones first to go."""
    columns = {name: column_name(name) for name in fields if name not in plan.measures}
    undeclared = [name for name, column in columns.items() if column in measures]
    for name in undeclared[plan.room :]:
        del measures[columns[name]]
        extra[name] = fields[name]


@lru_cache(maxsize=256)
def _source(log_group: str) -> tuple[str, str | None]:
    """Return the dimension for a log group, and its whole name if that is cut: it may have 512 characters."""
    text = _text(log_group)
    kept = _bounded(text, MAX_DIMENSION_BYTES)
    return kept, None if kept == text else text


def _bounded(text: str, size: int) -> str:
    """Return a text, or its beginning with a hash of the whole: two long texts stay two."""
    if len(whole := text.encode()) <= size:
        return text
    return whole[: size - 17].decode("utf-8", "ignore") + "~" + _hash(text, 8)


@lru_cache(maxsize=64)
def timed_measures(span: int) -> dict[str, Measure]:
    """Return the measures of `FIXED` after the identity, by the number since 1970 of a span of `SPAN_MS`.

    Raises:
        UnmappableError: If no store can hold a row of that day.
    """
    days = span * SPAN_MS // DAY_MS
    if not LIMITS.first_day <= days <= LIMITS.last_day:
        raise UnmappableError(
            f"timestamp is {days} days after 1970-01-01, not {LIMITS.first_day} to {LIMITS.last_day}: "
            "correct the time that the record is written with"
        )
    texts = datetime.fromtimestamp(span * (SPAN_MS // 1000), UTC).date().isoformat().split("-")
    return {name: Measure("VARCHAR", text) for name, text in zip(PARTITION, texts, strict=True)}


def _hash(text: str, size: int) -> str:
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=size).hexdigest()


# --- Records too large for a row ---------------------------------------------------------------------------


def overflow_key(record: Record, source: str) -> str:
    """Return where in the bucket the whole record is kept when its row cannot hold all of it.

    Two rows never share an object: its name is a hash of the log group and of the whole record.
    `REVISION` has to be raised when `overflow_body` changes, because the row contains the name.
    """
    day = datetime.fromtimestamp(record.timestamp // 1000, UTC).date().isoformat()
    name = _hash(f"{source}\0{overflow_body(record).decode()}", 16)
    return f"overflow/{day}/{name}.json"


def overflow_body(record: Record) -> bytes:
    """Return the whole record as kept in the bucket; every copy of a record makes the same bytes."""
    return write(record.replace(src=None, seq=None)).encode()


def overflow_row(body: bytes, source: str, plans: Plans) -> Row:
    """Return the row of a whole record as kept in the bucket, in which nothing is shortened.

    Args:
        body: What `overflow_body` made.
        source: The log group that the record came from.
        plans: What is declared of records.

    Raises:
        UnmappableError: If a value does not fit its column's type.
        tagline.UnreadableLineError: If `overflow_body` did not make the body.
    """
    return row(read(body.decode()), source, plans)
