"""Schemas: what users declare of a type of record, in TOML, and what a change of that does to stored rows.

docs/reference/schema.md is the reference. Columns belong to a table, not to a type of record, so schemas are
read together: they are valid with each other, or not at all.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple, get_args

from consumers.errors import TaglineError
from consumers.rows import table
from consumers.rows.registry import LIMITS
from consumers.rows.table import DIMENSIONS, OTHER, SOURCE, Type, column_name

# The type whose schema holds for all types that have none.
ANY_TYPE = "*"
MAX_REVISION = 1_000_000
MAX_TABLE_MEASURES = LIMITS.table_measures
MAX_TABLE_DIMENSIONS = LIMITS.table_dimensions
MAX_DIMENSION_NAME_BYTES = LIMITS.dimension_name_bytes
MAX_SERIES_BYTES = LIMITS.series_bytes  # names and values of all of a row's dimensions
MIN_DIMENSION_BYTES, DEFAULT_DIMENSION_BYTES = 32, 64
MAX_BUCKETS = 10_000
MOVED = "a column stays a measure or a dimension: take a new name"
# A count that a record lacks: "not relevant here", which is not 0.
NO_COUNT = -1

TYPES: tuple[Type, ...] = get_args(Type)
COLUMNS, EXTRA = "columns", "extra"
QUARANTINE = "quarantine"


class SchemaError(TaglineError, ValueError):
    """Schemas that are not valid; the message names each file, key, value and limit, one on a line."""


class DeclaredDimension(NamedTuple):
    """A declared dimension.

    Attributes:
        bytes: Its longest value.
        values: The only values that it may have, if there are any; one `*` in a value stands for any text.
        buckets: Over how many numbered others all other values are spread; 0 for one `other`.
        pii: Whether it tells of a person.
    """

    bytes: int
    values: tuple[str, ...] = ()
    buckets: int = 0
    pii: bool = False

    @property
    def limit(self) -> table.Limit | None:
        """Which values it may have; None for any."""
        return table.Limit(frozenset(self.values), self.buckets) if self.values or self.buckets else None


class DeclaredMeasure(NamedTuple):
    """A declared measure.

    Attributes:
        type: Its column's type.
        default: What a row has where the record lacks it; None for nothing.
        pii: Whether it tells of a person.
    """

    type: Type
    default: bool | float | str | None = None
    pii: bool = False


class Schema(NamedTuple):
    """What is declared of a type of record.

    Attributes:
        file: Where it was read.
        type: The type of record; `*` for all without their own schema.
        revision: Counts its versions, from 1.
        undeclared: Where fields go that it does not name: `columns` of their own, or `extra`.
        unfit: Where a value goes that is not of its column's type: `quarantine` with its record, or `extra`.
        dimensions: What distinguishes records of the type, beside what distinguishes all types.
        measures: All else.
    """

    file: str
    type: str
    revision: int = 0
    undeclared: str = COLUMNS
    unfit: str = QUARANTINE
    dimensions: Mapping[str, DeclaredDimension] = {}
    measures: Mapping[str, DeclaredMeasure] = {}

    def all_dimensions(self) -> dict[str, DeclaredDimension]:
        """Return its dimensions with those that every type has, except `source`, which is not a field."""
        return {name: DeclaredDimension(table.MAX_DIMENSION_BYTES) for name in DIMENSIONS} | dict(
            self.dimensions
        )

    def personal(self) -> tuple[str, ...]:
        """Return the columns declared as personal data."""
        fields: dict[str, DeclaredDimension | DeclaredMeasure] = {**self.dimensions, **self.measures}
        return tuple(column_name(name) for name, each in fields.items() if each.pii)


# --- Reading -----------------------------------------------------------------------------------------------


def read(folder: Path) -> tuple[Schema, ...]:
    """Return the schemas of a folder: its files `*.toml`.

    Raises:
        SchemaError: If the folder does not exist, or its schemas are not valid.
    """
    if not folder.is_dir():
        raise SchemaError(f"{folder} is not a folder")
    return parse({path.name: path.read_bytes() for path in sorted(folder.glob("*.toml"))})


def parse(files: Mapping[str, bytes]) -> tuple[Schema, ...]:
    """Return the schemas in files.

    Args:
        files: The files' contents by their names; a schema that names no type is of its file's name.

    Raises:
        SchemaError: If one is not valid, or they are not together.
    """
    problems: list[str] = []
    schemas = []
    for name, content in files.items():
        try:
            document = tomllib.loads(content.decode())
        except ValueError as error:  # of TOML, and of UTF-8
            problems.append(f"{name}: not TOML: {error}")
            continue
        schemas.append(_schema(_Keys(name, "", document, problems)))
    if not problems:
        problems.extend(_conflicts(schemas))
    if problems:
        raise SchemaError("\n".join(problems))
    return tuple(schemas)


def plans(schemas: Iterable[Schema]) -> table.Plans:
    """Return what becomes of records, for `table.row`."""
    schemas = tuple(schemas)
    columns = {column_name(name): each.type for schema in schemas for name, each in schema.measures.items()}
    dimensions = {name for schema in schemas for name in schema.dimensions}
    made = {
        schema.type: table.Plan(
            {
                name: table.Dimension(name, column_name(name), each.bytes, each.limit)
                for name, each in schema.dimensions.items()
            },
            {
                name: table.Declared(
                    name, each.type, None if each.default is None else table.measure(each.type, each.default)
                )
                for name, each in schema.measures.items()
            },
            columns=columns,
            dimensions_elsewhere=frozenset(dimensions - set(schema.all_dimensions())),
            extra=schema.undeclared == EXTRA,
            lenient=schema.unfit == EXTRA,
        )
        for schema in (Schema("", ANY_TYPE), *schemas)
    }
    return table.Plans(made, made[ANY_TYPE], sum(schema.revision for schema in schemas))


def load_schemas(folder: Path) -> table.Plans:
    """Return what becomes of records by the schemas of a folder.

    Raises:
        SchemaError: As `read`.
    """
    return plans(read(folder))


class _Keys:
    """The keys of a table in a file, taken one by one; what is left over is unknown."""

    def __init__(self, file: str, path: str, keys: Mapping[str, Any], problems: list[str]) -> None:
        self.file = file
        self.path = path
        self._keys = dict(keys)
        self._known: list[str] = []
        self._problems = problems

    def complain(self, key: str, problem: str) -> None:
        """Note a problem with a key; without a key, with the table itself."""
        self._problems.append(f"{self.file}: {f'{self.path}{key}'.rstrip('.')} {problem}")

    def take(self, key: str, default: Any, *kinds: type) -> Any:
        """Return a key's value; what is not of the kind of its default is a problem."""
        self._known.append(key)
        value = self._keys.pop(key, default)
        if value is default or type(value) in (kinds or (type(default),)):
            return value
        names = {bool: "true or false", dict: "a table", float: "a number", int: "a whole number"}
        names |= {list: "a list", str: "a text"}
        self.complain(
            key, f"is {value!r}, not {' or '.join(names[kind] for kind in kinds or [type(default)])}"
        )
        return default

    def choose(self, key: str, *allowed: str) -> str:
        """Return one of some texts; the first is the default."""
        value: str = self.take(key, allowed[0])
        if value in allowed:
            return value
        self.complain(key, f"is {value!r}, not one of {', '.join(allowed)}")
        return allowed[0]

    def whole(self, key: str, default: int, lowest: int, highest: int) -> int:
        """Return a whole number in a range, or its default."""
        value: int = self.take(key, default)
        if value != default and not lowest <= value <= highest:
            self.complain(key, f"is {value:,}, not from {lowest:,} to {highest:,}")
            return default
        return value

    def tables(self, key: str, short: str = "") -> Iterator[tuple[str, _Keys]]:
        """Yield the tables in a table; a text in place of one stands for its key `short`."""
        for name, value in self.take(key, {}).items():
            shortened = {short: value} if short and isinstance(value, str) else value
            path = f"{self.path}{key}.{name}"
            if isinstance(shortened, dict):
                yield name, _Keys(self.file, f"{path}.", shortened, self._problems)
            else:
                self.complain(f"{key}.{name}", f"is {value!r}, not a table")

    def end(self) -> None:
        """Complain of what nobody has asked for."""
        for key in self._keys:
            self.complain(key, f"is unknown; there is {', '.join(self._known)}")


