"""CloudWatch metrics out of log lines: metric filters and the Embedded Metric Format, and metrics read back.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/MonitoringLogData.html
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html

moto keeps metric filters and does nothing with them, and lacks the format. It also answers questions
about metrics too generously: it takes data of other namespaces and dimensions into a sum, has no percentiles,
and adds everything up for a Metrics Insights query. What is here instead is right or refused.
"""

from __future__ import annotations

import json
import math
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from moto.cloudwatch.exceptions import InvalidParameterCombination, InvalidParameterValue, ValidationError
from moto.cloudwatch.models import (
    CloudWatchBackend,
    MetricAggregatedDatum,
    MetricDatumBase,
    cloudwatch_backends,
)
from moto.cloudwatch.responses import CloudWatchResponse
from moto.core.responses import ActionResult
from moto.logs.exceptions import InvalidParameterException, LimitExceededException, ResourceNotFoundException
from moto.logs.models import LogsBackend
from moto.logs.responses import LogsResponse

from onemachine.filter_pattern import Pattern, compiled, selected

# https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutMetricFilter.html
MAX_METRIC_FILTERS = 100
MAX_REGEX_FILTERS = 5
MAX_FILTER_DIMENSIONS = 3

# The specification of the format, named above.
MAX_DEFINITIONS = 100
MAX_DIMENSION_KEYS = 30
MAX_DIMENSION_KEY_CHARACTERS = 250
MAX_DIMENSION_VALUE_CHARACTERS = 1024
MAX_NAME_CHARACTERS = 1024
MAX_TARGET_VALUES = 100
RESOLUTIONS_S = (1, 60)
MINUTE_S = 60
_MINUTE_MS = MINUTE_S * 1000

# https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_MetricDatum.html
_AMOUNTS: tuple[str, ...] = ("Count", "Bytes", "Kilobytes", "Megabytes", "Gigabytes", "Terabytes")
_AMOUNTS += ("Bits", "Kilobits", "Megabits", "Gigabits", "Terabits")
UNITS = frozenset(
    ["None", "Seconds", "Microseconds", "Milliseconds", "Percent", *_AMOUNTS]
    + [f"{amount}/Second" for amount in _AMOUNTS]
)
OLDEST_POINT_MS = 14 * 24 * 3600 * 1000
NEWEST_POINT_MS = 2 * 3600 * 1000

# Data of one minute is kept for 15 days; then CloudWatch keeps it by five minutes, and this nothing.
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/cloudwatch_concepts.html#metrics-retention
RETENTION_S = 15 * 24 * 3600


@dataclass(frozen=True)
class Point:
    """Values of one metric.

    Attributes:
        namespace: The metric's namespace.
        name: The metric's name.
        dimensions: Names and values.
        at_ms: When, in milliseconds since 1970.
        values: The values.
        unit: One of `UNITS`.
        resolution_s: 60, or 1 for a high-resolution metric.
    """

    namespace: str
    name: str
    dimensions: tuple[tuple[str, str], ...]
    at_ms: int
    values: tuple[float, ...]
    unit: str = "None"
    resolution_s: int = MINUTE_S


@dataclass(frozen=True)
class Extraction:
    """The metrics of a line in the Embedded Metric Format, and how much of it was not understood."""

    points: tuple[Point, ...] = ()
    parsing_errors: int = 0
    validation_errors: int = 0


# ---- The Embedded Metric Format ----------------------------------------------------------------------------

# Node's runtime writes this before what console.log is given, unless the function logs in JSON.
_RUNTIME_PREFIX = re.compile(r"\S+\t\S+\t[A-Z]+\t(?=\{)")


def embedded(message: str, now_ms: int) -> Extraction:
    """Return the metrics in a line, none if it is of another kind.

    Args:
        message: The line.
        now_ms: The time, in milliseconds since 1970.
    """
    if '"_aws"' not in message or '"CloudWatchMetrics"' not in message:
        return Extraction()
    prefix = _RUNTIME_PREFIX.match(message)
    text = message[prefix.end() :] if prefix else message
    if not text.lstrip().startswith("{"):
        return Extraction()
    try:
        root = json.loads(text)
    except (ValueError, RecursionError):
        return Extraction(parsing_errors=1)
    if "_aws" not in root:
        return Extraction()
    metadata = root["_aws"]
    if not isinstance(metadata, dict) or not isinstance(metadata.get("CloudWatchMetrics"), list):
        return Extraction(parsing_errors=1)
    at_ms = metadata.get("Timestamp")
    if not isinstance(at_ms, int) or isinstance(at_ms, bool):
        return Extraction(parsing_errors=1)
    if not now_ms - OLDEST_POINT_MS <= at_ms <= now_ms + NEWEST_POINT_MS:
        return Extraction(validation_errors=1)
    found = [
        point for directive in metadata["CloudWatchMetrics"] for point in _directive(directive, root, at_ms)
    ]
    points = tuple(point for point in found if point)
    return Extraction(points, validation_errors=len(found) - len(points))


