"""What is in quarantine, and in what order: objects and their lines, as a terminal can show them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from rich.console import Console
from rich.table import Column
from rich.text import Text

from cli.errors import CommandError
from cli.screen import FoldingTable, printable
from cli.target import Target
from consumers.lines import quarantine
from consumers.lines.quarantine import Kept, ObjectKey, UnreadableQuarantineError

SHORT = 200  # characters of a line on a terminal


@dataclass(frozen=True, slots=True)
class ArrivalDays:
    """Days on which Kinesis records arrived, both inclusive; None is without end."""

    first: date | None
    last: date | None

    def __contains__(self, day: date) -> bool:
        """Return whether a day is one of them."""
        return (self.first is None or self.first <= day) and (self.last is None or day <= self.last)


EVER = ArrivalDays(None, None)


def list_objects(
    target: Target, days: ArrivalDays, reasons: Collection[str] = ()
) -> Iterator[tuple[str, ObjectKey]]:
    """Yield the keys of the objects that arrived on some days, with what is in the keys.

    Args:
        target: The pipeline.
        days: Days on which their Kinesis records arrived.
        reasons: Only these; all if there are none.
    """
    bucket = target.bucket()
    # Listing by reason skips the others without reading their names.
    for prefix in sorted(f"{quarantine.PREFIX}{reason}/" for reason in reasons) or [quarantine.PREFIX]:
        for key in bucket.keys(prefix):
            try:
                place = quarantine.parse_key(key)
            except UnreadableQuarantineError:
                continue  # Not written by Tagline.
            if place.day in days:
                yield key, place


def read_object(target: Target, key: str) -> bytes:
    """Return an object.

    Raises:
        CommandError: If the object does not exist.
    """
    content = target.bucket().get(key) if key.startswith(quarantine.PREFIX) else None
    if content is None:
        raise CommandError(
            f"nothing is in quarantine under {key or 'an empty key'}",
            "tagline quarantine ls --keys has the keys",
        )
    return content


def summarize(
    target: Target, days: ArrivalDays, reasons: Collection[str], *, by_key: bool
) -> list[dict[str, Any]]:
    """Return what is kept: by day and reason, or by object, with counts and the first line's detail.

    `lines` counts a line once for a day and reason, also where a second delivery kept it twice.
    """
    rows: dict[Any, dict[str, Any]] = {}
    seen: dict[Any, set[tuple[str, str]]] = {}
    for key, place in list_objects(target, days, reasons):
        group = key if by_key else (place.day, place.reason)
        row = rows.setdefault(
            group,
            {
                **({"key": key} if by_key else {"day": place.day.isoformat(), "reason": place.reason}),
                "objects": 0,
                "lines": 0,
                "detail": "",
            },
        )
        row["objects"] += 1
        try:
            for kept in quarantine.read(read_object(target, key)):
                seen.setdefault(group, set()).add(kept.identity)
                row["detail"] = row["detail"] or kept.detail
        except UnreadableQuarantineError as error:
            row["detail"] = row["detail"] or f"unreadable: {error}"
        row["lines"] = len(seen.get(group, ()))
    return [rows[group] for group in sorted(rows, key=str)]


def summary_table(rows: list[dict[str, Any]]) -> FoldingTable:
    """Return a summary by day and reason as a table."""
    numbers = (Column(name, justify="right") for name in ("objects", "lines"))
    shown = FoldingTable("day", "reason", *numbers, "first detail")
    for row in rows:
        shown.add_row(
            row["day"],
            row["reason"],
            f"{row['objects']:,}",
            f"{row['lines']:,}",
            shortened(row["detail"]),
        )
    return shown


def in_short(row: dict[str, Any]) -> str:
    """Return the line below an object's key: how many lines it has, and what is wrong with the first."""
    return f"{row['lines']:,} line{'' if row['lines'] == 1 else 's'}: {shortened(row['detail'])}"


def print_lines(key: str, content: bytes, console: Console) -> None:
    """Print the lines of an object, each shortened.

    Raises:
        CommandError: If it is not an object of quarantine's.
    """
    try:
        for kept in quarantine.read(content):
            console.print(Text(f"{kept.reason}: ", "bold"), shortened(kept.detail), sep="")
            console.print(f"  {origin(kept)}", highlight=False, soft_wrap=True)
            text = kept.data if kept.event is None else kept.event.message
            console.print(f"  {shortened(str(text))}", highlight=False)
    except UnreadableQuarantineError as error:
        raise CommandError(f"cannot read {key}: {error}", "fetch the object and look at that line") from error


def origin(kept: Kept) -> str:
    """Return where a line came from, for a person."""
    if kept.event is None:
        return f"Kinesis record {kept.sequence_number} of {kept.stream}, base64"
    when = datetime.fromtimestamp(kept.event.timestamp / 1000, UTC).isoformat(timespec="milliseconds")
    return f"{when} {kept.event.log_group} {kept.event.log_stream}"


def shortened(text: str) -> str:
    """Return the beginning of a text, on one line."""
    shown = printable(text[:SHORT]).replace("\n", "\\n")
    return shown if len(text) <= SHORT else f"{shown}... ({len(text):,} characters)"
