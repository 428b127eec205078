"""Metrics out of log lines, and metrics read back.

spec     CloudWatch_Embedded_Metric_Format_Specification, with its example and schema
metrics  FilterAndPatternSyntaxForMetricFilters
api      API_PutMetricFilter, API_MetricTransformation, API_PutMetricData, API_GetMetricStatistics,
         API_GetMetricData, API_ListMetrics
"""

import io
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

import boto3
import pytest
from aws_lambda_powertools import Metrics as PowertoolsMetrics
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st
from moto import mock_aws
from onemachine import logs
from onemachine.filter_pattern import compiled
from onemachine.metrics import (
    NEWEST_POINT_MS,
    OLDEST_POINT_MS,
    UNITS,
    Extraction,
    Point,
    check_transformation,
    embedded,
    filter_points,
)

NOW_MS = 1_795_168_800_000  # 2026-11-20T10:00:00Z
MINUTE_MS = 60_000
DAY_MS = 24 * 60 * MINUTE_MS
GROUP = "/aws/lambda/shop"


@cache
def client(service: str) -> Any:
    """Return a client; a new one would take longer than most tests."""
    return boto3.client(service, region_name="us-east-1")


@dataclass
class World:
    """One account's services, and their clock."""

    now_ms: int = NOW_MS
    client: Callable[[str], Any] = client

    def put(self, *messages: str, at_ms: int | None = None) -> None:
        at_ms = self.now_ms if at_ms is None else at_ms
        events = [{"timestamp": at_ms, "message": message} for message in messages]
        self.client("logs").put_log_events(logGroupName=GROUP, logStreamName="one", logEvents=events)

    def metric_filter(self, pattern: str, name: str = "f", **transformation: Any) -> None:
        transformation = {
            "metricName": "Hits",
            "metricNamespace": "Shop",
            "metricValue": "1",
            **transformation,
        }
        self.client("logs").put_metric_filter(
            logGroupName=GROUP, filterName=name, filterPattern=pattern, metricTransformations=[transformation]
        )

    def statistics(self, name: str, *, namespace: str = "Shop", **asked: Any) -> list[dict[str, Any]]:
        dimensions = asked.pop("dimensions", {})
        whole = {
            "Namespace": namespace,
            "MetricName": name,
            "Dimensions": [{"Name": key, "Value": value} for key, value in dimensions.items()],
            "StartTime": (self.now_ms - 3_600_000) / 1000,
            "EndTime": (self.now_ms + 3_600_000) / 1000,
            "Period": 60,
            "Statistics": ["SampleCount", "Sum", "Average", "Minimum", "Maximum"],
            **asked,
        }
        if not whole["Statistics"]:
            del whole["Statistics"]  # botocore sends no empty list
        answer = self.client("cloudwatch").get_metric_statistics(**whole)
        return sorted(answer["Datapoints"], key=lambda point: point["Timestamp"])

    def data(self, *queries: Mapping[str, Any], **asked: Any) -> list[dict[str, Any]]:
        answer = self.client("cloudwatch").get_metric_data(
            **{
                "MetricDataQueries": list(queries),
                "StartTime": (self.now_ms - 3_600_000) / 1000,
                "EndTime": (self.now_ms + 3_600_000) / 1000,
                "ScanBy": "TimestampAscending",
                **asked,
            }
        )
        return list(answer["MetricDataResults"])


def query(stat: str, name: str = "Hits", period: int = 60, **dimensions: str) -> dict[str, Any]:
    metric = {
        "Namespace": "Shop",
        "MetricName": name,
        "Dimensions": [{"Name": key, "Value": value} for key, value in dimensions.items()],
    }
    return {"Id": "q", "MetricStat": {"Metric": metric, "Period": period, "Stat": stat}}


def at(epoch_ms: int) -> datetime:
    return datetime.fromtimestamp(epoch_ms / 1000, UTC)


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    logs.install(lambda: world.now_ms * 1_000_000)
    with mock_aws():
        world.client("logs").create_log_group(logGroupName=GROUP)
        world.client("logs").create_log_stream(logGroupName=GROUP, logStreamName="one")
        yield world


def refused(error: pytest.ExceptionInfo[ClientError]) -> tuple[str, str]:
    answer = error.value.response["Error"]
    return answer["Code"], answer["Message"]


# ---- The Embedded Metric Format ----------------------------------------------------------------------------

