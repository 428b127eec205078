"""A clock, metrics and alarms without a pipeline, and what the alarms send."""

import json
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from moto.cloudwatch.models import CloudWatchBackend
from onemachine.alarms.service import Alarms
from onemachine.metrics import Metrics, Point

START = datetime(2026, 11, 29, 12, 0, 30, tzinfo=UTC)


class Machine:
    """A clock, metrics and alarms, and what the alarms sent."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = START
        self.told = threading.Event()
        self.sent: list[tuple[str, str, dict[str, str]]] = []
        self.backend = CloudWatchBackend("us-east-1", "123456789012")
        self.metrics = Metrics(lambda: int(self.now.timestamp() * 1e9))
        monkeypatch.setattr(
            "onemachine.metrics.cloudwatch_backends", {"123456789012": {"us-east-1": self.backend}}
        )
        monkeypatch.setattr("onemachine.alarms.service.sqs_backends", {"123456789012": {"us-east-1": self}})
        self.queues: dict[str, Any] = {}
        self.alarms = Alarms(self.backend, self.metrics, lambda: self.now, self._publish)

    def _publish(self, topic: str, subject: str, message: str) -> None:
        self.sent.append((topic, subject, json.loads(message)))
        self.told.set()

    def count(self, name: str, *values: float, namespace: str = "App", **dimensions: str) -> None:
        """Record values of a metric, now."""
        at_ms = int(self.now.timestamp() * 1000)
        names = tuple(sorted(dimensions.items()))
        self.metrics.record(self.backend, [Point(namespace, name, names, at_ms, values)])

    def pass_minutes(self, minutes: int) -> None:
        """Put the clock forward at once."""
        self.now += timedelta(minutes=minutes)
        self.alarms.evaluate()

    def state(self, name: str) -> str:
        return str(self.backend.alarms[name].state_value)
