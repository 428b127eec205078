"""What reading rows from files of UNLOAD would cost the exporter, beside reading them from pages of answers.

Pages come in order. Of files no order is documented, so their rows have to be sorted. Both are read from
memory: what the network and Timestream take for either is not in it.
"""

import csv
import gzip
import io
import json
import statistics
import time
import tracemalloc
from collections.abc import Callable, Iterator

from isal import igzip

from benchmarks.export import PAGE_ROWS, _row
from exporter.stores import timestream

ROUNDS = 5
PAGES = 100

Row = list[str | None]


def run() -> dict[str, float]:
    """Measure.

    Returns:
        Microseconds of processor time for a row, medians, and the MiB that 100,000 rows take while they are
        sorted.
    """
    rows = [_row(number) for number in range(PAGE_ROWS)]
    page, file = _page(rows), _file(rows)
    ways: dict[str, Callable[[], int]] = {
        "pages": lambda: sum(1 for _ in _read_pages(page)),
        "unload": lambda: sum(1 for _ in _read(file)),
        "unload_sorted": lambda: len(sorted(_read(file), key=_in_order)),
    }
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, read in ways.items():
            began = time.process_time()
            count = read()
            cpu[name].append((time.process_time() - began) * 1e6 / count)
            if count != PAGES * PAGE_ROWS:
                raise AssertionError(f"{name} read {count} rows")
    tracemalloc.start()
    ways["unload_sorted"]()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return {f"{name}_cpu_us": statistics.median(each) for name, each in cpu.items()} | {
        "unload_sorted_mib": peak / (1 << 20)
    }


def _page(rows: list[Row]) -> bytes:
    data = [
        {"Data": [{"NullValue": True} if value is None else {"ScalarValue": value} for value in row]}
        for row in rows
    ]
    return json.dumps({"Rows": data, "ColumnInfo": [], "QueryStatus": {}}).encode()


def _read_pages(page: bytes) -> Iterator[Row]:
    """Yield rows as the adapter reads them: with its own decoders."""
    decode_page, decode_row = timestream._decoder.decode, timestream._row_decoder.decode  # noqa: SLF001 - what is measured
    for _ in range(PAGES):
        for row in decode_page(page).Rows:
            yield [datum.ScalarValue for datum in decode_row(row).Data]


def _file(rows: list[Row]) -> bytes:
    """Return rows as UNLOAD writes them: gzip, a backslash before a quote, no header."""
    text = io.StringIO(newline="")
    csv.writer(text, escapechar="\\", doublequote=False, lineterminator="\n").writerows(rows)
    return gzip.compress(text.getvalue().encode() * PAGES)


def _read(file: bytes) -> Iterator[Row]:
    unpacked = igzip.IGzipFile(fileobj=io.BytesIO(file))  # type: ignore[no-untyped-call] # isal's stubs have none
    with io.TextIOWrapper(unpacked, "utf-8", newline="") as text:
        for row in csv.reader(text, escapechar="\\", doublequote=False):
            yield [value or None for value in row]


def _in_order(row: Row) -> tuple[str, ...]:
    when, kind, identity, source = (value or "" for value in row[:4])
    return when, identity, kind, source
