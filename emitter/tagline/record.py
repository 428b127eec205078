"""A record and its line, in both directions. docs/reference/line.md describes the format."""

from __future__ import annotations

import json

from .annotations import Any, Fields, Mapping, Optional
from .values import (
    DEFAULT_TAG,
    DEFAULT_TYPE,
    RESERVED,
    encode,
    field_key,
    field_name,
    format_timestamp,
    parse_timestamp,
    repr_of,
    to_json,
)


class UnreadableLineError(ValueError):
    """A line that should be a record and cannot be parsed as one; the message has the reason."""


class Record:
    """The content of one line. Immutable.

    It is not a dataclass: importing `dataclasses` takes longer than importing the emitter.

    Args:
        id: Unique per record, and the same for every copy of it.
        timestamp: When the request reached the handler, in milliseconds since 1970-01-01T00:00:00Z.
        fields: The user's own fields by name.
        type: Kind of record; it becomes the store's measure name.
        tag: The token that the subscription filter looks for.
        level: What the platform's level filter needs to let the line through.
        src: The emitter that wrote the line, unique per execution environment.
        seq: The line's number among those with its tag in `src`, from 0: a gap is a lost line.
        trunc: Names of the fields that were shortened to keep the line in its budget.
    """

    id: str
    timestamp: int
    fields: Mapping[str, Any]
    type: str
    tag: str
    level: str
    src: Optional[str]
    seq: Optional[int]
    trunc: tuple[str, ...]

    def __init__(  # noqa: PLR0917 - in the order of the line
        self,
        id: str,
        timestamp: int,
        fields: Optional[Fields] = None,
        type: str = DEFAULT_TYPE,
        tag: str = DEFAULT_TAG,
        level: str = "INFO",
        src: Optional[str] = None,
        seq: Optional[int] = None,
        trunc: tuple[str, ...] = (),
    ) -> None:
        fields = {} if fields is None else fields
        self.__dict__.update(id=id, timestamp=timestamp, fields=fields, type=type, tag=tag, level=level)
        self.__dict__.update(src=src, seq=seq, trunc=trunc)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a Record is immutable; record.replace({name}=...) returns a changed copy")

    def __eq__(self, other: object) -> bool:
        return vars(self) == vars(other) if isinstance(other, Record) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # its fields are a dict

    def __repr__(self) -> str:
        return f"Record({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"

    def __reduce__(self) -> tuple[Any, ...]:
        return Record, tuple(vars(self).values())

    def replace(self, **changes: Any) -> Record:
        """Return a copy with other values for some of the attributes."""
        return Record(**{**vars(self), **changes})

    def to_line(self) -> str:
        """Return the record as one line of ASCII JSON, without the newline.

        Values that JSON has no form for become text; NaN and infinities become null.
        """
        return encode(to_json(self.to_json()))

    def to_json(self) -> dict[str, Any]:
        """Return the line's object: the tag first, the user's fields last."""
        line: dict[str, Any] = {"_tag": self.tag, "timestamp": format_timestamp(self.timestamp)}
        line.update(level=self.level, _type=self.type, _id=self.id)
        if self.src is not None:
            line["_src"] = self.src
        if self.seq is not None:
            line["_seq"] = self.seq
        if self.trunc:
            line["_trunc"] = [str(name) for name in self.trunc]
        line.update((field_key(name), value) for name, value in self.fields.items())
        return line

    @classmethod
    def from_line(cls, line: str) -> Record:
        """Parse a line that `to_line` or an emitter wrote.

        Raises:
            UnreadableLineError: If the line is not one JSON object, or not a record.
        """
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UnreadableLineError(f"not JSON: {error}") from None
        if not isinstance(value, dict):
            raise UnreadableLineError(f"a JSON {value.__class__.__name__}, not an object")
        return cls.from_json(value)

    @classmethod
    def from_json(
        cls, line: Fields, *, default_id: str = "", default_timestamp: Optional[int] = None
    ) -> Record:
        """Parse a record from a line's JSON object. Keys of the format that are not known are left out.

        Args:
            line: The object on the line.
            default_id: The id of a line without `_id` (lines of other loggers have none).
            default_timestamp: The time of a line without a readable `timestamp`, in milliseconds since 1970.

        Raises:
            UnreadableLineError: If the tag, the id or the time is missing or of the wrong type.
        """
        named = {"_tag": line.get("_tag"), "_id": line.get("_id", default_id)}
        named["_type"] = line.get("_type", DEFAULT_TYPE)
        for key, value in named.items():
            if not isinstance(value, str) or not value:
                raise UnreadableLineError(f"{key} is {repr_of(value)}, not a text of at least one character")
        timestamp = parse_timestamp(line.get("timestamp"))
        timestamp = default_timestamp if timestamp is None else timestamp
        if timestamp is None:
            raise UnreadableLineError(f"timestamp is {repr_of(line.get('timestamp'))}, not RFC 3339")
        level, src, seq, trunc = (line.get(key) for key in ("level", "_src", "_seq", "_trunc"))
        return cls(
            id=named["_id"],
            timestamp=timestamp,
            fields={
                field_name(key): value
                for key, value in line.items()
                if key not in RESERVED and (not key.startswith("_") or key.endswith("_"))
            },
            type=named["_type"],
            tag=named["_tag"],
            level=level if isinstance(level, str) else "INFO",
            src=src if isinstance(src, str) else None,
            seq=seq if isinstance(seq, int) and not isinstance(seq, bool) else None,
            trunc=tuple(str(name) for name in trunc) if isinstance(trunc, list) else (),
        )


def write(record: Record) -> str:
    """Return `record.to_line()`; the older name."""
    return record.to_line()


def read(line: str) -> Record:
    """Return `Record.from_line(line)`; the older name."""
    return Record.from_line(line)
