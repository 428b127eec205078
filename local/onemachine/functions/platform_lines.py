"""What the platform writes about a function: INIT_START, START, REPORT, or the same as JSON."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from onemachine.functions.definition import SYSTEM_LEVELS, Function, utc_now


class PlatformLines:
    """What the platform writes about a function: nothing below the function's SystemLogLevel in JSON format.

    The levels are those of "System log level event mapping" in
    https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-log-level.html.
    """

    def __init__(self, function: Function) -> None:
        self._name = function.name
        self._json = function.logs_json
        self._least = SYSTEM_LEVELS.index(function.system_level)

    def init_start(self, region: str) -> list[str]:
        """Return the line that a new environment begins with."""
        version = f"python:{sys.version_info.major}.{sys.version_info.minor}.v0"
        arn = f"arn:aws:lambda:{region}::runtime:{'0' * 64}"
        if not self._json:
            return [f"INIT_START Runtime Version: {version}\tRuntime Version ARN: {arn}"]
        record = {
            "initializationType": "on-demand",
            "phase": "init",
            "runtimeVersion": version,
            "runtimeVersionArn": arn,
            "functionName": self._name,
            "functionVersion": "$LATEST",
        }
        return self._event("INFO", "platform.initStart", record)

    def start(self, request_id: str) -> list[str]:
        """Return the line before an invocation's."""
        if not self._json:
            return [f"START RequestId: {request_id} Version: $LATEST"]
        return self._event("INFO", "platform.start", {"requestId": request_id, "version": "$LATEST"})

    def report(self, report: Report) -> list[str]:
        """Return the lines after an invocation's."""
        if not self._json:
            return report.as_text()
        level = "INFO" if report.status == "success" else "WARN"
        return self._event(level, "platform.report", report.record())

    def _event(self, level: str, kind: str, record: Mapping[str, object]) -> list[str]:
        if SYSTEM_LEVELS.index(level) < self._least:
            return []
        # The time is called `time` here, not `timestamp`.
        event = {"time": utc_now(), "type": kind, "record": record}
        return [json.dumps(event, separators=(",", ":"))]


@dataclass(frozen=True)
class Report:
    """What the service reports at the end of an invocation: times in milliseconds, memory in MiB."""

    request_id: str
    duration_ms: float
    memory_mb: int
    used_mb: int = 0
    init_ms: float | None = None
    status: str = "success"
    error_type: str = ""

    @property
    def _billed_ms(self) -> int:
        # Since August 2025 the init phase is billed as well.
        return math.ceil(self.duration_ms + (self.init_ms or 0))

    def as_text(self) -> list[str]:
        """Return it as lines of text."""
        parts = [
            f"REPORT RequestId: {self.request_id}",
            f"Duration: {self.duration_ms:.2f} ms",
            f"Billed Duration: {self._billed_ms} ms",
            f"Memory Size: {self.memory_mb} MB",
            f"Max Memory Used: {self.used_mb} MB",
        ]
        if self.init_ms is not None:
            parts.append(f"Init Duration: {self.init_ms:.2f} ms")
        if self.status != "success":
            parts.append(f"Status: {self.status}")
        if self.status == "error":
            parts.append(f"Error Type: {self.error_type}")
        return [f"END RequestId: {self.request_id}", "\t".join(parts) + "\t"]

    def record(self) -> dict[str, object]:
        """Return it as the record of a `platform.report`."""
        metrics: dict[str, object] = {
            "durationMs": round(self.duration_ms, 3),
            "billedDurationMs": self._billed_ms,
            "memorySizeMB": self.memory_mb,
            "maxMemoryUsedMB": self.used_mb,
        }
        if self.init_ms is not None:
            metrics["initDurationMs"] = round(self.init_ms, 3)
        record: dict[str, object] = {"requestId": self.request_id, "metrics": metrics, "status": self.status}
        if self.error_type:
            record["errorType"] = self.error_type
        return record
