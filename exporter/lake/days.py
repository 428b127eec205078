"""What the lake keeps beside the files of a day: columns, locks, progress, and what Athena's tables read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

from consumers.bucket import Objects
from exporter.lake import manifest as archive
from exporter.lake.forgotten import KEY as FORGOTTEN
from exporter.lake.forgotten import Forgotten
from exporter.lake.formats import Format
from exporter.lake.manifest import PREFIX, STATE, Manifest, Part
from exporter.store import FIRST_COLUMNS, Column, extended

COLUMNS = f"{STATE}columns.json"
PROGRESS = "_progress.json"
_LOCKS = f"{STATE}locks/"
_MARKERS = f"{STATE}replaced/"
# A reader that has seen the manifest before has this long to read the parts that it names.
GRACE = timedelta(hours=6)
# What Athena is told to read in the place of a day's CSV files if it would misread these.
REFUSED = "values-have-line-ends--ask-the-table-records-over-parquet"
_TRIES = 20


def read_manifest(objects: Objects, day: date, kind: Format) -> Manifest | None:
    """Return what the lake has of a day, or None if that day was never written."""
    document = objects.get(archive.folder(day, kind) + archive.MANIFEST)
    return None if document is None else Manifest.from_json(document)


def write_manifest(objects: Objects, manifest: Manifest) -> None:
    """Commit a day: from here on, its new files are what the lake has, also for Athena."""
    kind = Format(manifest.format)
    key = archive.folder(manifest.day, kind) + archive.MANIFEST
    objects.put(key, [manifest.to_json()], "application/json")
    write_table(objects, manifest)


def table_key(day: date, kind: Format) -> str:
    """Return where Athena looks for the names of a day's files."""
    return f"{PREFIX}tables/{kind}/year={day:%Y}/month={day:%m}/day={day:%d}/symlink.txt"


def write_table(objects: Objects, manifest: Manifest) -> None:
    """Write the names of a day's files for Athena, which would read all that lies in a folder, old parts too.

    https://docs.aws.amazon.com/AmazonS3/latest/userguide/storage-inventory-athena-query.html
    """
    key = table_key(manifest.day, Format(manifest.format))
    if names := table(objects, manifest):
        objects.put(key, [names], "text/plain")
    else:
        objects.delete([key])


def table(objects: Objects, manifest: Manifest) -> bytes:
    """Return the names of a day's files for Athena, one a line; nothing for a day without rows."""
    kind = Format(manifest.format)
    keys = [part.key for part in manifest.parts]
    if kind in (Format.CSV, Format.CSV_GZ) and any(part.line_breaks for part in manifest.parts):
        # Athena's reader of CSV would make more rows of these, and wrong ones. It fails where a name leads
        # nowhere, and says that name.
        keys = [table_key(manifest.day, kind).replace("symlink.txt", REFUSED)]
    return "".join(f"{objects.uri(key)}\n" for key in keys).encode()


def known_columns(objects: Objects) -> tuple[Column, ...]:
    """Return the columns of the lake's newest files."""
    found = objects.read(COLUMNS)
    return FIRST_COLUMNS if found is None else _columns(found[0])


def lake_columns(objects: Objects, found: Iterable[Column]) -> tuple[Column, ...]:
    """Return the lake's columns in their order for ever; new ones come last from now on.

    A table over CSV goes by position: a column that moved would be read under another's name.
    """
    found = tuple(found)
    for _ in range(_TRIES):
        kept = objects.read(COLUMNS)
        known = FIRST_COLUMNS if kept is None else _columns(kept[0])
        columns = extended(known, found)
        if kept is not None and columns == known:
            return columns
        body = json.dumps(archive.columns_to_json(columns), indent=1).encode() + b"\n"
        if objects.replace(COLUMNS, body, kept and kept[1]):
            return columns
    raise OSError(f"{COLUMNS} was changed by others {_TRIES} times in a row")


def _columns(document: bytes) -> tuple[Column, ...]:
    return archive.columns_from_json(json.loads(document))


def read_forgotten(objects: Objects) -> Forgotten | None:
    """Return who is to be forgotten, or None for no one."""
    document = objects.get(FORGOTTEN)
    return None if document is None else Forgotten.from_json(document)


# --- one run at a time ------------------------------------------------------------------------------------


def lock(  # noqa: PLR0917 - what is locked, for whom, from when to when
    objects: Objects, day: date, kind: Format, run: str, now: datetime, until: datetime
) -> bool:
    """Take a day for a run, and tell whether it is that run's now.

    A run that has ended without a word has its days until the time that it could have lived.

    Args:
        objects: The lake's bucket.
        day: The day.
        kind: The files' format.
        run: What the run is called; it can take again what it has.
        now: The time.
        until: How long the run can live.
    """
    key = _lock_key(day, kind)
    body = json.dumps({"run": run, "until": until.astimezone(UTC).isoformat()}).encode()
    found = objects.read(key)
    if found is None:
        return objects.replace(key, body, None)
    held: dict[str, str] = json.loads(found[0])
    if held["run"] != run and datetime.fromisoformat(held["until"]) > now:
        return False
    return objects.replace(key, body, found[1])