EXAMPLE = {  # spec, "The following is a valid example"; its time is this test's
    "_aws": {
        "Timestamp": NOW_MS,
        "CloudWatchMetrics": [
            {
                "Namespace": "lambda-function-metrics",
                "Dimensions": [["functionVersion"]],
                "Metrics": [{"Name": "time", "Unit": "Milliseconds", "StorageResolution": 60}],
            }
        ],
    },
    "functionVersion": "$LATEST",
    "time": 100,
    "requestId": "989ffbf8-9ace-4817-a57c-e4dd734019ee",
}
EXAMPLE_POINT = Point(
    "lambda-function-metrics", "time", (("functionVersion", "$LATEST"),), NOW_MS, (100.0,), "Milliseconds", 60
)


def line(root: Mapping[str, Any] | None = None, **directive: Any) -> str:
    """Return the specification's example with another directive and other root members."""
    whole = json.loads(json.dumps(EXAMPLE))
    whole["_aws"]["CloudWatchMetrics"][0].update(directive)
    return json.dumps({**whole, **(root or {})})


def test_the_specification_s_example_is_a_metric() -> None:
    assert embedded(json.dumps(EXAMPLE), NOW_MS) == Extraction((EXAMPLE_POINT,))


def many(number: int) -> dict[str, int]:
    return {f"m{each}": each for each in range(number)}


def names(number: int) -> list[dict[str, str]]:
    return [{"Name": name} for name in many(number)]


@pytest.mark.parametrize(
    ("message", "points", "errors"),
    [
        # spec, what is optional in it
        (line(Metrics=[{"Name": "time"}]), [("time", (100.0,), "None", 60)], 0),
        (line({"time": [1, 2.5]}), [("time", (1.0, 2.5), "Milliseconds", 60)], 0),
        (line(Metrics=[{"Name": "time", "StorageResolution": 1}]), [("time", (100.0,), "None", 1)], 0),
        (line(Metrics=[]), [], 0),
        (line({"A.a": 1}, Metrics=[{"Name": "A.a"}]), [("A.a", (1.0,), "None", 60)], 0),
        # spec: targets are root members, numbers or arrays of numbers
        (line({"A": {"a": 1}}, Metrics=[{"Name": "A.a"}]), [], 1),
        (line(Metrics=[{"Name": "none"}]), [], 1),
        (line({"time": "100"}), [], 1),
        (line({"time": True}), [], 1),
        (line({"time": []}), [], 1),
        (line({"time": [1, "2"]}), [], 1),
        (line({"time": {"value": 1}}), [], 1),
        # spec: at a limit, and one past it
        (line({"time": [1] * 100}), [("time", (1.0,) * 100, "Milliseconds", 60)], 0),
        (line({"time": [1] * 101}), [], 1),
        (
            line(many(100), Metrics=names(100)),
            [(f"m{each}", (float(each),), "None", 60) for each in range(100)],
            0,
        ),
        (line(many(101), Metrics=names(101)), [], 1),
        (line(Namespace="n" * 1024), [("time", (100.0,), "Milliseconds", 60)], 0),
        (line(Namespace="n" * 1025), [], 1),
        (line(Namespace=""), [], 1),
        (line(Namespace=None), [], 1),
        (line({"n" * 1024: 1}, Metrics=[{"Name": "n" * 1024}]), [("n" * 1024, (1.0,), "None", 60)], 0),
        (line({"n" * 1025: 1}, Metrics=[{"Name": "n" * 1025}]), [], 1),
        # spec, units and resolutions of MetricDefinition
        (line(Metrics=[{"Name": "time", "Unit": "Parsecs"}]), [], 1),
        (line(Metrics=[{"Name": "time", "Unit": ["Count"]}]), [], 1),
        (line(Metrics=[{"Name": "time", "StorageResolution": 10}]), [], 1),
        (line(Metrics=[{"Unit": "Count"}]), [], 1),
        (line(Metrics=["time"]), [], 1),
        (line(Metrics={"Name": "time"}), [], 1),
        (line(Dimensions=[]), [], 1),
        (line(Dimensions=["functionVersion"]), [], 1),
        # one bad part costs that part
        (
            line({"size": 3}, Metrics=[{"Name": "none"}, {"Name": "size", "Unit": "Bytes"}]),
            [("size", (3.0,), "Bytes", 60)],
            1,
        ),
    ],
)
def test_metrics_are_as_specified_or_counted(
    message: str, points: list[tuple[str, tuple[float, ...], str, int]], errors: int
) -> None:
    found = embedded(message, NOW_MS)
    assert [(each.name, each.values, each.unit, each.resolution_s) for each in found.points] == points
    assert (found.parsing_errors, found.validation_errors) == (0, errors)


