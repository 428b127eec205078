"""Tasks over a range of days, day by day, by as many invocations as it takes: verify, find, forget."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import date, datetime
from itertools import groupby
from typing import Any

from botocore.exceptions import ClientError

from consumers.bucket import Downloads
from exporter.downloads.stored_jobs import delete_jobs_of
from exporter.lake.days import Day, dates_of_files, dates_of_locks
from exporter.lake.forgotten_list import ForgottenList, ReadKey
from exporter.lake.formats import Format
from exporter.lake.hours import written_of
from exporter.lake.locks import OvertakenError
from exporter.lake.manifest import HOURS, MANIFEST
from exporter.store import Days, Store, StoreError
from exporter.upkeep import forget
from exporter.upkeep.forget import Found
from exporter.upkeep.verify import NEVER_EXPORTED, Verification, verify_parts

VERIFY, FIND, FORGET = "verify", "find", "forget"
# Lambda itself stops a chain of 16: https://docs.aws.amazon.com/lambda/latest/dg/invocation-recursion.html
MAX_CONTINUATIONS = 12

# In the place of a format: rows that the store itself has.
IN_STORE = "store"
# What stops a day, and not the others: it is in the archive, for instance.
_FAILURES = (ClientError, StoreError, OvertakenError, ValueError, OSError)

# A day in a format: what a task does at a time.
Unit = tuple[date, Format]
Result = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Task:
    """What an event asks for, and how far it is: an invocation hands it to the next as its event.

    Attributes:
        name: `verify`, `find` or `forget`.
        days: The days.
        client: Whose rows are found or forgotten.
        wait: Whether the caller waits, and invokes the function again, instead of the function itself.
        began: When it began, in ISO 8601; what is forgotten is in the audit's entry of that time.
        after: The last unit that is done.
        verified: How far the next one is verified.
        found: What was found of the client in the next one, as far as its parts are read.
        lease: The token of the lock of the next one; empty if it is not begun.
        in_store: The last day whose rows in the store are counted or deleted, which comes after all units.
        continuations: How many invocations there were before.
    """

    name: str
    days: Days
    client: str = ""
    wait: bool = False
    began: str = ""
    after: Unit | None = None
    verified: Verification = field(default_factory=Verification)
    found: Found = field(default_factory=Found)
    lease: str = ""
    in_store: date | None = None
    continuations: int = 0

    def to_event(self) -> dict[str, Any]:
        """Return the event that continues the task."""
        return {
            "task": self.name,
            "from": self.days.first.isoformat(),
            "to": self.days.last.isoformat(),
            "client": self.client,
            "wait": self.wait,
            "began": self.began,
            "after": self.after and [self.after[0].isoformat(), self.after[1]],
            "verified": asdict(self.verified),
            "found": asdict(self.found),
            "lease": self.lease,
            "in_store": self.in_store and self.in_store.isoformat(),
            "continuations": self.continuations,
        }

    @classmethod
    def from_event(cls, event: dict[str, Any], now: datetime) -> Task:
        """Return the task that an event asks for.

        Args:
            event: `{"task": ..., "from": ..., "to": ...}` (dates, both inclusive), with `client` unless the
                task is `verify`; or what `to_event` returned.
            now: The time.

        Raises:
            ValueError: If the event is not one of these.
        """
        name, client = event["task"], event.get("client", "")
        after, in_store = event.get("after"), event.get("in_store")
        if name not in (VERIFY, FIND, FORGET):
            raise ValueError(f"task is {name!r}; give {VERIFY}, {FIND} or {FORGET}")
        if name != VERIFY and not client:
            raise ValueError(f"the task {name} needs a client; give it as the column client has it")
        days = Days(date.fromisoformat(event["from"]), date.fromisoformat(event["to"]))
        verified = Verification(**event.get("verified", {}))
        found = Found(**event.get("found", {}))
        return cls(
            name,
            days,
            client,
            wait=bool(event.get("wait")),
            began=event.get("began") or now.isoformat(),
            after=(date.fromisoformat(after[0]), Format(after[1])) if after else None,
            verified=replace(verified, problems=tuple(verified.problems)),
            found=replace(found, parts=tuple(found.parts)),
            lease=event.get("lease", ""),
            in_store=date.fromisoformat(in_store) if in_store else None,
            continuations=int(event.get("continuations", 0)),
        )


@dataclass(frozen=True, slots=True)
class Done:
    """What an invocation did of a task.

    Attributes:
        results: What became of each unit, or of a range of days that were never exported.
        done: How many units are done, with those of invocations before.
        total: How many there are.
        left: What is left; None if nothing is.
        audit: The key of the audit's entry, of a `forget` that is done.
    """

    results: list[Result]
    done: int
    total: int
    left: Task | None = None
    audit: str | None = None

    def to_answer(self) -> dict[str, Any]:
        """Return what the function answers."""
        answer: dict[str, Any] = {"results": self.results, "done": self.done, "total": self.total}
        if self.audit:
            answer["audit"] = self.audit
        return answer | ({"continues": self.left.to_event()} if self.left else {})


class Tasks:
    """Does tasks.

    Args:
        objects: The lake's bucket.
        store: The store, as long as it has a day that is verified.
        run: What locks call this invocation.
        now: Gives the time.
        read_key: Gives the key of the list of forgotten clients.
    """

    def __init__(
        self, objects: Downloads, store: Store, run: str, now: Callable[[], datetime], read_key: ReadKey
    ) -> None:
        self._objects, self._store, self._run, self._now = objects, store, run, now
        self._clients = ForgottenList(objects, read_key)
        self._client_hash = ""

    def do(self, task: Task, has_time: Callable[[], bool]) -> Done:
        """Do a task as long as there is time; some of it in any case.

        A unit that fails is reported, and does not stop the others.

        Args:
            task: The task.
            has_time: Tells whether there is time for more.
        """
        if task.name == FORGET:
            # Before the days are listed: an export that begins later leaves the client out.
            began = datetime.fromisoformat(task.began)
            forgotten = self._clients.change(lambda forgotten: forgotten.having(task.client, began))
            self._client_hash = forgotten.hash_of(task.client)
        units = self._units(task)
        results = list(_gaps(task.days, units)) if task.name == VERIFY and not task.continuations else []
        place = sum(task.after is not None and unit <= task.after for unit in units)
        for unit in units[place:]:
            outcome = self._do(task, unit, has_time)
            if isinstance(outcome, Task):
                left = replace(outcome, continuations=task.continuations + 1)
                return Done(results, place, len(units), left)
            results.append({"day": unit[0].isoformat(), "format": unit[1], **outcome})
            place += 1
            task = replace(task, after=unit, verified=Verification(), found=Found(), lease="")
            if place < len(units) and not has_time():
                return Done(results, place, len(units), replace(task, continuations=task.continuations + 1))
        for day in () if task.name == VERIFY else task.days:
            if task.in_store is not None and day <= task.in_store:
                continue
            results += self._in_store(task, day)
            task = replace(task, in_store=day)
            if day < task.days.last and not has_time():
                return Done(results, place, len(units), replace(task, continuations=task.continuations + 1))
        return Done(results, place, len(units), audit=self._finish(task) if task.name == FORGET else None)

    def _units(self, task: Task) -> list[Unit]:
        """Return the days that have something to do, in each format.

        A client's rows are also in files that no manifest names, of an export or an erasure that was ended;
        and where there is a lock, there may be files a moment later.
        """
        units: set[Unit] = set()
        for kind in Format:
            for day, names in dates_of_files(self._objects, task.days, kind).items():
                if task.name == FORGET or MANIFEST in names or (task.name == FIND and HOURS in names):
                    units.add((day, kind))
            if task.name == FORGET:
                units |= {(day, kind) for day in dates_of_locks(self._objects, task.days, kind)}
        return sorted(units)

    def _do(self, task: Task, unit: Unit, has_time: Callable[[], bool]) -> Result | Task:
        """Return what became of a unit, or the task that resumes within it if the time is over."""
        day = Day(self._objects, *unit)
        try:
            if task.name == VERIFY:
                return self._verify(day, task, has_time)
            if task.name == FIND:
                found = forget.find(task.client, written_of(day), self._now, task.found, has_time)
                return _counts(found) if found.is_done else replace(task, found=found)
            return self._forget(day, task, has_time)
        except _FAILURES as error:
            return _failed(error)

    def _in_store(self, task: Task, day: date) -> Iterator[Result]:
        """Count the client's rows of a day in the store, or delete them, and yield their number if any."""
        unit = {"day": day.isoformat(), "format": IN_STORE}
        try:
            is_done = task.name == FORGET
            rows = self._store.erase(day) if is_done else self._store.erasable(day, task.client)
        except _FAILURES as error:
            yield {**unit, **_failed(error)}
        else:
            if rows:
                yield {**unit, **_counts(Found(rows=rows))}

    def _verify(self, day: Day, task: Task, has_time: Callable[[], bool]) -> Result | Task:
        verified = verify_parts(day, task.verified, self._now(), self._store, has_time)
        if not verified.is_done:
            return replace(task, verified=verified)
        return {"rows": verified.rows, "problems": verified.problems}

    def _forget(self, day: Day, task: Task, has_time: Callable[[], bool]) -> Result | Task:
        if not day.take(self._run, self._now(), task.lease or None):
            return {"failed": "another run is writing the day: try again in a quarter of an hour"}
        outcome: Result | Task = {}
        try:
            outcome = self._forget_locked(day, task, has_time)
        except OvertakenError:
            day.drop_attempt()
            raise
        finally:
            if not isinstance(outcome, Task):
                day.release()
        return outcome

    def _forget_locked(self, day: Day, task: Task, has_time: Callable[[], bool]) -> Result | Task:
        day = written_of(day)
        found = forget.find(task.client, day, self._now, task.found, has_time)
        left = replace(task, found=found, lease=day.lease.token if day.lease else "")
        if found.is_done and not found.rows:
            # It may have files that no manifest names.
            day.clear(self._now())
            return _counts(found)
        if found.is_done and found != task.found:
            # Before it is done: who is killed in between leaves it written twice, not never.
            self._write_audit(task, day, found)
            if not has_time():
                return left
        if not found.is_done or not forget.forget(
            task.client, self._client_hash, found, day, self._now, has_time=has_time
        ):
            return left
        return _counts(found)

    def _finish(self, task: Task) -> str:
        """Delete the client's downloads, and return the key of the audit's entry."""
        # After the days: what is asked for from now on is made of what they have now.
        delete_jobs_of(task.client, self._objects)
        return self._write_audit(task)

    def _write_audit(self, task: Task, day: Day | None = None, found: Found | None = None) -> str:
        began = datetime.fromisoformat(task.began)
        return forget.write_audit(self._client_hash, self._objects, began, day, found)


def _failed(error: Exception) -> Result:
    return {"failed": f"{type(error).__name__}: {error}"}


def _counts(found: Found) -> Result:
    return {"rows": found.rows, "whole_records": found.whole_records}


def _gaps(days: Days, units: list[Unit]) -> Iterator[Result]:
    """Yield the days that were never exported, as ranges, in the formats that others of them are in."""
    for kind in sorted({kind for _, kind in units} or {Format.CSV_GZ}):
        there = {day for day, of in units if of == kind}
        for is_there, run in groupby(days, there.__contains__):
            first, *rest = run
            if not is_there:
                last = rest[-1] if rest else first
                yield {
                    "day": first.isoformat(),
                    "last_day": last.isoformat(),
                    "format": kind,
                    "problems": [NEVER_EXPORTED],
                }
