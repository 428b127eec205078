"""A function that already uses aws-embedded-metrics: its metric lines are usage records as well.

It is invoked with `{"items": 3, "client": "acme"}`. docs/how-to/metrics-in-the-line.md describes the line.
"""

import os
from typing import Any

from aws_embedded_metrics.metric_scope import metric_scope


@metric_scope
def handler(event: dict[str, Any], context: Any, metrics: Any) -> dict[str, Any]:
    """Take an order, and count its items."""
    metrics.set_namespace("Shop")
    metrics.set_dimensions({"route": "/orders"})
    metrics.put_metric("items", event["items"], "Count")
    metrics.set_property("client", event["client"])
    # What the pipeline reads: the tag, the kind of record, and an id that is the same for every copy of it.
    metrics.set_property("_tag", os.environ["TAGLINE_TAG"])
    metrics.set_property("_type", "order")
    metrics.set_property("_id", context.aws_request_id)
    return {"items": event["items"]}
