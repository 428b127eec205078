"""Reads the records of one WriteRecords request, and holds them to the service's limits.

What is malformed (a value not of its type, a list that is too long, a time that is not a number) fails
the whole request with a ValidationException. What is well formed but beyond a limit on dimensions, measures
or size is one rejected record, as in the model of RejectedRecordsException. For names that are reserved AWS
documents neither; they are taken as such a limit.
"""

import math
import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from functools import lru_cache
from hashlib import blake2b
from typing import Any, NamedTuple

from onemachine.presto.errors import ServiceError, invalid
from onemachine.timestream.errors import Rejection

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
# A table has few shapes and many records; checking names again and again would be a fifth of a write.
_REMEMBERED_SHAPES = 1024
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
_FIXED_BYTES = {"BIGINT": 8, "DOUBLE": 8, "TIMESTAMP": 8, "BOOLEAN": 1}

Value = str | int | float | bool


class Shape(NamedTuple):
    """What records have in common that differ in their values only: a table knows few shapes.

    Args:
        measure_name: What was measured.
        measure_type: `MULTI` or the one measure's type.
        dimensions: The dimensions' names, in the record's order.
        measures: The measures' columns, in its order; a single measure's is `measure_value::<type>`.
        kinds: The names of the measures' types.
    """

    measure_name: str
    measure_type: str
    dimensions: tuple[str, ...]
    measures: tuple[str, ...]
    kinds: tuple[str, ...]


class Point(NamedTuple):
    """One well-formed record, merged with the request's common attributes: a tuple, as there are many.

    Args:
        place: The record's place in the request, from 0.
        time: Nanoseconds since 1970.
        version: At least 1; the higher one is kept.
        shape: Its names and types.
        dimensions: The dimensions' values, in the shape's order.
        measures: The measures' values, in the shape's order; a TIMESTAMP is in nanoseconds since 1970.
        size: Bytes, as the service meters them.
    """

    place: int
    time: int
    version: int
    shape: Shape
    dimensions: tuple[str, ...]
    measures: tuple[Value, ...]
    size: int

    def identity(self) -> bytes:
        """Digest what makes this point this point: dimensions, measure name and time.

        Returns:
            Sixteen bytes.
        """
        named = sorted(zip(self.shape.dimensions, self.dimensions, strict=True))
        return blake2b(repr((self.time, self.shape.measure_name, named)).encode(), digest_size=16).digest()

    def values(self) -> bytes:
        """Digest what was measured, whatever its order.

        Returns:
            Eight bytes.
        """
        # A column has one type for ever, so that name and value are enough.
        values = repr(sorted(zip(self.shape.measures, self.measures, strict=True)))
        return blake2b(values.encode(), digest_size=8).digest()


