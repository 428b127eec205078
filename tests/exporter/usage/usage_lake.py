"""A lake with its roll-ups among twins, for the tests of usage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import cast

from consumers.accounts.minutes import MinuteCell
from exporter.export.day import DayJob, export_day
from exporter.lake.days import Day
from exporter.lake.formats import Format
from exporter.store import Type
from exporter.usage.groups import COLUMNS
from exporter.usage.position import StreamPosition
from exporter.usage.roller import Rolled, Roller
from exporter.usage.rollup import Completeness
from tests.exporter.usage.usage_rows import START, TYPE, Row
from tests.twins import Bucket, Rows, read_key

TYPES: dict[str, Type] = {
    "time": "timestamp",
    "status": "number",
    "duration_ms": "number",
    "bytes": "number",
    "timed_out": "boolean",
    "unfinished": "boolean",
}
_COLUMNS: dict[str, Type] = {"time": "timestamp", "_id": "text", "source": "text", "note": "text"}
_COLUMNS |= {name: TYPES.get(name, "text") for name in COLUMNS}


def store_of(rows: Sequence[Row]) -> Rows:
    """Return a store with rows, each with an identity, and a column that nobody asks for."""
    store = Rows(_COLUMNS, [])
    keep(store, rows)
    return store


def keep(store: Rows, rows: Sequence[Row]) -> None:
    """Store more rows."""
    for each in rows:
        values = dict(zip(COLUMNS, map(_as_stored, each), strict=True))
        identity = {"_id": str(len(store.kept)), "source": "/aws/lambda/pets", "note": "x"}
        store.keep([{**identity, **values}[name] for name in _COLUMNS])


def _as_stored(value: str | None) -> str | None:
    """Return a number as stores write it: whole ones without decimals."""
    return value.removesuffix(".0") if value and value.replace(".", "", 1).isdigit() else value


class WatchedBucket(Bucket):
    """A bucket that remembers which objects were read.

    Attributes:
        read_keys: Their keys.
    """

    def __init__(self) -> None:
        super().__init__()
        self.read_keys: list[str] = []

    def get(self, key: str) -> bytes | None:  # type: ignore[override]  # no default here
        self.read_keys.append(key)
        return super().get(key)

    def read(self, key: str) -> tuple[bytes, str] | None:
        self.read_keys.append(key)
        return super().read(key)


class Lake:
    """A store, a bucket with a lake, and the roll-ups of both.

    Args:
        rows: The store's rows.
        now: The time.
    """

    def __init__(self, rows: Sequence[Row] = (), now: datetime = START + timedelta(days=3, hours=12)) -> None:
        self.store, self.bucket, self.now = store_of(rows), WatchedBucket(), now
        self.type, self.position = TYPE, cast("StreamPosition | None", None)
        self.completeness: dict[date, Completeness] = {}
        self.minutes: Counter[MinuteCell] = Counter()

    def export(self, *days: int, kind: Format = Format.CSV_GZ) -> None:
        """Write days to the lake, by their numbers from `START`."""
        for number in days:
            day = START.date() + timedelta(days=number)
            export_day(
                Day(self.bucket, day, kind), self.store, DayJob(now=lambda: self.now, read_key=read_key)
            )

    def roll(self, seconds: float = 900) -> Rolled:
        """Roll up what has changed."""
        return self.roller.run(lambda: seconds)

    @property
    def roller(self) -> Roller:
        """What rolls up."""
        return Roller(
            self.store,
            self.bucket,
            self.type,
            lambda: self.now,
            lambda _days: self.completeness,
            lambda _first: self.minutes,
            lambda _since, now: self.position or StreamPosition(now, 0.0),
        )
