"""Kinesis on one machine: nothing is lost between writers, and a shard is bounded."""

import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from onemachine import kinesis
from onemachine.clock import Clock
from onemachine.services import Services


@pytest.fixture
def services() -> Iterator[Services]:
    running = Services()
    running.client("kinesis").create_stream(StreamName="s", ShardCount=1)
    yield running
    running.stop()


def put(services: Services, data: bytes) -> str:
    record = services.client("kinesis").put_record(StreamName="s", Data=data, PartitionKey="k")
    number: str = record["SequenceNumber"]
    return number


def read(services: Services, limit: int | None = None) -> tuple[list[dict[str, Any]], int]:
    """Return what the stream holds, in pages of the limit, and how far behind the first page was."""
    client = services.client("kinesis")
    shard = client.list_shards(StreamName="s")["Shards"][0]["ShardId"]
    iterator = client.get_shard_iterator(StreamName="s", ShardId=shard, ShardIteratorType="TRIM_HORIZON")
    arguments = {"Limit": limit} if limit else {}
    page = client.get_records(ShardIterator=iterator["ShardIterator"], **arguments)
    records, behind = page["Records"], page["MillisBehindLatest"]
    while page["MillisBehindLatest"]:
        page = client.get_records(ShardIterator=page["NextShardIterator"], **arguments)
        records += page["Records"]
    return records, behind


def test_records_of_many_writers_are_all_there_with_numbers_of_their_own(services: Services) -> None:
    def write(writer: int) -> None:
        for number in range(50):
            put(services, f"{writer}-{number}".encode())

    threads = [threading.Thread(target=write, args=[writer]) for writer in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    records, _ = read(services)
    assert {record["Data"].decode() for record in records} == {
        f"{w}-{n}" for w in range(8) for n in range(50)
    }
    numbers = [int(record["SequenceNumber"]) for record in records]
    assert numbers == sorted(set(numbers))


def test_sequence_numbers_have_56_digits(services: Services) -> None:
    assert len(put(services, b"x")) == 56


def test_pages_follow_each_other_and_only_the_last_is_not_behind(services: Services) -> None:
    for number in range(7):
        put(services, str(number).encode())

    records, behind = read(services, limit=3)

    assert [record["Data"] for record in records] == [b"0", b"1", b"2", b"3", b"4", b"5", b"6"]
    assert behind > 0


def test_records_are_gone_after_a_day(services: Services) -> None:
    clock = Clock()
    try:
        put(services, b"old")
        clock.advance(timedelta(hours=25))
        number = put(services, b"new")
    finally:
        clock.stop()

    records, _ = read(services)
    assert [(record["Data"], record["SequenceNumber"]) for record in records] == [(b"new", number)]


def test_a_shard_keeps_so_many_bytes(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinesis, "MAX_SHARD_BYTES", 400)

    for number in range(10):
        put(services, str(number).encode() * 90)  # 120 bytes in base64

    assert [record["Data"][:1] for record in read(services)[0]] == [b"7", b"8", b"9"]
