"""The lines of a log: a file, a pipe or standard input, packed or not, in UTF-8 or UTF-16."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import shutil
import stat
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from cli.errors import CommandError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

STDIN = "-"

# Characters: an event of CloudWatch Logs may have 1 MB, and a character four bytes.
# https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutLogEvents.html
MAX_LINE = 250_000

_PACKINGS: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
    b"\x28\xb5\x2f\xfd": zstd.open,
}
# Bytes that show how a file is packed, and its encoding.
_START = 64
_MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


class DamagedFileError(ValueError):
    """A packed file ends too early, or is not what it begins as; the message tells which."""


@contextmanager
def open_log(path: Path) -> Iterator[IO[bytes]]:
    """Open a log so that it can be read several times: what can be read only once is copied first.

    Args:
        path: A file or a pipe; `-` is standard input.

    Raises:
        CommandError: If it cannot be read.
    """
    try:
        if str(path) != STDIN and path.is_file():
            with path.open("rb") as file:
                yield file
            return
        with tempfile.TemporaryFile() as copy:
            if str(path) == STDIN:
                shutil.copyfileobj(sys.stdin.buffer, copy)
            else:
                with path.open("rb") as pipe:
                    _refuse_endless(path, pipe.fileno())
                    shutil.copyfileobj(pipe, copy)
            yield copy
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> CommandError:
    return CommandError(
        f"cannot read {path}: {error.strerror or error}", "give the path of a log file, or - for stdin"
    )


def _refuse_endless(path: Path, file: int) -> None:
    """Refuse devices other than terminals and /dev/null: reading /dev/zero or /dev/full never ends."""
    if stat.S_ISCHR(os.fstat(file).st_mode) and not (os.isatty(file) or path.samefile(os.devnull)):
        raise CommandError(f"{path} is a device", "give the path of a log file, or - for stdin")


def read_lines(file: IO[bytes]) -> Iterator[str]:
    r"""Yield the lines of a log from its beginning, without their ends (`\n`, `\r\n`).

    What is not UTF-8 is replaced. Of a line that is longer than `MAX_LINE`, the rest is left out.

    Args:
        file: What `open_log` opened.

    Raises:
        DamagedFileError: If a packed file is damaged, after the lines before the damage.
    """
    file.seek(0)
    start = file.read(_START)
    file.seek(0)
    return _lines(file, start)


def read_output(path: Path) -> Iterator[str]:
    """Yield the lines of a program's output as `read_lines` does, each as soon as it is complete.

    Args:
        path: A pipe or a file; `-` is standard input.

    Raises:
        CommandError: If it cannot be read.
        DamagedFileError: If it is packed and damaged, after the lines before the damage.
    """
    try:
        # Standard input's own buffer has a lock, which a thread that waits for input would keep at the end.
        stdin = os.dup(sys.stdin.fileno()) if str(path) == STDIN else None
        with path.open("rb", 0) if stdin is None else os.fdopen(stdin, "rb", 0) as file:
            if stdin is None:
                _refuse_endless(path, file.fileno())
            start = b""
            # A shorter beginning could be that of a packed file.
            while len(start) < _START and b"\n" not in start and (more := file.read(_START - len(start))):
                start += more
            yield from _lines(io.BufferedReader(_Resumed(start, file)), start)
    except OSError as error:
        raise _unreadable(path, error) from error


class _Resumed(io.RawIOBase):
    """A file of which the beginning was read."""

    def __init__(self, start: bytes, file: io.RawIOBase) -> None:
        self._start, self._file = start, file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._start or self._file.read(len(buffer)) or b""
        self._start = b""
        buffer[: len(data)] = data
        return len(data)


def _lines(file: Any, start: bytes) -> Iterator[str]:
    unpacked = _unpacked(file, start)
    try:
        first = start if unpacked is file else unpacked.peek(_START)
        text = io.TextIOWrapper(unpacked, _encoding(first), errors="replace", newline="\n")
        try:
            while line := text.readline(MAX_LINE + 1):
                end = line.endswith("\n")
                yield line.rstrip("\r\n")
                while not end and (rest := text.readline(MAX_LINE)):
                    end = rest.endswith("\n")
        finally:
            text.detach()
    except (EOFError, zlib.error, lzma.LZMAError, zstd.ZstdError, OSError) as error:
        if unpacked is file:
            raise
        raise DamagedFileError(f"the packed file is damaged: {error}") from error


def _unpacked(file: Any, start: bytes) -> Any:
    for magic, unpack in _PACKINGS.items():
        if start.startswith(magic):
            return unpack(file, "rb")
    return file


def _encoding(first: bytes) -> str:
    for mark, encoding in _MARKS.items():
        if first.startswith(mark):
            return encoding
    # In UTF-16, each second byte of ASCII text is zero.
    if len(first) > 1 and not any(first[1::2]) and all(first[0::2]):
        return "utf-16-le"
    if len(first) > 1 and not any(first[0::2]) and all(first[1::2]):
        return "utf-16-be"
    return "utf-8"
