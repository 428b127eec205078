"""The zip's format, written as a stream that can be left off and taken up again. Pure.

Deflate streams go in as they are: that of a gzip in the lake is copied, not inflated. Sizes and checksums
follow each member (data descriptors), and what does not fit 32 bits is written as zip64. The format
is https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT, the gzip's
https://www.rfc-editor.org/rfc/rfc1952.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from typing import NamedTuple, Protocol

import isal
from isal import isal_zlib

# What is not smaller is in a zip64 field (APPNOTE 4.3.9, 4.4.1.4).
MAX_32 = 0xFFFF_FFFF
MAX_16 = 0xFFFF
BLOCK_BYTES = 256 * 1024

# Who can resume a zip: another release of the library, or of this package, may make other bytes of it.
MAKER = f"3/isal-{isal.__version__}"

Bytes = bytes | memoryview

_LOCAL, _DESCRIPTOR, _CENTRAL = b"PK\x03\x04", b"PK\x07\x08", b"PK\x01\x02"
_END_64, _LOCATOR_64, _END = b"PK\x06\x06", b"PK\x06\x07", b"PK\x05\x06"
_FLAGS = 1 << 3 | 1 << 11  # sizes follow the data; names are UTF-8
_DEFLATED = 8
_PLAIN_VERSION, _ZIP64_VERSION = 20, 45
_UNIX = 3 << 8
_FILE_MODE = 0o100644 << 16

_GZIP_HEADER = struct.Struct("<3sBIBB")
_GZIP_TRAILER = struct.Struct("<II")
_GZIP_MAGIC = b"\x1f\x8b\x08"
_GZIP_HEADER_CRC, _GZIP_EXTRA, _GZIP_NAME, _GZIP_COMMENT, _GZIP_RESERVED = 2, 4, 8, 16, 0xE0
# More would not be a header of ours; a name or a comment without an end is not looked for in all of a file.
_MAX_GZIP_HEADER = 64 * 1024


class Packed(Protocol):
    """A member's content while it is packed: iterated once, and then its size and checksum are known."""

    crc: int
    size: int

    def __iter__(self) -> Iterator[Bytes]:
        """Yield the deflate stream."""


@dataclass(frozen=True, slots=True)
class Member:
    """A file of a zip.

    Attributes:
        name: What it is called in the zip.
        day: The day of its time.
        packed: Its content.
        large: Whether it may reach 4 GiB. That has to be known before: the sizes behind the data are longer
            then, and some programs take them for a mistake where they need not be.
    """

    name: str
    day: date
    packed: Packed
    large: bool = False


class Entry(NamedTuple):
    """An entry of a zip's directory, about one member.

    Attributes:
        name: Its name.
        day: Its day, `YYYY-MM-DD`.
        crc: The CRC-32 of its content.
        packed: The length of its deflate stream, in bytes.
        size: The length of its content, in bytes.
        offset: Where it begins, in bytes.
        end: Where what follows it begins, in bytes.
        large: Whether its sizes take 64 bits.
    """

    name: str
    day: str
    crc: int
    packed: int
    size: int
    offset: int
    end: int
    large: bool


class ZipFile:
    """A zip while it is written.

    Args:
        entries: The members that were written before. The bytes that follow are the same as if this object
            had written those, too.

    Attributes:
        entries: The members that have been written.
    """

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self.entries = list(entries)

    @property
    def offset(self) -> int:
        """Where the next member begins, in bytes."""
        return self.entries[-1].end if self.entries else 0

    def member(self, member: Member) -> Iterator[Bytes]:
        """Yield a member's bytes, and keep its entry at the end.

        Raises:
            ValueError: If its content is larger than announced.
        """
        offset = self.offset
        name = member.name.encode()
        header = _local_header(name, member)
        yield header
        packed = 0
        for chunk in member.packed:
            packed += len(chunk)
            yield chunk
        crc, size = member.packed.crc, member.packed.size
        if not member.large and max(packed, size) >= MAX_32:
            raise ValueError(f"{member.name} has {size} bytes: from {MAX_32} on it has to be marked large")
        descriptor = _DESCRIPTOR + struct.pack("<LQQ" if member.large else "<LLL", crc, packed, size)
        yield descriptor
        end = offset + len(header) + packed + len(descriptor)
        self.entries.append(
            Entry(member.name, member.day.isoformat(), crc, packed, size, offset, end, member.large)
        )

    def directory(self) -> bytes:
        """Return the end of the zip, which names its members."""
        directory = b"".join(map(_central_header, self.entries))
        count, size, offset = len(self.entries), len(directory), self.offset
        end = b""
        if count >= MAX_16 or max(size, offset) >= MAX_32:
            end += _END_64 + struct.pack(
                "<QHHLLQQQQ", 44, _UNIX | _ZIP64_VERSION, _ZIP64_VERSION, 0, 0, count, count, size, offset
            )
            end += _LOCATOR_64 + struct.pack("<LQL", 0, offset + size, 1)
        end += _END + struct.pack(
            "<HHHHLLH", 0, 0, *[min(count, MAX_16)] * 2, min(size, MAX_32), min(offset, MAX_32), 0
        )
        return directory + end


