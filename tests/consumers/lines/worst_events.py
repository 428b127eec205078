"""Runs one of the worst events that can reach a consumer, and prints what it took; tests/.../test_memory.py.

An event is at most 6 MB, of which base64 takes a quarter; gzip packs a thousand bytes into one.
"""

import base64
import gzip
import hashlib
import json
import re
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from consumers.lines.ledger import Ledger
from consumers.meters.destinations import Destination
from consumers.meters.handler import make_handler as make_meter_handler
from consumers.meters.meter import Entry
from consumers.outcomes import Carried, Carrier, Outcome, Stored, Undecided
from consumers.rows.handler import make_handler
from consumers.rows.lake.writer import Lake
from consumers.rows.store import Store
from consumers.rows.timestream.writer import Timestream
from tests.builders import LOGGED, Context, kinesis_event
from tests.consumers.meters.meters import METER_TAG, meter

TAG = "usage_record"
HEAD = b'{"messageType":"DATA_MESSAGE","owner":"1","logGroup":"/g","logStream":"s","logEvents":['


def event_of(message: str, number: int = 1) -> str:
    return f'{{"id":"{number}","timestamp":{LOGGED},"message":{json.dumps(message)}}}'


def packed(parts: Iterator[bytes]) -> str:
    packer = gzip.zlib.compressobj(1, gzip.zlib.DEFLATED, 31)  # type: ignore[attr-defined]  # it imports zlib
    return base64.b64encode(b"".join([*map(packer.compress, parts), packer.flush()])).decode()


def envelope(event: str, times: int, separator: str = ",") -> str:
    """Return an envelope with one log event many times, as the data of a Kinesis record."""

    def parts() -> Iterator[bytes]:
        yield HEAD
        block = 1 + 500_000 // len(event)
        yield separator.join([event] * (times % block or block)).encode()
        for _ in range((times - 1) // block):
            yield (separator + separator.join([event] * block)).encode()
        yield b"]}"

    return packed(parts())


def with_size(event: str, megabytes: int, separator: str = ",") -> str:
    return envelope(event, megabytes * 1_000_000 // (len(event) + len(separator)), separator)


def different_records(number: int, count: int) -> Iterator[bytes]:
    """Yield an envelope with records of about 750 bytes, each with its identity."""
    yield HEAD
    for each in range(number * count, (number + 1) * count):
        identity = hashlib.md5(b"%d" % each).hexdigest()
        fields = {
            "_id": identity,
            "_src": "s",
            "_seq": each,
            "route": "/pets",
            "status": 200,
            "ms": each % 997,
        }
        head = {"_tag": TAG, "timestamp": "2025-11-20T00:00:00.000Z", "level": "INFO", "_type": "api_request"}
        event = event_of(json.dumps({**head, **fields, "note": "n" * 500}, separators=(",", ":")), each)
        yield (event + ("," if (each + 1) % count else "")).encode()
    yield b"]}"


LARGE = json.dumps({"_tag": TAG, "_id": "a", "_type": "t", "text": "x" * 1_000_000}, separators=(",", ":"))
NESTED = '{"_tag":"usage_record","_id":"a","_type":"t","a":[' + "[]," * 340_000 + "[]]}"
SPACED = event_of("x").replace(":", ": ")
UNREADABLE = event_of(f'{TAG} {{"a":')
METER = event_of(f"{METER_TAG} {json.dumps(meter())}")
EVENTS: dict[str, Callable[[], list[str]]] = {
    # More than is inflated; JSON with spaces; one long line; the same with the tag.
    "refused": lambda: [
        with_size(event_of(""), 140),
        with_size(SPACED, 60, ", "),
        envelope(event_of("x" * 30_000_000), 1),
        envelope(event_of(f'{{"_tag":"{TAG}","a":"{"x" * 7_000_000}"}}'), 9),
    ],
    "parsed": lambda: [
        with_size(event_of(""), 20),
        with_size(SPACED, 8, ", "),
        with_size("[]", 2),
        with_size(event_of(NESTED), 5),
        *[with_size(event_of(LARGE), 30)] * 2,
    ],
    "rejected": lambda: [
        *[with_size(UNREADABLE, 2)] * 2,
        with_size(UNREADABLE, 5),
        *[with_size(event_of(f"{TAG} {{" + "\1" * 900_000), 25)] * 2,
    ],
    # 100,000 different records in 80 MB of text.
    "many": lambda: [packed(different_records(number, 10_000)) for number in range(10)],
    "meters": lambda: [*[with_size(METER, 1)] * 9, with_size(METER, 9)],
}


class Forgetful:
    """A store and a bucket that keep nothing, so that only the consumer's memory is measured."""

    store = "nothing"

    def write_records(self, **request: Any) -> dict[str, Any]:
        return {"RecordsIngested": {"Total": len(request["Records"])}}

    def put_object(self, **request: Any) -> None:
        assert request["Body"]
        time.sleep(0.05)  # so that many fragments are under way

    def write(self, key: str, body: bytes) -> None:
        assert key, body


class NoDestination:
    store = "nothing"

    def requests(self, unit: list[Carried[Carrier, Entry]]) -> Iterator[list[Carried[Carrier, Entry]]]:
        yield unit

    def write(self, meters: Sequence[Entry], remaining: Callable[[], float], /) -> list[Outcome | Undecided]:
        assert remaining() > 0
        return [Stored()] * len(meters)


def most_memory() -> int:
    """Return the most memory that this process has had, in KiB.

    What `getrusage` says of a process begins with what the process that started it had.
    """
    status = Path("/proc/self/status")
    if status.exists():
        (kib,) = re.findall(r"(?m)^VmHWM:\s+(\d+) kB$", status.read_text())
        return int(kib)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main(name: str, consumer: str) -> None:
    event = kinesis_event(*EVENTS[name]())
    size = len(json.dumps(event))
    assert size < 6_000_000, size
    ledgers: list[Ledger] = []
    objects = Forgetful()
    before = most_memory()
    stores: dict[str, Store[Any]] = {
        "rows": Timestream(objects, "tagline", "records", sleep=lambda _: None, jitter=lambda: 0.0),
        "lake": Lake(
            objects,
            "lake",
            kept_days=365,
            clock=lambda: LOGGED / 1000,
            sleep=lambda _: None,
            jitter=lambda: 0.0,
        ),
    }
    if consumer in stores:
        handler = make_handler(
            stores[consumer],
            objects,
            tag=TAG,
            own_log_groups="/tagline/",
            report=ledgers.append,
            threads=8,
        )
    else:
        destination: Destination = NoDestination()
        handler = make_meter_handler(
            destination,
            objects,
            meter_tag=METER_TAG,
            tag=TAG,
            own_log_groups="/tagline/",
            report=ledgers.append,
        )
    while event["Records"]:
        answer = handler(event, Context(remaining_ms=120_000))
        failed = {each["itemIdentifier"] for each in answer["batchItemFailures"]}
        numbers = [each["kinesis"]["sequenceNumber"] for each in event["Records"]]
        event["Records"] = event["Records"][min(map(numbers.index, failed)) :] if failed else []
    peak = most_memory()
    counts = sum((+ledger.quarantined for ledger in ledgers), start=ledgers[0].quarantined.__class__())
    sums = {
        name: sum(ledger.counts()[name] for ledger in ledgers) for name in ("stored", "ignored", "mentioned")
    }
    json.dump({"before": before >> 10, "peak": peak >> 10, "quarantined": counts, **sums}, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
