"""How the lake's files go into a zip: copied, deflated or selected. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from exporter.downloads.jobs import MADE_OF, Request
from exporter.lake.formats import Format, format_of
from exporter.lake.manifest import Manifest, Part
from exporter.lake.text import gunzipped
from exporter.zips.failures import UnavailableError
from exporter.zips.selection import Selected
from exporter.zips.zip_file import Copied, Deflated, Kept, Packed

# Text may grow when it is written again: as JSON, each row names its columns.
GROWTH = 4
# A gzip of the lake has 256 MiB of text. The lake does not write one this large, and 32 bits may not be
# enough for the length of its text.
_COPIED_BYTES = 1 << 30
_NEARLY_4_GIB = 0xF000_0000


def check(request: Request, manifests: Iterable[Manifest]) -> None:
    """Make sure that a request can be made of what the lake has.

    Raises:
        UnavailableError: If a day is kept in another format, or no day has a column.
    """
    manifests = [manifest for manifest in manifests if manifest.parts]
    for manifest in manifests:
        for part in manifest.parts:
            kept_as = kept_format(part.key)
            if kept_as.rules.typed and not request.whole:
                raise UnavailableError(f"{manifest.day} is kept as {kept_as}: it can be had only as a whole")
            if kept_as not in MADE_OF[request.format]:
                kept = kept_as.rules.unpacked
                raise UnavailableError(
                    f"{manifest.day} is kept as {kept}: it cannot be had as {request.format}"
                )
    known = {column.name for manifest in manifests for column in manifest.columns}
    for column in request.columns:
        if known and column not in known:
            raise UnavailableError(
                f"no day has a column {column!r}; the columns are {', '.join(sorted(known))}"
            )


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
    if not _is_as_kept(request, kept_as):
        selected = Selected(chunks, kept_as, manifest.columns, request)
        return Deflated(selected), selected
    if kept_as.rules.typed:
        return Kept(chunks), None
    if kept_as.is_gzip and part.bytes < _COPIED_BYTES:
        return Copied(chunks), None
    return Deflated(gunzipped(chunks) if kept_as.is_gzip else chunks), None


def is_large(request: Request, part: Part) -> bool:
    """Tell whether a part may reach 4 GiB in a zip."""
    kept_as = kept_format(part.key)
    if kept_as.is_gzip:
        return part.bytes >= _COPIED_BYTES
    growth = 1 if kept_as.rules.unpacked == request.format else GROWTH
    return part.bytes * growth >= _NEARLY_4_GIB


def _is_as_kept(request: Request, kept_as: Format) -> bool:
    return request.whole and kept_as.rules.unpacked == request.format