def _local_header(name: bytes, member: Member) -> bytes:
    extra = struct.pack("<HHQQ", 1, 16, 0, 0) if member.large else b""
    version, size = (_ZIP64_VERSION, MAX_32) if member.large else (_PLAIN_VERSION, 0)
    fields = (version, _FLAGS, _DEFLATED, 0, _dos_date(member.day), 0, size, size, len(name), len(extra))
    return _LOCAL + struct.pack("<HHHHHLLLHH", *fields) + name + extra


def _central_header(entry: Entry) -> bytes:
    name = entry.name.encode()
    # Only what does not fit is in the zip64 field, in this order.
    wide = [number for number in (entry.size, entry.packed, entry.offset) if number >= MAX_32]
    extra = struct.pack(f"<HH{len(wide)}Q", 1, 8 * len(wide), *wide) if wide else b""
    version = _ZIP64_VERSION if wide or entry.large else _PLAIN_VERSION
    day = _dos_date(date.fromisoformat(entry.day))
    fields = (_UNIX | version, version, _FLAGS, _DEFLATED, 0, day, entry.crc)
    sizes = (min(entry.packed, MAX_32), min(entry.size, MAX_32), len(name), len(extra), 0, 0, 0)
    place = (_FILE_MODE, min(entry.offset, MAX_32))
    return _CENTRAL + struct.pack("<HHHHHHLLLHHHHHLL", *fields, *sizes, *place) + name + extra


def _dos_date(day: date) -> int:
    # A zip's times begin in 1980 and end in 2107.
    year = min(max(day.year, 1980), 2107)
    return (year - 1980) << 9 | day.month << 5 | day.day


# --- content ----------------------------------------------------------------------------------------------


class Copied:
    """The deflate stream of a gzip of one member, as it is. The gzip has its size and checksum.

    Only inflating shows whether there is a second member; the gzip's writer must guarantee one.

    Args:
        chunks: The gzip, of less than 4 GiB of content.
    """

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = chunks
        self.crc = 0
        self.size = 0

    def __iter__(self) -> Iterator[Bytes]:
        """Yield the deflate stream.

        Raises:
            ValueError: If this is not gzip, or it ends early.
        """
        chunks = iter(self._chunks)
        begin = b""
        while (length := gzip_header_length(begin)) is None:
            if (chunk := next(chunks, None)) is None:
                raise ValueError("the gzip ends early, in its header")
            begin += chunk
        # The last bytes are the trailer, and which are the last is known only at the end.
        held = b""
        for part in _followed(memoryview(begin)[length:], chunks):
            if len(part) < _GZIP_TRAILER.size:
                joined = held + bytes(part)
                held, ready = joined[-_GZIP_TRAILER.size :], joined[: -_GZIP_TRAILER.size]
                yield ready
            else:
                yield held
                yield part[: -_GZIP_TRAILER.size]
                held = bytes(part[-_GZIP_TRAILER.size :])
        if len(held) < _GZIP_TRAILER.size:
            raise ValueError("the gzip ends early, before its trailer")
        self.crc, self.size = _GZIP_TRAILER.unpack(held)