def _schema(keys: _Keys) -> Schema:
    schema = Schema(
        file=keys.file,
        type=keys.take("type", keys.file.removesuffix(".toml")),
        revision=keys.whole("revision", 0, 1, MAX_REVISION),
        undeclared=keys.choose("undeclared", COLUMNS, EXTRA),
        unfit=keys.choose("unfit", QUARANTINE, EXTRA),
        dimensions={name: _dimension(name, each) for name, each in keys.tables("dimensions")},
        measures={name: _measure(name, each) for name, each in keys.tables("measures", short="type")},
    )
    keys.take("description", "")
    keys.end()
    if not schema.revision:
        keys.complain("revision", f"is not set; it is a whole number from 1 to {MAX_REVISION:,}")
    size = len(column_name(schema.type))
    if not 1 <= size <= table.MAX_NAME_BYTES:
        keys.complain("type", f"is {size} bytes long, not from 1 to {table.MAX_NAME_BYTES}")
    for name in schema.dimensions.keys() & schema.measures.keys():
        keys.complain(f"measures.{name}", "is a dimension as well; a column is one of both")
    room = table.MAX_MEASURES - len(table.OWN_MEASURES)
    if len(schema.measures) > room:
        keys.complain("measures", f"are {len(schema.measures):,}; a row has room for {room:,}")
    series = len(SOURCE) + table.MAX_DIMENSION_BYTES
    series += sum(len(column_name(name)) + each.bytes for name, each in schema.all_dimensions().items())
    if series > MAX_SERIES_BYTES:
        keys.complain(
            "dimensions",
            f"with {', '.join((SOURCE, *DIMENSIONS))} take up to {series:,} bytes, more than "
            f"{MAX_SERIES_BYTES:,}: give some of them fewer bytes",
        )
    return schema


