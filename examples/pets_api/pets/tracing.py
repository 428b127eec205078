"""X-Ray, in one place.

The X-Ray SDK, which Powertools' Tracer uses, is in maintenance mode, and AWS replaces it with OpenTelemetry:
https://docs.aws.amazon.com/xray/latest/devguide/xray-sdk-daemon-timeline.html
Only this module imports it, so only this module changes when you replace it.
"""

from collections.abc import Mapping
from typing import Any

from aws_lambda_powertools import Tracer
from tagline import Privacy

tracer = Tracer()

# Fields to search traces by. X-Ray indexes up to 50 annotations of a trace: text, numbers or booleans.
# https://docs.aws.amazon.com/xray/latest/devguide/xray-api-segmentdocuments.html
ANNOTATIONS = ("correlation_id", "method", "route", "status", "client", "error_type")

_privacy = Privacy()


def put_record(fields: Mapping[str, Any]) -> None:
    """Add a usage record to the request's trace: some fields as annotations, all of them as metadata.

    Args:
        fields: The record's fields. Credentials are masked, as in the record's line.
    """
    clean = _privacy.clean(dict(fields))
    for name in ANNOTATIONS:
        if name in clean:
            tracer.put_annotation(name, clean[name])
    tracer.put_metadata("record", clean, namespace="tagline")
