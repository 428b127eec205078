"""Faults on demand, met by real clients of the services."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError
from onemachine.address import client
from onemachine.faults import OF_CALLS, OF_DELIVERIES, OF_THE_SERVICE, Fault, Kind
from onemachine.services import Services

ONCE = Config(retries={"total_max_attempts": 1})


@pytest.fixture(scope="module")
def running() -> Iterator[Services]:
    services = Services()
    services.client("kinesis").create_stream(StreamName="s", ShardCount=1)
    services.client("s3").create_bucket(Bucket="bucket")
    yield services
    services.stop()


@pytest.fixture
def services(running: Services) -> Iterator[Services]:
    yield running
    running.faults.clear()


def put(services: Services) -> Any:
    kinesis = client(services.endpoint, "kinesis", ONCE)
    return kinesis.put_record(StreamName="s", Data=b"x", PartitionKey="k")


def error(services: Services) -> tuple[str, int]:
    with pytest.raises(ClientError) as caught:
        put(services)
    response = caught.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


def records(services: Services) -> int:
    kinesis = services.client("kinesis")
    shard = kinesis.list_shards(StreamName="s")["Shards"][0]["ShardId"]
    iterator = kinesis.get_shard_iterator(StreamName="s", ShardId=shard, ShardIteratorType="TRIM_HORIZON")
    return len(kinesis.get_records(ShardIterator=iterator["ShardIterator"])["Records"])


@pytest.mark.parametrize(
    ("kind", "code", "status"),
    [
        (Kind.THROTTLE, "ProvisionedThroughputExceededException", 400),
        (Kind.ERROR, "InternalServerException", 500),
        (Kind.DENY, "AccessDeniedException", 400),
    ],
)
def test_a_refused_call_is_not_carried_out_and_the_next_one_is(
    kind: Kind, code: str, status: int, services: Services
) -> None:
    before = records(services)
    services.faults.add(Fault(kind, "kinesis", "PutRecord"))

    assert error(services) == (code, status)
    assert records(services) == before
    put(services)
    assert records(services) == before + 1


@pytest.mark.parametrize(
    ("kind", "code"),
    [(Kind.THROTTLE, "SlowDown"), (Kind.ERROR, "InternalError"), (Kind.DENY, "AccessDenied")],
)
def test_s3_says_it_in_its_own_words(kind: Kind, code: str, services: Services) -> None:
    services.faults.add(Fault(kind, "s3", "PUT"))

    with pytest.raises(ClientError) as caught:
        client(services.endpoint, "s3", ONCE).put_object(Bucket="bucket", Key="k", Body=b"x")

    assert caught.value.response["Error"]["Code"] == code


def test_a_connection_is_cut_after_the_work_was_done(services: Services) -> None:
    before = records(services)
    services.faults.add(Fault(Kind.CUT, "kinesis", "PutRecord"))

    with pytest.raises(ConnectionClosedError):
        put(services)

    assert records(services) == before + 1


def test_a_connection_is_reset_before_the_work_is_done(services: Services) -> None:
    before = records(services)
    services.faults.add(Fault(Kind.RESET, "kinesis", "PutRecord"))

    with pytest.raises(ConnectionClosedError):
        put(services)

    assert records(services) == before


def test_rules_that_are_taken_back_say_how_many_calls_they_met(services: Services) -> None:
    services.faults.add(Fault(Kind.ERROR, "kinesis", "PutRecord", times=2))
    services.faults.add(Fault(Kind.DENY, "sqs"))
    for _ in range(3):
        with suppress(ClientError):
            put(services)

    assert services.faults.clear() == {
        Fault(Kind.ERROR, "kinesis", "PutRecord", times=2): 2,
        Fault(Kind.DENY, "sqs"): 0,
    }
    assert services.faults.clear() == {}


def test_latency_changes_nothing_else(services: Services) -> None:
    before = records(services)
    services.faults.add(Fault(Kind.LATENCY, seconds=0.01))

    put(services)

    assert records(services) == before + 1


def test_nothing_disturbs_what_a_service_does_by_itself(services: Services) -> None:
    services.faults.add(Fault(Kind.RESET, "s3", times=None))
    itself = client(services.endpoint, "s3", Config(user_agent_extra=OF_THE_SERVICE))

    assert [bucket["Name"] for bucket in itself.list_buckets()["Buckets"]] == ["bucket"]
    with pytest.raises(ConnectionClosedError):
        client(services.endpoint, "s3", ONCE).list_buckets()


def test_a_fault_is_for_its_service_and_operation_only(services: Services) -> None:
    services.faults.add(Fault(Kind.DENY, "kinesis", "PutRecords", times=None))
    services.faults.add(Fault(Kind.DENY, "sqs", times=None))

    put(services)


@pytest.mark.parametrize(
    ("service", "operation", "said"),
    [
        ("dynamo", "", "service 'dynamo' is unknown: name it as boto3 does"),
        ("monitoring", "", "service 'monitoring' is unknown"),  # how cloudwatch's signatures name it
        ("timestream", "WriteRecord", "has no operation 'WriteRecord': did you mean WriteRecords"),
        ("kinesis", "x", "kinesis has no operation 'x': did you mean one of its operations"),
        # A call of these says its operation in the path or in the body.
        ("s3", "PutObject", "s3 are known by their method only: use DELETE, GET"),
        ("sns", "Publish", "sns are known by their method only"),
    ],
)
def test_a_fault_that_no_call_would_meet_is_refused(
    service: str, operation: str, said: str, services: Services
) -> None:
    with pytest.raises(ValueError, match=said):
        services.faults.add(Fault(Kind.DENY, service, operation))


@pytest.mark.parametrize(
    ("service", "operation", "call"),
    [
        ("timestream", "DescribeEndpoints", ("timestream-write", "describe_endpoints", {})),
        ("timestream-query", "", ("timestream-query", "describe_endpoints", {})),
        ("cloudwatch", "ListMetrics", ("cloudwatch", "list_metrics", {})),
        ("sns", "POST", ("sns", "list_topics", {})),
        ("lambda", "GET", ("lambda", "list_functions", {})),
    ],
)
def test_a_fault_is_met_by_calls_of_the_service_that_boto3_names(
    service: str, operation: str, call: tuple[str, str, dict[str, Any]], services: Services
) -> None:
    name, method, arguments = call
    services.faults.add(Fault(Kind.DENY, service, operation))

    with pytest.raises(ClientError, match="AccessDenied"):
        getattr(client(services.endpoint, name, ONCE), method)(**arguments)


def test_chance_repeats_from_its_seed() -> None:
    def met(seed: int) -> list[bool]:
        from onemachine.faults import Faults

        def answer(environ: dict[str, Any], start_response: Any) -> list[bytes]:
            start_response("200 OK", [])
            return [environ["REQUEST_METHOD"].encode()]

        faults = Faults(answer, seed)
        faults.add(Fault(Kind.ERROR, chance=0.5, times=None))
        return [faults({"REQUEST_METHOD": "GET"}, lambda *_: None) == [b"GET"] for _ in range(50)]

    assert met(1) == met(1)
    assert met(1) != met(2)
    assert 10 < sum(met(1)) < 40


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind not in OF_CALLS])
def test_what_happens_to_no_call_is_no_fault_of_one(kind: Kind, services: Services) -> None:
    with pytest.raises(ValueError, match=f"{kind} happens to no call"):
        services.faults.add(Fault(kind))


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind not in OF_DELIVERIES])
def test_what_happens_to_no_delivery_disturbs_none(kind: Kind, services: Services) -> None:
    with pytest.raises(ValueError, match=f"{kind} happens to no delivery"):
        services.delivery.disturb(kind)