def _dimension(name: str, keys: _Keys) -> DeclaredDimension:
    own = name in DIMENSIONS
    made = DeclaredDimension(
        bytes=keys.whole(
            "bytes",
            table.MAX_DIMENSION_BYTES if own else DEFAULT_DIMENSION_BYTES,
            MIN_DIMENSION_BYTES,
            table.MAX_DIMENSION_BYTES,
        ),
        values=tuple(keys.take("values", [])),
        buckets=keys.whole("buckets", 0, 1, MAX_BUCKETS),
        pii=keys.take("pii", False),
    )
    keys.take("description", "")
    keys.end()
    _check_name(name, MAX_DIMENSION_NAME_BYTES, keys)
    if name == SOURCE:
        keys.complain("", "is every row's log group, and no field")
    for value in made.values:
        if not isinstance(value, str) or not value or value.count("*") > 1:
            keys.complain("values", f"has {value!r}, not a text with at most one *")
        elif len(value.encode("utf-8", "replace")) > made.bytes:
            keys.complain("values", f"has {value[:50]!r}, which is longer than its {made.bytes} bytes")
        elif value == OTHER or value.startswith(f"{OTHER}-"):
            keys.complain("values", f"has {value!r}, which stands for the values that are not listed")
    return made


def _measure(name: str, keys: _Keys) -> DeclaredMeasure:
    type_ = keys.choose("type", "VARCHAR", *(each for each in TYPES if each != "VARCHAR"))
    kind: Type = next(each for each in TYPES if each == type_)
    counts = kind == "BIGINT" and name.endswith("_count")
    default = keys.take("default", NO_COUNT if counts else None, bool, int, float, str)
    made = DeclaredMeasure(kind, default, pii=keys.take("pii", False))
    keys.take("description", "")
    keys.end()
    _check_name(name, table.MAX_NAME_BYTES, keys)
    if default is not None and table.measure(kind, default) is None:
        keys.complain("default", f"is {default!r}, no value of a {kind} column")
    if name in (*DIMENSIONS, SOURCE):
        keys.complain("", "is a dimension of every type of record, and no measure")
    return made


def _check_name(name: str, most: int, keys: _Keys) -> None:
    size = len(column_name(name)) if name else 0
    if not 1 <= size <= most:
        keys.complain("", f"has a column of {size} bytes, not from 1 to {most}")