def unlock(objects: Objects, day: date, kind: Format, run: str) -> None:
    """Give a day back, if it is this run's."""
    key = _lock_key(day, kind)
    found = objects.get(key)
    if found is not None and json.loads(found)["run"] == run:
        objects.delete([key])


def is_locked(objects: Objects, day: date, kind: Format) -> bool:
    """Tell whether a run has a day, or has died with it."""
    return objects.get(_lock_key(day, kind)) is not None


def _lock_key(day: date, kind: Format) -> str:
    return f"{_LOCKS}{kind}/{day}.json"


# --- a day that is being written --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the files of a day are, so that another invocation goes on behind the last of them.

    Attributes:
        order: What the day was to be written for; another order begins at the first row.
        revision: The revision that it becomes.
        columns: Names and types, in the order of the files.
        parts: The files that are there.
        time: The last row's time in them.
        at_time: How many rows of that time are in them, the last of the rows.
        rows_before: How many rows the store had before that row's minute was over.
        restored: As in the manifest.
        not_restored: As in the manifest.
    """

    order: str
    revision: int
    columns: tuple[Column, ...]
    parts: tuple[Part, ...] = field(default=())
    time: str = ""
    at_time: int = 0
    rows_before: int = 0
    restored: int = 0
    not_restored: int = 0


def read_progress(objects: Objects, day: date, kind: Format) -> Progress | None:
    """Return how far a day is, or None if it is not being written."""
    document = objects.get(archive.folder(day, kind) + PROGRESS)
    if document is None:
        return None
    read: dict[str, Any] = json.loads(document)
    columns = archive.columns_from_json(read.pop("columns"))
    return Progress(columns=columns, parts=tuple(Part(**part) for part in read.pop("parts")), **read)


def write_progress(objects: Objects, day: date, kind: Format, progress: Progress) -> None:
    """Keep how far a day is."""
    document = asdict(progress) | {"columns": archive.columns_to_json(progress.columns)}
    objects.put(archive.folder(day, kind) + PROGRESS, [json.dumps(document).encode()], "application/json")


# --- what is no longer wanted -----------------------------------------------------------------------------


def tidy(objects: Objects, day: date, kind: Format, now: datetime) -> None:
    """Remove a day's files that no reader can want: never committed, or replaced longer ago than `GRACE`.

    Only who has the day's lock may do so.
    """
    replaced = _replaced(objects, day, kind)
    over = replaced is not None and datetime.fromisoformat(replaced["since"]) + GRACE <= now
    # Committed files are written anew, never replaced under their name: what is left over is nobody's.
    objects.delete(unnamed(objects, day, kind, [] if replaced is None or over else replaced["keys"]))
    if over:
        forget_replaced(objects, day, kind)


def unnamed(objects: Objects, day: date, kind: Format, replaced: Iterable[str] | None = None) -> list[str]:
    """Return the keys of a day's folder that neither its manifest nor its progress names.

    Args:
        objects: The lake's bucket.
        day: The day.
        kind: The files' format.
        replaced: Keys of earlier manifests that are left out as well; None for those that say they were.
    """
    prefix = archive.folder(day, kind)
    named = {prefix + archive.MANIFEST, prefix + PROGRESS}
    for each in (read_manifest(objects, day, kind), read_progress(objects, day, kind)):
        named |= {part.key for part in (each.parts if each else ())}
    if replaced is None:
        replaced = (_replaced(objects, day, kind) or {"keys": []})["keys"]
    return sorted(set(objects.keys(prefix)) - named - set(replaced))


def retire(objects: Objects, day: date, kind: Format, keys: Iterable[str], now: datetime) -> None:
    """Say that files were replaced: they are removed by the first `tidy` after their time of grace."""
    earlier = (_replaced(objects, day, kind) or {"keys": []})["keys"]
    body = {"since": now.isoformat(), "keys": sorted({*earlier, *keys})}
    objects.put(_marker(day, kind), [json.dumps(body).encode()], "application/json")


def forget_replaced(objects: Objects, day: date, kind: Format) -> None:
    """End the time of grace of a day's replaced files: the next `tidy` removes them."""
    objects.delete([_marker(day, kind)])


def replaced_days(objects: Objects) -> Iterator[tuple[date, Format]]:
    """Yield the days that have replaced files, with their format."""
    for key in objects.keys(_MARKERS):
        kind, day = key.removeprefix(_MARKERS).removesuffix(".json").split("/")
        yield date.fromisoformat(day), Format(kind)


def _replaced(objects: Objects, day: date, kind: Format) -> dict[str, Any] | None:
    document = objects.get(_marker(day, kind))
    return None if document is None else json.loads(document)


def _marker(day: date, kind: Format) -> str:
    return f"{_MARKERS}{kind}/{day}.json"