def read_records(records: Sequence[Mapping[str, Any]], common: Mapping[str, Any]) -> list[Point | Rejection]:
    """Read a request's records.

    Args:
        records: `Records` of the request, as in its JSON.
        common: `CommonAttributes` of the request, or nothing.

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
    try:
        if measure_type == MULTI:
            names, kinds, values, size = _read_measures(member, merged, given, unit)
        else:
            names, kinds, values, size = _read_single(member, merged, given, unit)
        size += 8 + _bytes(measure_name)
        for name, text in dimensions.items():
            size += _bytes(name) + _bytes(text)
    except UnicodeEncodeError:
        raise invalid("The record contains a lone surrogate, which UTF-8 cannot encode.") from None
    shape = Shape(measure_name, measure_type, tuple(dimensions), names, kinds)
    reason = _shape_fault(shape)
    if reason is None and size > MAX_RECORD_BYTES:
        reason = f"The record is {size} bytes. The limit is {MAX_RECORD_BYTES} bytes."
    if reason is not None:
        return Rejection(index, reason)
    return Point(index, time, version, shape, tuple(dimensions.values()), values, size)


# Names, types, values, and the bytes of all of them.
_Measures = tuple[tuple[str, ...], tuple[str, ...], tuple[Value, ...], int]


def _read_measures(
    member: str, record: Mapping[str, Any], given: Sequence[Mapping[str, Any]], unit: str
) -> _Measures:
    if "MeasureValue" in record or not given:
        raise invalid(f"A record of type {MULTI} must have MeasureValues and no MeasureValue.")
    values: dict[str, Value] = {}
    kinds = []
    size = 0
    for measure in given:
        name, kind = measure.get("Name"), measure.get("Type")
        if not isinstance(name, str) or not name:
            raise _constraint(f"{member}.measureValues", "Member must have length greater than or equal to 1")
        if name in values:
            raise invalid(f"The measure name {name} is given more than once in one record.")
        kind, value = _read_measure(member, kind, measure.get("Value"), unit)
        values[name] = value
        kinds.append(kind)
        size += _bytes(name) + (_bytes(value) if isinstance(value, str) else _FIXED_BYTES[kind])
    return tuple(values), tuple(kinds), tuple(values.values()), size


def _read_single(
    member: str, record: Mapping[str, Any], given: Sequence[Mapping[str, Any]], unit: str
) -> _Measures:
    kind = record.get("MeasureValueType", ColumnType.DOUBLE.value)
    # A single measure cannot be a TIMESTAMP.
    # https://docs.aws.amazon.com/timestream/latest/developerguide/data-modeling.html
    if kind == ColumnType.TIMESTAMP or given:
        raise invalid(f"A record of type {kind} must have one MeasureValue that is not a TIMESTAMP.")
    kind, value = _read_measure(member, kind, record.get("MeasureValue"), unit)
    name = f"measure_value::{kind.lower()}"
    size = len(name) + (_bytes(value) if isinstance(value, str) else _FIXED_BYTES[kind])
    return (name,), (kind,), (value,), size


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _read_dimensions(
    member: str, own: Sequence[Mapping[str, Any]], common: Sequence[Mapping[str, Any]]
) -> dict[str, str]:
    dimensions: dict[str, str] = {}
    for dimension in (*common, *own):
        name, value = dimension.get("Name"), dimension.get("Value")
        if not isinstance(name, str) or not name:
            raise _constraint(f"{member}.dimensions", "Member must have length greater than or equal to 1")
        # The model allows an empty value; the service refuses it (no source documents its words).
        if not isinstance(value, str) or not value:
            raise invalid(f"The dimension {name} has no value. Dimension values must not be empty.")
        if dimension.get("DimensionValueType", "VARCHAR") != "VARCHAR":
            raise _constraint(
                f"{member}.dimensions.dimensionValueType", "Member must satisfy enum value set: [VARCHAR]"
            )
        # "Dimensions may not overlap, or a ValidationException will be thrown", in the API's model.
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


def _read_measure(member: str, kind: object, text: object, unit: str) -> tuple[str, Value]:
    if not isinstance(kind, str) or kind not in type_of_name:
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
    if kind == "VARCHAR":
        return kind, text
    value = _read_value(kind, text, unit)
    if value is None:
        raise invalid(f"Invalid measure value for record: {text[:64]!r} is not a valid {kind}.")
    return kind, value


def _read_value(kind: str, text: str, unit: str) -> Value | None:
    if kind == "DOUBLE":
        return _read_double(text)
    if kind == "BOOLEAN":
        return {"true": True, "false": False}.get(text.lower())
    if not _INTEGER.fullmatch(text):
        return None
    number = int(text)
    if kind == "TIMESTAMP":
        # In the record's unit, as AWS describes in https://github.com/boto/boto3/issues/3138.
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
    # A comment in AWS's own Flink connector shows that minus zero fails (amazon-timestream-tools).
    if not math.isfinite(number) or (number == 0 and math.copysign(1, number) < 0):
        return None
    return number


@lru_cache(_REMEMBERED_SHAPES)
def _shape_fault(shape: Shape) -> str | None:
    """Say which limit a record's names are beyond: the reasons' words are ours, AWS documents none."""
    for name in shape.dimensions:
        if fault := _dimension_name_fault(name):
            return fault
    if len(shape.measure_name.encode()) > MAX_MEASURE_NAME_BYTES:
        return f"The measure name {shape.measure_name} is longer than {MAX_MEASURE_NAME_BYTES} bytes."
    if len(shape.measures) > MAX_MEASURES_PER_RECORD:
        return f"The record has {len(shape.measures)} measures. The limit is {MAX_MEASURES_PER_RECORD}."
    for name in shape.measures if shape.measure_type == MULTI else ():
        if fault := _measure_name_fault(name):
            return fault
        if name in shape.dimensions:
            return f"The name {name} is used for a dimension and for a measure."
    return None


def _dimension_name_fault(name: str) -> str | None:
    # That a colon and the prefix "measure_value" are not allowed is documented at
    # https://docs.aws.amazon.com/iot/latest/apireference/API_TimestreamDimension.html.
    if ":" in name or _reserved(name) or name.startswith("measure_value"):
        return f"The dimension name {name} is reserved or contains a character that is not allowed."
    if len(name.encode()) > MAX_DIMENSION_NAME_BYTES:
        return f"The dimension name {name} is longer than {MAX_DIMENSION_NAME_BYTES} bytes."
    return None


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