def _conflicts(schemas: list[Schema]) -> Iterator[str]:
    """Yield why schemas that are valid each are not so together: they share the columns of one table."""
    for one, other in combinations(schemas, 2):
        if one.type == other.type:
            yield f"{other.file}: type is {other.type!r}, as in {one.file}"
        for name in one.measures.keys() & other.measures.keys():
            if one.measures[name].type != other.measures[name].type:
                yield (
                    f"{other.file}: measures.{name} is {other.measures[name].type}, and "
                    f"{one.measures[name].type} in {one.file}; a column has one type"
                )
        for here, there in ((one, other), (other, one)):
            for name in here.measures.keys() & there.dimensions.keys():
                yield (
                    f"{here.file}: measures.{name} is a dimension in {there.file}; a column is one of both"
                )
    measures = {name for schema in schemas for name in schema.measures}
    total = len(measures) + len(table.OWN_MEASURES)
    if total > MAX_TABLE_MEASURES:
        yield (
            f"the schemas declare {len(measures):,} measures, with the table's own {total:,}, more than the "
            f"{MAX_TABLE_MEASURES:,} of a table"
        )
    dimensions = {SOURCE, *DIMENSIONS, *(name for schema in schemas for name in schema.dimensions)}
    if len(dimensions) > MAX_TABLE_DIMENSIONS:
        yield f"the schemas have {len(dimensions)} dimensions, a table at most {MAX_TABLE_DIMENSIONS}"


# --- Changes -----------------------------------------------------------------------------------------------


class Verdict(StrEnum):
    """Whether a change is allowed."""

    YES = "yes"
    CAREFUL = "with care"
    RAISE = "raise the revision"
    NO = "no"


class Change(NamedTuple):
    """A difference between a schema and its next version.

    Attributes:
        type: The type of record.
        key: What differs, by its path in the file.
        change: What was, and what is.
        verdict: Whether it is allowed.
        reason: Why, and what to do instead.
    """

    type: str
    key: str
    change: str
    verdict: Verdict
    reason: str

    @property
    def allowed(self) -> bool:
        """Whether the change can be deployed."""
        return self.verdict in (Verdict.YES, Verdict.CAREFUL)


def changes(old: Iterable[Schema], new: Iterable[Schema]) -> list[Change]:
    """Return what differs between two versions of a folder of schemas, and whether it is allowed."""
    before = {schema.type: schema for schema in old}
    after = {schema.type: schema for schema in new}
    otherwise = before.get(ANY_TYPE, Schema("", ANY_TYPE))
    columns = {name: "dimension" for schema in before.values() for name in schema.all_dimensions()}
    columns |= {name: each.type for schema in before.values() for name, each in schema.measures.items()}
    found: list[Change] = []
    for type_ in sorted(before.keys() | after.keys()):
        if type_ not in after:
            reason = (
                "rows would be older than those stored, and refused: keep the file, and raise its revision"
            )
            found.append(Change(type_, "", "removed", Verdict.NO, reason))
        else:
            known = before.get(type_, otherwise._replace(revision=0))
            found += _Differences(known, after[type_], columns).found
    return found


