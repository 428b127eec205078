"""How the lake's files go into a zip: copied, deflated or selected. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from exporter.downloads.jobs import Cells, Request
from exporter.lake.formats import Format, ZipFormat, format_of
from exporter.lake.manifest import Manifest, Part
from exporter.lake.text import gunzipped
from exporter.zips.failures import UnavailableError
from exporter.zips.selection import Selected
from exporter.zips.zip_file import MAX_32, Copied, Deflated, Kept, Packed

# A gzip of the lake has 256 MiB of text. The lake does not write one this large, and 32 bits may not be
# enough for the length of its text.
_COPIED_BYTES = 1 << 30
# Deflate packs at most so many bytes into one: https://zlib.net/zlib_tech.html
_DEFLATE_RATIO = 1032
# A byte of text takes at most so many in JSON, as \\u0000 does, or in CSV, as a quote does.
_JSON_BYTES, _CSV_BYTES = 6, 2


def check(request: Request, manifests: Iterable[Manifest]) -> None:
    """Make sure that a request can be made of what the lake has.

    Raises:
        UnavailableError: If a day is kept in another format, or no day has a column.
    """
    manifests = [manifest for manifest in manifests if manifest.parts]
    for manifest in manifests:
        for part in manifest.parts:
            kept_as = kept_format(part.key)
            kept = kept_as.rules.unpacked
            if kept_as.rules.typed and not request.whole:
                raise UnavailableError(
                    f"{manifest.day} is kept as {kept}: it can be downloaded only as a whole"
                )
            if kept_as not in request.format.made_of:
                raise UnavailableError(
                    f"{manifest.day} is kept as {kept}: it cannot be downloaded as {request.format};"
                    f" format {ZipFormat.ANY} gives each day as it is kept"
                )
    known = {column.name for manifest in manifests for column in manifest.columns}
    for column in request.columns:
        if known and column not in known:
            # Which columns others have is not a tenant's to know.
            hint = "" if request.allowed else f"; the columns are {', '.join(sorted(known))}"
            raise UnavailableError(f"no day has a column {column!r}{hint}")


def kept_format(key: str) -> Format:
    """Return the format of a part by its key.

    Raises:
        UnavailableError: If it is not one of the lake's.
    """
    found = format_of(key)
    if found is None:
        raise UnavailableError(f"{key} is in an unknown format; the formats are {', '.join(Format)}")
    return found


def packing(
    request: Request, manifest: Manifest, part: Part, chunks: Iterator[bytes]
) -> tuple[Packed, Selected | None]:
    """Return a part as it goes into a zip, and what counts its rows unless all of them do.

    Args:
        request: The request.
        manifest: The manifest of the part's day.
        part: The part.
        chunks: The part as the lake keeps it.
    """
    kept_as = kept_format(part.key)
    if not _is_as_kept(request, kept_as, part):
        selected = Selected(chunks, kept_as, manifest.columns, request)
        return Deflated(selected), selected
    if kept_as.rules.typed:
        return Kept(chunks), None
    if kept_as.is_gzip and part.bytes < _COPIED_BYTES:
        return Copied(chunks), None
    return Deflated(gunzipped(chunks) if kept_as.is_gzip else chunks), None


def is_large(request: Request, manifest: Manifest, part: Part) -> bool:
    """Tell whether a part may reach 4 GiB in a zip."""
    return most_bytes(request, manifest, part) >= MAX_32


def most_bytes(request: Request, manifest: Manifest, part: Part) -> int:
    """Return how large a part may become in a zip at most, before it is packed.

    Args:
        request: The request.
        manifest: The manifest of the part's day.
        part: The part.
    """
    kept_as = kept_format(part.key)
    text = part.text_bytes
    if text is None:
        text = part.bytes
        if kept_as.is_gzip:
            text = _COPIED_BYTES if part.bytes < _COPIED_BYTES else part.bytes * _DEFLATE_RATIO
    if _is_as_kept(request, kept_as, part):
        # Deflate makes what it cannot pack a little larger.
        return text + text // 1000 + 1000
    names = request.columns or tuple(column.name for column in manifest.columns)
    name_bytes = sum(len(name.encode()) for name in names)
    if request.ending(kept_as) is ZipFormat.JSONL:
        # A name has two quotes, a colon and a comma, and its value two more quotes; a row has braces.
        of_row = _JSON_BYTES * name_bytes + 6 * len(names) + 3
        return _JSON_BYTES * text + part.rows * of_row
    # A cell has a comma, two quotes and an apostrophe.
    return _CSV_BYTES * (text + name_bytes) + 4 * len(names) * (part.rows + 1)


def _is_as_kept(request: Request, kept_as: Format, part: Part) -> bool:
    """Tell whether a part goes into the zip with the content that it has."""
    if not request.whole or kept_as.rules.unpacked != request.ending(kept_as):
        return False
    # Of older parts it is not known.
    return kept_as.rules.unpacked != ZipFormat.CSV or request.cells is Cells.EXACT or part.formulas == 0