KEYS = {f"d{each:02}": "x" for each in range(31)}


@pytest.mark.parametrize(
    ("message", "dimensions", "errors"),
    [
        (line(Dimensions=[[]]), [()], 0),
        (
            line({"a": "1", "b": "2"}, Dimensions=[["b", "a"], ["a"], []]),
            [(("a", "1"), ("b", "2")), (("a", "1"),), ()],
            0,
        ),
        (line({"a": "1"}, Dimensions=[["a"], ["none"]]), [(("a", "1"),)], 1),
        (line({"a": 1}, Dimensions=[["a"]]), [], 1),
        (line({"a": ""}, Dimensions=[["a"]]), [], 1),
        (line({"a": "v" * 1024}, Dimensions=[["a"]]), [(("a", "v" * 1024),)], 0),
        (line({"a": "v" * 1025}, Dimensions=[["a"]]), [], 1),
        (line({"k" * 250: "v"}, Dimensions=[["k" * 250]]), [(("k" * 250, "v"),)], 0),
        (line({"k" * 251: "v"}, Dimensions=[["k" * 251]]), [], 1),
        (line(KEYS, Dimensions=[list(KEYS)[:30]]), [tuple(sorted(KEYS.items()))[:30]], 0),
        (line(KEYS, Dimensions=[list(KEYS)]), [], 1),
    ],
)
def test_each_dimension_set_makes_a_metric(
    message: str, dimensions: list[tuple[tuple[str, str], ...]], errors: int
) -> None:
    """spec, DimensionSet array."""
    found = embedded(message, NOW_MS)
    assert [each.dimensions for each in found.points] == dimensions
    assert (found.parsing_errors, found.validation_errors) == (0, errors)


@pytest.mark.parametrize(
    ("message", "found"),
    [
        # spec: a line is a JSON object with no additional data
        (json.dumps(EXAMPLE) + "\n", Extraction((EXAMPLE_POINT,))),
        (json.dumps(EXAMPLE) + " and more", Extraction(parsing_errors=1)),
        (json.dumps(EXAMPLE)[:-10], Extraction(parsing_errors=1)),
        # fact sheet 7: after the prefix of Lambda's runtime for Node it has been accepted
        ("2026-11-20T10:00:00.000Z\t025f281a\tINFO\t" + json.dumps(EXAMPLE), Extraction((EXAMPLE_POINT,))),
        # lines of another kind
        ("INFO " + json.dumps(EXAMPLE), Extraction()),
        ("plain", Extraction()),
        ('{"a": 1}', Extraction()),
        ('{"a": {"_aws": {"CloudWatchMetrics": []}}}', Extraction()),
        (json.dumps({"message": json.dumps(EXAMPLE)}), Extraction()),
        # metadata that is not as specified
        ('{"_aws": {"CloudWatchMetrics": []}}', Extraction(parsing_errors=1)),
        ('{"_aws": {"Timestamp": 1.5, "CloudWatchMetrics": []}}', Extraction(parsing_errors=1)),
        ('{"_aws": {"Timestamp": 1, "CloudWatchMetrics": {}}}', Extraction(parsing_errors=1)),
        ('{"_aws": ["CloudWatchMetrics"]}', Extraction(parsing_errors=1)),
        (
            json.dumps({**EXAMPLE, "_aws": {"Timestamp": NOW_MS, "CloudWatchMetrics": ["x"]}}),
            Extraction(validation_errors=1),
        ),
    ],
)
def test_a_line_is_in_the_format_or_not_or_counted(message: str, found: Extraction) -> None:
    assert embedded(message, NOW_MS) == found


@pytest.mark.parametrize(
    ("at_ms", "taken"),
    [
        (NOW_MS - OLDEST_POINT_MS, True),
        (NOW_MS - OLDEST_POINT_MS - 1, False),
        (NOW_MS + NEWEST_POINT_MS, True),
        (NOW_MS + NEWEST_POINT_MS + 1, False),
    ],
)
def test_a_point_is_of_the_last_two_weeks_or_the_next_two_hours(at_ms: int, taken: bool) -> None:
    """Fact sheet 7."""
    root = json.loads(json.dumps(EXAMPLE))
    root["_aws"]["Timestamp"] = at_ms
    found = embedded(json.dumps(root), NOW_MS)
    assert (len(found.points), found.validation_errors) == ((1, 0) if taken else (0, 1))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["Namespace", "Dimensions", "Metrics"]), JSON), JSON)