class _Differences:
    """What differs between a schema and its next version: `found`.

    Args:
        old: The schema, without a revision if there was none.
        new: Its next version.
        columns: What the columns of the table have been, by field: "dimension", or a type.
    """

    def __init__(self, old: Schema, new: Schema, columns: Mapping[str, str]) -> None:
        self.found: list[Change] = []
        self._old, self._new, self._columns = old, new, columns
        self._schema()
        dimensions, measures = new.all_dimensions(), new.measures
        old_dimensions, old_measures = old.all_dimensions(), old.measures
        for name in sorted(dimensions.keys() | old_dimensions.keys() | measures.keys() | old_measures.keys()):
            if name in dimensions and columns.get(name, "dimension") != "dimension":
                self._note(name, "measure to dimension", Verdict.NO, MOVED)
            elif name in measures and columns.get(name) == "dimension":
                self._note(name, "dimension to measure", Verdict.NO, MOVED)
            elif name in dimensions or name in old_dimensions:
                self._dimension(f"dimensions.{name}", old_dimensions.get(name), dimensions.get(name))
            else:
                self._measure(name, old_measures.get(name), measures.get(name))

    def _note(self, key: str, what: str, verdict: Verdict, reason: str) -> None:
        self.found.append(Change(self._new.type, key, what, verdict, reason))

    def _rewrites(self, key: str, what: str) -> None:
        """Note what makes another row of the same record: allowed, if the rows' version rises with it."""
        if self._new.revision > self._old.revision:
            self._note(key, what, Verdict.YES, "rows that are replayed are written again")
        else:
            again = f"a record that comes again makes another row: set revision to {self._old.revision + 1}"
            self._note(key, what, Verdict.RAISE, again)

    def _schema(self) -> None:
        old, new = self._old, self._new
        if not old.revision:
            self._note("", "added", Verdict.YES, "its records have followed the rules for undeclared ones")
        elif new.revision < old.revision:
            lower = "rows would be older than those stored, and refused: a revision only rises"
            self._note("revision", _from_to(old.revision, new.revision), Verdict.NO, lower)
        if new.undeclared != old.undeclared:
            self._rewrites("undeclared", _from_to(old.undeclared, new.undeclared))
        if new.unfit != old.unfit:
            stay = "what is in quarantine stays there until it is replayed"
            self._note("unfit", _from_to(old.unfit, new.unfit), Verdict.YES, stay)

    def _dimension(self, key: str, old: DeclaredDimension | None, new: DeclaredDimension | None) -> None:
        if new is None:
            told = "series would change: keep it, records may lack it"
            self._note(key, "removed", Verdict.NO, told)
        elif old is None:
            field_ = (
                "only if no record has ever had the field: otherwise the table has it as a measure, for ever"
            )
            self._note(key, "added", Verdict.CAREFUL, field_)
        else:
            for part in ("bytes", "values", "buckets"):
                was, is_ = getattr(old, part), getattr(new, part)
                if was != is_:
                    first = "replay first: what is replayed later is stored again, in another series"
                    self._note(f"{key}.{part}", _from_to(was, is_), Verdict.CAREFUL, first)
            self._pii(key, old, new)

    def _measure(self, name: str, old: DeclaredMeasure | None, new: DeclaredMeasure | None) -> None:
        key = f"measures.{name}"
        if new is None:
            assert old is not None
            self._removed_measure(key, old)
            return
        known = self._columns.get(name, new.type)
        if known != new.type:
            instead = "a column keeps its type: declare a new name, and let records have both for a while"
            self._note(f"{key}.type", _from_to(known, new.type), Verdict.NO, instead)
        elif old is None and self._old.revision:
            if new.default is not None or self._new.undeclared == EXTRA:
                self._rewrites(key, f"added, {new.type}")
            else:
                kept = "if records had it undeclared, the column keeps the type that it got then"
                self._note(key, f"added, {new.type}", Verdict.YES, kept)
        elif old is not None:
            if repr(old.default) != repr(new.default):  # 1, 1.0 and true are equal
                self._rewrites(f"{key}.default", _from_to(old.default, new.default))
            self._pii(key, old, new)

    def _removed_measure(self, key: str, old: DeclaredMeasure) -> None:
        if self._new.undeclared == COLUMNS and (old.type == "BIGINT") != key.endswith("_count"):
            other = "undeclared, its values would not be of the column's type: keep it"
            self._note(key, "removed", Verdict.NO, other)
        elif self._new.undeclared == EXTRA or old.default is not None:
            self._rewrites(key, "removed")
        else:
            stays = "the column stays, and values of another type go into _extra"
            self._note(key, "removed", Verdict.CAREFUL, stays)

    def _pii(
        self, key: str, old: DeclaredDimension | DeclaredMeasure, new: DeclaredDimension | DeclaredMeasure
    ) -> None:
        if old.pii != new.pii:
            self._note(f"{key}.pii", _from_to(old.pii, new.pii), Verdict.YES, "rows are not touched")


def _from_to(old: Any, new: Any) -> str:
    """Return what was and what is, as the file has it."""
    return " to ".join(_said(value) for value in (old, new))


def _said(value: Any) -> str:
    match value:
        case None | () | 0 if value is not False:
            return "none"
        case bool():
            return str(value).lower()
        case tuple():
            return ", ".join(value)
        case _:
            return str(value)
