"""Reads the records of one WriteRecords request, and holds them to the service's limits.

What is malformed (a value not of its type, a list that is too long, a time that is no number) fails
the whole request with a ValidationException. What is well formed but beyond a limit on dimensions, measures
or size is one rejected record, as the model of RejectedRecordsException says. For names that are reserved AWS
documents neither; they are taken as such a limit.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from hashlib import blake2b
from typing import Any, NamedTuple

from local.timestream.errors import Rejection, ServiceError, invalid

# https://docs.aws.amazon.com/timestream/latest/developerguide/ts-limits.html
MAX_RECORDS = 100
MAX_DIMENSIONS = 128
MAX_MEASURES_PER_RECORD = 256
MAX_DIMENSION_NAME_BYTES = 60
MAX_MEASURE_NAME_BYTES = 256
MAX_VALUE_CHARACTERS = 2048
# "2 KB" is not explained further. Counted here as the service meters writes (names and values as UTF-8, eight
# bytes for a number or a time, one for a boolean), with 2,048 bytes to the pair of kilobytes.
# https://docs.aws.amazon.com/timestream/latest/developerguide/metering-and-pricing.writes.html
MAX_RECORD_BYTES = 2048
RESERVED_NAMES = frozenset({"measure_value", "ts_non_existent_col", "time"})
RESERVED_PREFIXES = ("ts_", "measure_name")

MAX_INT64 = 2**63 - 1
MIN_INT64 = -(2**63)
_MAX_TIME_CHARACTERS = 256
# A table has few names and many records; checking a name again and again would be a fifth of a write.
_REMEMBERED_NAMES = 4096
_INTEGER = re.compile(r"[+-]?[0-9]+", re.ASCII)
_UNIT_NANOSECONDS = {
    "SECONDS": 1_000_000_000,
    "MILLISECONDS": 1_000_000,
    "MICROSECONDS": 1_000,
    "NANOSECONDS": 1,
}


class ColumnType(StrEnum):
    """The types that a stored column has."""

    VARCHAR = "VARCHAR"
    BIGINT = "BIGINT"
    DOUBLE = "DOUBLE"
    BOOLEAN = "BOOLEAN"
    TIMESTAMP = "TIMESTAMP"


type_of_name = {kind.value: kind for kind in ColumnType}
MULTI = "MULTI"
_FIXED_BYTES = {
    ColumnType.BIGINT: 8,
    ColumnType.DOUBLE: 8,
    ColumnType.TIMESTAMP: 8,
    ColumnType.BOOLEAN: 1,
}

Value = str | int | float | bool


class Measure(NamedTuple):
    """One measured value: a tuple, because a write makes a thousand of them.

    Args:
        kind: Its column's type.
        value: The parsed value; a TIMESTAMP is in nanoseconds since 1970.
    """

    kind: ColumnType
    value: Value


@dataclass(frozen=True, slots=True)
class Point:
    """One well-formed record, merged with the request's common attributes.

    Args:
        index: The record's place in the request, from 0.
        time: Nanoseconds since 1970.
        version: At least 1; the higher one is kept.
        measure_name: What was measured.
        measure_type: ``MULTI`` or the one measure's type.
        dimensions: Values by name.
        measures: Measures by column name; a single measure's column is ``measure_value::<type>``.
        size: Bytes, as the service meters them.
    """

    index: int
    time: int
    version: int
    measure_name: str
    measure_type: str
    dimensions: Mapping[str, str]
    measures: Mapping[str, Measure]
    size: int

    def identity(self) -> bytes:
        """Digest what makes this point this point: dimensions, measure name and time.

        Returns:
            Sixteen bytes.
        """
        series = repr((self.time, self.measure_name, sorted(self.dimensions.items())))
        return blake2b(series.encode(), digest_size=16).digest()

    def values(self) -> bytes:
        """Digest what was measured, whatever its order.

        Returns:
            Eight bytes.
        """
        # A column has one type for ever, so that name and value say it all.
        values = repr(sorted([(name, measure.value) for name, measure in self.measures.items()]))
        return blake2b(values.encode(), digest_size=8).digest()


def read_records(records: Sequence[Mapping[str, Any]], common: Mapping[str, Any]) -> list[Point | Rejection]:
    """Read a request's records.

    Args:
        records: ``Records`` of the request, as in its JSON.
        common: ``CommonAttributes`` of the request, or nothing.

    Returns:
        For each record, in order, the point to store or why it cannot be stored.

    Raises:
        ServiceError: ValidationException, for a request of which nothing may be written.
    """
    if not records:
        raise _constraint("records", "Member must have length greater than or equal to 1")
    if len(records) > MAX_RECORDS:
        raise _constraint("records", f"Member must have length less than or equal to {MAX_RECORDS}")
    return [_read_record(index, record, common) for index, record in enumerate(records)]


def _read_record(index: int, record: Mapping[str, Any], common: Mapping[str, Any]) -> Point | Rejection:
    member = f"records.{index + 1}.member"
    merged = {**common, **record}
    dimensions = _read_dimensions(member, record.get("Dimensions") or (), common.get("Dimensions") or ())
    unit = merged.get("TimeUnit", "MILLISECONDS")
    if unit not in _UNIT_NANOSECONDS:
        raise _constraint(
            f"{member}.timeUnit", f"Member must satisfy enum value set: [{', '.join(_UNIT_NANOSECONDS)}]"
        )
    time = _read_time(merged.get("Time"), unit)
    version = merged.get("Version", 1)
    if type(version) is not int or not 1 <= version <= MAX_INT64:
        raise invalid(f"The record version {version} is not valid. It must be 1 or greater.")
    measure_name = merged.get("MeasureName")
    if not isinstance(measure_name, str) or not measure_name:
        raise invalid("A measure name is required for a record.")
    measure_type = merged.get("MeasureValueType", ColumnType.DOUBLE.value)
    given = [*(common.get("MeasureValues") or ()), *(record.get("MeasureValues") or ())]
    measures = (
        _read_measures(member, merged, given, unit)
        if measure_type == MULTI
        else _read_single(member, merged, given, unit)
    )
    try:
        size = _size(dimensions, measure_name, measures)
    except UnicodeEncodeError:
        raise invalid("The record contains a lone surrogate, which is no character of UTF-8.") from None
    point = Point(index, time, version, measure_name, measure_type, dimensions, measures, size)
    reason = _beyond_limits(point)
    return point if reason is None else Rejection(index, reason)


def _read_measures(
    member: str, record: Mapping[str, Any], given: Sequence[Mapping[str, Any]], unit: str
) -> dict[str, Measure]:
    if "MeasureValue" in record or not given:
        raise invalid(f"A record of type {MULTI} must have MeasureValues and no MeasureValue.")
    measures: dict[str, Measure] = {}
    for value in given:
        name = value.get("Name")
        if not isinstance(name, str) or not name:
            raise _constraint(f"{member}.measureValues", "Member must have length greater than or equal to 1")
        if name in measures:
            raise invalid(f"The measure name {name} is given more than once in one record.")
        measures[name] = _read_measure(member, value.get("Type"), value.get("Value"), unit)
    return measures


def _read_single(
    member: str, record: Mapping[str, Any], given: Sequence[Mapping[str, Any]], unit: str
) -> dict[str, Measure]:
    kind = record.get("MeasureValueType", ColumnType.DOUBLE.value)
    # A measure of its own is no TIMESTAMP.
    # https://docs.aws.amazon.com/timestream/latest/developerguide/data-modeling.html
    if kind == ColumnType.TIMESTAMP or given:
        raise invalid(f"A record of type {kind} must have one MeasureValue that is no TIMESTAMP.")
    measure = _read_measure(member, kind, record.get("MeasureValue"), unit)
    return {f"measure_value::{measure.kind.value.lower()}": measure}


def _read_dimensions(
    member: str, own: Sequence[Mapping[str, Any]], common: Sequence[Mapping[str, Any]]
) -> dict[str, str]:
    dimensions: dict[str, str] = {}
    for dimension in (*common, *own):
        name, value = dimension.get("Name"), dimension.get("Value")
        if not isinstance(name, str) or not name:
            raise _constraint(f"{member}.dimensions", "Member must have length greater than or equal to 1")
        # The model allows an empty value; the service refuses it (no source says with which words).
        if not isinstance(value, str) or not value:
            raise invalid(f"The dimension {name} has no value. Dimension values must not be empty.")
        if dimension.get("DimensionValueType", "VARCHAR") != "VARCHAR":
            raise _constraint(
                f"{member}.dimensions.dimensionValueType", "Member must satisfy enum value set: [VARCHAR]"
            )
        # "Dimensions may not overlap, or a ValidationException will be thrown", says the API's model.
        if name in dimensions:
            raise invalid(f"The dimension name {name} is given more than once for one record.")
        dimensions[name] = value
    if not dimensions:
        raise invalid("At least one dimension is required for a record.")
    if len(dimensions) > MAX_DIMENSIONS:
        raise _constraint(
            f"{member}.dimensions", f"Member must have length less than or equal to {MAX_DIMENSIONS}"
        )
    return dimensions


def _read_time(text: object, unit: str) -> int:
    if isinstance(text, str) and len(text) <= _MAX_TIME_CHARACTERS and _INTEGER.fullmatch(text):
        time = int(text) * _UNIT_NANOSECONDS[unit]
        if 0 <= time <= MAX_INT64:
            return time
    raise invalid("Invalid time for record.")


def _read_measure(member: str, kind_name: object, text: object, unit: str) -> Measure:
    kind = type_of_name.get(kind_name) if isinstance(kind_name, str) else None
    if kind is None:
        raise _constraint(
            f"{member}.measureValueType",
            f"Member must satisfy enum value set: [{', '.join(sorted({*type_of_name, MULTI}))}]",
        )
    if not isinstance(text, str) or not text:
        raise _constraint(f"{member}.measureValue", "Member must have length greater than or equal to 1")
    if len(text) > MAX_VALUE_CHARACTERS:
        raise _constraint(
            f"{member}.measureValue", f"Member must have length less than or equal to {MAX_VALUE_CHARACTERS}"
        )
    if kind is ColumnType.VARCHAR:
        return Measure(kind, text)
    value = _read_value(kind, text, unit)
    if value is None:
        raise invalid(f"Invalid measure value for record: {text[:64]!r} is not a valid {kind.value}.")
    return Measure(kind, value)


def _read_value(kind: ColumnType, text: str, unit: str) -> Value | None:
    if kind is ColumnType.DOUBLE:
        return _read_double(text)
    if kind is ColumnType.BOOLEAN:
        return {"true": True, "false": False}.get(text.lower())
    if not _INTEGER.fullmatch(text):
        return None
    number = int(text)
    if kind is ColumnType.TIMESTAMP:
        # In the record's unit, as AWS says in https://github.com/boto/boto3/issues/3138.
        number *= _UNIT_NANOSECONDS[unit]
        return number if 0 <= number <= MAX_INT64 else None
    return number if MIN_INT64 <= number <= MAX_INT64 else None


def _read_double(text: str) -> float | None:
    # Python's float() also takes "1_0", " 1 " and digits of other scripts, which the service does not.
    if not text.isascii() or "_" in text or text.strip() != text:
        return None
    try:
        number = float(text)
    except ValueError:
        return None
    # Finite only: https://docs.aws.amazon.com/timestream/latest/developerguide/supported-data-types.html.
    # That minus zero fails is told by a comment of AWS's own Flink connector (amazon-timestream-tools).
    if not math.isfinite(number) or (number == 0 and math.copysign(1, number) < 0):
        return None
    return number


def _size(dimensions: Mapping[str, str], measure_name: str, measures: Mapping[str, Measure]) -> int:
    size = 8 + len(measure_name.encode())
    for name, text in dimensions.items():
        size += len(name.encode()) + len(text.encode())
    for name, (kind, value) in measures.items():
        size += len(name.encode())
        size += len(value.encode()) if isinstance(value, str) else _FIXED_BYTES[kind]
    return size


def _beyond_limits(point: Point) -> str | None:
    """Say which limit a record is beyond: the reasons' words are ours, AWS documents none."""
    multi = point.measure_type == MULTI
    for name in point.dimensions:
        if fault := _dimension_name_fault(name):
            return fault
    if len(point.measure_name.encode()) > MAX_MEASURE_NAME_BYTES:
        return f"The measure name {point.measure_name} is longer than {MAX_MEASURE_NAME_BYTES} bytes."
    if len(point.measures) > MAX_MEASURES_PER_RECORD:
        return f"The record has {len(point.measures)} measures. The limit is {MAX_MEASURES_PER_RECORD}."
    for name in point.measures if multi else ():
        if fault := _measure_name_fault(name):
            return fault
        if name in point.dimensions:
            return f"The name {name} is used for a dimension and for a measure."
    if point.size > MAX_RECORD_BYTES:
        return f"The record is {point.size} bytes. The limit is {MAX_RECORD_BYTES} bytes."
    return None