def test_no_line_is_too_odd(directive: dict[str, Any], target: Any) -> None:
    whole = {"_aws": {"Timestamp": NOW_MS, "CloudWatchMetrics": [directive]}, "time": target}
    found = embedded(json.dumps(whole), NOW_MS)
    assert all(each.values and each.unit in UNITS for each in found.points)


def test_the_units_are_cloudwatch_s() -> None:
    """API_MetricDatum, as botocore has it."""
    model = client("cloudwatch").meta.service_model.shape_for("StandardUnit")
    assert set(model.enum) == UNITS


def test_a_line_of_powertools_metrics_becomes_metrics(world: World) -> None:
    """The library's own output, as a function prints it."""
    printed = io.StringIO()
    with redirect_stdout(printed):
        metrics = PowertoolsMetrics(namespace="Shop", service="orders")
        metrics.add_dimension("route", "/orders")
        for latency in (10, 20, 60):
            metrics.add_metric("Latency", unit="Milliseconds", value=latency)
        metrics.add_metric("Hits", unit="Count", value=3)
        metrics.flush_metrics()
        metrics.clear_metrics()
    told = json.loads(printed.getvalue())
    # The library's clock is the real one.
    told["_aws"]["Timestamp"] = NOW_MS + 1_234
    world.put(json.dumps(told))
    dimensions: dict[str, Any] = {"service": "orders", "route": "/orders"}
    assert world.statistics("Latency", dimensions=dimensions) == [
        {
            "Timestamp": at(NOW_MS),
            "SampleCount": 3.0,
            "Sum": 90.0,
            "Average": 30.0,
            "Minimum": 10.0,
            "Maximum": 60.0,
            "Unit": "Milliseconds",
        }
    ]
    (hits,) = world.data(query("Sum", **dimensions))
    assert (hits["Values"], hits["Timestamps"]) == ([3.0], [at(NOW_MS)])
    listed = world.client("cloudwatch").list_metrics(Namespace="Shop")["Metrics"]
    assert sorted((each["MetricName"], len(each["Dimensions"])) for each in listed) == [
        ("Hits", 2),
        ("Latency", 2),
    ]


def test_lines_that_are_not_understood_are_counted_by_log_group(world: World) -> None:
    """CloudWatch-Logs-Monitoring-CloudWatch-Metrics: EMFParsingErrors, EMFValidationErrors."""
    world.put(json.dumps(EXAMPLE)[:-1], line(Namespace=""), line({"time": "x"}), json.dumps(EXAMPLE))
    dimensions = {"LogGroupName": GROUP}
    for name, number in (("EMFParsingErrors", 1), ("EMFValidationErrors", 2)):
        (point,) = world.statistics(name, namespace="AWS/Logs", dimensions=dimensions)
        assert point["Sum"] == number
    (point,) = world.statistics(
        "time", namespace="lambda-function-metrics", dimensions={"functionVersion": "$LATEST"}
    )
    assert point["SampleCount"] == 1


# ---- Metric filters ----------------------------------------------------------------------------------------

ACCESS = '127.0.0.1 Prod frank [10/Oct/2000:13:25:15 -0700] "GET /index.html HTTP/1.0" 404 1534'
TRAIL = json.dumps({"eventType": "UpdateTrail", "sourceIPAddress": "111.111.111.111", "latency": 50})
FIELDS = "[ip, server, username, timestamp, request, status_code, bytes > 1000]"


