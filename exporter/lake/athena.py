"""What Athena needs to read the lake: names of columns, properties of tables, and lists of files.

It would otherwise read everything in a folder, old parts too:
https://docs.aws.amazon.com/AmazonS3/latest/userguide/storage-inventory-athena-query.html
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date, datetime, timedelta

from consumers.bucket import Listed, Objects
from exporter.lake.formats import Format, format_of_folder
from exporter.lake.manifest import MANIFEST, NANOSECONDS, PREFIX, Manifest, day_of_folder, folder

# The tables' only partition: the day.
PARTITION = "date"
# Athena has no day before it.
FIRST_DAY = date(2024, 1, 1)
# The longest name of a column, in bytes, that the catalog keeps.
NAME_BYTES = 255
# Underscores are the only special characters that Athena supports:
# https://docs.aws.amazon.com/athena/latest/ug/tables-databases-columns-names.html
_UNSUPPORTED = re.compile(r"[^a-z0-9_]")
# Columns are read by position, because their names in the files are not always Athena's:
# https://docs.aws.amazon.com/athena/latest/ug/handling-schema-updates-chapter.html#index-access
BY_POSITION: Mapping[str, str] = {"parquet.column.index.access": "true"}

# The bucket's lifecycle moves files into the archive at the first midnight (UTC) after so long.
ARCHIVED_AFTER = timedelta(days=90)
# Smaller files stay: https://docs.aws.amazon.com/AmazonS3/latest/userguide/lifecycle-transition-general-considerations.html
_ARCHIVED_BYTES = 128 * 1024
# A file's list is changed before the file is moved: the next nightly run may come too late.
_AHEAD = timedelta(days=2)

# Athena is given one of these names in place of a day's files. A query of the day fails because there is no
# such file, and its message contains the name.
LINE_ENDS = "values-have-line-ends--ask-the-table-records-over-parquet"
ARCHIVED = "files-are-in-the-archive--restore-them-then-export-the-day-again"
_LIST = "symlink.txt"


def column_names(names: Iterable[str]) -> list[str]:
    """Return names of a table's columns that Athena supports, none of them twice.

    Args:
        names: Their names in the files. Columns never move, so neither do the names that are made of theirs.
    """
    taken = {PARTITION, NANOSECONDS}
    made: list[str] = []
    for place, name in enumerate(names):
        whole = _UNSUPPORTED.sub("_", name.lower())
        unique, ending = whole[:NAME_BYTES], ""
        while unique in taken:
            ending += f"_{place}"
            unique = whole[: NAME_BYTES - len(ending)] + ending
        taken.add(unique)
        made.append(unique)
    return made


def table_properties(location: str) -> dict[str, str]:
    """Return the properties by which Athena finds a table's files.

    Args:
        location: The address of a format's file lists, with a slash at the end.
    """
    return {
        # Without it, objects that were restored from the archive are skipped too:
        # https://docs.aws.amazon.com/athena/latest/ug/querying-glacier.html
        "read_restored_glacier_objects": "true",
        # https://docs.aws.amazon.com/athena/latest/ug/partition-projection-supported-types.html
        "projection.enabled": "true",
        f"projection.{PARTITION}.type": "date",
        f"projection.{PARTITION}.format": "yyyy-MM-dd",
        f"projection.{PARTITION}.range": f"{FIRST_DAY},NOW",
        "storage.location.template": f"{location}{PARTITION}=${{{PARTITION}}}/",
    }


def fragment_properties(location: str) -> dict[str, str]:
    """Return the properties by which Athena finds the lake store's fragments.

    Args:
        location: The address of the fragments, with a slash at the end.
    """
    return {
        "projection.enabled": "true",
        "projection.day.type": "date",
        "projection.day.format": "yyyy-MM-dd",
        "projection.day.range": f"{FIRST_DAY},NOW",
        "projection.hour.type": "integer",
        "projection.hour.range": "0,23",
        "projection.hour.digits": "2",
        "storage.location.template": f"{location}day=${{day}}/hour=${{hour}}/",
    }


def lists_prefix(kind: str) -> str:
    """Return how the keys of a format's file lists begin."""
    return f"{PREFIX}tables/{kind}/"