@lru_cache(_REMEMBERED_NAMES)
def _dimension_name_fault(name: str) -> str | None:
    # That a colon and the prefix "measure_value" are not allowed is said at
    # https://docs.aws.amazon.com/iot/latest/apireference/API_TimestreamDimension.html.
    if ":" in name or _reserved(name) or name.startswith("measure_value"):
        return f"The dimension name {name} is reserved or contains a character that is not allowed."
    if len(name.encode()) > MAX_DIMENSION_NAME_BYTES:
        return f"The dimension name {name} is longer than {MAX_DIMENSION_NAME_BYTES} bytes."
    return None


@lru_cache(_REMEMBERED_NAMES)
def _measure_name_fault(name: str) -> str | None:
    if ":" in name or _reserved(name):
        return f"The measure name {name} is reserved or contains a character that is not allowed."
    if len(name.encode()) > MAX_MEASURE_NAME_BYTES:
        return f"The measure name {name} is longer than {MAX_MEASURE_NAME_BYTES} bytes."
    return None


def _reserved(name: str) -> bool:
    return name in RESERVED_NAMES or name.startswith(RESERVED_PREFIXES)


def _constraint(member: str, text: str) -> ServiceError:
    return invalid(f"1 validation error detected: Value at '{member}' failed to satisfy constraint: {text}")