def _directive(directive: Any, root: Mapping[str, Any], at_ms: int) -> Iterator[Point | None]:
    """Yield a directive's points, and None for each part that is not as specified."""
    if not (
        isinstance(directive, dict)
        and _is_name(directive.get("Namespace"), MAX_NAME_CHARACTERS)
        and isinstance(directive.get("Dimensions"), list)
        and directive["Dimensions"]
        and isinstance(directive.get("Metrics"), list)
        and len(directive["Metrics"]) <= MAX_DEFINITIONS
    ):
        yield None
        return
    dimension_sets = []
    for keys in directive["Dimensions"]:
        dimensions = _dimensions(keys, root)
        if dimensions is None:
            yield None
        else:
            dimension_sets.append(dimensions)
    for definition in directive["Metrics"]:
        values = _definition(definition, root)
        if values is None:
            yield None
            continue
        for dimensions in dimension_sets:
            yield Point(
                directive["Namespace"],
                definition["Name"],
                dimensions,
                at_ms,
                values,
                definition.get("Unit", "None"),
                definition.get("StorageResolution", MINUTE_S),
            )


def _dimensions(keys: Any, root: Mapping[str, Any]) -> tuple[tuple[str, str], ...] | None:
    if not isinstance(keys, list) or len(keys) > MAX_DIMENSION_KEYS:
        return None
    for key in keys:
        if not _is_name(key, MAX_DIMENSION_KEY_CHARACTERS):
            return None
        if not _is_name(root.get(key), MAX_DIMENSION_VALUE_CHARACTERS):
            return None
    return tuple(sorted((key, root[key]) for key in set(keys)))


def _definition(definition: Any, root: Mapping[str, Any]) -> tuple[float, ...] | None:
    """Return a metric's values; None if the definition or its target is not as specified."""
    if not isinstance(definition, dict) or not _is_name(definition.get("Name"), MAX_NAME_CHARACTERS):
        return None
    unit, resolution = definition.get("Unit", "None"), definition.get("StorageResolution", MINUTE_S)
    if not isinstance(unit, str) or unit not in UNITS or resolution not in RESOLUTIONS_S:
        return None
    target = root.get(definition["Name"])
    values = target if isinstance(target, list) else [target]
    if not 0 < len(values) <= MAX_TARGET_VALUES or not all(map(_is_number, values)):
        return None
    return tuple(map(float, values))


def _is_name(value: Any, limit: int) -> bool:
    return isinstance(value, str) and 0 < len(value) <= limit


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


# ---- Metric filters ----------------------------------------------------------------------------------------


def check_transformation(pattern: Pattern, transformation: Mapping[str, Any]) -> None:
    """Check that a metric can be made of what a pattern finds.

    Raises:
        ValueError: If not; the message has the reason.
    """
    dimensions = transformation.get("dimensions") or {}
    if dimensions and pattern.kind not in ("json", "fields"):
        # github.com/hashicorp/terraform-provider-aws/issues/28881
        raise ValueError("The specified filter pattern does not support dimensions")
    if len(dimensions) > MAX_FILTER_DIMENSIONS:
        raise ValueError(f"{len(dimensions)} dimensions, more than {MAX_FILTER_DIMENSIONS}")
    if dimensions and transformation.get("defaultValue") is not None:
        raise ValueError("Invalid metric transformation: dimensions and a default value exclude each other")
    unit = transformation.get("unit", "None")
    if unit not in UNITS:
        raise ValueError(f"Invalid metric transformation: unit {unit!r}")
    value = transformation["metricValue"]
    for source in [*dimensions.values(), *([] if _number(value) is not None else [value])]:
        by_number = pattern.kind == "fields" and re.fullmatch(r"\$[1-9]\d*", source)
        if source not in pattern.selectors and not by_number:
            raise ValueError(f"Invalid metric transformation: {source!r} is not in the filter pattern")
        if pattern.kind == "json":
            selected([source], "{}")


