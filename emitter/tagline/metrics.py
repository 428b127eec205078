"""Metrics in the line: an envelope of CloudWatch's Embedded Metric Format for fields that are there anyway.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
"""

from __future__ import annotations

from .annotations import Any, Mapping, Sequence, Unit
from .values import encode, field_key, repr_of

MAX_METRICS = 100  # in one directive: more are split into several
MAX_METRIC_VALUES = 100
MAX_DIMENSIONS = 30
MAX_DIMENSION_NAME = 250
MAX_DIMENSION_VALUE = 1_024
MAX_METRIC_AGE_MS, MAX_METRIC_AHEAD_MS = 14 * 86_400_000, 2 * 3_600_000
# Names of 1,024 characters would be valid in the format, but CloudWatch's own API allows no more than these:
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_MetricDatum.html
MAX_METRIC_NAME = 255
MAX_METRIC_NUMBER = 2.0**360
_SIZES = [
    f"{size}{of}".capitalize() for size in ("", "Kilo", "Mega", "Giga", "Tera") for of in ("bytes", "bits")
]
UNITS = frozenset(
    ["None", "Seconds", "Microseconds", "Milliseconds", "Percent", "Count", "Count/Second"]
    + [size + per for size in _SIZES for per in ("", "/Second")]
)


class Metrics:
    """Which fields become CloudWatch metrics.

    Args:
        namespace: The metrics' namespace.
        metrics: Fields with their units, or with their units and resolutions in seconds (1 or 60).
        dimensions: Sets of fields whose texts are the metrics' dimensions.

    Raises:
        ValueError: If CloudWatch would refuse one of them.
    """

    def __init__(
        self, namespace: str, metrics: Mapping[str, Unit], dimensions: Sequence[Sequence[str]]
    ) -> None:
        legal = namespace.strip() and len(namespace) <= MAX_METRIC_NAME and namespace[0] != ":"
        _refuse_unless(legal, "namespace", namespace)
        _refuse_unless(dimensions, "list of sets of dimensions", dimensions)
        self._namespace = encode(namespace)
        self._definitions: dict[str, str] = {}
        for name, declared in metrics.items():
            unit, resolution = (declared, 60) if isinstance(declared, str) else declared
            _refuse_unless(0 < len(name) <= MAX_METRIC_NAME and field_key(name) == name, "metric", name)
            _refuse_unless(unit in UNITS, "unit", unit)
            _refuse_unless(resolution in (1, 60), "resolution", resolution)
            self._definitions[name] = encode({"Name": name, "Unit": unit, "StorageResolution": resolution})
        for names in dimensions:
            few = len(names) <= MAX_DIMENSIONS and not isinstance(names, str)
            _refuse_unless(few, "set of dimensions", names)
            for name in names:
                legal = _is_dimension(name) and len(name) <= MAX_DIMENSION_NAME and name[0] != ":"
                _refuse_unless(legal and field_key(name) == name, "dimension", name)
        self._sets = [(list(names), encode(list(names))) for names in dimensions]

    def envelope(self, fields: Mapping[str, Any], time_ms: int, now: int) -> str:
        """Return the envelope of the metrics that a line has, as a member of its object; "" without any.

        Args:
            fields: The line's fields, as plain JSON values.
            time_ms: The record's time, in milliseconds since 1970.
            now: The time now: CloudWatch refuses metrics that are too old, or far ahead.
        """
        if not -MAX_METRIC_AHEAD_MS <= now - time_ms <= MAX_METRIC_AGE_MS:
            return ""
        found = [text for name, text in self._definitions.items() if _is_metric(fields.get(name))]
        # Without a text for each of its dimensions, a number would be counted as something else's.
        sets = [text for names, text in self._sets if all(_is_dimension(fields.get(name)) for name in names)]
        if not found or not sets:
            return ""
        directives = ",".join(
            f'{{"Namespace":{self._namespace},"Dimensions":[{",".join(sets)}],'
            f'"Metrics":[{",".join(found[start : start + MAX_METRICS])}]}}'
            for start in range(0, len(found), MAX_METRICS)
        )
        return f',"_aws":{{"Timestamp":{time_ms},"CloudWatchMetrics":[{directives}]}}'


def _refuse_unless(legal: object, what: str, value: object) -> None:
    if not legal:
        page = "docs/how-to/metrics-in-the-line.md"
        raise ValueError(f"CloudWatch takes no {what} like {repr_of(value)}: {page}")


def _is_metric(value: Any) -> bool:
    kind = type(value)
    if kind is float or kind is int:
        return bool(-MAX_METRIC_NUMBER <= value <= MAX_METRIC_NUMBER)
    if kind is not list or not 0 < len(value) <= MAX_METRIC_VALUES:
        return False
    return all(type(each) in (int, float) and _is_metric(each) for each in value)


def _is_dimension(value: Any) -> bool:
    """Return whether CloudWatch takes a text as a dimension's value: ASCII, and not only space."""
    if type(value) is not str or len(value) > MAX_DIMENSION_VALUE:
        return False
    return value.isascii() and value.isprintable() and value.strip() != ""
