"""A lock: a day in a format is written by one attempt at a time.

The attempt that holds the lock has a lease with a token. It renews the lease while it works, and hands the
token to the run that continues. The lock keeps two attempts from doing the same work. A late attempt does no
harm: docs/reference/commits.md.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from consumers.bucket import Objects
from consumers.documents import load, stamped
from consumers.errors import TaglineError

# Version 1 had no token, and was as long as an invocation.
_VERSION = 2
# A run that is killed keeps a day locked for so long. Lambda retries an event after one minute and two more.
# https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-error-handling.html
LEASE = timedelta(minutes=3)
_RENEW_BEFORE = timedelta(minutes=2)


class OvertakenError(TaglineError, RuntimeError):
    """Another has the lock, or has written the day, since this one began; what this one did has no effect."""


@dataclass(slots=True)
class DayLease:
    """The lock, as long as nobody else takes it.

    Attributes:
        objects: The bucket's objects.
        key: The lock's key.
        run: The run that takes the lock.
        token: What the lock contains while this lease has it.
        until: When others may take the lock.
    """

    objects: Objects
    key: str
    run: str
    token: str
    until: datetime

    def renew(self, now: datetime) -> None:
        """Make the lease longer if less than two minutes are left.

        Raises:
            OvertakenError: If another has the lock by now.
        """
        if self.until - now < _RENEW_BEFORE:
            self.confirm(now)

    def confirm(self, now: datetime) -> None:
        """Make sure that this lease has the lock, and make it longer.

        Raises:
            OvertakenError: If another has the lock by now.
        """
        found = self.objects.read(self.key)
        until = now + LEASE
        if (
            found is None
            or _parsed(found[0], self.key).get("token") != self.token
            or not self.objects.replace(self.key, _document(self.run, self.token, until), found[1])
        ):
            raise OvertakenError(f"another run has taken the lock {self.key}; it writes the day")
        self.until = until

    def release(self) -> None:
        """Give the lock back, if this lease still has it."""
        found = self.objects.read(self.key)
        if found is not None and _parsed(found[0], self.key).get("token") == self.token:
            self.objects.remove(self.key, found[1])


class Lock:
    """The lock of a day in a format. A run that was killed keeps it until its lease ends.

    Args:
        objects: The lake's bucket.
        key: The lock's key.
    """

    def __init__(self, objects: Objects, key: str) -> None:
        self._objects = objects
        self._key = key

    def take(self, run: str, now: datetime, token: str | None = None) -> DayLease | None:
        """Take the lock and return the lease, or None if another has it.

        Args:
            run: The run's name, for people who look at the lock.
            now: The time.
            token: The lease that this one continues: it is exchanged, so a continuation that is delivered
                twice continues once.
        """
        lease = DayLease(self._objects, self._key, run, secrets.token_hex(8), now + LEASE)
        found = self._objects.read(self._key)
        if found is not None:
            held = _parsed(found[0], self._key)
            continues = token is not None and held.get("token") == token
            if not continues and datetime.fromisoformat(held["until"]) > now:
                return None
        document = _document(run, lease.token, lease.until)
        return lease if self._objects.replace(self._key, document, found and found[1]) else None

    def is_held(self, now: datetime) -> bool:
        """Tell whether a run has the lock; one whose lease has ended does not have it any more."""
        found = self._objects.get(self._key)
        return found is not None and datetime.fromisoformat(_parsed(found, self._key)["until"]) > now


def _document(run: str, token: str, until: datetime) -> bytes:
    document = {"run": run, "token": token, "until": until.astimezone(UTC).isoformat()}
    return json.dumps(stamped(document, _VERSION)).encode()


def _parsed(document: bytes, key: str) -> dict[str, Any]:
    return load(document, _VERSION, f"the lock {key}")
