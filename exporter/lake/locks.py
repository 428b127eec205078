"""A lock: a day in a format is written by one run at a time."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from consumers.bucket import Objects
from consumers.documents import load, stamped

_VERSION = 1


class Lock:
    """The lock of a day in a format. A run that was killed keeps it until the time that it could have lived.

    Args:
        objects: The lake's bucket.
        key: The lock's key.
    """

    def __init__(self, objects: Objects, key: str) -> None:
        self._objects = objects
        self._key = key

    def take(self, run: str, now: datetime, until: datetime) -> bool:
        """Take the lock for a run, and tell whether the run has it now.

        Args:
            run: The run's name; a run can take again what it has.
            now: The time.
            until: How long the run can live.
        """
        body = json.dumps(
            stamped({"run": run, "until": until.astimezone(UTC).isoformat()}, _VERSION)
        ).encode()
        found = self._objects.read(self._key)
        if found is None:
            return self._objects.replace(self._key, body, None)
        held = self._parsed(found[0])
        if held["run"] != run and datetime.fromisoformat(held["until"]) > now:
            return False
        return self._objects.replace(self._key, body, found[1])

    def release(self, run: str) -> None:
        """Give the lock back, if this run has it."""
        found = self._objects.get(self._key)
        if found is not None and self._parsed(found)["run"] == run:
            self._objects.delete([self._key])

    def is_taken(self) -> bool:
        """Tell whether a run has the lock, or died with it."""
        return self._objects.get(self._key) is not None

    def _parsed(self, document: bytes) -> dict[str, str]:
        return load(document, _VERSION, f"the lock {self._key}")
