"""The file lists that Athena's tables read: it would otherwise read everything in a folder, old parts too.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/storage-inventory-athena-query.html
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date

from consumers.bucket import Objects
from exporter.lake.manifest import PREFIX, Manifest

# The name that Athena is given instead of files that it would misread.
REFUSED = "values-have-line-ends--ask-the-table-records-over-parquet"


def list_key(day: date, kind: str) -> str:
    """Return where Athena looks for the names of a day's files."""
    return f"{PREFIX}tables/{kind}/year={day:%Y}/month={day:%m}/day={day:%d}/symlink.txt"


def write_file_list(objects: Objects, day: date, kind: str, committed: Callable[[], Manifest | None]) -> bool:
    """Write the names of a day's files, or remove the list of a day without files.

    Args:
        objects: The lake's bucket.
        day: The day in UTC.
        kind: The files' format.
        committed: Gives the day's manifest. It is asked after the list is read, so the last of several
            writers writes the newest manifest's names.

    Returns:
        Whether the list is right; False if another wrote it meanwhile.
    """
    key = list_key(day, kind)
    found = objects.read(key)
    manifest = committed()
    names = _file_list(objects, manifest) if manifest else b""
    if names == (b"" if found is None else found[0]):
        return True
    if names:
        return objects.replace(key, names, found and found[1])
    return found is not None and objects.remove(key, found[1])


def file_list_problems(objects: Objects, manifest: Manifest) -> Iterator[str]:
    """Yield what is wrong with a day's file list, in sentences."""
    found = objects.get(list_key(manifest.day, manifest.format)) or b""
    if found != _file_list(objects, manifest):
        yield "Athena is told of other files than the manifest names: export the day again"


def _file_list(objects: Objects, manifest: Manifest) -> bytes:
    """Return the names of a day's files, one a line."""
    keys = [part.key for part in manifest.parts]
    if any(part.line_breaks for part in manifest.parts):
        # Athena's reader of CSV would make more rows of these, and wrong ones. It fails if a name leads
        # nowhere, and its message contains that name.
        keys = [list_key(manifest.day, manifest.format).replace("symlink.txt", REFUSED)]
    return "".join(f"{objects.uri(key)}\n" for key in keys).encode()
