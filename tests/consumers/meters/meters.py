"""Meter lines for the tests, and the agent of the seed that they are compared with."""

import json
import shutil
import subprocess
from typing import Any

import pytest

TAG = "usage_record"
METER_TAG = "meter_record_for_stream"
TIME = 1_663_094_105_062  # 2022-09-13T18:35:05.062Z

# What Amberflo's page for CloudWatch shows of its agent, as a program: the same functions in the same order.
AGENT = """
const zlib = require("zlib");
const tag = "meter_record_for_stream";
const said = (message) => {
  const at = message.indexOf(tag);
  return at < 0 ? undefined : JSON.parse(message.slice(at + tag.length + 1));
};
const list = (record) => {
  const envelope = JSON.parse(zlib.gunzipSync(Buffer.from(record.kinesis.data, "base64")).toString());
  if (envelope.messageType === "CONTROL_MESSAGE") return [];
  return envelope.logEvents.map((event) => said(event.message)).filter((meter) => meter);
};
const event = JSON.parse(require("fs").readFileSync(0, "utf8"));
process.stdout.write(JSON.stringify(event.Records.map((record) => JSON.stringify(list(record)))));
"""

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed")


def meter(unique_id: str = "c91b8860", **changes: Any) -> dict[str, Any]:
    return {
        "meterApiName": "api-calls",
        "customerId": "70f1dd87",
        "meterTimeInMillis": TIME,
        "meterValue": 1,
        "uniqueId": unique_id,
        "dimensions": {"method": "GET", "endpoint": "meter-example"},
        **changes,
    }


def line(unique_id: str = "c91b8860", **changes: Any) -> str:
    return f"{METER_TAG} {json.dumps(meter(unique_id, **changes))}\n"


def node(program: str, text: str) -> Any:
    """Return what a Node program makes of a text on its stdin, as the JSON that it prints."""
    done = subprocess.run(
        ["node", "-e", program], input=text, capture_output=True, text=True, check=True, encoding="utf-8"
    )
    return json.loads(done.stdout)
