"""Records as documents in the indices of Elasticsearch and OpenSearch, which their own clients read back."""

import json
import warnings
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tagline import Record, write

from consumers.deadlines import Retry
from consumers.lines.ledger import Ledger
from consumers.meters.ecs import INDEX, NAMES
from consumers.meters.handler import make_handler
from consumers.meters.search import MAX_BULK_BYTES, MAX_BULK_RECORDS, Search
from tests.builders import GROUP, OWNER, Context, data, envelope, kinesis_event
from tests.consumers.meters.meters import METER_TAG, TAG, TIME
from tests.search_cluster import Cluster, Product, RefusedError, check_object
from tests.twins import Objects

EXAMPLES = Path(__file__).parents[3] / "docs" / "examples"
ALL_WELL: dict[str, Any] = {"batchItemFailures": []}
STREAM = "2025/11/20/[$LATEST]26b6a45d574f442ea5b4f7a1b1d3ba44"


def shipped(product: Product, kind: str) -> dict[str, Any]:
    """Return the index template or the lifecycle policy that docs/examples/ has for a product."""
    found: dict[str, Any] = json.loads((EXAMPLES / f"{product}-{kind}.json").read_text())
    return found


@pytest.fixture(scope="module", params=get_args(Product))
def server(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    with closing(Cluster(request.param)) as made:
        yield made


@pytest.fixture
def cluster(server: Cluster) -> Cluster:
    renew(server)
    return server


def renew(server: Cluster) -> None:
    """Empty a cluster, with the template that is shipped for it."""
    server.indices.clear()
    server.answers.clear()
    server.faults.clear()
    server.bulks.clear()
    server.authorizations, server.max_bytes = {"ApiKey secret"}, 100 * 1024 * 1024
    server.templates = {"tagline": shipped(server.product, "template")}


class Consumer:
    """The handler, with a cluster; time passes only in its sleep."""

    def __init__(self, cluster: Cluster, *keys: str) -> None:
        self.keys = deque(keys or ["ApiKey secret"])
        self.objects = Objects()
        self.ledgers: list[Ledger] = []
        self.slept: list[float] = []
        self.context = Context()
        self.handler = make_handler(
            Search(cluster.url, self._key, retry=Retry(self._sleep, lambda: 1.0)),
            self.objects,
            meter_tag=METER_TAG,
            tag=TAG,
            own_log_groups="/tagline/",
            report=self.ledgers.append,
            documents=True,
        )

    def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.context.remaining_ms -= round(seconds * 1000)

    def _key(self) -> str:
        return self.keys.popleft() if len(self.keys) > 1 else self.keys[0]

    def __call__(self, *lines: str) -> dict[str, Any]:
        return self.handler(kinesis_event(data(envelope(*lines))), self.context)

    def reasons(self) -> list[tuple[str, str]]:
        return [(line["reason"], line["detail"]) for line in self.objects.quarantined()]


def line(identity: str = "a", time: int = TIME, type_: str = "api_request", **fields: Any) -> str:
    return write(Record(id=identity, timestamp=time, fields=fields, type=type_, tag=TAG))


def test_a_record_is_a_document_under_the_names_of_ecs(cluster: Cluster) -> None:
    consumer = Consumer(cluster)

    answer = consumer(
        line(
            method="GET",
            path="/pets/7",
            route="/pets/{id}",
            status=200,
            client="acme",
            duration_ms=12.5,
            cold_start=False,
            request_id="r1",
            pet={"name": "Rex"},
        ),
        line("b", TIME + 86_400_000, "signup", status="late", error_type="KeyError", error="'x'"),
        "a line of another's",
    )

    assert answer == ALL_WELL
    common = {
        "ecs": {"version": "8.17.0"},
        "log": {"level": "info"},
        "cloud": {"provider": "aws", "account": {"id": OWNER}},
        "aws": {"cloudwatch": {"log_group": GROUP, "log_stream": STREAM}},
    }
    assert {name: list(index.values()) for name, index in cluster.indices.items()} == {
        "tagline-2022.09.13": [
            {
                "@timestamp": "2022-09-13T18:35:05.062Z",
                **common,
                "event": {
                    "id": "a",
                    "kind": "event",
                    "dataset": "tagline.api_request",
                    "duration": 12_500_000,
                    "outcome": "success",
                },
                "http": {"request": {"method": "GET", "id": "r1"}, "response": {"status_code": 200}},
                "url": {"path": "/pets/7"},
                "user": {"id": "acme"},
                "faas": {"coldstart": False},
                "tagline": {"route": "/pets/{id}", "pet": {"name": "Rex"}},
            }
        ],
        "tagline-2022.09.14": [
            {
                "@timestamp": "2022-09-14T18:35:05.062Z",
                **common,
                "event": {"id": "b", "kind": "event", "dataset": "tagline.signup", "outcome": "failure"},
                "error": {"message": "'x'", "type": "KeyError"},
                "tagline": {"status": "late"},
            }
        ],
    }
    counts = consumer.ledgers[-1].counts()
    assert (counts["received"], counts["stored"], counts["ignored"]) == (2, 2, 1)


def test_a_document_has_the_account_and_region_of_its_log_group(cluster: Cluster) -> None:
    consumer = Consumer(cluster)
    said = {**envelope(line()), "owner": "210987654321", "subscriptionFilters": ["tagline@eu-west-1"]}

    assert consumer.handler(kinesis_event(data(said)), consumer.context) == ALL_WELL

    ((document,),) = (index.values() for index in cluster.indices.values())
    assert document["cloud"] == {
        "provider": "aws",
        "account": {"id": "210987654321"},
        "region": "eu-west-1",
    }
    assert document["aws"]["cloudwatch"]["log_group"] == GROUP


def test_a_redelivered_record_is_a_duplicate(cluster: Cluster) -> None:
    consumer = Consumer(cluster)

    assert consumer(line("a")) == ALL_WELL
    assert consumer(line("a"), line("b")) == ALL_WELL

    counts = consumer.ledgers[-1].counts()
    assert (counts["received"], counts["stored"], counts["duplicate"]) == (2, 1, 1)
    assert cluster.documents().keys() == {"a", "b"}


def test_every_row_is_a_document_and_every_copy_the_same(cluster: Cluster) -> None:
    consumer = Consumer(cluster)
    here = envelope(line("a"))
    copies = [
        {**here, "logStream": "another"},
        envelope(write(Record(id="a", timestamp=TIME, type="api_request", tag=TAG, src="s", seq=7))),
    ]
    others = [
        {**here, "logGroup": "/aws/lambda/another"},
        {**here, "owner": "210987654321"},
        {**here, "subscriptionFilters": ["tagline@eu-west-1"]},
        envelope(line("a", type_="signup")),
        envelope(line("a", TIME + 1)),
        envelope(line("a", status=200)),
        envelope(line("a" * 600)),
    ]

    assert consumer.handler(kinesis_event(*map(data, [here, *copies, *others])), consumer.context) == ALL_WELL

    counts = consumer.ledgers[-1].counts()
    assert (counts["stored"], counts["duplicate"]) == (1 + len(others), len(copies))
    assert len(cluster.indices["tagline-2022.09.13"]) == 1 + len(others)
    assert consumer.reasons() == []


BUSY = ("es_rejected_execution_exception", "rejected execution of primary operation")
FAULTS = [
    # the errors of one document of three, one after the other; and whether it is stored, kept or redelivered
    ([(429, *BUSY)], "stored"),
    ([(503, "unavailable_shards_exception", "primary shard is not active"), (429, *BUSY)], "stored"),
    ([(400, "document_parsing_exception", "[1:9] failed to parse field [x]")], "kept"),
    ([(429, *BUSY), (400, "illegal_argument_exception", "immense term")], "kept"),
    ([(403, "security_exception", "action [indices:data/write/bulk] is unauthorized")], "redelivered"),
    ([(404, "index_not_found_exception", "no such index")], "redelivered"),
    ([(400, "validation_exception", "this cluster has the maximum of 1000 shards")], "redelivered"),
    ([(400, "index_closed_exception", "closed")], "redelivered"),
]


@pytest.mark.parametrize(("faults", "expected"), FAULTS)
def test_each_document_has_its_own_outcome(
    faults: list[tuple[int, str, str]], expected: str, cluster: Cluster
) -> None:
    cluster.faults["b"] = deque(RefusedError(*fault) for fault in faults)
    consumer = Consumer(cluster)

    answer = consumer(line("a"), line("b"), line("c"))

    assert (answer == ALL_WELL) == (expected != "redelivered")
    assert cluster.documents().keys() == ({"a", "b", "c"} if expected == "stored" else {"a", "c"})
    status, type_, reason = faults[-1]
    detail = f"the search cluster answered {status}: {type_}: {reason}"
    assert consumer.reasons() == ([("meter_refused", detail)] if expected == "kept" else [])
    # Only what is not decided is sent again, after longer and longer waits.
    assert cluster.bulks == [3] + [1] * (len(faults) - (expected != "stored"))
    assert consumer.slept == [0.05, 0.1][: len(cluster.bulks) - 1]
    if expected == "redelivered":
        assert consumer(line("a"), line("b"), line("c")) == ALL_WELL
        assert consumer.ledgers[-1].counts()["duplicate"] == 2


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_cluster_that_is_busy_is_asked_again(status: int, cluster: Cluster) -> None:
    cluster.answers.extend([status] * 2)
    consumer = Consumer(cluster)

    assert consumer(line("a"), line("b")) == ALL_WELL
    assert cluster.documents().keys() == {"a", "b"}
    assert consumer.slept == [0.05, 0.1]


@pytest.mark.parametrize("status", [301, 404, 405, 406])
def test_an_address_that_is_no_cluster_refuses_no_record(status: int, cluster: Cluster) -> None:
    cluster.answers.append(status)
    consumer = Consumer(cluster)

    assert consumer(line("a")) != ALL_WELL
    assert consumer.reasons() == []


def test_a_document_that_never_fits_in_time_is_redelivered(cluster: Cluster) -> None:
    cluster.faults["b"] = deque(RefusedError(429, *BUSY) for _ in range(1_000))
    consumer = Consumer(cluster)
    consumer.context = Context(remaining_ms=3_000)

    assert consumer(line("a"), line("b")) != ALL_WELL
    assert cluster.documents().keys() == {"a"}
    assert consumer.ledgers[-1].counts()["unwritten"] == 1


def test_a_request_that_is_too_large_is_halved(cluster: Cluster) -> None:
    cluster.max_bytes = 10_000
    consumer = Consumer(cluster)

    assert (
        consumer(
            *(line(str(number), note="x" * 2_000) for number in range(20)), line("big", note="x" * 20_000)
        )
        == ALL_WELL
    )

    assert cluster.documents().keys() == set(map(str, range(20)))
    assert consumer.reasons() == [("meter_refused", "the search cluster answered 413: ")]


def test_a_key_that_was_changed_is_read_again(cluster: Cluster) -> None:
    cluster.authorizations = {"ApiKey new"}
    refused, renewed = Consumer(cluster), Consumer(cluster, "ApiKey secret", "ApiKey new")

    assert refused(line("a")) != ALL_WELL
    assert cluster.documents() == {}
    assert renewed(line("a")) == ALL_WELL
    assert cluster.documents().keys() == {"a"}


def test_requests_are_bounded(cluster: Cluster) -> None:
    consumer = Consumer(cluster)
    cluster.max_bytes = MAX_BULK_BYTES

    assert consumer(*(line(str(number)) for number in range(MAX_BULK_RECORDS + 1))) == ALL_WELL
    assert sorted(cluster.bulks) == [1, MAX_BULK_RECORDS]
    cluster.bulks.clear()
    assert consumer(*(line(f"large-{number}", note="x" * 150_000) for number in range(40))) == ALL_WELL
    assert max(cluster.bulks) < 40
    assert sum(cluster.bulks) == 40
    assert consumer.reasons() == []


def test_what_no_index_can_have_is_kept(cluster: Cluster) -> None:
    consumer = Consumer(cluster)

    assert consumer(line(time=0), line("b")) == ALL_WELL
    assert consumer.reasons() == [
        ("meter_invalid", "timestamp is 0: an index is for a day from 2000 to 2099")
    ]
    assert cluster.documents().keys() == {"b"}


def test_a_line_that_cannot_be_read_is_left_to_the_other_consumer(cluster: Cluster) -> None:
    consumer = Consumer(cluster)

    assert consumer(f'{{"_tag":"{TAG}", no JSON', f'{METER_TAG} {{"meterApiName":"calls"}}') == ALL_WELL
    assert (consumer.reasons(), cluster.documents()) == ([], {})


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@given(
    st.lists(
        st.dictionaries(st.sampled_from(list(NAMES)) | st.text(max_size=5), values, max_size=6), max_size=8
    )
)
@settings(max_examples=25, deadline=None)
def test_any_record_is_a_document_or_in_quarantine(server: Cluster, records: list[dict[str, Any]]) -> None:
    renew(server)
    consumer = Consumer(server)

    answer = consumer(*(line(str(number), **fields) for number, fields in enumerate(records)))

    assert answer == ALL_WELL
    kept = consumer.reasons()
    assert {reason for reason, _ in kept} <= {"meter_refused"}
    assert len(server.documents()) + len(kept) == len(records)


def test_the_template_has_each_field_that_is_written(cluster: Cluster) -> None:
    samples: dict[str, Any] = dict.fromkeys(NAMES, "text")
    samples.update(
        dict.fromkeys(("status", "duration_ms", "request_bytes", "response_bytes"), 7), cold_start=True
    )
    assert Consumer(cluster)(line(**samples, other=1)) == ALL_WELL
    mappings = shipped(cluster.product, "template")["template"]["mappings"]

    def strict(mapping: dict[str, Any]) -> dict[str, Any]:
        if "properties" not in mapping:
            return mapping
        inner = {name: strict(each) for name, each in mapping["properties"].items()}
        return {"properties": inner, "dynamic": "strict"}

    (found,) = cluster.documents().values()
    check_object(found, strict(mappings), "")
    assert found["tagline"] == {"other": 1}


NDJSON = {"authorization": "ApiKey secret", "content-type": "application/x-ndjson"}


@pytest.mark.parametrize(
    ("body", "headers", "status", "reason"),
    [
        ('{"create":{"_index":"a","_id":"1"}}\n{}\n', NDJSON, 200, ""),
        ('{"create":{"_index":"a","_id":"1"}}\n{}', NDJSON, 400, "must be terminated by a newline"),
        ("", NDJSON, 400, "request body is required"),
        ('{"create":{"_index":"a","_id":"1","day":1}}\n{}\n', NDJSON, 400, "unknown parameter [day]"),
        ('{"put":{"_index":"a","_id":"1"}}\n{}\n', NDJSON, 400, "but found [put]"),
        ('{"create":{"_id":"1"}}\n{}\n', NDJSON, 400, "index is missing"),
        ("{}\n", {**NDJSON, "content-type": "text/plain"}, 406, "is not supported"),
        ("{}\n", {**NDJSON, "authorization": "secret"}, 401, "unable to authenticate"),
    ],
)
def test_the_cluster_of_these_tests_is_strict(
    body: str, headers: dict[str, str], status: int, reason: str, cluster: Cluster
) -> None:
    found, answer = cluster.respond("POST", "/_bulk", headers, body.encode())

    assert (found, reason in json.dumps(answer)) == (status, True)


# ---- The official clients ----------------------------------------------------------------------------------


def test_elasticsearchs_client_sets_up_and_reads_what_was_sent() -> None:
    from elasticsearch import Elasticsearch, helpers  # takes a second

    with closing(Cluster("elasticsearch")) as cluster, Elasticsearch(cluster.url, api_key="secret") as client:
        client.ilm.put_lifecycle(name="tagline", **shipped("elasticsearch", "policy"))
        client.indices.put_index_template(name="tagline", **shipped("elasticsearch", "template"))
        assert Consumer(cluster)(line("a", status=500), line("b", status=200)) == ALL_WELL

        assert client.count(index=f"{INDEX}*")["count"] == 2
        found = client.search(index=f"{INDEX}*", query={"term": {"event.outcome": "failure"}})
        assert [hit["_source"]["event"]["id"] for hit in found["hits"]["hits"]] == ["a"]
        there = found["hits"]["hits"][0]["_id"]
        document = client.get(index="tagline-2022.09.13", id=there)["_source"]
        # What the client sends itself is judged by the same rules.
        again = {"_op_type": "create", "_index": "tagline-2022.09.13", "_source": document}
        wrong = {**again, "_source": {"@timestamp": "yesterday"}}
        actions = [{**again, "_id": there}, {**again, "_id": "c"}, {**wrong, "_id": "d"}]
        results = list(helpers.streaming_bulk(client, actions, raise_on_error=False))
    assert [(ok, each["create"]["status"]) for ok, each in results] == [
        (False, 409),
        (True, 201),
        (False, 400),
    ]


def test_opensearchs_client_sets_up_and_reads_what_was_sent() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from opensearchpy import OpenSearch, helpers  # takes a second

    with closing(Cluster("opensearch")) as cluster:
        cluster.authorizations.add("Basic YTpi")
        client = OpenSearch(cluster.url, http_auth=("a", "b"))
        policy = shipped("opensearch", "policy")
        client.transport.perform_request("PUT", "/_plugins/_ism/policies/tagline", body=policy)
        client.indices.put_index_template(name="tagline", body=shipped("opensearch", "template"))
        assert Consumer(cluster, "Basic YTpi")(line("a", status=500), line("b", status=200)) == ALL_WELL

        assert client.count(index=f"{INDEX}*")["count"] == 2
        found = client.search(index=f"{INDEX}*", body={"query": {"term": {"event.outcome": "failure"}}})
        assert [hit["_source"]["event"]["id"] for hit in found["hits"]["hits"]] == ["a"]
        there = found["hits"]["hits"][0]["_id"]
        document = client.get(index="tagline-2022.09.13", id=there)["_source"]
        again = {"_op_type": "create", "_index": "tagline-2022.09.13", "_source": document}
        actions = [{**again, "_id": there}, {**again, "_id": "c"}]
        results = list(helpers.streaming_bulk(client, actions, raise_on_error=False))
        client.close()
    assert [(ok, each["create"]["status"]) for ok, each in results] == [(False, 409), (True, 201)]