def list_key(day: date, kind: str) -> str:
    """Return where Athena looks for the names of a day's files."""
    return f"{lists_prefix(kind)}{PARTITION}={day}/{_LIST}"


def write_file_list(
    objects: Objects, day: date, kind: str, committed: Callable[[], Manifest | None], now: datetime
) -> bool:
    """Write the names of a day's files, or remove the list of a day without files.

    Args:
        objects: The lake's bucket.
        day: The day in UTC.
        kind: The files' format.
        committed: Gives the day's manifest. It is asked after the list is read, so the last of several
            writers writes the newest manifest's names.
        now: The time.

    Returns:
        Whether the list is right; False if another wrote it meanwhile.
    """
    key = list_key(day, kind)
    found = objects.read(key)
    manifest = committed()
    names = _file_list(objects, manifest, now) if manifest else b""
    if names == (b"" if found is None else found[0]):
        return True
    if names:
        return objects.replace(key, names, found and found[1])
    return found is not None and objects.remove(key, found[1])


def file_list_problems(objects: Objects, manifest: Manifest, now: datetime) -> Iterator[str]:
    """Yield what is wrong with a day's file list, in sentences."""
    found = objects.get(list_key(manifest.day, manifest.format)) or b""
    if found != _file_list(objects, manifest, now):
        yield "Athena's list of files differs from the manifest: export the day again"


def days_to_list(objects: Objects, now: datetime) -> Iterator[tuple[Format, date]]:
    """Yield the days whose file list is missing, or whose files went into the archive or came back.

    Args:
        objects: The lake's bucket.
        now: The time.
    """
    folders: dict[str, list[Listed]] = {}
    for file in objects.listed(PREFIX):
        folders.setdefault(file.key.rpartition("/")[0] + "/", []).append(file)
    for path, files in folders.items():
        if not any(file.key == path + MANIFEST for file in files):
            continue
        kind, day = format_of_folder(path), day_of_folder(path)
        key = list_key(day, kind)
        if key.removesuffix(_LIST) not in folders:
            yield kind, day
        elif _may_be_archived(day, now):
            is_refused = f"/{ARCHIVED}\n".encode() in (objects.get(key) or b"")
            if is_refused != any(_is_out_of_reach(file, now) for file in files):
                yield kind, day


def _file_list(objects: Objects, manifest: Manifest, now: datetime) -> bytes:
    """Return the names of a day's files, one a line."""
    keys = [part.key for part in manifest.parts]
    refused = list_key(manifest.day, manifest.format).removesuffix(_LIST)
    if any(part.line_breaks for part in manifest.parts):
        keys = [refused + LINE_ENDS]  # its reader of CSV would make more rows of these, and wrong ones
    elif _may_be_archived(manifest.day, now):
        files = objects.listed(folder(manifest.day, manifest.format))
        if any(_is_out_of_reach(file, now) for file in files if file.key in keys):
            keys = [refused + ARCHIVED]  # it would leave these files out, without an error
    return "".join(f"{objects.uri(key)}\n" for key in keys).encode()


def _may_be_archived(day: date, now: datetime) -> bool:
    """Tell whether a day's files may be old enough for the archive: they are not older than the day."""
    return day <= (now + _AHEAD - ARCHIVED_AFTER).date()


def _is_out_of_reach(file: Listed, now: datetime) -> bool:
    """Tell whether a file is in the archive, or is moved there before the next nightly runs."""
    if file.restored_until is not None:
        return file.restored_until <= now + _AHEAD
    is_due = file.size >= _ARCHIVED_BYTES and file.modified + ARCHIVED_AFTER <= now + _AHEAD
    return file.is_archived or is_due
