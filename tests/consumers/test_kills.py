"""A consumer that is killed, whenever that is, loses nothing and doubles nothing."""

import json
import multiprocessing
import random
from collections import Counter
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any

import pytest
from tagline import Record, write

from local.services import Services
from tests.builders import data, envelope, kinesis_record
from tests.consumers import mortal

RUNS = 100
NEVER = 1_000_000


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch) -> Iterator[Services]:
    services = Services()
    for name, value in {
        **services.environment(),
        "TAGLINE_TAG": "usage_record",
        "TIMESTREAM_DATABASE": "tagline",
        "TIMESTREAM_TABLE": "records",
        "BUCKET": "bucket",
        "OWN_LOG_GROUPS": "/tagline/",
        "POWERTOOLS_SERVICE_NAME": "tagline",
        "POWERTOOLS_METRICS_NAMESPACE": "Tagline",
        "POWERTOOLS_TRACE_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    services.client("s3").create_bucket(Bucket="bucket")
    timestream = services.client("timestream-write")
    timestream.create_database(DatabaseName="tagline")
    timestream.create_table(
        DatabaseName="tagline",
        TableName="records",
        MagneticStoreWriteProperties={"EnableMagneticStoreWrites": True},
        RetentionProperties={
            "MemoryStoreRetentionPeriodInHours": 24,
            "MagneticStoreRetentionPeriodInDays": 7300,
        },
    )
    yield services
    services.stop()


class Consumers:
    """Processes of the consumer, forked from one that has imported it, each for one batch."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([mortal.__name__])

    def __call__(self, event: dict[str, Any], call: int = NEVER, *, carried_out: bool = False) -> Any:
        """Return what the handler returns and how many calls it made, or None where it was killed."""
        there: Connection
        here, there = self._context.Pipe(duplex=False)
        process = self._context.Process(target=mortal.consume, args=(event, call, carried_out, there))
        process.start()
        there.close()
        try:
            return here.recv()
        except EOFError:
            return None
        finally:
            process.join()
            process.close()
            here.close()


def batch(run: int, chance: random.Random) -> tuple[dict[str, Any], list[str]]:
    """Return an event of several Kinesis records, and the identities and texts of what it says."""
    said: list[str] = []
    datas: list[str] = []
    for record in range(4):
        lines = []
        for number in range(chance.randrange(70)):
            identity = f"run-{run}-{record}-{number}"
            size = 5_000 if chance.random() < 0.02 else 10
            # Many requests of one client and one route in one millisecond: their points collide.
            lines.append(
                write(
                    Record(
                        id=identity,
                        timestamp=1_763_632_800_500 + run,
                        fields={"route": "/", "status": number, "text": "x" * size},
                    )
                )
            )
            said.append(identity)
        if chance.random() < 0.5:
            lines.append(f"usage_record run-{run}-{record} is no JSON")
            said.append(lines[-1])
        chance.shuffle(lines)
        datas.append(data(envelope(*lines)))
    if chance.random() < 0.3:
        datas.append(f"run-{run}: no gzip")
        said.append(datas[-1])
    records = [kinesis_record(kept, run * 10 + number) for number, kept in enumerate(datas)]
    return {"Records": records}, said


def kept(services: Services) -> Counter[str]:
    """Return how often each thing that was said is in the store or in quarantine."""
    pages = services.client("timestream-query").get_paginator("query")
    found = Counter(
        str(row["Data"][0]["ScalarValue"])
        for page in pages.paginate(QueryString='SELECT "_id" FROM "tagline"."records"')
        for row in page["Rows"]
    )
    s3 = services.client("s3")
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket="bucket", Prefix="quarantine/"):
        for item in page.get("Contents", []):
            body = s3.get_object(Bucket="bucket", Key=item["Key"])["Body"].read()
            for line in body.splitlines():
                rejected = json.loads(line)
                found[rejected.get("message") or rejected["data"]] += 1
    return found


def test_a_consumer_killed_at_any_call_of_a_hundred_runs_loses_and_doubles_nothing(
    services: Services,
) -> None:
    chance = random.Random(5)
    consume = Consumers()
    emitted: list[str] = []
    killed = 0
    calls = 3
    for run in range(RUNS):
        event, said = batch(run, chance)
        emitted += said
        # Several lives end on the same batch, each at another call; then one gets through.
        for _ in range(chance.randrange(1, 3)):
            killed += (
                consume(event, chance.randrange(1, calls + 1), carried_out=chance.random() < 0.5) is None
            )
            if chance.random() < 0.3:  # Lambda bisects a batch that failed, and goes on with its halves.
                half = len(event["Records"]) // 2
                consume({"Records": event["Records"][:half]})
        response, calls = consume(event)
        assert response == {"batchItemFailures": []}

    assert killed >= RUNS / 2
    assert kept(services) == Counter(emitted)
