"""Adapter: questions to the lake store, answered from its fragments and from the days that are exported.

A day's rows are those of its fragments and those of its committed parts together, each once, without those of
forgotten clients. So an answer is the same before, while and after a day is exported, and stays whole when
its fragments are gone.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import orjson
import pyarrow.compute as pc
from botocore.exceptions import BotoCoreError, ClientError

from consumers.bucket import Bucket, Objects, client_config
from consumers.rows import late_days
from consumers.rows.lake.fragments import (
    FIELDS,
    PREFIX,
    Fragment,
    day_folder,
    hour_folder,
    hours_of,
    parse_fragment,
)
from consumers.rows.table import DIMENSIONS, EXTRA, SOURCE
from consumers.settings import read_settings
from exporter.lake.columns import lake_columns
from exporter.lake.days import Day
from exporter.lake.forgotten_list import ForgottenList, ReadKey, key_of_secret, no_key
from exporter.lake.formats import Format
from exporter.lake.manifest import MANIFEST, beginning
from exporter.store import (
    FIRST_COLUMNS,
    SLICE_ROWS,
    Answer,
    Bill,
    Column,
    Days,
    Hour,
    QuestionTooLargeError,
    Span,
    StoreError,
    Tally,
    Type,
    Values,
    oldest_kept,
    unbilled,
    whole,
)
from exporter.stores.lake.athena import DIALECT, sql_of_stack
from exporter.stores.lake.committed import find_committed
from exporter.stores.lake.copies import MOMENT
from exporter.stores.lake.day_rows import SECOND, DayRows, Listing
from exporter.stores.lake.erasure import count_in_fragments, erase_from_fragments
from exporter.stores.lake.texts import kind_of

# Fragments are deleted so many days after they were written: the lifecycle rule in template.yml.
FRAGMENT_DAYS: Final = 8
# How many rows one answer may have; a larger one is refused, as by every store.
MAX_ROWS = 10_000_000
_MINUTE, _DAY = 60 * SECOND, 86_400 * SECOND
_FIELDS = (Column(FIELDS, "text"),)
_DAY_FOLDER = f"{PREFIX}day="
_NUMBERS = re.compile(r"[0-9]+")


@dataclass(frozen=True, slots=True)
class Settings:
    """The part of a function's environment that is for this store; docs/reference/settings.md."""

    bucket: str
    forgotten_key_arn: str


def from_environment(environ: Mapping[str, str], client: Callable[..., Any]) -> LakeStore:
    """Return the store in the bucket that a function's environment names.

    Args:
        environ: The environment.
        client: Gives a boto3 client by a service's name.

    Raises:
        SettingsError: If a setting is missing.
    """
    settings = read_settings(Settings, environ)
    return LakeStore(
        Bucket(client("s3", config=client_config()), settings.bucket),
        read_key=key_of_secret(settings.forgotten_key_arn, client),
    )


def of_stack(outputs: Mapping[str, str], client: Callable[[str], Any]) -> LakeStore:
    """Return the store in the bucket that a stack's outputs name.

    Args:
        outputs: The outputs.
        client: Gives a boto3 client by a service's name.
    """
    return LakeStore(
        Bucket(client("s3"), outputs["Bucket"]),
        ask=sql_of_stack(outputs, client),
        read_key=key_of_secret(outputs["ForgottenKeyArn"], client),
    )


def _ask_nothing(_text: str) -> Answer:
    raise StoreError("the lake store answers SQL only through tagline query")


@dataclass(frozen=True, slots=True)
class _Survey:
    """What reading all rows of a day once tells about it."""

    listing: Listing
    tally: Tally = field(default_factory=dict)
    sources: dict[str, int] = field(default_factory=dict)
    types: dict[str, Type] = field(default_factory=dict)


