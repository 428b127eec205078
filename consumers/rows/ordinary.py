"""Ordinary lines, for which no store needs a row first: those that the emitter writes nearly always. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple, TypeVar

from consumers.lines.extract import HEAD, has_plain_names
from consumers.rows.table import FIXED, MAX_ID_BYTES, Plan, Plans, Type, UnmappableError

# Different sets of columns, and of dimensions, that a packer remembers: some megabytes.
MAX_KNOWN: Final = 1_000

_Known = TypeVar("_Known")


class OrdinaryKeys(NamedTuple):
    """What follows from an ordinary line's keys: the same as others of its type with these.

    Attributes:
        record_type: The table's name of the type.
        plan: What becomes of the type's fields.
        columns: The columns of the fields, each with its types by a value's class.
        dimensions: The fields that are dimensions.
        has_nulls: Whether the line has a null.
    """

    record_type: str
    plan: Plan
    columns: Mapping[str, tuple[str, Mapping[type, Type]]]
    dimensions: list[str]
    has_nulls: bool


def ordinary_keys(line: Mapping[str, Any], plans: Plans) -> OrdinaryKeys | None:
    """Return what follows from a line's keys, or None if its row has more than a measure for each field.

    Args:
        line: The line's object, which carries the tag.
        plans: What is declared of records.
    """
    # CloudWatch's envelope for metrics is not a field.
    names = [name for name in line if name != "_aws"]
    if not has_plain_names(names):
        return None
    try:
        type_, plan = plans.of(line["_type"])
    except UnmappableError:
        return None
    dimensions = {field for field, _, _, _ in plan.dimensions}
    fields = [name for name in names[len(HEAD) :] if name not in dimensions]
    found = {name: plan.column(name) for name in fields}
    columns = {name: column for name, column in found.items() if column is not None}
    if not fields or len(columns) < len(fields) or len(FIXED) + len(fields) > plan.room:
        return None
    own = [name for name in names if name in dimensions]
    return OrdinaryKeys(type_, plan, columns, own, None in line.values())


def has_plain_head(line: Mapping[str, Any]) -> bool:
    """Return whether the identity of a line with ordinary keys is short, and the line is numbered."""
    identity = line["_id"]
    return (
        len(identity) <= MAX_ID_BYTES
        and identity.isascii()
        and line["_src"].__class__ is str
        and line["_seq"].__class__ is int
    )


def remember(known: dict[Any, _Known], key: Any, found: _Known) -> _Known:
    """Keep what was found, and return it; the cache is cleared when it is full."""
    if len(known) >= MAX_KNOWN:
        known.clear()
    known[key] = found
    return found
