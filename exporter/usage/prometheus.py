"""Prometheus metrics from roll-ups: counters that never go back, written by `prometheus_client`. Pure.

A roll-up can shrink, because records are erased; a counter must not, or Prometheus takes it for a restart and
counts everything again. So the highest count that each day has had is kept for every series, and a counter is
the sum of these. https://prometheus.io/docs/instrumenting/writing_exporters/
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import orjson
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder

from consumers import documents
from consumers.accounts.minutes import NO_STATUS, UNANSWERED
from exporter.usage.buckets import PER_DOUBLING, count_up_to
from exporter.usage.rollup import Numbers, RollUp, Route, Usage, merge

_VERSION = 1
# Limits of the histogram: powers of four of a millisecond, where buckets end exactly. From 1 ms to 16 s.
_POWERS = range(0, 15, 2)
LIMITS_S = tuple(2**power / 1_000 for power in _POWERS)
# Endpoints and errors with their own series; those found later count as `other`, for ever: a series that
# came out of `other` would count twice.
MOST_ENDPOINTS, MOST_ERRORS = 500, 500
OTHER = "other"
# For so many days late records raise a counter; what is older is only kept as a sum.
KEPT_DAYS = 35
_US_PER_S = 1_000_000
_STATUSES = {NO_STATUS: "none", UNANSWERED: "unanswered"}

# The labels of a series, with the name of its metric first: `("requests", "GET", "/pets", "200")`.
Series = tuple[str, ...]
_Counts = dict[Series, int]


@dataclass(slots=True)
class Counters:
    """The counters, as they are kept between two roll-ups.

    Attributes:
        since: When counting began, in UTC.
        days: The highest counts of each of the newest days.
        settled: The counts of all older days together.
        endpoints: The endpoints with their own series, as method and endpoint.
        errors: The errors with their own series, as endpoint and type.
        data_through: Until when the numbers are complete; None before the first roll-up.
    """

    since: datetime
    days: dict[str, _Counts] = field(default_factory=dict)
    settled: _Counts = field(default_factory=dict)
    endpoints: set[tuple[str, str]] = field(default_factory=set)
    errors: set[tuple[str, str]] = field(default_factory=set)
    data_through: datetime | None = None

    def add(self, rollups: Iterable[RollUp]) -> None:
        """Count roll-ups: new ones, and new revisions of known ones.

        Args:
            rollups: Roll-ups that share no time, each within a day. If one of a day is given, all of it are.
        """
        by_day: dict[str, list[RollUp]] = {}
        for rollup in rollups:
            by_day.setdefault(f"{rollup.start:%Y-%m-%d}", []).append(rollup)
        for day in sorted(by_day):
            whole = merge(by_day[day])
            self._admit(whole.usage)
            if not self._is_settled(day):
                known = self.days.setdefault(day, {})
                for series, count in self._counts(whole).items():
                    known[series] = max(known.get(series, 0), count)
            self.data_through = max(whole.data_through, self.data_through or whole.data_through)
        self._settle()

    def _is_settled(self, day: str) -> bool:
        last = max(self.days, default=day)
        return day < f"{datetime.fromisoformat(last) - timedelta(days=KEPT_DAYS):%Y-%m-%d}"

    def _settle(self) -> None:
        for day in sorted(self.days):
            if self._is_settled(day):
                for series, count in self.days.pop(day).items():
                    self.settled[series] = self.settled.get(series, 0) + count

    def _admit(self, usage: Usage) -> None:
        """Give series to the most used endpoints and errors, as long as there are any left."""
        by_requests = sorted(usage.routes.items(), key=lambda each: (-each[1].requests, repr(each[0])))
        for route, _ in by_requests:
            if len(self.endpoints) < MOST_ENDPOINTS:
                self.endpoints.add(_labels(route))
        by_count = sorted(usage.errors.items(), key=lambda each: (-each[1], repr(each[0])))
        for (route, error), _ in by_count:
            if len(self.errors) < MOST_ERRORS:
                self.errors.add((_labels(route)[1], error))

    def _counts(self, rollup: RollUp) -> _Counts:
        usage, counts = rollup.usage, _Counts()
        for route, numbers in usage.routes.items():
            labels = _labels(route)
            _count(counts, labels if labels in self.endpoints else (OTHER, OTHER), numbers)
        _count(counts, (OTHER, OTHER), usage.other_routes.numbers)
        for (route, error), count in usage.errors.items():
            of_error = (_labels(route)[1], error)
            _add(counts, ("errors", *(of_error if of_error in self.errors else (OTHER, OTHER))), count)
        _add(counts, ("errors", OTHER, OTHER), usage.other_errors)
        _add(counts, ("lost",), rollup.completeness.lost or 0)
        _add(counts, ("quarantined",), rollup.completeness.quarantined)
        return counts

    def totals(self) -> _Counts:
        """Return the counters' values."""
        totals = dict(self.settled)
        for counts in self.days.values():
            for series, count in counts.items():
                totals[series] = totals.get(series, 0) + count
        return totals

    def to_json(self) -> bytes:
        """Return the counters as they are kept."""
        document = {
            "since": self.since.isoformat(),
            "days": {day: _packed(counts) for day, counts in self.days.items()},
            "settled": _packed(self.settled),
            "endpoints": sorted(self.endpoints),
            "errors": sorted(self.errors),
            "data_through": self.data_through and self.data_through.isoformat(),
        }
        return orjson.dumps(documents.stamped(document, _VERSION))

    @classmethod
    def from_json(cls, document: bytes) -> Counters:
        """Return the counters that were kept.

        Raises:
            NewerDocumentError: If a newer Tagline wrote them.
        """
        read = orjson.loads(document)
        documents.check_version(read, _VERSION, "the document of counters")
        through = read["data_through"]
        return cls(
            since=datetime.fromisoformat(read["since"]),
            days={day: _unpacked(counts) for day, counts in read["days"].items()},
            settled=_unpacked(read["settled"]),
            endpoints={(method, endpoint) for method, endpoint in read["endpoints"]},
            errors={(endpoint, error) for endpoint, error in read["errors"]},
            data_through=None if through is None else datetime.fromisoformat(through),
        )


