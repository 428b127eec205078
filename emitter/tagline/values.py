"""What values become: plain JSON values, and JSON text."""

from __future__ import annotations

import json
import sys
from collections import deque
from enum import Enum
from itertools import count

from .annotations import TYPE_CHECKING, Any, Callable, Optional

if TYPE_CHECKING:
    from .privacy import Privacy

MAX_DEPTH = 32  # lists and objects that are nested deeper are cut
MAX_CONTAINERS = 100_000  # so are more than this many in one record: objects that refer to each other
MAX_CONVERSIONS = 8  # a model may become a dict of another class, which has to be converted in turn
MAX_REPR = 1_000  # longest text of an object that JSON has no form for, in characters
_MAX_DIGITS = 40  # DynamoDB's numbers have 38; writing out Decimal("1E999999999") would take hours
_JSON_TYPES = frozenset([str, int, float, bool, type(None), dict, list])

# ASCII, no space, no NaN. It raises for whatever `to_json` would have to convert.
encode = json.JSONEncoder(check_circular=False, allow_nan=False, separators=(",", ":")).encode


def repr_of(value: Any, text: Callable[[Any], str] = repr) -> str:
    """Return a value's text, at most 1,000 characters, or the name of its class if it has none."""
    try:
        return str(text(value))[:MAX_REPR]
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # a panic in a Rust extension is not an Exception
        return f"<{type(value).__name__}>"


def as_dict(fields: Any) -> dict[Any, Any]:
    """Return a copy of fields as a dict. Anything that is not a mapping is kept under the key `fields`."""
    try:
        return dict(fields or ())
    except Exception:
        return {"fields": fields}


def to_json(value: Any, privacy: Optional[Privacy] = None) -> Any:
    """Return a copy of a value that consists of plain JSON values only, with secrets masked by the rules.

    A value that fails when it is converted, or that is inside itself, becomes the name of its class, in `<>`.
    """
    return _Conversion(privacy).convert(value, (), 0)


class _Conversion:
    def __init__(self, privacy: Optional[Privacy]) -> None:
        self._privacy = privacy
        self._containers = count(1)

    def convert(self, value: Any, above: tuple[int, ...], depth: int) -> Any:
        kind, original = type(value), value
        try:
            for _ in range(MAX_CONVERSIONS):
                if kind in _JSON_TYPES:
                    break
                value = _simplify(value)
                kind = type(value)
            if kind is str:
                return self._privacy.text(value) if self._privacy else value
            if kind is dict or kind is list:
                key = id(original)
                if key not in above and depth <= MAX_DEPTH and next(self._containers) <= MAX_CONTAINERS:
                    convert = self._object if kind is dict else self._list
                    return convert(value, (*above, key), depth + 1)
            elif kind in _JSON_TYPES:
                return _number(value)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:  # noqa: S110 - a panic in a Rust extension is not an Exception
            pass
        return f"<{type(original).__name__}>"

    def _object(self, value: dict[Any, Any], above: tuple[int, ...], depth: int) -> dict[str, Any]:
        converted, privacy = {}, self._privacy
        for name, item in list(value.items()):
            key = str.__str__(name) if isinstance(name, str) else repr_of(name, str)
            rule = privacy.rule(name) if privacy else None
            if rule is not drop:
                key = privacy.text(key) if privacy else key
                converted[key] = self.convert(item, above, depth) if rule is None else rule(item)
        return converted

    def _list(self, value: list[Any], above: tuple[int, ...], depth: int) -> list[Any]:
        rule = self._privacy.pair_rule(value) if self._privacy else None
        if rule is not None:
            return [self.convert(value[0], above, depth), rule(value[1])]
        return [self.convert(item, above, depth) for item in value]


def drop(_value: Any) -> None:
    """Stand for the rule that leaves a field out."""


def _number(value: Any) -> Any:
    """Return a number, boolean or None as JSON can hold it; it raises for more digits than Python writes."""
    if isinstance(value, float):
        return value if value - value == 0 else None  # infinite, or not a number
    if isinstance(value, int) and value.bit_length() > 64:  # noqa: PLR2004 - shorter ones are short enough
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
    if value.is_finite() and value.adjusted() < _MAX_DIGITS and value == value.to_integral_value():
        return int(value)
    return float(value)