class LakeStore:
    """The fragments and exported days of a bucket.

    Args:
        objects: The bucket.
        max_rows: How many rows one answer may have.
        piece_rows: How many rows are in memory at once.
        ask: Answers SQL.
        read_key: Gives the key of the list of forgotten clients.
        hours: The hours of each day whose rows there are, from 0 to 23.
    """

    name = "the lake store"
    dialect = DIALECT
    # A row can be read as soon as its fragment is written.
    settles_after = timedelta(0)
    keeps_for = timedelta(days=FRAGMENT_DAYS)
    includes_exports = True

    def __init__(
        self,
        objects: Objects,
        max_rows: int = MAX_ROWS,
        piece_rows: int = SLICE_ROWS,
        ask: Callable[[str], Answer] = _ask_nothing,
        *,
        read_key: ReadKey = no_key,
        hours: range = range(24),
    ) -> None:
        self.bill: Callable[[], Bill] = unbilled
        self._objects = objects
        self._max_rows = max_rows
        self._piece_rows = piece_rows
        self._last: _Survey | None = None
        self._hours = hours
        self._ask = ask
        self._clients = ForgottenList(objects, read_key)

    def whole_since(self, day: date, now: datetime) -> str | None:
        """Return the time from which on the store still has a day's rows, or None if it has the whole day.

        Fragments are gone some days after they were written. A day has lost some if it was never exported,
        and what asked for its export is older than that.
        """
        committed = find_committed(self._objects, day)
        if committed is not None:
            return committed.partial_since
        oldest = now - self.keeps_for
        asked = self._objects.listed(f"{late_days.PREFIX}{day.isoformat()}/")
        if self._objects.get(f"{late_days.GIVEN_UP}{day}") is None and all(
            marker.modified > oldest for marker in asked
        ):
            return None
        return oldest_kept(self.keeps_for, day, now)

    def count(self) -> int:
        """Return how many rows there are: by its manifest for a day without fragments."""
        read = self._billed()
        return sum(self._count(day, read) for day in self._days())

    def _count(self, day: date, read: Callable[[int], None]) -> int:
        listing = self._listing(day)
        if listing.committed is not None and not listing.fragments and listing.forgotten is None:
            return listing.committed.rows
        return sum(self._tally(listing, read).values())

    def days(self) -> Days | None:
        """Return the days from the earliest row to the latest; None without rows."""
        self._billed()
        days = self._days()
        return Days(days[0], days[-1]) if days else None

    def sources(self, day: date) -> dict[str, int]:
        """Return how many rows of a day each log group has."""
        return self._survey(day, self._billed()).sources

    def tally(self, day: date) -> Tally:
        """Return how many rows each minute of a day has."""
        return self._tally(self._listing(day), self._billed())

    def _tally(self, listing: Listing, read: Callable[[int], None]) -> Tally:
        if self._last is not None and self._last.listing == listing:
            return self._last.tally
        start = _nanoseconds(whole(listing.day).start)
        tally: Counter[int] = Counter()
        for moments in DayRows(listing, self._reader(read), self._piece_rows).moments(start, start + _DAY):
            tally.update(_counts(_minutes(moments, start)))
        return dict(sorted(tally.items()))

    def columns(self, day: date) -> tuple[Column, ...]:
        """Return the columns that have a value in a row of a day."""
        return tuple(Column(*column) for column in self._survey(day, self._billed()).types.items())

    def filled(self, day: date, names: Collection[str]) -> set[str]:
        """Return which of these columns have a value in a row of a day."""
        return set(names) & self._survey(day, self._billed()).types.keys()

    def hours(self, day: date) -> dict[int, Hour]:
        """Return the hours of a day that have fragments: their names have the numbers of rows."""
        self._billed()
        found: dict[int, list[Fragment]] = {}
        for fragment in map(_parsed, sorted(self._objects.keys(day_folder(day)))):
            found.setdefault(fragment.hour % 24, []).append(fragment)
        return {
            hour: Hour(sum(each.rows for each in fragments), _digest(fragments))
            for hour, fragments in found.items()
        }

    def within(self, hours: range) -> LakeStore:
        """Return the same store with no other rows than those of these hours of each day."""
        store = LakeStore(
            self._objects,
            self._max_rows,
            self._piece_rows,
            self._ask,
            read_key=self._clients.read_key,
            hours=hours,
        )
        store.bill = self.bill
        return store

    def rows(self, span: Span, columns: tuple[Column, ...]) -> Answer:
        """Return columns of a span's rows, in order of time, identity, type, source and dimensions."""
        return Answer(columns, self._pages(span, columns))

    def erasable(self, day: date, client: str) -> int:
        """Return how many rows of a client a day's fragments have."""
        return count_in_fragments(self._objects, day, client)

    def erase(self, day: date) -> int:
        """Remove a day's rows of forgotten clients from the fragments, and return how many."""
        forgotten = self._clients.read()
        return 0 if forgotten is None else erase_from_fragments(self._objects, day, forgotten)

    def sql(self, text: str) -> Answer:
        """Return the answer to a question in SQL over the days that are exported.

        Args:
            text: A SELECT; `{table}` stands for the table's name.

        Raises:
            StoreError: If it is refused.
        """
        return self._ask(text)

    def _pages(self, span: Span, columns: tuple[Column, ...]) -> Iterator[list[Values]]:
        read = self._billed()
        day = date.fromisoformat(span.start[:10])
        # An export asks for many spans of a day: what the day consists of is listed for the first.
        survey = self._last if self._last and self._last.listing.day == day else self._survey(day, read)
        known = {*survey.types, *(each.name for each in (*FIRST_COLUMNS, *lake_columns(self._objects)))}
        if unknown := [column.name for column in columns if column.name not in known]:
            raise StoreError(f"the lake store has no column {unknown[0]} on {day}")
        rows = DayRows(survey.listing, self._reader(read), self._piece_rows)
        count = 0
        for piece in rows.pieces(_nanoseconds(span.start), _nanoseconds(span.end), columns):
            for page in piece.pages(columns):
                count += len(page)
                if count > self._max_rows:
                    raise QuestionTooLargeError(
                        f"an answer has more than {self._max_rows:,} rows, which is the limit of one question"
                    )
                yield page

    def _survey(self, day: date, read: Callable[[int], None]) -> _Survey:
        """Read the identities and the names of the fields of a day, unless it is as it was the last time."""
        listing = self._listing(day)
        if self._last is not None and self._last.listing == listing:
            return self._last
        found = _Survey(listing)
        if listing.fragments or listing.committed is not None:
            rows = DayRows(listing, self._reader(read), self._piece_rows)
            self._fill(found, rows)
        self._last = found
        return found

    def _fill(self, survey: _Survey, rows: DayRows) -> None:
        tally: Counter[int] = Counter()
        sources: Counter[str] = Counter()
        fields: dict[str, Type] = {}
        dimensions: set[str] = set()
        conflicts: set[str] = set()
        day = _nanoseconds(whole(survey.listing.day).start)
        for piece in rows.pieces(day, day + _DAY, _FIELDS):
            minutes = _minutes(piece.values(MOMENT), day)
            tally.update(_counts(minutes))
            sources.update(_counts(piece.values(SOURCE)))
            dimensions |= {name for name in DIMENSIONS if piece.values(name).null_count < len(minutes)}
            if FIELDS in piece.fragments.column_names:
                _note_fields(piece.fragments[FIELDS].to_pylist(), fields, conflicts)
        conflicts |= rows.conflicts
        survey.tally.update(sorted(tally.items()))
        survey.sources.update(sorted(sources.items()))
        if not tally:
            return
        committed = survey.listing.committed
        found: dict[str, Type] = {column.name: column.type for column in FIRST_COLUMNS}
        for name in set(DIMENSIONS) - dimensions:
            del found[name]
        found |= {column.name: column.type for column in (committed.columns if committed else ())}
        for name, type_ in (*rows.types.items(), *sorted(fields.items())):
            if found.setdefault(name, type_) != type_:
                conflicts.add(name)
        # The lake's first type of a column is its type for ever.
        for column in lake_columns(self._objects):
            if column.name in found and found[column.name] != column.type:
                conflicts.add(column.name)
                found[column.name] = column.type
        if conflicts:
            found.setdefault(EXTRA, "text")
        survey.types.update(found)

    def _listing(self, day: date) -> Listing:
        hours = hours_of(day)[self._hours.start : self._hours.stop]
        folders = [day_folder(day)] if len(hours) == len(hours_of(day)) else map(hour_folder, hours)
        keys = (key for folder in folders for key in self._objects.keys(folder))
        return Listing(
            day,
            tuple(sorted(map(_parsed, keys))),
            find_committed(self._objects, day),
            self._clients.read(),
            hours,
        )

    def _days(self) -> list[date]:
        """Return the days that have a fragment or an exported row."""
        days = {date.fromisoformat(key[len(_DAY_FOLDER) :][:10]) for key in self._objects.keys(_DAY_FOLDER)}
        for kind in Format:
            for key in self._objects.keys(beginning(kind)):
                if key.endswith(f"/{MANIFEST}"):
                    day = date(*(int(number) for number in _NUMBERS.findall(key)[-3:]))
                    if (manifest := Day(self._objects, day, kind).manifest()) and manifest.rows:
                        days.add(day)
        return sorted(days)

    def _billed(self) -> Callable[[int], None]:
        """Begin a question: what is returned is called with the bytes that are read for it."""
        bill, scanned = self.bill(), 0
        bill(0, 0)

        def read(size: int) -> None:
            nonlocal scanned
            scanned += size
            bill(scanned, scanned)

        return read

    def _reader(self, read: Callable[[int], None]) -> Callable[[str], Iterator[bytes]]:
        def stream(key: str) -> Iterator[bytes]:
            try:
                for chunk in self._objects.stream(key):
                    read(len(chunk))
                    yield chunk
            except (BotoCoreError, ClientError) as error:
                raise StoreError(f"the lake store cannot read {key}: {error}") from error

        return stream


