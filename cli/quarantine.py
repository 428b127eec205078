"""What is in quarantine, and in what order: objects and their lines, as a terminal can show them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cli.deployment import CommandError, Deployment
from consumers.lines import quarantine
from consumers.lines.quarantine import Kept, ObjectKey, UnreadableQuarantineError

SHORT = 200  # characters of a line on a terminal


@dataclass(frozen=True, slots=True)
class Window:
    """Days, both inclusive; None is without end."""

    first: date | None
    last: date | None

    def __contains__(self, day: date) -> bool:
        """Tell whether a day is in it."""
        return (self.first is None or self.first <= day) and (self.last is None or day <= self.last)


def keys(
    deployment: Deployment, window: Window, reasons: Collection[str] = ()
) -> Iterator[tuple[str, ObjectKey]]:
    """Yield the objects of a window, by key.

    Args:
        deployment: The pipeline.
        window: Days on which their Kinesis records arrived.
        reasons: Only these; all where there are none.
    """
    s3, bucket = deployment.client("s3"), deployment.outputs["Bucket"]
    pages = s3.get_paginator("list_objects_v2")
    # Listing by reason leaves out what was not asked for, without reading its names.
    for prefix in sorted(f"{quarantine.PREFIX}{reason}/" for reason in reasons) or [quarantine.PREFIX]:
        for page in pages.paginate(Bucket=bucket, Prefix=prefix):
            for item in page.get("Contents", []):
                try:
                    place = quarantine.parse_key(item["Key"])
                except UnreadableQuarantineError:
                    continue  # Somebody else's: nothing of ours is named so.
                if place.day in window:
                    yield item["Key"], place


def body(deployment: Deployment, key: str) -> bytes:
    """Return an object.

    Raises:
        CommandError: If there is none.
    """
    s3 = deployment.client("s3")
    try:
        content: bytes = s3.get_object(Bucket=deployment.outputs["Bucket"], Key=key)["Body"].read()
    except s3.exceptions.NoSuchKey as error:
        raise CommandError(
            f"nothing is in quarantine under {key}", "tagline quarantine ls --keys has the keys"
        ) from error
    return content


def summary(
    deployment: Deployment, window: Window, reasons: Collection[str], *, by_key: bool
) -> list[dict[str, Any]]:
    """Return what is kept: by day and reason, or by object, with counts and the first line's detail.

    `lines` counts a line once for a day and reason, also where a second delivery kept it twice.
    """
    rows: dict[Any, dict[str, Any]] = {}
    seen: dict[Any, set[tuple[str, str]]] = {}
    for key, place in keys(deployment, window, reasons):
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
            for kept in quarantine.read(body(deployment, key)):
                seen.setdefault(group, set()).add(kept.identity)
                row["detail"] = row["detail"] or kept.detail
        except UnreadableQuarantineError as error:
            row["detail"] = row["detail"] or f"unreadable: {error}"
        row["lines"] = len(seen.get(group, ()))
    return [rows[group] for group in sorted(rows, key=str)]


def table(rows: list[dict[str, Any]]) -> Table:
    """Return a summary by day and reason as a table."""
    columns = ["day", "reason"]
    shown = Table()
    for column in columns:
        shown.add_column(column, no_wrap=True)
    for column in ("objects", "lines"):
        shown.add_column(column, justify="right")
    shown.add_column("first detail")
    for row in rows:
        shown.add_row(
            *(row[column] for column in columns),
            f"{row['objects']:,}",
            f"{row['lines']:,}",
            escape(printable(row["detail"])),
        )
    return shown


def in_short(row: dict[str, Any]) -> str:
    """Return what is said below an object's key: how many lines it has, and what is wrong with the first."""
    return f"{row['lines']:,} line{'' if row['lines'] == 1 else 's'}: {printable(row['detail'])}"


def show(key: str, content: bytes, console: Console) -> None:
    """Print the lines of an object, each shortened.

    Raises:
        CommandError: If it is none of quarantine's.
    """
    try:
        for kept in quarantine.read(content):
            console.print(f"[bold]{escape(kept.reason)}[/]: {escape(printable(kept.detail))}")
            console.print(escape(f"  {origin(kept)}"), highlight=False, soft_wrap=True)
            text = kept.data if kept.event is None else kept.event.message
            console.print(escape(f"  {printable(str(text))}"), highlight=False)
    except UnreadableQuarantineError as error:
        raise CommandError(f"cannot read {key}: {error}", "fetch the object and look at that line") from error


def origin(kept: Kept) -> str:
    """Return where a line came from, for a person."""
    if kept.event is None:
        return f"Kinesis record {kept.sequence_number} of {kept.stream}, base64"
    when = datetime.fromtimestamp(kept.event.timestamp / 1000, UTC).isoformat(timespec="milliseconds")
    return f"{when} {kept.event.log_group} {kept.event.log_stream}"


def printable(text: str) -> str:
    """Return the beginning of a text as a terminal can show it: what would control it is escaped."""
    shown = "".join(
        character if character.isprintable() else ascii(character)[1:-1] for character in text[:SHORT]
    )
    return shown if len(text) <= SHORT else f"{shown}... ({len(text):,} characters)"