@pytest.mark.parametrize(
    ("pattern", "transformation", "message", "expected"),
    [
        # metrics: a number, a field of JSON, a named and a numbered field of a space-delimited line
        ("frank", {"metricValue": "1"}, ACCESS, [(1.0, {})]),
        ("frank", {"metricValue": "0.5"}, ACCESS, [(0.5, {})]),
        ("{ $.latency = * }", {"metricValue": "$.latency"}, TRAIL, [(50.0, {})]),
        (FIELDS, {"metricValue": "$bytes"}, ACCESS, [(1534.0, {})]),
        ("[..., bytes]", {"metricValue": "$6"}, ACCESS, [(404.0, {})]),
        # metrics, on dimensions of both kinds
        (
            '{ $.eventType = "*" && $.sourceIPAddress != 123.123.* }',
            {"metricValue": "1", "dimensions": {"eventType": "$.eventType"}},
            TRAIL,
            [(1.0, {"eventType": "UpdateTrail"})],
        ),
        (
            FIELDS,
            {"metricValue": "$bytes", "dimensions": {"server": "$server"}},
            ACCESS,
            [(1534.0, {"server": "Prod"})],
        ),
        (
            "{ $.latency = * && $.ok IS TRUE }",
            {"metricValue": "1", "dimensions": {"ms": "$.latency", "ok": "$.ok"}},
            '{"latency":50,"ok":true}',
            [(1.0, {"ms": "50", "ok": "true"})],
        ),
        # api, defaultValue: the value to emit when a filter pattern does not match a log event
        ("ERROR", {"metricValue": "1", "defaultValue": 0}, ACCESS, [(0.0, {})]),
        ("ERROR", {"metricValue": "1", "defaultValue": 7.5}, ACCESS, [(7.5, {})]),
        ("ERROR", {"metricValue": "1"}, ACCESS, []),
        # decided: without a number, or without a dimension, there is nothing to publish
        ("{ $.latency = * }", {"metricValue": "$.latency"}, '{"latency":"50"}', []),
        ("[a, b]", {"metricValue": "$b"}, "x y", []),
        ("[a, b]", {"metricValue": "$b"}, "x NaN", []),
        (
            "{ $.a = 1 || $.b = 1 }",
            {"metricValue": "1", "dimensions": {"a": "$.a"}},
            '{"b":1}',
            [],
        ),
    ],
)
def test_a_metric_filter_makes_a_point_of_an_event(
    pattern: str, transformation: dict[str, Any], message: str, expected: list[tuple[float, dict[str, str]]]
) -> None:
    whole = {"metricName": "m", "metricNamespace": "n", **transformation}
    check_transformation(compiled(pattern), whole)
    found = list(filter_points(compiled(pattern), whole, [(NOW_MS, message)]))
    assert [(each.values[0], dict(each.dimensions)) for each in found] == expected
    assert all(
        (each.namespace, each.name, each.at_ms, each.unit) == ("n", "m", NOW_MS, "None") for each in found
    )


@pytest.mark.parametrize(
    ("pattern", "transformation", "says"),
    [
        # github.com/hashicorp/terraform-provider-aws/issues/28881
        ("ERROR", {"dimensions": {"a": "$.a"}}, "The specified filter pattern does not support dimensions"),
        ("%ERR%", {"dimensions": {"a": "$.a"}}, "The specified filter pattern does not support dimensions"),
        # metrics: three dimensions, which are in the filter; no default value with them
        (
            "{ $.a = 1 && $.b = 1 && $.c = 1 && $.d = 1 }",
            {"dimensions": {each: f"$.{each}" for each in "abcd"}},
            "4 dimensions, more than 3",
        ),
        ("{ $.a = 1 }", {"dimensions": {"a": "$.a"}, "defaultValue": 0}, "exclude each other"),
        ("{ $.a = 1 }", {"dimensions": {"a": "$.b"}}, "'$.b' is not in the filter pattern"),
        ("{ $.a[*] = 1 }", {"dimensions": {"a": "$.a[*]"}}, "wildcard"),
        ("[a, b]", {"dimensions": {"a": "$c"}}, "'$c' is not in the filter pattern"),
        # github.com/aws-cloudformation/cfn-lint/issues/1525: a bare name is never valid
        ("[a, length]", {"metricValue": "length"}, "'length' is not in the filter pattern"),
        ("{ $.a = 1 }", {"metricValue": "$.b"}, "'$.b' is not in the filter pattern"),
        ("ERROR", {"metricValue": "$1"}, "'$1' is not in the filter pattern"),
        ("ERROR", {"metricValue": "nan"}, "'nan' is not in the filter pattern"),
    ],
)
def test_a_metric_filter_that_cannot_work_is_refused(
    world: World, pattern: str, transformation: dict[str, Any], says: str
) -> None:
    with pytest.raises(ClientError) as error:
        world.metric_filter(pattern, **transformation)
    code, message = refused(error)
    assert code == "InvalidParameterException"
    assert says in message
    assert world.client("logs").describe_metric_filters(logGroupName=GROUP)["metricFilters"] == []


