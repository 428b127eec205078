"""What is sent to a store, counted by all threads that send."""

from __future__ import annotations

import threading

from consumers.rows.store import Traffic


class TrafficCounter:
    """Counts requests between two looks at it. Several threads may count at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._traffic = Traffic()

    def add(self, *, requests: int = 0, retries: int = 0, throttled: int = 0, bytes_: int = 0) -> None:
        """Count requests."""
        with self._lock:
            now = self._traffic
            self._traffic = Traffic(
                now.requests + requests, now.retries + retries, now.throttled + throttled, now.bytes + bytes_
            )

    def take(self) -> Traffic:
        """Return what was counted since the last call of this method."""
        with self._lock:
            traffic, self._traffic = self._traffic, Traffic()
        return traffic
