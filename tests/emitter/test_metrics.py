"""Declared fields become CloudWatch metrics by an envelope in the same line.

The schema says what the specification says in words:
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
"""

import json
from typing import Any

import jsonschema  # type: ignore[import-untyped, unused-ignore]  # it comes without types
import numpy as np
import pytest
from aws_lambda_powertools.metrics import EphemeralMetrics, MetricResolution
from hypothesis import given
from hypothesis import strategies as st
from tagline import MAX_METRICS, UNITS, Emitter

from tests.emitter.lines import NOW, Lines

DAY_MS = 86_400_000

SCHEMA = {
    "type": "object",
    "required": ["_aws"],
    "properties": {
        "_aws": {
            "type": "object",
            "required": ["Timestamp", "CloudWatchMetrics"],
            "additionalProperties": False,
            "properties": {
                "Timestamp": {"type": "integer"},
                "CloudWatchMetrics": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["Namespace", "Dimensions", "Metrics"],
                        "additionalProperties": False,
                        "properties": {
                            "Namespace": {"type": "string", "minLength": 1, "maxLength": 1024},
                            "Dimensions": {
                                "type": "array",
                                "minItems": 1,
                                "items": {
                                    "type": "array",
                                    "maxItems": 30,
                                    "items": {"type": "string", "minLength": 1, "maxLength": 250},
                                },
                            },
                            "Metrics": {
                                "type": "array",
                                "minItems": 1,
                                "maxItems": 100,
                                "items": {
                                    "type": "object",
                                    "required": ["Name"],
                                    "additionalProperties": False,
                                    "properties": {
                                        "Name": {"type": "string", "minLength": 1, "maxLength": 1024},
                                        "Unit": {"enum": sorted(UNITS)},
                                        "StorageResolution": {"enum": [1, 60]},
                                    },
                                },
                            },
                        },
                    },
                },
            },
        },
    },
}


def check(line: dict[str, Any]) -> None:
    """Hold a line against the schema, and its target members against what the specification says of them."""
    jsonschema.validate(line, SCHEMA)
    for directive in line["_aws"]["CloudWatchMetrics"]:
        for name in (name for names in directive["Dimensions"] for name in names):
            assert isinstance(line[name], str)
            assert 1 <= len(line[name]) <= 1024
        for metric in directive["Metrics"]:
            value = line[metric["Name"]]
            values = value if isinstance(value, list) else [value]
            assert 1 <= len(values) <= 100
            assert all(isinstance(each, (int, float)) and not isinstance(each, bool) for each in values)


def effect(line: dict[str, Any]) -> set[Any]:
    """Return what CloudWatch makes of a line: each datum with all that tells its metric apart."""
    check(line)
    data = set()
    for directive in line["_aws"]["CloudWatchMetrics"]:
        for names in directive["Dimensions"]:
            where = frozenset((name, line[name]) for name in names)
            for metric in directive["Metrics"]:
                value = line[metric["Name"]]
                values = tuple(value if isinstance(value, list) else [value])
                how = (metric.get("Unit", "None"), metric.get("StorageResolution", 60))
                data.add((directive["Namespace"], where, metric["Name"], *how, tuple(map(float, values))))
    return data


def emitted(
    fields: dict[str, Any],
    metrics: dict[str, Any],
    *,
    now: int = NOW,
    timestamp: int | None = None,
    **how: Any,
) -> dict[str, Any]:
    lines = Lines()
    how = {"namespace": "Shop", "max_line_bytes": 200_000, **how}
    Emitter(stream=lines, metrics=metrics, clock=lambda: now, **how).emit(fields, timestamp=timestamp)
    assert lines.writes == 1
    line: dict[str, Any] = json.loads(lines.getvalue())
    return line


METRICS: dict[str, Any] = {"items": "Count", "latency_ms": ("Milliseconds", 1)}


def test_a_declared_field_is_a_metric_and_stays_a_field() -> None:
    line = emitted({"route": "/pets", "items": 3, "note": 7}, METRICS, dimensions=[["route"], []])

    assert (line["items"], line["route"]) == (3, "/pets")
    assert line["_aws"]["Timestamp"] == NOW
    assert effect(line) == {
        ("Shop", frozenset({("route", "/pets")}), "items", "Count", 60, (3.0,)),
        ("Shop", frozenset(), "items", "Count", 60, (3.0,)),
    }


class Count(int):
    def __abs__(self) -> Any:
        raise RuntimeError("no number")

    __le__ = __ge__ = __abs__  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("value", "values"),
    [
        (np.int64(3), (3.0,)),
        (np.float32(1.5), (1.5,)),
        (np.array([1, 2]), (1.0, 2.0)),
        ((1, 2), (1.0, 2.0)),
        (Count(3), (3.0,)),
    ],
    ids=repr,
)
def test_what_is_a_number_on_the_line_is_a_metric(value: Any, values: tuple[float, ...]) -> None:
    line = emitted({"items": value, "latency_ms": 1.5}, METRICS)

    assert {datum[2]: datum[-1] for datum in effect(line)} == {"items": values, "latency_ms": (1.5,)}


