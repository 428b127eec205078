"""Shorten lines and names that are too long. Imported lazily, for the first of them."""

from __future__ import annotations

from .annotations import TYPE_CHECKING, Any, Optional
from .values import encode, field_name

if TYPE_CHECKING:
    from .metrics import Metrics


def shorten_name(text: str, name: str, allowed: int) -> str:
    """Return a name, escaped for JSON, that is cut and ends in a digest of the whole.

    Args:
        text: The name.
        name: The same, escaped for JSON.
        allowed: Longest result in bytes.
    """
    from hashlib import blake2b

    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    # `_cut` counts two quotes, which are taken off again; the `~` is one byte.
    return encode(_cut(text, name + '""', allowed + 1 - len(digest)))[1:-1] + "~" + digest


def shorten(
    start: str, fields: dict[str, Any], budget: int, *, metrics: Optional[Metrics], time_ms: int, now: int
) -> str:
    """Return a line, and its newline, with its largest values cut to one length, so that it fits the budget.

    Args:
        start: The line's beginning, with the format's keys.
        fields: The user's fields as plain JSON values.
        budget: Longest line in bytes.
        metrics: Which fields are metrics, unless they are cut.
        time_ms: The record's time, in milliseconds since 1970.
        now: The time now.
    """
    texts = {key: encode(value) for key, value in fields.items()}
    # What the values may take; each key also has a colon and a comma.
    spare = budget - len(start) - sum(len(encode(key)) + 2 for key in fields)
    while spare > 0:
        allowed = _allowed([len(text) for text in texts.values()], spare)
        trunc = [key for key, text in texts.items() if len(text) > allowed]
        whole = {key: fields[key] for key in fields.keys() - trunc}
        short = {**fields, **{key: _cut(fields[key], texts[key], allowed) for key in trunc}}
        envelope = metrics.envelope(whole, time_ms, now) if metrics else ""
        names = encode([field_name(key) for key in trunc])
        line = f'{start},"_trunc":{names}{envelope},{encode(short)[1:]}'
        if len(line) <= budget:
            return line + "\n"
        spare -= len(line) - budget  # `_trunc` and the metrics take room too
    return f'{start},"_trunc":["*"]}}\n'  # even the names are too many


def _allowed(sizes: list[int], room: int) -> int:
    """Return the length that, put as a limit on every size, makes their sum at most the room."""
    left = len(sizes)
    for size in sorted(sizes):
        if size * left > room:
            return room // left
        room -= size
        left -= 1
    return max(sizes, default=0)


def _cut(value: Any, text: str, allowed: int) -> str:
    """Return the beginning of a value, whose JSON is the text, as text whose JSON takes at most `allowed`."""
    start = value if isinstance(value, str) else text
    # A character takes up to twelve bytes: cut in proportion, then until it fits.
    start = start[: max(0, len(start) * (allowed - 2) // len(text))]
    while start and len(encode(start)) > allowed:
        start = start[: len(start) * 9 // 10]
    return start