def filter_points(
    pattern: Pattern, transformation: Mapping[str, Any], events: Iterable[tuple[int, str]]
) -> Iterator[Point]:
    """Yield what a metric filter makes of log events.

    Args:
        pattern: The filter's pattern.
        transformation: As `PutMetricFilter` takes it.
        events: Milliseconds since 1970 and message.

    Yields:
        Points; a metric without dimensions that counts has one for each minute.
    """
    value, default = transformation["metricValue"], transformation.get("defaultValue")
    dimensions = dict(sorted((transformation.get("dimensions") or {}).items()))
    sources = [value, *dimensions.values()]
    constant = _number(value)
    if constant is not None and default is None and not dimensions:
        namespace, name = transformation["metricNamespace"], transformation["metricName"]
        minutes = Counter(at_ms // _MINUTE_MS for at_ms, message in events if pattern.matches(message))
        for minute, count in minutes.items():
            unit = transformation.get("unit") or "None"
            yield Point(namespace, name, (), minute * _MINUTE_MS, (constant,) * count, unit)
        return
    for at_ms, message in events:
        values: list[Any] = [constant]
        if not pattern.matches(message):
            if default is None:
                continue
            values = [float(default)]
        elif constant is None or dimensions:
            values = _sourced(pattern, sources[1:] if constant is not None else sources, message)
            if constant is not None:
                values.insert(0, constant)
        if _is_number(values[0]) and not any(found is None for found in values):
            yield Point(
                transformation["metricNamespace"],
                transformation["metricName"],
                tuple(zip(dimensions, map(_dimension_text, values[1:]), strict=True)),
                at_ms,
                (float(values[0]),),
                transformation.get("unit") or "None",
            )


def _sourced(pattern: Pattern, sources: Sequence[str], message: str) -> list[Any]:
    if pattern.kind == "json":
        return selected(sources, message)
    fields = pattern.fields(message) or {}
    first, *others = (fields.get(source) for source in sources)
    number = _number(first or "")
    return [first if number is None else number, *others]


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _dimension_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


# ---- Metrics in moto's CloudWatch --------------------------------------------------------------------------

_Series = tuple[str, str, tuple[tuple[str, str], ...], str, int, int]


class Samples(MetricDatumBase):
    """One metric's values of one minute, or second: how often each came. moto keeps each by itself."""

    def __init__(self, point: Point, start_s: int) -> None:
        names = [{"Name": name, "Value": value} for name, value in point.dimensions]
        start = datetime.fromtimestamp(start_s, UTC).replace(tzinfo=None)
        super().__init__(point.namespace, point.name, names, start, point.unit)
        self.counts: Counter[float] = Counter()


@dataclass
class Metrics:
    """What becomes of log lines in CloudWatch.

    Attributes:
        clock: Tells the time, in nanoseconds since 1970.
    """

    clock: Callable[[], int]
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _swept_s: int = 0

    def observe(self, logs: Any, group: str, events: Sequence[tuple[int, str]]) -> None:
        """Record what a log group's metric filters and its lines in the Embedded Metric Format yield.

        Args:
            logs: moto's backend of CloudWatch Logs.
            group: The log group's name.
            events: Milliseconds since 1970 and message.
        """
        now_ms = self.clock() // 1_000_000
        points: list[Point] = []
        for metric_filter in logs.filters.get_matching_filters(log_group_name=group):
            pattern = compiled(metric_filter["filterPattern"])
            for transformation in metric_filter["metricTransformations"]:
                points += filter_points(pattern, transformation, events)
        errors: Counter[str] = Counter()
        for _, message in events:
            if '"_aws"' in message:
                extraction = embedded(message, now_ms)
                points += extraction.points
                errors["EMFParsingErrors"] += extraction.parsing_errors
                errors["EMFValidationErrors"] += extraction.validation_errors
        points += [self.of_logs(name, count, LogGroupName=group) for name, count in errors.items() if count]
        self.record(logs, points)

    def of_logs(self, name: str, value: float, unit: str = "None", **dimensions: str) -> Point:
        """Return a metric of the service's own.

        https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/CloudWatch-Logs-Monitoring-CloudWatch-Metrics.html
        """
        now_ms = self.clock() // 1_000_000
        return Point("AWS/Logs", name, tuple(sorted(dimensions.items())), now_ms, (value,), unit)

    def observe_lambda(
        self, service: Any, dimensions: Mapping[str, str], values: Mapping[str, float]
    ) -> None:
        """Record metrics of Lambda's own.

        https://docs.aws.amazon.com/lambda/latest/dg/monitoring-metrics-types.html

        Args:
            service: moto's backend of a service, for the account and region.
            dimensions: The dimensions.
            values: The values by the metric's name.
        """
        now_ms, names = self.clock() // 1_000_000, tuple(sorted(dimensions.items()))
        self.record(
            service,
            [Point("AWS/Lambda", name, names, now_ms, (float(value),)) for name, value in values.items()],
        )

    def record(self, service: Any, points: Iterable[Point]) -> None:
        """Put points into CloudWatch, in the account and region of moto's backend of a service."""
        backend = cloudwatch_backends[service.account_id][service.region_name]
        with self._lock:
            # Kept where it is forgotten with the backend's other state.
            index: dict[_Series, Samples] = backend.__dict__.setdefault("_onemachine_samples", {})
            for point in points:
                start_s = point.at_ms // 1000 // point.resolution_s * point.resolution_s
                series = (
                    point.namespace,
                    point.name,
                    point.dimensions,
                    point.unit,
                    point.resolution_s,
                    start_s,
                )
                samples = index.get(series)
                if samples is None:
                    samples = index[series] = Samples(point, start_s)
                    backend.metric_data.append(samples)
                samples.counts.update(point.values)
            self._sweep(backend, index)

    def _sweep(self, backend: Any, index: dict[_Series, Samples]) -> None:
        now_s = self.clock() // 1_000_000_000
        if now_s - self._swept_s < MINUTE_S:
            return
        self._swept_s = now_s
        old = [series for series in index if series[-1] < now_s - RETENTION_S]
        if old:
            gone = {id(index.pop(series)) for series in old}
            backend.metric_data = [datum for datum in backend.metric_data if id(datum) not in gone]


def install(clock: Callable[[], int]) -> Metrics:
    """Let moto make metrics of log lines, and answer right when it is asked for them.

    Args:
        clock: Tells the time, in nanoseconds since 1970.
    """
    # moto has no other place to put this: its server looks these up when a call comes.
    LogsResponse.put_metric_filter = _put_metric_filter  # type: ignore[method-assign]
    LogsBackend.delete_log_group = _delete_log_group  # type: ignore[method-assign]
    CloudWatchBackend.get_filtered_metrics = _metrics_listed  # type: ignore[method-assign]
    CloudWatchResponse.get_metric_data = _get_metric_data  # type: ignore[method-assign]
    CloudWatchResponse.get_metric_statistics = _get_metric_statistics  # type: ignore[method-assign]
    return Metrics(clock)


_moto_put_metric_filter = LogsResponse.put_metric_filter
_moto_delete_log_group = LogsBackend.delete_log_group


def _delete_log_group(self: Any, log_group_name: str) -> None:
    _moto_delete_log_group(self, log_group_name)
    # moto keeps them, for the next log group of this name.
    filters = self.filters
    filters.metric_filters = [
        each for each in filters.metric_filters if each["logGroupName"] != log_group_name
    ]


def _put_metric_filter(self: Any) -> str:
    name, group, text = (self._get_param(each) for each in ("filterName", "logGroupName", "filterPattern"))
    logs = self.logs_backend
    if group not in logs.groups:
        raise ResourceNotFoundException
    try:
        pattern = compiled(text)
        for transformation in self._get_param("metricTransformations"):
            check_transformation(pattern, transformation)
    except ValueError as error:
        raise InvalidParameterException(str(error)) from None
    check_regex_quota(logs, group, pattern, name)
    others = [
        each for each in logs.filters.get_matching_filters(log_group_name=group) if each["filterName"] != name
    ]
    if len(others) >= MAX_METRIC_FILTERS:
        raise LimitExceededException
    before = list(logs.filters.metric_filters)
    # moto adds a second filter of the same name, which would count twice.
    logs.filters.delete_filter(name, group)
    try:
        return str(_moto_put_metric_filter(self))
    except Exception:
        logs.filters.metric_filters = before
        raise


def check_regex_quota(logs: Any, group: str, pattern: Pattern, name: str) -> None:
    """Refuse a sixth filter with regular expressions in a log group, of whichever kind.

    Raises:
        LimitExceededException: If it is one.
    """
    if not pattern.regexes:
        return
    texts = {
        **{
            each["filterName"]: each["filterPattern"]
            for each in logs.filters.get_matching_filters(log_group_name=group)
        },
        **{key: each.filter_pattern for key, each in logs.groups[group].subscription_filters.items()},
    }
    texts.pop(name, None)
    if sum(compiled(text).regexes > 0 for text in texts.values()) >= MAX_REGEX_FILTERS:
        raise LimitExceededException


# ---- Metrics read back -------------------------------------------------------------------------------------

_PERCENTILE = re.compile(r"p(\d{1,2}(?:\.\d{1,10})?|100)")
SHORT_PERIODS_S = (1, 5, 10, 20, 30)
_STATISTICS = ("SampleCount", "Sum", "Average", "Minimum", "Maximum")


@dataclass
class Summary:
    """What is known of one period of one metric."""

    count: float = 0
    total: float = 0
    minimum: float = math.inf
    maximum: float = -math.inf
    values: Counter[float] = field(default_factory=Counter)

    def add(self, datum: Any) -> None:
        """Add one of moto's data."""
        if isinstance(datum, MetricAggregatedDatum):
            self._add(datum.sample_count, datum.sum, datum.min, datum.max)
            return
        counts = datum.counts if isinstance(datum, Samples) else {datum.value: 1}
        for value, count in list(counts.items()):
            self._add(count, value * count, value, value)
            self.values[value] += count

    def merge(self, other: Summary) -> None:
        """Add what is known of another period."""
        self._add(other.count, other.total, other.minimum, other.maximum)
        self.values.update(other.values)

    def _add(self, count: float, total: float, minimum: float, maximum: float) -> None:
        self.count += count
        self.total += total
        self.minimum = min(self.minimum, minimum)
        self.maximum = max(self.maximum, maximum)

    def statistic(self, name: str) -> float | None:
        """Return a statistic; None for a percentile of data that came as statistics only."""
        if name in _STATISTICS:
            average = self.total / self.count if self.count else None
            return dict(
                zip(_STATISTICS, (self.count, self.total, average, self.minimum, self.maximum), strict=True)
            )[name]
        if self.values.total() != self.count:
            return None
        # The smallest value that so many percent of the values do not exceed.
        rank = max(1, math.ceil(self.values.total() * float(name[1:]) / 100))
        for value in sorted(self.values):
            rank -= self.values[value]
            if rank <= 0:
                return value
        return None


def _check_statistic(name: str) -> None:
    if name not in _STATISTICS and not _PERCENTILE.fullmatch(name):
        raise InvalidParameterValue(f"The value {name} for parameter Stat is not supported.")


def epoch_s(moment: datetime) -> float:
    """Return the seconds since 1970 of one of moto's times."""
    # moto's times are in UTC, without a zone.
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _summaries(
    backend: Any,
    metric: Mapping[str, Any],
    period_s: int,
    unit: str | None,
    between: tuple[datetime, datetime],
) -> dict[tuple[int, str], Summary]:
    """Return what is known of a metric, by the start of each period, in seconds since 1970, and unit.

    The start is rounded down, to a whole minute or, for a shorter period, to a multiple of it:
    https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_GetMetricStatistics.html
    """
    if period_s not in SHORT_PERIODS_S and (period_s <= 0 or period_s % MINUTE_S):
        raise InvalidParameterValue("The parameter Period must be 1, 5, 10, 20, 30, or a multiple of 60.")
    rounding = min(period_s, MINUTE_S)
    start_s = int(epoch_s(between[0])) // rounding * rounding
    end_s = epoch_s(between[1])
    dimensions = sorted((each["Name"], each["Value"]) for each in metric.get("Dimensions") or ())
    found: dict[tuple[int, str], Summary] = {}
    for datum in backend.get_all_metrics():
        if (
            datum.namespace == metric["Namespace"]
            and datum.name == metric["MetricName"]
            and (unit is None or (datum.unit or "None") == unit)
            and start_s <= (at_s := epoch_s(datum.timestamp)) < end_s
            # A metric is its dimensions: without them it is another one, not the sum of all.
            and sorted((each.name, each.value) for each in datum.dimensions) == dimensions
        ):
            period = start_s + int(at_s - start_s) // period_s * period_s
            found.setdefault((period, datum.unit or "None"), Summary()).add(datum)
    return dict(sorted(found.items()))


def _moment(epoch_s: int) -> datetime:
    return datetime.fromtimestamp(epoch_s, UTC).replace(tzinfo=None)


def _get_metric_data(self: Any) -> ActionResult:
    params = self._get_params()
    start, end = params["StartTime"], params["EndTime"]
    if start >= end:
        raise ValidationError("The parameter EndTime must be greater than StartTime.")
    descending = (params.get("ScanBy") or "TimestampDescending") == "TimestampDescending"
    results: dict[str, dict[str, Any]] = {}
    queries = params.get("MetricDataQueries", [])
    for query in queries:
        if "MetricStat" in query:
            results[query["Id"]] = _of_metric(
                self.cloudwatch_backend, query, (start, end), descending=descending
            )
        elif query.get("Expression") not in {each["Id"] for each in queries if "MetricStat" in each}:
            raise ValidationError(
                f"Expression {query.get('Expression')!r}: on one machine only the id of a MetricStat query is"
                " answered, neither metric math nor Metrics Insights."
            )
    for query in queries:
        if "Expression" in query:
            source = results[query["Expression"]]
            results[query["Id"]] = {**source, "id": query["Id"], "label": query.get("Label") or query["Id"]}
    shown = [results[query["Id"]] for query in queries if query.get("ReturnData", True)]
    return ActionResult({"MetricDataResults": shown})


def _of_metric(
    backend: Any, query: Mapping[str, Any], between: tuple[datetime, datetime], *, descending: bool
) -> dict[str, Any]:
    stat = query["MetricStat"]
    _check_statistic(stat["Stat"])
    metric = stat["Metric"]
    by_period: dict[int, float] = {}
    units = _summaries(backend, metric, int(stat["Period"]), stat.get("Unit"), between)
    if len({unit for _, unit in units}) > 1:
        raise ValidationError(f"{metric['MetricName']} has data of several units: name the Unit.")
    for (period, _), summary in units.items():
        value = summary.statistic(stat["Stat"])
        if value is not None:
            by_period[period] = value
    periods = sorted(by_period, reverse=descending)
    return {
        "id": query["Id"],
        "label": query.get("Label") or f"{metric['MetricName']} {stat['Stat']}",
        "values": [by_period[period] for period in periods],
        "timestamps": [_moment(period) for period in periods],
        "status_code": "Complete",
    }


def _get_metric_statistics(self: Any) -> ActionResult:
    params = self._get_params()
    plain, extended = params.get("Statistics") or [], params.get("ExtendedStatistics") or []
    if not plain and not extended:
        raise InvalidParameterCombination("Must specify either Statistics or ExtendedStatistics")
    for name in (*plain, *extended):
        _check_statistic(name)
    start, end = params["StartTime"], params["EndTime"]
    if start >= end:
        raise InvalidParameterValue("The parameter StartTime must be less than the parameter EndTime.")
    found = _summaries(
        self.cloudwatch_backend, params, int(params["Period"]), params.get("Unit"), (start, end)
    )
    points = []
    for (period, unit), summary in found.items():
        point: dict[str, Any] = {"Timestamp": _moment(period), "Unit": unit}
        point |= {name: summary.statistic(name) for name in plain}
        if extended:
            percentiles = {name: summary.statistic(name) for name in extended}
            point["ExtendedStatistics"] = {
                name: value for name, value in percentiles.items() if value is not None
            }
        points.append(point)
    return ActionResult({"Label": params["MetricName"], "Datapoints": points})


def _metrics_listed(
    self: Any, metric_name: str | None, namespace: str | None, dimensions: Sequence[Mapping[str, str]]
) -> list[Any]:
    """Return each metric once; moto lists some as often as they have data."""
    listed: dict[tuple[Any, ...], Any] = {}
    wanted = [(each["Name"], each.get("Value")) for each in dimensions or ()]
    for datum in self.get_all_metrics():
        names = {each.name: each.value for each in datum.dimensions}
        if (
            namespace in (None, datum.namespace)
            and metric_name in (None, datum.name)
            and all(name in names and value in (None, names[name]) for name, value in wanted)
        ):
            listed.setdefault((datum.namespace, datum.name, *sorted(names.items())), datum)
    return list(listed.values())