def test_a_number_beyond_all_floats_beside_a_float_costs_no_record() -> None:
    line = emitted({"items": 10**400, "latency_ms": 1.5}, METRICS)

    assert line["items"] == 10**400
    assert {datum[2] for datum in effect(line)} == {"latency_ms"}


def test_an_object_is_a_dimension_by_its_text_on_the_line() -> None:
    class Route:
        def __hash__(self) -> int:
            raise RuntimeError("no hash")

        def __str__(self) -> str:
            return "/pets"

    line = emitted({"route": Route(), "items": 3}, METRICS, dimensions=[["route"], []])

    assert {datum[1] for datum in effect(line)} == {frozenset({("route", "/pets")}), frozenset()}


def test_a_line_with_metrics_is_a_record_like_any_other() -> None:
    lines = Lines()
    Emitter(stream=lines, metrics=METRICS, namespace="Shop", clock=lambda: NOW).emit({"items": 3})

    assert lines.fields == {"items": 3}
    assert list(json.loads(lines.getvalue()))[:8] == [
        *("_tag", "timestamp", "level", "_type", "_id", "_src", "_seq", "_aws")
    ]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"note": "no metric among them"},
        {"items": "3"},
        {"items": True},
        {"items": None},
        {"items": float("nan")},
        {"items": float("inf")},
        {"items": []},
        {"items": [1, "2"]},
        {"items": list(range(101))},
        {"items": 2**361},
        {"items": {"count": 3}},
    ],
    ids=str,
)
def test_what_is_no_number_that_cloudwatch_takes_is_no_metric(fields: dict[str, Any]) -> None:
    """The number of values and their range: the specification, and API_MetricDatum."""
    assert "_aws" not in emitted(fields, METRICS)


@pytest.mark.parametrize("route", [None, 200, "", " ", "x" * 1025, "café", "two\nlines", ["/pets"]])
def test_without_a_text_for_its_dimensions_a_number_is_counted_nowhere_else(route: Any) -> None:
    """The value of a dimension is a string of 1 to 1,024 ASCII characters, not all of them space."""
    assert "_aws" not in emitted({"route": route, "items": 3}, METRICS, dimensions=[["route"]])
    fallback = emitted({"route": route, "items": 3}, METRICS, dimensions=[["route"], []])

    assert effect(fallback) == {("Shop", frozenset(), "items", "Count", 60, (3.0,))}


def test_more_than_a_hundred_metrics_are_split_into_directives() -> None:
    names = [f"m{number}" for number in range(MAX_METRICS * 2 + 1)]

    line = emitted(dict.fromkeys(names, 1), dict.fromkeys(names, "Count"))

    assert [len(each["Metrics"]) for each in line["_aws"]["CloudWatchMetrics"]] == [100, 100, 1]
    assert len(effect(line)) == len(names)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"namespace": ""}, "namespace like ''"),
        ({"namespace": " "}, "namespace like ' '"),
        ({"namespace": ":aws"}, "namespace like ':aws'"),
        ({"namespace": "n" * 256}, "namespace"),
        ({"metrics": {"": "Count"}}, "metric like ''"),
        ({"metrics": {"m" * 256: "Count"}}, "metric"),
        ({"metrics": {"_items": "Count"}}, "metric like '_items'"),
        ({"metrics": {"level": "Count"}}, "metric like 'level'"),
        ({"metrics": {"items": "Dozens"}}, "unit like 'Dozens'"),
        ({"metrics": {"items": "count"}}, "unit like 'count'"),
        ({"metrics": {"items": ("Count", 30)}}, "resolution like 30"),
        ({"dimensions": []}, "list of sets of dimensions"),
        ({"dimensions": ["route"]}, "set of dimensions like 'route'"),
        ({"dimensions": [[f"d{number}" for number in range(31)]]}, "set of dimensions"),
        ({"dimensions": [[""]]}, "dimension like ''"),
        ({"dimensions": [[":route"]]}, "dimension like ':route'"),
        ({"dimensions": [["d" * 251]]}, "dimension"),
        ({"dimensions": [["timestamp"]]}, "dimension like 'timestamp'"),
    ],
)
def test_what_cloudwatch_would_not_take_is_refused_when_it_is_declared(
    changed: dict[str, Any], reason: str
) -> None:
    """The specification, API_MetricDatum and API_Dimension."""
    with pytest.raises(ValueError, match=f"CloudWatch takes no {reason}"):
        Emitter(**{"namespace": "Shop", "metrics": METRICS, **changed})


def test_limits_are_kept_as_they_are_declared() -> None:
    names = [f"d{number}" for number in range(29)] + ["d" * 250]
    metrics = {"m" * 255: "Terabits/Second"}

    line = emitted({**dict.fromkeys(names, "v" * 1024), "m" * 255: [1] * 100}, metrics, dimensions=[names])

    assert len(effect(line)) == 1