def test_the_page_s_example_of_a_default_value_adds_up(world: World) -> None:
    """metrics: two records a minute, both matching in the first minute and neither in the second."""
    world.metric_filter("ERROR", metricValue="1", defaultValue=0)
    world.put("ERROR a", "ERROR b")
    world.put("fine", "fine", at_ms=NOW_MS + MINUTE_MS)
    assert [
        (point["Timestamp"], point["Sum"], point["SampleCount"]) for point in world.statistics("Hits")
    ] == [
        (at(NOW_MS), 2.0, 2.0),
        (at(NOW_MS + MINUTE_MS), 0.0, 2.0),
    ]


def test_a_metric_filter_is_replaced_by_one_of_its_name(world: World) -> None:
    """api: "creates or updates"."""
    world.metric_filter("a", metricValue="1")
    world.metric_filter("a", metricValue="10", unit="Count")
    world.put("a")
    assert [(point["Sum"], point["Unit"]) for point in world.statistics("Hits")] == [(10.0, "Count")]
    (described,) = world.client("logs").describe_metric_filters(logGroupName=GROUP)["metricFilters"]
    assert described["metricTransformations"][0]["metricValue"] == "10"


def test_a_refused_update_leaves_the_filter_as_it_was(world: World) -> None:
    world.metric_filter("a")
    transformation = {"metricName": "m", "metricNamespace": "n", "metricValue": "1"}
    with pytest.raises(ClientError):
        world.client("logs").put_metric_filter(
            logGroupName=GROUP, filterName="f", filterPattern="b", metricTransformations=[transformation] * 2
        )
    (described,) = world.client("logs").describe_metric_filters(logGroupName=GROUP)["metricFilters"]
    assert described["filterPattern"] == "a"


def test_a_log_group_has_a_hundred_metric_filters(world: World) -> None:
    """Source: api."""
    for number in range(100):
        world.metric_filter("a", name=f"f{number}")
    with pytest.raises(ClientError) as error:
        world.metric_filter("a", name="f100")
    assert refused(error)[0] == "LimitExceededException"
    world.metric_filter("b", name="f99")


def test_a_metric_filter_goes_with_its_log_group(world: World) -> None:
    world.metric_filter("a")
    world.client("logs").delete_log_group(logGroupName=GROUP)
    world.client("logs").create_log_group(logGroupName=GROUP)
    world.client("logs").create_log_stream(logGroupName=GROUP, logStreamName="one")
    world.put("a")
    assert world.statistics("Hits") == []


def test_a_metric_filter_needs_its_log_group(world: World) -> None:
    with pytest.raises(ClientError) as error:
        world.client("logs").put_metric_filter(
            logGroupName="none",
            filterName="f",
            filterPattern="",
            metricTransformations=[{"metricName": "m", "metricNamespace": "n", "metricValue": "1"}],
        )
    assert refused(error)[0] == "ResourceNotFoundException"


# ---- Metrics read back -------------------------------------------------------------------------------------

# By hand: ten values in the first minute, and two in the second.
FIRST, SECOND = [5, 1, 9, 2, 8, 3, 7, 4, 6, 10], [100, 300]


@pytest.fixture
def measured(world: World) -> World:
    world.metric_filter("{ $.ms = * }", metricName="Latency", metricValue="$.ms", unit="Milliseconds")
    world.put(*(json.dumps({"ms": value}) for value in FIRST))
    world.put(*(json.dumps({"ms": value}) for value in SECOND), at_ms=NOW_MS + MINUTE_MS)
    return world


@pytest.mark.parametrize(
    ("stat", "values"),
    [
        ("SampleCount", [10, 2]),
        ("Sum", [55, 400]),
        ("Average", [5.5, 200]),
        ("Minimum", [1, 100]),
        ("Maximum", [10, 300]),
        ("p50", [5, 100]),
        ("p90", [9, 300]),
        ("p99.9", [10, 300]),
        ("p0", [1, 100]),
        ("p100", [10, 300]),
    ],
)
def test_each_statistic_is_what_a_hand_works_out(measured: World, stat: str, values: list[float]) -> None:
    (result,) = measured.data(query(stat, "Latency"))
    assert result["Values"] == values
    assert result["Timestamps"] == [at(NOW_MS), at(NOW_MS + MINUTE_MS)]
    kind = "ExtendedStatistics" if stat.startswith("p") else "Statistics"
    asked: dict[str, Any] = {"Statistics": [], kind: [stat]}
    points = measured.statistics("Latency", **asked)
    found = [point["ExtendedStatistics"] if kind == "ExtendedStatistics" else point for point in points]
    assert [point[stat] for point in found] == values