class Deflated:
    """Text, packed fast: level 1 of ISA-L is ten times as fast as zlib's 6, and 7 % larger.

    Args:
        chunks: The text.
    """

    def __init__(self, chunks: Iterable[Bytes]) -> None:
        self._chunks = chunks
        self.crc = 0
        self.size = 0

    def __iter__(self) -> Iterator[bytes]:
        """Yield the deflate stream. Equal text makes equal bytes, however it comes."""
        packer = isal_zlib.compressobj(1, isal_zlib.DEFLATED, -isal_zlib.MAX_WBITS)
        # Where the packer is given more of the text is seen in its bytes.
        for block in blocks(self._chunks):
            self.crc = isal_zlib.crc32(block, self.crc)
            self.size += len(block)
            if packed := packer.compress(block):
                yield packed
        yield packer.flush()


class Kept:
    """What is packed already, in deflate blocks that are not: so that readers of streams find its end.

    Args:
        chunks: The content.
    """

    def __init__(self, chunks: Iterable[Bytes]) -> None:
        self._chunks = chunks
        self.crc = 0
        self.size = 0

    def __iter__(self) -> Iterator[Bytes]:
        """Yield the deflate stream. Equal content makes equal bytes, however it comes."""
        for block in blocks(self._chunks, MAX_16):
            self.crc = isal_zlib.crc32(block, self.crc)
            self.size += len(block)
            yield struct.pack("<BHH", 0, len(block), len(block) ^ MAX_16)
            yield block
        yield struct.pack("<BHH", 1, 0, MAX_16)


def gzip_header_length(begin: bytes) -> int | None:
    """Return how long the header of a gzip is, or None if more of it has to be seen.

    Raises:
        ValueError: If this is not gzip, or has an unknown flag.
    """
    if not _GZIP_MAGIC.startswith(begin[:3]) and begin[:3] != _GZIP_MAGIC:
        raise ValueError(f"not a gzip: it begins with {begin[:3].hex()}, not {_GZIP_MAGIC.hex()}")
    if len(begin) < _GZIP_HEADER.size:
        return None
    flags = begin[3]
    if flags & _GZIP_RESERVED:
        raise ValueError(f"a gzip with the flags {flags:#04x}: those above 0x1f have no meaning")
    length: int | None = _GZIP_HEADER.size
    if flags & _GZIP_EXTRA:
        length = length + 2 + int.from_bytes(begin[length : length + 2], "little") if length else None
    for flag in (_GZIP_NAME, _GZIP_COMMENT):
        if flags & flag and length is not None:
            length = begin.find(b"\0", length) + 1 or None
    if length is not None and flags & _GZIP_HEADER_CRC:
        length += 2
    if length is None or length > len(begin):
        if len(begin) > _MAX_GZIP_HEADER:
            raise ValueError(f"a gzip whose header is longer than {_MAX_GZIP_HEADER} bytes")
        return None
    return length


def blocks(chunks: Iterable[Bytes], size: int = BLOCK_BYTES) -> Iterator[Bytes]:
    """Yield the same bytes in blocks of a size, the last of what is left."""
    held = bytearray()
    for chunk in chunks:
        view = memoryview(chunk)
        if held:
            missing = size - len(held)
            held += view[:missing]
            view = view[missing:]
            if len(held) < size:
                continue
            yield bytes(held)
            held.clear()
        whole = len(view) - len(view) % size
        for start in range(0, whole, size):
            yield view[start : start + size]
        held += view[whole:]
    if held:
        yield bytes(held)


def skipped(chunks: Iterable[Bytes], count: int) -> Iterator[Bytes]:
    """Yield the chunks without their first `count` bytes."""
    for chunk in chunks:
        if count >= len(chunk):
            count -= len(chunk)
        else:
            yield memoryview(chunk)[count:]
            count = 0


def watched(chunks: Iterable[bytes], *watchers: Callable[[bytes], object]) -> Iterator[bytes]:
    """Yield the chunks, each once the watchers have seen it."""
    for chunk in chunks:
        for watch in watchers:
            watch(chunk)
        yield chunk


def _followed(first: memoryview, rest: Iterator[bytes]) -> Iterator[memoryview]:
    yield first
    for chunk in rest:
        yield memoryview(chunk)
