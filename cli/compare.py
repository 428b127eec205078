"""A day of one store beside the same day of another, or beside its export: rows, sums and digests."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date
from decimal import Context, Decimal
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from cli.errors import CommandError
from cli.screen import print_rows
from cli.target import Target
from consumers.rows import schema
from consumers.rows.table import EXTRA, OVERFLOW, PARTITION, SAID
from exporter.export.whole_rows import WholeRows
from exporter.lake.batch import Batch
from exporter.lake.days import Day
from exporter.lake.forgotten import CLIENT, forgotten_until, is_before
from exporter.lake.forgotten_list import ForgottenList
from exporter.lake.formats import Format
from exporter.store import TIME, Column, Values, places, slices

# Enough digits to add 10 million doubles without rounding that is seen.
_EXACT = Context(prec=60)
_FETCHERS = 8
_SCHEMAS = Path(__file__).parents[1] / "schemas"
# What differs between stores that hold the same records: the place of a whole record.
_LEFT_OUT = {OVERFLOW, *PARTITION}


@dataclass(slots=True)
class Sums:
    """What a column has on a day.

    Attributes:
        values: Rows with a value.
        total: The sum of numbers; 0 for other types.
        sha256: Of the values in the order of the rows, in hex; no value is not empty text.
    """

    values: int = 0
    total: Decimal = field(default_factory=Decimal)
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Side:
    """What one side has of a day.

    Attributes:
        name: What people call it.
        rows: How many rows.
        columns: Each column that has a value.
    """

    name: str
    rows: int
    columns: Mapping[str, Sums]


def store_side(target: Target, day: date, name: str) -> Side:
    """Return what a pipeline's store has of a day: whole rows, as an export has them."""
    store, objects, clients = target.store(), target.bucket(), target.forgotten()
    there = tuple(column for column in store.columns(day) if column.name not in PARTITION)
    tally = store.tally(day)
    added = (Column(EXTRA, "text"),) if OVERFLOW in places(there) and EXTRA not in places(there) else ()

    def pages() -> Iterator[list[Values]]:
        for span in slices(day, tally) if tally else ():
            for page in store.rows(span, there).pages:
                yield [(*row, *(None for _ in added)) for row in page] if added else page

    columns = (*there, *added)
    with ThreadPoolExecutor(_FETCHERS) as pool:
        plans = schema.load_schemas(_SCHEMAS)
        whole = WholeRows(columns, lambda keys: pool.map(objects.get, keys), plans)
        return _summed(
            f"{name}: {store.name}", columns, whole.batches(_remembered(pages(), columns, clients))
        )


def export_side(target: Target, day: date) -> Side:
    """Return what the exported files of a pipeline have of a day, in the first format that there is.

    Raises:
        CommandError: If the day was never exported.
    """
    for kind in (Format.CSV_GZ, *Format):
        lake_day = Day(target.bucket(), day, kind)
        if (manifest := lake_day.manifest()) is not None:
            name = f"export: {kind}, revision {manifest.revision}"
            return _summed(name, manifest.columns, lake_day.rows(manifest))
    raise CommandError(f"{day} was never exported", f"export it first: tagline export --day {day}")


def differences(one: Side, other: Side) -> list[str]:
    """Return in which columns two sides differ, by name; the rows count as one."""
    found = [] if one.rows == other.rows else ["rows"]
    names = sorted({*one.columns, *other.columns})
    return found + [name for name in names if _shown(one, name) != _shown(other, name)]


def comparison_json(day: date, one: Side, other: Side) -> dict[str, Any]:
    """Return two sides for a program, with the names of the columns that differ."""
    sides = [
        {
            "name": side.name,
            "rows": side.rows,
            "columns": {
                name: {"values": sums.values, "sum": str(sums.total), "sha256": sums.sha256}
                for name, sums in sorted(side.columns.items())
            },
        }
        for side in (one, other)
    ]
    return {"day": day.isoformat(), "sides": sides, "differences": differences(one, other)}


def print_comparison(day: date, one: Side, other: Side, screen: Console) -> None:
    """Print two sides, a line for each column."""
    screen.print(Text(str(day), "bold"), f": {one.name} | {other.name}", sep="", highlight=False)
    different = differences(one, other)
    lines: list[tuple[str, ...]] = [
        ("rows", f"{one.rows:,}", f"{other.rows:,}", "", "", "", "", _verdict("rows", different))
    ]
    for name in sorted({*one.columns, *other.columns}):
        pairs = zip(_shown(one, name), _shown(other, name), strict=True)
        lines.append((name, *(text for pair in pairs for text in pair), _verdict(name, different)))
    names = ("column", "values", "values", "sum", "sum", "digest", "digest", "")
    print_rows(names, lines, screen)


def _verdict(name: str, different: list[str]) -> str:
    return "differs" if name in different else "same"


def _shown(side: Side, name: str) -> tuple[str, str, str]:
    sums = side.columns.get(name, Sums())
    return f"{sums.values:,}", f"{sums.total.normalize():f}" if sums.total else "", sums.sha256[:12]


def _remembered(
    pages: Iterable[list[Values]], columns: tuple[Column, ...], clients: ForgottenList
) -> Iterator[list[Values]]:
    """Yield rows of clients that are not forgotten: an export leaves the others out."""
    forgotten = clients.read()
    if forgotten is None:
        yield from pages
        return
    until_of = forgotten_until(forgotten)
    client, said, time = (places(columns).get(name) for name in (CLIENT, SAID, TIME))
    assert time is not None

    def is_forgotten(row: Values) -> bool:
        until = until_of(None if client is None else row[client], None if said is None else row[said])
        return bool(until) and is_before(row[time], until)

    for page in pages:
        yield [row for row in page if not is_forgotten(row)]


def _summed(name: str, columns: tuple[Column, ...], batches: Iterable[Batch]) -> Side:
    hashes = {column.name: hashlib.sha256() for column in columns}
    found = {column.name: Sums() for column in columns}
    rows = 0
    for batch in batches:
        rows += len(batch.rows)
        for column, values in zip(columns, zip(*batch.rows, strict=True), strict=True):
            sums = found[column.name]
            sums.values += len(values) - values.count(None)
            hashes[column.name].update("".join(map(_marked, values)).encode())
            if column.type in ("number", "integer"):
                for value in filter(None, values):
                    sums.total = _EXACT.add(sums.total, Decimal(value))
    for name_, sums in found.items():
        sums.sha256 = hashes[name_].hexdigest()
    kept = {name_: sums for name_, sums in found.items() if sums.values and name_ not in _LEFT_OUT}
    return Side(name, rows, kept)


def _marked(value: str | None) -> str:
    return "\0" if value is None else f"\1{value}"
