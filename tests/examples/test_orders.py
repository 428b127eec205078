"""The sample function that uses aws-embedded-metrics: its lines are records, and its metrics arrive."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from onemachine.pipeline import Pipeline

from cli.apps import tagline_with_samples

ORDERS = [{"items": 3, "client": "acme"}, {"items": 4, "client": "globex"}, {"items": 1, "client": "acme"}]


def test_lines_of_aws_embedded_metrics_become_rows_and_metrics() -> None:
    pytest.importorskip("aws_embedded_metrics")
    with Pipeline(tagline_with_samples()) as pipeline:
        name, outputs = pipeline.outputs["sample"]["OrdersName"], pipeline.outputs["tagline"]
        events = [json.dumps(order).encode() for order in ORDERS]
        answers = [json.loads(pipeline.functions.invoke(name, event).payload) for event in events]
        pipeline.settle()

        table = f'"{outputs["TimestreamDatabase"]}"."{outputs["TimestreamTable"]}"'
        rows = pipeline.client("timestream-query").query(
            QueryString=f"SELECT client, route, items FROM {table} WHERE measure_name = 'order' ORDER BY 3"
        )["Rows"]
        now = datetime.now(UTC)
        points = pipeline.client("cloudwatch").get_metric_statistics(
            Namespace="Shop",
            MetricName="items",
            Dimensions=[{"Name": "route", "Value": "/orders"}],
            StartTime=now - timedelta(hours=1),
            EndTime=now + timedelta(hours=1),
            Period=7200,
            Statistics=["Sum", "SampleCount"],
        )["Datapoints"]

    assert answers == [{"items": order["items"]} for order in ORDERS]
    assert [[datum["ScalarValue"] for datum in row["Data"]] for row in rows] == [
        ["acme", "/orders", "1.0"],
        ["acme", "/orders", "3.0"],
        ["globex", "/orders", "4.0"],
    ]
    assert sum(point["Sum"] for point in points) == 8
    assert sum(point["SampleCount"] for point in points) == 3