def test_an_emitter_that_saw_other_records_before_makes_the_same_of_each() -> None:
    """Envelopes are remembered; more of them than fit, and those that are none, must not be mixed up."""
    lines = Lines()
    emitter = Emitter(stream=lines, metrics=METRICS, namespace="Shop", dimensions=[["route"], []])
    said: list[dict[str, Any]] = [{"route": f"/{n % 1_500}", "items": n} for n in range(2_000)]
    said += [
        {"route": 1, "items": 1},
        {"route": True, "items": True},
        {"items": 2},
        {"route": ["/1"], "items": 3},
    ]
    said += [{"route": "/1", "latency_ms": 1}, {"route": "/1", "items": "1", "latency_ms": 2.5}]
    for fields in said:
        emitter.emit(fields)

    for fields, text in zip(said, lines.getvalue().splitlines(), strict=True):
        numbers = {name for name in METRICS if type(fields.get(name)) in (int, float)}
        line = json.loads(text)
        sets = [["route"], []] if isinstance(fields.get("route"), str) else [[]]
        assert ("_aws" in line) is bool(numbers)
        for directive in line.get("_aws", {}).get("CloudWatchMetrics", []):
            assert directive["Dimensions"] == sets
            assert {metric["Name"] for metric in directive["Metrics"]} == numbers


@pytest.mark.parametrize(
    ("age_ms", "taken"),
    [(0, True), (14 * DAY_MS, True), (14 * DAY_MS + 1, False), (-7_200_000, True), (-7_200_001, False)],
)
def test_a_record_from_a_time_that_cloudwatch_refuses_has_no_metrics(age_ms: int, taken: bool) -> None:
    line = emitted({"items": 3}, METRICS, timestamp=NOW - age_ms)

    assert ("_aws" in line) is taken


def test_a_metric_whose_values_did_not_fit_the_line_is_left_out() -> None:
    line = emitted({"items": 3, "latency_ms": [0.123456789] * 100}, METRICS, max_line_bytes=1_000)

    assert line["_trunc"] == ["latency_ms"]
    assert {datum[2] for datum in effect(line)} == {"items"}


@given(
    st.dictionaries(
        st.sampled_from(["items", "latency_ms", "route", "tenant", "note"]),
        st.integers()
        | st.floats()
        | st.text()
        | st.lists(st.floats() | st.text(), max_size=5)
        | st.builds(lambda value, size: [value] * size, st.floats(), st.integers(99, 101))
        | st.none(),
    ),
)
def test_any_fields_make_a_valid_line(fields: dict[str, Any]) -> None:
    line = emitted(fields, METRICS, dimensions=[["route", "tenant"], ["route"]])

    if "_aws" in line:
        check(line)


# --- the libraries that others write metrics with ---------------------------------------------------------

# What is said: metrics with values, unit and resolution, in one set of dimensions.
SAID = [
    ({"items": ([3], "Count", 60)}, {"service": "shop"}),
    ({"items": ([3, 4.5], "Count", 60), "latency_ms": ([12.25], "Milliseconds", 1)}, {"service": "shop"}),
    ({"size": ([0], "Bytes", 60)}, {"service": "shop", "route": "/pets/{id}"}),
    ({f"m{n}": ([n], "None", 60) for n in range(130)}, {"service": "shop"}),
]


def ours(metrics: dict[str, Any], dimensions: dict[str, str]) -> set[Any]:
    fields = {name: values if len(values) > 1 else values[0] for name, (values, _, _) in metrics.items()}
    declared = {name: (unit, resolution) for name, (_, unit, resolution) in metrics.items()}
    return effect(emitted({**fields, **dimensions}, declared, dimensions=[list(dimensions)]))


@pytest.mark.parametrize(("metrics", "dimensions"), SAID, ids=lambda said: ",".join(said)[:20])
def test_the_effect_is_that_of_powertools_metrics(
    metrics: dict[str, Any], dimensions: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    powertools = EphemeralMetrics(namespace="Shop", service=dimensions["service"])
    for name, value in dimensions.items():
        if name != "service":
            powertools.add_dimension(name, value)
    for name, (values, unit, resolution) in metrics.items():
        for value in values:
            powertools.add_metric(name, unit, value, MetricResolution(resolution))
    powertools.flush_metrics()
    data = set().union(*(effect(json.loads(line)) for line in capsys.readouterr().out.splitlines()))

    assert ours(metrics, dimensions) == data


@pytest.mark.parametrize(("metrics", "dimensions"), SAID, ids=lambda said: ",".join(said)[:20])
def test_the_effect_is_that_of_aws_embedded_metrics(
    metrics: dict[str, Any], dimensions: dict[str, str]
) -> None:
    context = pytest.importorskip("aws_embedded_metrics.logger.metrics_context").MetricsContext.empty()
    serializer = pytest.importorskip("aws_embedded_metrics.serializers.log_serializer").LogSerializer()
    resolutions = pytest.importorskip("aws_embedded_metrics.storage_resolution").StorageResolution
    context.namespace = "Shop"
    context.set_dimensions([dimensions])
    for name, (values, unit, resolution) in metrics.items():
        for value in values:
            context.put_metric(name, value, unit, resolutions(resolution))
    data = set().union(*(effect(json.loads(line)) for line in serializer.serialize(context)))

    assert ours(metrics, dimensions) == data
