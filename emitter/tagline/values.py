"""What values become: anything that a record may hold, as plain JSON values and as JSON text."""

from __future__ import annotations

import json
import sys
from collections import deque
from enum import Enum
from itertools import count

from .annotations import TYPE_CHECKING, Any, Callable, Optional

if TYPE_CHECKING:
    from .privacy import Privacy

# Lists and objects that are nested deeper are cut, and so are more than this many in one record.
MAX_DEPTH = 32
MAX_CONTAINERS = 100_000
# An object may become another one that needs converting in turn (a model with a model's dump), this often.
MAX_CONVERSIONS = 8
# Longest text of an object that JSON has no form for, in characters.
MAX_REPR = 1_000
_MAX_DECIMAL_DIGITS = 40  # DynamoDB's numbers have 38; a Decimal of a billion digits would take hours

# ASCII, no space, no NaN. It raises for whatever `to_json_value` would have to convert.
encode = json.JSONEncoder(check_circular=False, allow_nan=False, separators=(",", ":")).encode

_PLAIN = (str, int, float, bool, type(None), dict, list, tuple)


def repr_of(value: Any, text: Callable[[Any], str] = repr) -> str:
    """Return a value's text, at most 1,000 characters, or its class's name if it has none."""
    try:
        return str(text(value))[:MAX_REPR]
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # a panic in a Rust extension is not an Exception
        return f"<{type(value).__name__}>"


def to_json_value(value: Any, privacy: Optional[Privacy] = None) -> Any:
    """Return a copy of a value that consists of plain JSON values only, masked by the rules if there are some.

    A value that fails when it is converted becomes its class's name, in `<>`. So does one inside itself.
    """
    containers = count(1)

    def convert(value: Any, above: tuple[int, ...], depth: int) -> Any:
        original, above = value, (*above, id(value))
        try:
            for _ in range(MAX_CONVERSIONS):
                if type(value) in _PLAIN:
                    break
                value = _simplify(value)
            if isinstance(value, str):
                return privacy.text(value) if privacy else value
            if isinstance(value, (dict, list, tuple)):
                if id(original) in above[:-1] or depth > MAX_DEPTH or next(containers) > MAX_CONTAINERS:
                    return f"<{type(original).__name__}>"
                if isinstance(value, dict):
                    return convert_object(value, above, depth)
                return convert_list(value, above, depth)
            return _number(value)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:  # a panic in a Rust extension is not an Exception
            return f"<{type(original).__name__}>"

    def convert_object(value: dict[Any, Any], above: tuple[int, ...], depth: int) -> dict[str, Any]:
        converted = {}
        for name, item in list(value.items()):
            key = str.__str__(name) if isinstance(name, str) else repr_of(name, str)
            rule = privacy.rule(name) if privacy else None
            if rule is None:
                converted[privacy.text(key) if privacy else key] = convert(item, above, depth + 1)
            elif rule is not drop:
                converted[privacy.text(key) if privacy else key] = rule(item)
        return converted

    def convert_list(value: Any, above: tuple[int, ...], depth: int) -> list[Any]:
        items = list(value)
        # A header or a parameter: a name and a value.
        if privacy and len(items) == 2 and isinstance(items[0], (str, bytes)):  # noqa: PLR2004
            rule = privacy.rule(items[0])
            if rule is not None:
                return [convert(items[0], above, depth + 1), rule(items[1])]
        return [convert(item, above, depth + 1) for item in items]

    return convert(value, (), 0)


def drop(value: Any) -> Any:  # noqa: ARG001 - the signature of every rule
    """Stand for the rule that leaves a field out."""
    return None


def _number(value: Any) -> Any:
    """Return a number, boolean or None as JSON can hold it; it raises for more digits than Python writes."""
    if isinstance(value, float):
        return value if value - value == 0 else None  # infinite, or not a number
    if isinstance(value, int) and value.bit_length() > 64:  # noqa: PLR2004 - what is longer may be too long
        str(value)
    return value


def _simplify(value: Any) -> Any:  # noqa: C901, PLR0912 - a table of types
    """Return a simpler value for one that JSON has no form for.

    Types of other libraries are recognised by their methods, so that nothing is imported for them.
    """
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, dict):
        return dict(value)
    if isinstance(value, (list, tuple, set, frozenset, deque)):
        return list(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).decode("utf-8", "backslashreplace")
    decimal = sys.modules.get("decimal")
    if decimal and isinstance(value, decimal.Decimal):
        return _decimal(value)
    if not isinstance(value, type):
        if hasattr(value, "isoformat"):
            return str(value.isoformat())
        if hasattr(value, "model_dump"):  # pydantic
            return value.model_dump()
        if hasattr(value, "__dataclass_fields__"):
            return {name: getattr(value, name, None) for name in value.__dataclass_fields__}
        if hasattr(value, "dtype") and hasattr(value, "tolist"):  # numpy
            return value.tolist()
        if hasattr(value, "keys") and hasattr(value, "__getitem__"):  # headers, rows, environ
            return {name: value[name] for name in value.keys()}  # noqa: SIM118 - not all are iterable
    return repr_of(value, str)


def _decimal(value: Any) -> Any:
    """Return a Decimal, which is what boto3 makes of DynamoDB's numbers, as a number."""
    if not value.is_finite():
        return None
    if value.adjusted() < _MAX_DECIMAL_DIGITS and value == value.to_integral_value():
        return int(value)
    number = float(value)
    return number if number - number == 0 else str(value)[:MAX_REPR]
