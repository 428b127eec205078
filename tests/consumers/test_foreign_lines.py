"""Lines of other programs through the whole pipeline: PutLogEvents, the table, quarantine and reconcile.

Each line came from somebody's logger. None that carries the tag may vanish.
"""

import json
from collections import Counter
from datetime import UTC, date, datetime, timedelta

from onemachine.pipeline import Pipeline

from cli.quarantine import EVER, list_objects, read_object
from cli.reconcile import balances_of
from cli.target import Target, target_of
from consumers.lines import quarantine

GROUP = "/aws/lambda/sample-Orders"
WRITTEN = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
SECOND = int(WRITTEN.timestamp())
PUT_AT = (SECOND + 3_600) * 1_000 + 7  # when all lines came, in milliseconds since 1970

# What is rejected, by reason.
REJECTED = {
    # Not a prefix of a runtime's: an application's own.
    '2026-11-20 10:00:00 {} INFO orders - {"level":"INFO","_tag":"usage_record","_id":"k3"}': "prefix",
    '[main] {"_tag":"usage_record","_id":"k4"}': "prefix",
    '{"log":{"_tag":"usage_record","_id":"k5"}}': "prefix",
    # One record printed with indentation: Lambda makes an event of each line.
    '  "_tag": "usage_record",': "unparseable",
    # The second half of a line that was split.
    'end of a long text","_tag":"usage_record","_id":"k7","tax":{"rate":19}}': "unparseable",
    'end of a long text","_tag":"usage_record","_id":"k8"}': "unparseable",
    '{"_tag":"usage_record","_id":7}': "unparseable",
}
# What Python's and Node's own notations write: the tag is mentioned, and counted.
MENTIONED = [
    "{'_tag': 'usage_record', '_id': 'k9', 'route': '/a'}",
    "2026-11-20T10:00:00.000Z\tid\tINFO\t{ _tag: 'usage_record', _id: 'k9b', route: '/a' }",
]
WITHOUT_TAG = ["{", '  "_id": "k5",', "}"]
# A line's time in other notations, and the fraction of the second that is left of it.
TIMES = {
    "rfc3339": (WRITTEN.strftime("%Y-%m-%dT%H:%M:%S.123Z"), 123),
    "seconds": (SECOND, 0),
    "fraction": (SECOND + 0.123, 123),
    "milliseconds": (SECOND * 1_000 + 123, 123),
    "microseconds": (SECOND * 10**6 + 123_456, 123),
    "nanoseconds": (SECOND * 10**9 + 123_456_789, 123),
    "text": (f"{SECOND}.123", 123),
    "access_log": (WRITTEN.strftime("%d/%b/%Y:%H:%M:%S +0000"), 0),
}
UNREAD = "half past ten"


def record(identity: str, time: object) -> str:
    return json.dumps({"_tag": "usage_record", "_id": identity, "timestamp": time, "route": "/a"})


def test_no_line_with_the_tag_vanishes(tagline: Pipeline) -> None:
    lines = [
        *(record(name, written) for name, (written, _) in TIMES.items()),
        record("unread", UNREAD),
        *REJECTED,
        *MENTIONED,
        *WITHOUT_TAG,
    ]
    put(tagline, lines)
    where = target_of(tagline)

    assert stored(where) == {
        **{name: (SECOND * 1_000 + rest, None) for name, (_, rest) in TIMES.items()},
        "unread": (PUT_AT, UNREAD),
    }
    assert quarantined(where) == REJECTED
    totals = reconciled(where)
    readable = len(TIMES) + 1
    assert totals == {
        "delivered": readable + len(REJECTED),
        "stored": readable,
        "quarantined": len(REJECTED),
        "mentioned": len(MENTIONED),
        "rows": readable,
    }


def put(pipeline: Pipeline, lines: list[str]) -> None:
    """Write log events as a program's agent does, and wait until all is dealt with."""
    logs = pipeline.client("logs")
    logs.create_log_stream(logGroupName=GROUP, logStreamName="foreign")
    events = [{"timestamp": PUT_AT, "message": line} for line in lines]
    logs.put_log_events(logGroupName=GROUP, logStreamName="foreign", logEvents=events)
    pipeline.settle()


def stored(where: Target) -> dict[str, tuple[int, str | None]]:
    """Return each row's time, in milliseconds since 1970, and what is kept of a time that was not read."""
    rows = where.store().sql('SELECT _id, time, "timestamp" FROM {table}').rows
    found = {}
    for identity, time, kept in rows:
        at = datetime.fromisoformat(str(time)[:23]).replace(tzinfo=UTC)
        found[str(identity)] = (round(at.timestamp() * 1_000), None if kept is None else str(kept))
    return found


def quarantined(where: Target) -> dict[str, str]:
    """Return the reason of each line in quarantine."""
    kept = [line for key, _ in list_objects(where, EVER, set(REJECTED.values())) for line in read(where, key)]
    return {line.event.message: line.reason for line in kept if line.event is not None}


def read(where: Target, key: str) -> list[quarantine.Kept]:
    return list(quarantine.read(read_object(where, key)))


def reconciled(where: Target) -> dict[str, int]:
    """Return the sums of what `tagline reconcile` prints for the log group; `missing` is 0."""
    sums: Counter[str] = Counter()
    for day in days():
        for balance in balances_of(where, day)[0]:
            assert balance.log_group == GROUP
            assert balance.missing == 0
            sums.update(
                delivered=balance.totals.delivered,
                stored=balance.stored,
                quarantined=balance.quarantined,
                mentioned=balance.totals.mentioned,
                rows=balance.rows,
            )
    return dict(sums)


def days() -> set[date]:
    """Return the days of the records and of their lines, which midnight may divide."""
    return {WRITTEN.date(), datetime.fromtimestamp(PUT_AT / 1_000, UTC).date()}