def test_a_longer_period_holds_all(measured: World) -> None:
    (result,) = measured.data(query("Sum", "Latency", 300))
    assert result["Values"] == [455]


def test_newest_comes_first_unless_asked_otherwise(measured: World) -> None:
    """api: TimestampDescending is the default."""
    (result,) = measured.data(query("Sum", "Latency"), ScanBy="TimestampDescending")
    assert result["Values"] == [400, 55]


def test_a_time_is_rounded_down_to_its_minute_and_the_end_is_exclusive(measured: World) -> None:
    """api, StartTime and EndTime."""
    (result,) = measured.data(
        query("Sum", "Latency"), StartTime=(NOW_MS + 59_000) / 1000, EndTime=(NOW_MS + MINUTE_MS) / 1000
    )
    assert (result["Values"], result["Timestamps"]) == ([55], [at(NOW_MS)])


def test_a_metric_without_dimensions_is_not_the_sum_of_those_with_them(world: World) -> None:
    """CloudWatch concepts, dimension: each combination is a metric of its own; moto added them up."""
    world.metric_filter("{ $.route = * && $.ms = * }", metricValue="$.ms", dimensions={"route": "$.route"})
    world.put('{"route":"/a","ms":1}', '{"route":"/b","ms":2}', '{"route":"/a","ms":4}')
    assert [result["Values"] for result in world.data(query("Sum", route="/a"))] == [[5]]
    assert [result["Values"] for result in world.data(query("Sum", route="/b"))] == [[2]]
    assert [result["Values"] for result in world.data(query("Sum"))] == [[]]
    assert world.statistics("Hits") == []
    (point,) = world.statistics("Hits", dimensions={"route": "/a"})
    assert point["Sum"] == 5


def test_another_namespace_is_another_metric(world: World) -> None:
    world.metric_filter("a", name="one", metricNamespace="Shop")
    world.metric_filter("a", name="two", metricNamespace="Other", metricValue="7")
    world.put("a")
    assert [result["Values"] for result in world.data(query("Sum"))] == [[1]]


def test_each_metric_is_listed_once(world: World) -> None:
    """api: moto lists a metric with two dimensions once for each of its data."""
    world.metric_filter(
        "{ $.route = * && $.method = * }", dimensions={"route": "$.route", "method": "$.method"}
    )
    world.put('{"route":"/a","method":"GET"}', '{"route":"/b","method":"GET"}')
    world.put('{"route":"/a","method":"GET"}', at_ms=NOW_MS + MINUTE_MS)
    cloudwatch = world.client("cloudwatch")
    assert len(cloudwatch.list_metrics(Namespace="Shop")["Metrics"]) == 2
    (listed,) = cloudwatch.list_metrics(Namespace="Shop", Dimensions=[{"Name": "route", "Value": "/b"}])[
        "Metrics"
    ]
    assert listed == {
        "Namespace": "Shop",
        "MetricName": "Hits",
        "Dimensions": [{"Name": "method", "Value": "GET"}, {"Name": "route", "Value": "/b"}],
    }
    assert len(cloudwatch.list_metrics(Namespace="Shop", Dimensions=[{"Name": "method"}])["Metrics"]) == 2
    assert cloudwatch.list_metrics(Namespace="Shop", MetricName="none")["Metrics"] == []


def test_metrics_that_were_put_are_read_with_those_out_of_lines(measured: World) -> None:
    """api: PutMetricData's values, counts and statistic sets."""
    cloudwatch = measured.client("cloudwatch")
    moment = (NOW_MS + 5_000) / 1000
    cloudwatch.put_metric_data(
        Namespace="Shop",
        MetricData=[
            {"MetricName": "Latency", "Timestamp": moment, "Value": 45, "Unit": "Milliseconds"},
            {
                "MetricName": "Latency",
                "Timestamp": moment,
                "Values": [50, 25],
                "Counts": [1, 2],
                "Unit": "Milliseconds",
            },
        ],
    )
    assert [result["Values"][0] for result in measured.data(query("Sum", "Latency"))] == [55 + 45 + 100]
    assert [result["Values"][0] for result in measured.data(query("p100", "Latency"))] == [50]
    statistics = {"SampleCount": 2, "Sum": 3, "Minimum": 1, "Maximum": 2}
    cloudwatch.put_metric_data(
        Namespace="Shop",
        MetricData=[
            {
                "MetricName": "Latency",
                "Timestamp": moment,
                "StatisticValues": statistics,
                "Unit": "Milliseconds",
            }
        ],
    )
    assert [result["Values"][0] for result in measured.data(query("SampleCount", "Latency"))] == [16]
    # A percentile of values that nobody knows is not given.
    assert [len(result["Values"]) for result in measured.data(query("p50", "Latency"))] == [1]


