"""The lake store, read and exported: what a row costs, how much memory it takes, a question over many files.

`compact_us_per_row_2000` and `_60` are microseconds of CPU for each row of a day that is exported from
fragments of as many rows, to csv.gz and Parquet together; `_hourly` is the first, written hour by hour, and
`compact_late_hour_share` what a late row costs then, as a share of the day. `compact_peak_over_base_mib` is
the largest memory over that of the imports, of a million rows. `question_ms_1440_files` is the time by the
clock of counting a day by minute that has a file for each. The bucket is a folder: requests to S3 are not
counted.

`python -m benchmarks.compact --rows 10000000` prints the numbers of one export of so many rows.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import orjson

DAY = date(2025, 11, 20)
MANY_ROWS = 1_000_000
FILE_ROWS = 2_000
# Rows of a day, by those of a file.
FILES = {FILE_ROWS: 100_000, 60: 24_000}
MIB = 1 << 20


def run() -> dict[str, float]:
    """Return the numbers above."""
    many = measured(MANY_ROWS, FILE_ROWS)
    return {
        **costs(),
        "compact_us_per_row_1m": many["us_per_row"],
        "compact_peak_over_base_mib": many["peak"],
    }


def costs() -> dict[str, float]:
    """Return the numbers that take a minute and not several."""
    numbers = {
        f"compact_us_per_row_{file_rows}": measured(rows, file_rows)["us_per_row"]
        for file_rows, rows in FILES.items()
    }
    hourly = measured(FILES[FILE_ROWS], FILE_ROWS, hourly=True)
    return {
        **numbers,
        "compact_us_per_row_hourly": hourly["us_per_row"],
        "compact_late_hour_share": hourly["late_hour_share"],
        "question_ms_1440_files": measured(1_440 * 60, 60)["question_ms"],
    }


def measured(rows: int, file_rows: int, *, hourly: bool = False) -> dict[str, float]:
    """Write a day's fragments, and export the day in a new process, at once or hour by hour."""
    with tempfile.TemporaryDirectory() as folder:
        for step in ("fill", "export"):
            command = [sys.executable, "-m", "benchmarks.compact", "--rows", str(rows)]
            done = subprocess.run(
                [
                    *command,
                    *("--file-rows", str(file_rows), "--folder", folder, "--step", step),
                    *(["--hourly"] if hourly else []),
                ],
                check=True,
                capture_output=True,
                text=True,
            )
        numbers: dict[str, float] = json.loads(done.stdout)
        return numbers


class Folder:
    """A bucket in a folder: `consumers.bucket.Objects`, for one process."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, key: str, chunks: Iterable[bytes], content_type: str) -> None:  # noqa: ARG002 - as S3's
        path = self._root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.writelines(chunks)

    def get(self, key: str) -> bytes | None:
        path = self._root / key
        return path.read_bytes() if path.is_file() else None

    def stream(self, key: str) -> Iterator[bytes]:
        with (self._root / key).open("rb") as file:
            while chunk := file.read(MIB):
                yield chunk

    def keys(self, prefix: str) -> Iterator[str]:
        folder = self._root / prefix.rpartition("/")[0]
        names = (path.relative_to(self._root).as_posix() for path in folder.rglob("*") if path.is_file())
        return iter(sorted(name for name in names if name.startswith(prefix)))

    def listed(self, prefix: str) -> Iterator[Any]:
        from consumers.bucket import Listed

        for key in self.keys(prefix):
            found = (self._root / key).stat()
            yield Listed(key, "", datetime.fromtimestamp(found.st_mtime, UTC), found.st_size)

    def delete(self, keys: Iterable[str]) -> None:
        for key in list(keys):
            (self._root / key).unlink(missing_ok=True)

    def read(self, key: str) -> tuple[bytes, str] | None:
        body = self.get(key)
        return None if body is None else (body, hashlib.md5(body, usedforsecurity=False).hexdigest())

    def replace(self, key: str, body: bytes, tag: str | None) -> bool:
        found = self.read(key)
        if tag != (found and found[1]):
            return False
        self.put(key, [body], "")
        return True

    def remove(self, key: str, tag: str) -> bool:
        found = self.read(key)
        if found is None or found[1] != tag:
            return False
        self.delete([key])
        return True

    def uri(self, key: str) -> str:
        return f"s3://bucket/{key}"


def fill(folder: Path, rows: int, file_rows: int) -> None:
    """Write the rows of a log's requests, spread over a day, as the consumer would."""
    from tagline import Record, write

    from benchmarks import consume
    from benchmarks.decode import requests_of_a_log
    from benchmarks.lake import packed, plans
    from consumers.rows.lake.content import content, name_of
    from consumers.rows.lake.mapping import LakePacker, cut_at_hours
    from consumers.rows.lake.parquet import MEDIA_TYPE, pack

    bucket, packer = Folder(folder), LakePacker(plans())
    requests = list(zip(range(10_000), requests_of_a_log(), strict=False))
    midnight = int(datetime(DAY.year, DAY.month, DAY.day, tzinfo=UTC).timestamp() * 1_000)
    for start in range(0, rows, file_rows):
        batch = []
        for number in range(start, min(start + file_rows, rows)):
            _, fields = requests[number % len(requests)]
            when = midnight + number * 86_400_000 // rows
            line = write(Record(consume.identity(number), when, fields, src="s", seq=number))
            batch.append((None, packed(packer, orjson.loads(line), line)))
        for request in cut_at_hours(batch):
            of_hour = sorted((row for _, row in request), key=lambda row: row.identity)
            columns = content(of_hour)
            bucket.put(name_of(columns).key, [pack(columns)], MEDIA_TYPE)


