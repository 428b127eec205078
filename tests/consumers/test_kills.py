"""A consumer that is killed, whenever that is, loses nothing and doubles nothing."""

import json
import multiprocessing
import random
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from onemachine.services import Services
from tagline import Record, write

from tests.builders import data, envelope, kinesis_record
from tests.consumers import mortal
from tests.consumers.meters.meters import METER_TAG, line

RUNS, METER_RUNS = 100, 25
# In the memory store, where a row whose point is taken is rejected at once, and not reported afterwards.
RECENT = int(time.time()) * 1000 - 3_600_000


ENVIRON = {
    "TAGLINE_TAG": "usage_record",
    "STORE": "timestream",
    "TIMESTREAM_DATABASE": "tagline",
    "TIMESTREAM_TABLE": "records",
    "BUCKET": "bucket",
    "OWN_LOG_GROUPS": "/tagline/",
    "METER_TAG": METER_TAG,
    "METER_BUCKET": "ingest",
    "POWERTOOLS_SERVICE_NAME": "tagline",
    "POWERTOOLS_METRICS_NAMESPACE": "Tagline",
    "POWERTOOLS_TRACE_DISABLED": "true",
}


@pytest.fixture
def services() -> Iterator[Services]:
    services = Services()
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


class Consumer:
    """Lives of a consumer, each for one batch."""

    def __init__(self, module: str, environ: dict[str, str]) -> None:
        context = multiprocessing.get_context("forkserver")
        self._pipe, there = context.Pipe()
        self._parent = context.Process(target=mortal.serve, args=(environ, module, there))
        self._parent.start()
        there.close()

    def __call__(self, event: dict[str, Any], call: int = mortal.NEVER, *, carried_out: bool = False) -> Any:
        """Return what the handler returns and how many calls it made, or None where it was killed."""
        self._pipe.send((event, call, carried_out))
        return self._pipe.recv()

    def end(self) -> None:
        self._pipe.send(None)
        self._parent.join()
        self._parent.close()
        self._pipe.close()

    def killed_and_well(self, event: dict[str, Any], chance: random.Random, calls: int) -> tuple[int, int]:
        """Let several lives end on a batch, each at another call, and then one get through.

        Returns:
            How many were killed, and how many calls the last one made.
        """
        killed = 0
        for _ in range(chance.randrange(1, 3)):
            killed += self(event, chance.randrange(1, calls + 1), carried_out=chance.random() < 0.5) is None
            if chance.random() < 0.3:  # Lambda bisects a batch that failed, and goes on with its halves.
                half = len(event["Records"]) // 2
                self({"Records": event["Records"][:half]})
        response, calls = self(event)
        assert response == {"batchItemFailures": []}
        return killed, calls


def batch(run: int, chance: random.Random) -> tuple[dict[str, Any], list[str]]:
    """Return an event of several Kinesis records, and the identities and texts of what it says."""
    said: list[str] = []
    datas: list[str] = []
    for record in range(4):
        lines = []
        # Seldom so many that they need several requests: the store takes most of this test's time.
        for number in range(chance.randrange(chance.choice([10, 10, 10, 70]))):
            identity = f"run-{run}-{record}-{number}"
            size = 5_000 if chance.random() < 0.02 else 10
            # Many requests of one client and one route in one millisecond: their points collide.
            lines.append(
                write(
                    Record(
                        id=identity,
                        timestamp=RECENT + run,
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
    rows = Counter(
        str(row["Data"][0]["ScalarValue"])
        for page in pages.paginate(QueryString='SELECT "_id" FROM "tagline"."records"')
        for row in page["Rows"]
    )
    return rows + quarantined(services)


def quarantined(services: Services) -> Counter[str]:
    """Return how often each thing that was said is in quarantine."""
    s3, found = services.client("s3"), Counter[str]()
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket="bucket", Prefix="quarantine/"):
        for item in page.get("Contents", []):
            body = s3.get_object(Bucket="bucket", Key=item["Key"])["Body"].read()
            for each in body.splitlines():
                rejected = json.loads(each)
                found[rejected.get("message") or rejected["data"]] += 1
    return found


def test_a_consumer_killed_at_any_call_of_a_hundred_runs_loses_and_doubles_nothing(
    services: Services,
) -> None:
    chance = random.Random(5)
    consumer = Consumer("consumers.rows.handler", {**ENVIRON, **services.environment()})
    emitted: list[str] = []
    killed, calls = 0, 3
    for run in range(RUNS):
        event, said = batch(run, chance)
        emitted += said
        dead, calls = consumer.killed_and_well(event, chance, calls)
        killed += dead
    consumer.end()

    assert killed >= RUNS / 2
    assert kept(services) == Counter(emitted)


def meters(run: int, chance: random.Random) -> tuple[dict[str, Any], list[str]]:
    """Return an event of several Kinesis records of meters, and the identities and texts of what it says."""
    said, records = [], []
    for record in range(chance.randrange(2, 12)):
        ids = [f"run-{run}-{record}-{number}" for number in range(chance.randrange(1, 9))]
        lines = [line(identity) for identity in ids]
        if chance.random() < 0.3:
            lines.append(f"{METER_TAG} {{run-{run}-{record}")
            ids.append(lines[-1])
        said += ids
        records.append(kinesis_record(data(envelope(*lines)), run * 20 + record))
    return {"Records": records}, said


def test_a_consumer_of_meters_killed_at_any_call_loses_and_doubles_nothing(services: Services) -> None:
    chance = random.Random(6)
    s3 = services.client("s3")
    s3.create_bucket(Bucket="ingest")
    consumer = Consumer("consumers.meters.handler", {**ENVIRON, **services.environment()})
    emitted: list[str] = []
    killed, calls = 0, 3
    for run in range(METER_RUNS):
        event, said = meters(run, chance)
        emitted += said
        dead, calls = consumer.killed_and_well(event, chance, calls)
        killed += dead
    consumer.end()

    found = quarantined(services)
    for item in s3.list_objects_v2(Bucket="ingest")["Contents"]:
        body = s3.get_object(Bucket="ingest", Key=item["Key"])["Body"].read()
        found.update(meter["uniqueId"] for meter in json.loads(body))
    assert killed >= METER_RUNS / 2
    assert found == Counter(emitted)
