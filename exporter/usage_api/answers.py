"""Answers from the roll-ups in the bucket, and from answers that are ready there."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

import orjson

from consumers.bucket import Objects
from exporter.usage import questions, stored, views
from exporter.usage.narrowing import of_client
from exporter.usage.questions import DAY, WEEK, Period, Range
from exporter.usage.rollup import DETAILS, RollUp, without_collection
from exporter.usage_api.parameters import Question

# So many answers are kept in memory, for who asks the same again.
_KEPT = 32
_VIEWS = {
    "/usage": "summary",
    "/usage/series": "series",
    "/usage/routes": "routes",
    "/usage/clients": "clients",
}
# What a tenant's rows of routes have: the other figures are not kept by route and client.
_COUNTED = ("method", "route", "requests", "previous_requests", "change", "other")


class NoNumbersError(Exception):
    """There are no roll-ups yet."""


@dataclass(frozen=True, slots=True)
class Content:
    """What an answer has.

    Attributes:
        tag: Names it, for an `ETag`.
        body: Returns it, packed with gzip.
    """

    tag: str
    body: Callable[[], bytes]


@dataclass(frozen=True, slots=True)
class Answers:
    """Answers questions, without asking a store.

    Attributes:
        objects: The bucket.
    """

    objects: Objects
    _made: OrderedDict[str, bytes] = field(default_factory=OrderedDict)

    def answer(self, question: Question, tenant: str | None) -> Content:
        """Return the answer to a question.

        Args:
            question: The question.
            tenant: The client that the caller is; None for a caller that may have all numbers.

        Raises:
            NoNumbersError: If there are no roll-ups yet.
            ValueError: If the numbers of the range cannot be divided as it is asked.
        """
        view = _VIEWS.get(question.path)
        if tenant is None and view is not None and question.is_plain and not question.csv:
            found = self.objects.read(stored.view_key(view, str(question.range)))
            if found is not None:
                return Content(found[1].strip('"'), lambda: found[0])
        there = stored.days_there(self.objects)
        if not there:
            raise NoNumbersError
        newest, _ = stored.read_hours(self.objects, max(there), ())
        through = questions.data_through(newest)
        if question.path == "/api/analytics/usage":
            wanted = _days(through - (question.days - 1) * DAY, through)
            range_, by_hour = None, set[date]()
        else:
            range_ = question.range_until(through)
            wanted, by_hour = _needed(range_, narrowed=question.is_narrowed or tenant is not None)
        days = {day: there[day] for day in sorted(wanted & there.keys())}
        named = [repr(question), repr(tenant), repr(range_), *days.values()]
        tag = hashlib.sha256("\n".join(named).encode()).hexdigest()[:32]

        def body() -> bytes:
            if tag not in self._made:
                with without_collection():  # the roll-ups are gone at its end
                    self._made[tag] = stored.packed(
                        _made(
                            question,
                            self._read(days, by_hour, tenant, question.details),
                            range_,
                            through,
                            tenant,
                        )
                    )
                while len(self._made) > _KEPT:
                    self._made.popitem(last=False)
            return self._made[tag]

        return Content(tag, body)

    def rollups(self, days: Mapping[date, str], by_hour: set[date], tenant: str | None) -> list[RollUp]:
        """Return the roll-ups of days, with the requests by route and client.

        Args:
            days: The days, with what `stored.days_there` returned for each.
            by_hour: Those of which the hours are returned.
            tenant: The client whose numbers are returned; None for all.
        """
        return self._read(days, by_hour, tenant, DETAILS)

    def _read(
        self, days: Mapping[date, str], by_hour: set[date], tenant: str | None, details: Collection[str]
    ) -> list[RollUp]:
        if tenant is not None:
            details = ("clients", "pairs")
        whole = {day: tag for day, tag in days.items() if day not in by_hour}
        with ThreadPoolExecutor(stored.READERS) as pool:
            hours = pool.map(lambda day: stored.read_hours(self.objects, day, details)[0], sorted(by_hour))
            found = [*stored.read_days(self.objects, whole, details)[0].values()]
            found += [each for of_day in hours for each in of_day]
        return found if tenant is None else [of_client(each, tenant) for each in found]


def _needed(range_: Range, *, narrowed: bool) -> tuple[set[date], set[date]]:
    """Return the days that a range and the time before it have, and which of them are needed by the hour."""
    ends = {range_.start, range_.end, range_.start - range_.shift, range_.end - range_.shift}
    days = _days(range_.start, range_.end - questions.HOUR)
    days |= _days(range_.start - range_.shift, range_.end - range_.shift - questions.HOUR)
    if range_.length < WEEK or (narrowed and range_.step < DAY):
        return days, days
    return days, {end.date() for end in ends if end != questions.floor(end, DAY)}


def _days(first: datetime, last: datetime) -> set[date]:
    return {
        first.date() + number * timedelta(days=1) for number in range((last.date() - first.date()).days + 1)
    }


def _made(
    question: Question, rollups: Sequence[RollUp], range_: Range | None, through: datetime, tenant: str | None
) -> bytes:
    """Return the content of an answer."""
    if range_ is None:
        return orjson.dumps(questions.usage_by_date(rollups, question.days, through))
    asked = questions.period(rollups, range_)
    content = _content(question, asked)
    if tenant is not None:
        content.pop("completeness", None)
        if question.path == "/usage/routes":
            content["routes"] = [
                {name: value for name, value in row.items() if name in _COUNTED} for row in content["routes"]
            ]
    return questions.to_csv(_rows(question, content)).encode() if question.csv else orjson.dumps(content)


def _content(question: Question, asked: Period) -> dict[str, Any]:
    only = question.only
    if question.path == "/usage/route":
        return questions.route(asked, only.method, only.route)
    if question.path == "/usage/client":
        return questions.client(asked, str(only.client))
    name = _VIEWS[question.path]
    content = views.content_of(name, asked, only)
    if name in ("routes", "clients"):
        content[name] = questions.ordered(
            content[name], sort=question.sort, search=question.search, limit=question.limit
        )
    return content


def _rows(question: Question, content: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the rows of an answer in CSV."""
    name = _VIEWS[question.path]
    if name == "summary":
        return [{"from": content["range"]["from"], "to": content["range"]["to"], **content["total"]}]
    rows: list[Mapping[str, Any]] = content[name]
    return rows
