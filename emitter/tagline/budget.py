"""The size of a line: CloudWatch cuts longer ones, and their second half has no tag."""

from __future__ import annotations

import os

from .annotations import TYPE_CHECKING, Any, Optional
from .record import field_name
from .values import encode, repr_of

if TYPE_CHECKING:
    from .metrics import Metrics

MIN_LINE_BYTES = 1_000
# Lambda's lines were cut at 262,119 bytes: github.com/DataDog/datadog-serverless-functions/pull/462.
MAX_LINE_BYTES = 262_118
DEFAULT_MAX_LINE_BYTES = 200_000
# Docker hands on 16 KB at a time, and not every log driver joins them: github.com/moby/moby/issues/41794.
DEFAULT_OUTSIDE_LAMBDA = 16_000
MAX_NAME_BYTES = 200  # of a tag, a type and an id each; a row cannot hold a longer id


def line_budget(chosen: Optional[int], *, is_in_lambda: bool) -> int:
    """Return the longest line in bytes: what was chosen, or `TAGLINE_MAX_LINE_BYTES`, or the default.

    Raises:
        ValueError: If what was chosen is not between 1,000 and 262,118.
    """
    if chosen is None:
        default = DEFAULT_MAX_LINE_BYTES if is_in_lambda else DEFAULT_OUTSIDE_LAMBDA
        setting = whole_number(os.environ.get("TAGLINE_MAX_LINE_BYTES"), default)
        return max(MIN_LINE_BYTES, min(setting, MAX_LINE_BYTES))
    if not MIN_LINE_BYTES <= chosen <= MAX_LINE_BYTES:
        raise ValueError(f"max_line_bytes is {chosen}; choose {MIN_LINE_BYTES} to {MAX_LINE_BYTES}")
    return chosen


def whole_number(text: Optional[str], default: int) -> int:
    """Return a setting's number, or the default if there is none or it cannot be read."""
    try:
        return int(text or default)
    except ValueError:
        return default


def short_name(value: object) -> str:
    """Return a tag, type or id, escaped for JSON; over-long values are cut and end in a digest."""
    text = value if isinstance(value, str) else repr_of(value, str)
    name = encode(text)[1:-1]
    if len(name) <= MAX_NAME_BYTES:
        return name
    from hashlib import blake2b

    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return encode(_cut(text, name + '""', MAX_NAME_BYTES + 1 - len(digest)))[1:-1] + "~" + digest


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
        spare -= len(line) - budget
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