def exposition(counters: Counters, accept: str) -> tuple[bytes, str]:
    """Return what a scrape reads, and its content type.

    Args:
        counters: The counters.
        accept: The `Accept` header of the scrape: OpenMetrics or Prometheus' text format.
    """
    registry = CollectorRegistry()
    registry.register(_Collector(counters))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


class _Collector:
    def __init__(self, counters: Counters) -> None:
        self._counters = counters

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics, under the names that API dashboards use."""
        totals, created = self._counters.totals(), self._counters.since.timestamp()

        def counter(metric: str, name: str, text: str, labels: tuple[str, ...]) -> CounterMetricFamily:
            family = CounterMetricFamily(name, text, labels=labels)
            for series, count in sorted(totals.items()):
                if series[0] == metric:
                    family.add_metric(series[1:], count, created=created)
            return family

        requests = ("method", "endpoint", "status")
        yield counter("requests", "api_requests", "Requests, minutes after they were made.", requests)
        yield counter("errors", "api_errors", "Exceptions by type.", ("endpoint", "error_type"))
        yield _histogram(totals)
        yield counter("lost", "tagline_lost", "Lines that were emitted and never arrived.", ())
        yield counter("quarantined", "tagline_quarantined", "Records that could not be stored.", ())
        if self._counters.data_through is not None:
            yield GaugeMetricFamily(
                "tagline_usage_data_through_timestamp_seconds",
                "Until when all numbers are complete.",
                self._counters.data_through.astimezone(UTC).timestamp(),
            )


def _histogram(totals: Mapping[Series, int]) -> HistogramMetricFamily:
    family = HistogramMetricFamily(
        "api_request_duration_seconds", "How long requests took.", labels=("method", "endpoint")
    )
    for name, method, endpoint in sorted(series for series in totals if series[0] == "timed"):
        del name
        within = [
            (str(limit), float(totals.get(("within", method, endpoint, str(limit)), 0))) for limit in LIMITS_S
        ]
        count = float(totals["timed", method, endpoint])
        seconds = totals.get(("duration_us", method, endpoint), 0) / _US_PER_S
        family.add_metric((method, endpoint), [*within, ("+Inf", count)], seconds)
    return family


def _labels(route: Route) -> tuple[str, str]:
    """Return the labels of a route: `unknown` where a record has none, as in API dashboards."""
    method, path = route
    return method or "unknown", path or "unknown"


def _count(counts: _Counts, labels: tuple[str, str], numbers: Numbers) -> None:
    for status, count in numbers.statuses.items():
        _add(counts, ("requests", *labels, _STATUSES.get(status, str(status))), count)
    if numbers.timed:
        _add(counts, ("timed", *labels), numbers.timed)
        _add(counts, ("duration_us", *labels), numbers.duration_us)
        for power, limit in zip(_POWERS, LIMITS_S, strict=True):
            _add(counts, ("within", *labels, str(limit)), count_up_to(numbers.buckets, PER_DOUBLING * power))


def _add(counts: _Counts, series: Series, count: int) -> None:
    if count:
        counts[series] = counts.get(series, 0) + count


def _packed(counts: _Counts) -> list[list[str | int]]:
    return [[*series, count] for series, count in counts.items()]


def _unpacked(rows: list[list[str | int]]) -> _Counts:
    return {tuple(str(label) for label in row[:-1]): int(row[-1]) for row in rows}