def test_units_are_kept_apart(world: World) -> None:
    """api: without a Unit, data comes back with the unit that it has."""
    world.metric_filter("a", name="one", unit="Count", metricValue="1")
    world.metric_filter("a", name="two", unit="Bytes", metricValue="9")
    world.put("a")
    points = world.statistics("Hits")
    assert sorted((point["Unit"], point["Sum"]) for point in points) == [("Bytes", 9), ("Count", 1)]
    (point,) = world.statistics("Hits", Unit="Bytes")
    assert point["Sum"] == 9
    with pytest.raises(ClientError) as error:
        world.data(query("Sum"))
    assert refused(error) == ("ValidationError", "Hits has data of several units: name the Unit.")


def test_high_resolution_is_kept_by_the_second(world: World) -> None:
    """spec, StorageResolution 1."""
    directive = {
        "Namespace": "Shop",
        "Dimensions": [[]],
        "Metrics": [{"Name": "Hits", "StorageResolution": 1}],
    }
    for offset in (0, 0, 1_000):
        root = {"_aws": {"Timestamp": NOW_MS + offset, "CloudWatchMetrics": [directive]}, "Hits": 1}
        world.put(json.dumps(root))
    (result,) = world.data(query("Sum", period=1))
    assert (result["Values"], result["Timestamps"]) == ([2, 1], [at(NOW_MS), at(NOW_MS + 1_000)])
    (result,) = world.data(query("Sum", period=60))
    assert result["Values"] == [3]


@pytest.mark.parametrize(
    ("queries", "says"),
    [
        ([query("tm90")], "tm90"),
        ([query("p101")], "p101"),
        ([query("Median")], "Median"),
        ([query("Sum", period=7)], "Period"),
        ([{"Id": "e", "Expression": "q * 2"}, query("Sum")], "neither metric math nor Metrics Insights"),
        ([{"Id": "e", "Expression": 'SELECT SUM(Hits) FROM "Shop"', "Period": 60}], "Metrics Insights"),
    ],
)
def test_what_is_not_answered_right_is_refused(
    measured: World, queries: list[dict[str, Any]], says: str
) -> None:
    """For percentiles and math moto gave nothing, and for Metrics Insights the sum of everything."""
    with pytest.raises(ClientError) as error:
        measured.data(*queries)
    assert says in refused(error)[1]


def test_a_query_can_be_named_and_hidden(measured: World) -> None:
    hidden = {**query("Sum", "Latency"), "ReturnData": False}
    (shown,) = measured.data(hidden, {"Id": "e", "Expression": "q", "Label": "all"})
    assert (shown["Id"], shown["Label"], shown["Values"]) == ("e", "all", [55, 400])


@pytest.mark.parametrize("asked", [{"Statistics": []}, {"EndTime": 0}])
def test_statistics_need_a_statistic_and_a_span(measured: World, asked: dict[str, Any]) -> None:
    with pytest.raises(ClientError):
        measured.statistics("Latency", **asked)


def test_data_of_the_last_fifteen_days_is_kept(world: World) -> None:
    """cloudwatch_concepts, metrics retention: data of one minute."""
    world.metric_filter("a")
    world.put("a")
    world.now_ms += 15 * DAY_MS
    world.put("a")
    cloudwatch = world.client("cloudwatch")
    span: dict[str, Any] = {
        "StartTime": at(NOW_MS),
        "EndTime": at(world.now_ms + MINUTE_MS),
    }
    assert len(world.statistics("Hits", **span)) == 2
    world.now_ms += 2 * MINUTE_MS
    world.put("a")
    assert len(world.statistics("Hits", **{**span, "EndTime": at(world.now_ms + MINUTE_MS)})) == 2
    assert len(cloudwatch.list_metrics(Namespace="Shop")["Metrics"]) == 1