def export(folder: Path, rows: int) -> dict[str, float]:
    """Export the day, and return what that took."""
    from exporter.export.day import DayJob, export_formats
    from exporter.lake.days import Day
    from exporter.lake.formats import Format, module_of
    from exporter.stores.lake.questions import LakeStore

    bucket, kinds = Folder(folder), (Format.CSV_GZ, Format.PARQUET)
    for kind in kinds:
        module_of(kind.rules.unpacked)  # imports are part of the base
    gc.freeze()  # as the function does
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    counted = sum(LakeStore(bucket).tally(DAY).values())
    question = time.perf_counter() - began
    cpu = time.process_time()
    outcomes = export_formats([Day(bucket, DAY, kind) for kind in kinds], LakeStore(bucket), DayJob())
    cpu = time.process_time() - cpu
    written = {getattr(outcome, "manifest").rows for outcome in outcomes}  # noqa: B009 - an exception has none
    if written != {rows} or counted != rows:
        raise AssertionError(f"{written} rows were written, {counted} counted, of {rows}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base
    return {"us_per_row": cpu * 1e6 / rows, "peak": peak / 1024, "question_ms": question * 1e3}


def export_hourly(folder: Path, rows: int) -> dict[str, float]:
    """Export the day hour by hour, then once more with a late row, and return what that took."""
    from exporter.export.day import DayJob
    from exporter.export.hourly import commit_hours, write_hours
    from exporter.lake.days import Day
    from exporter.lake.formats import Format
    from exporter.stores.lake.questions import LakeStore

    bucket, store = Folder(folder), LakeStore(Folder(folder))
    days = [Day(bucket, DAY, kind) for kind in (Format.CSV_GZ, Format.PARQUET)]
    gc.freeze()  # as the function does

    def spend(first: int) -> float:
        began = time.process_time()
        for hour in range(first, 25):
            if any(write_hours(days, store, DayJob(), hour)):
                raise AssertionError(f"hour {hour} was not written")
        written = [commit_hours(day, store, DayJob()) for day in days]
        if {getattr(each, "manifest").rows for each in written} != {rows}:  # noqa: B009 - an error has none
            raise AssertionError(f"not all of {rows} rows were written")
        return time.process_time() - began

    once = spend(1)
    # The same rows as another fragment: a redelivery that is cut elsewhere.
    key = next(bucket.keys("store/"))
    bucket.put(key.replace(key[-40:-8], "0" * 32), bucket.stream(key), "")
    return {"us_per_row": once * 1e6 / rows, "late_hour_share": spend(24) / once}


def main() -> None:
    """Do one step, or all for the numbers of an export."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=MANY_ROWS)
    parser.add_argument("--file-rows", type=int, default=FILE_ROWS)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--step", choices=("fill", "export"))
    parser.add_argument("--hourly", action="store_true")
    given = parser.parse_args()
    if given.folder is None:
        print(json.dumps(measured(given.rows, given.file_rows, hourly=given.hourly)))
    elif given.step == "fill":
        fill(given.folder, given.rows, given.file_rows)
    elif given.hourly:
        print(json.dumps(export_hourly(given.folder, given.rows)))
    else:
        print(json.dumps(export(given.folder, given.rows)))


if __name__ == "__main__":
    main()