def _parsed(key: str) -> Fragment:
    try:
        return parse_fragment(key)
    except ValueError as error:
        raise StoreError(f"the lake store: {error}; move it away, and ask again") from error


def _digest(fragments: list[Fragment]) -> str:
    names = "\n".join(fragment.hash for fragment in fragments)
    return hashlib.blake2b(names.encode(), digest_size=16).hexdigest()


def _note_fields(texts: list[str | None], types: dict[str, Type], conflicts: set[str]) -> None:
    """Add the names in `fields` with their first types, and those that have others as well."""
    seen: set[tuple[Any, ...]] = set()
    for text in texts:
        if text is None:
            continue
        fields = orjson.loads(text)
        shape = (*fields, *map(type, fields.values()))
        if shape in seen:
            continue
        seen.add(shape)
        for name, value in fields.items():
            kind = kind_of(value)
            if types.setdefault(name, kind) != kind:
                conflicts.add(name)


def _minutes(moments: Any, start: int) -> Any:
    """Return the minutes since `start` of times in nanoseconds."""
    return pc.divide(pc.subtract(moments, start), _MINUTE)


def _counts(values: Any) -> dict[Any, int]:
    counted = values.value_counts()
    return dict(zip(counted.field(0).to_pylist(), counted.field(1).to_pylist(), strict=True))


def _nanoseconds(time: str) -> int:
    """Return a time of the port in nanoseconds since 1970."""
    seconds = datetime.fromisoformat(time[:19]).replace(tzinfo=UTC).timestamp()
    return int(seconds) * SECOND + int(time[20:])
