"""Posts to an ingest API, keys out of secrets, and credentials of another account's role."""

import json
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onemachine.faults import Fault, Kind
from onemachine.services import Services

from consumers import sending
from consumers.deadlines import RESERVE, Retry
from consumers.lines.telemetry import Timings
from consumers.meters import destinations
from consumers.meters.destinations import (
    MAX_POST_BYTES,
    MAX_POST_RECORDS,
    Api,
    assume,
    read_secret,
)
from consumers.meters.handler import Settings, make_destination, make_handler
from consumers.meters.meter import Entry
from consumers.outcomes import Outcome, Refused, Stored, Unwritten
from consumers.settings import SettingsError
from tests.builders import Context, data, envelope, kinesis_event
from tests.consumers.meters.meters import METER_TAG, TAG, TIME, line
from tests.twins import Objects, client_error

CUT_OFF = 0
"""A status that stands for no answer at all."""


class Ingest:
    """An ingest API on 127.0.0.1 that judges records and answers as it is told to.

    Attributes:
        answers: The statuses and headers of the next answers; what comes after them is 200.
        keys: The keys that it takes.
        never: Values for which it refuses a post with `judging`.
        posts: The lists that it has taken.
        asked: How many requests there were.
        meet_alone: Where posts of one record wait for each other.
    """

    def __init__(self) -> None:
        self.answers: deque[tuple[int, dict[str, str]]] = deque()
        self.keys = {"secret"}
        self.never: set[str] = set()
        self.judging = 400
        self.posts: list[list[Any]] = []
        self.asked = 0
        self.meet_alone: threading.Barrier | None = None
        lock = threading.Lock()
        ingest = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # an answer in one piece: in two, the second waits for the first's acknowledgement

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                records = json.loads(body)
                if ingest.meet_alone and len(records) == 1:
                    ingest.meet_alone.wait()
                with lock:
                    status, headers = ingest.judge(dict(self.headers.items()), records)
                if status == CUT_OFF:
                    self.close_connection = True
                    return
                self.send_response(status)
                said = b"as told" if status != 200 else b"1 records were ingested"
                for name, value in {**headers, "Content-Length": str(len(said))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(said)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/ingest"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def judge(self, headers: dict[str, str], records: list[Any]) -> tuple[int, dict[str, str]]:
        self.asked += 1
        assert headers["Content-Type"] == "application/json"
        if self.answers and (answer := self.answers.popleft())[0] != 200:
            return answer
        if headers["X-API-KEY"] not in self.keys:
            return 401, {}
        if self.never & {record["uniqueId"] for record in records}:
            return self.judging, {}
        self.posts.append(records)
        return 200, {}

    def ids(self) -> list[str]:
        return [record["uniqueId"] for records in self.posts for record in records]

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture(scope="module")
def server() -> Iterator[Ingest]:
    with closing(Ingest()) as ingest:
        yield ingest


@pytest.fixture
def ingest(server: Ingest) -> Ingest:
    renew(server)
    return server


def renew(server: Ingest) -> None:
    server.answers.clear()
    server.keys, server.never, server.judging = {"secret"}, set(), 400
    server.posts.clear()
    server.asked = 0


class Client:
    """The adapter, with what it slept and how often it read its key; time passes only in its sleep."""

    def __init__(self, ingest: Ingest, *keys: str, seconds: float = 60.0) -> None:
        self.keys = deque(keys or ["secret"])
        self.left = seconds
        self.slept: list[float] = []
        self.read = 0
        self.api = Api(ingest.url, self._read_key, retry=Retry(self.sleep, lambda: 1.0))

    def _read_key(self) -> str:
        self.read += 1
        return self.keys.popleft() if len(self.keys) > 1 else self.keys[0]

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.left -= seconds

    def write(self, *ids: str) -> list[Outcome]:
        return send(self.api, [record(each) for each in ids], lambda: self.left)


def send(api: Api, meters: list[Entry], remaining: Callable[[], float], threads: int = 1) -> list[Outcome]:
    """Send meters as the handler does, and return their outcomes in their order."""
    found: dict[int, Outcome] = {}
    with sending.Pool(threads) as pool:
        requests = api.requests(list(enumerate(meters)))
        for carried, outcomes in sending.write(api, requests, remaining, pool, Timings()):
            found |= {place: outcome for (place, _), outcome in zip(carried, outcomes, strict=True)}
    return [found[place] for place in range(len(meters))]


def record(identity: str, size: int = 0) -> Entry:
    return Entry(TIME, json.dumps({"uniqueId": identity, "padding": "x" * size}, separators=(",", ":")))


def test_records_are_posted_as_one_list_with_the_key(ingest: Ingest) -> None:
    client = Client(ingest)

    assert client.write("a", "b") == [Stored(), Stored()]
    assert client.write("c") == [Stored()]
    assert [[each["uniqueId"] for each in post] for post in ingest.posts] == [["a", "b"], ["c"]]
    assert client.read == 1


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, CUT_OFF])
def test_what_can_pass_is_tried_again_after_longer_and_longer_waits(status: int, ingest: Ingest) -> None:
    client = Client(ingest)
    ingest.answers.extend([(status, {})] * 3)

    assert client.write("a") == [Stored()]
    assert client.slept == [0.05, 0.1, 0.2]
    assert ingest.ids() == ["a"]


@pytest.mark.parametrize(
    ("header", "wait"), [("3", 3.0), ("0", 0.05), ("Wed, 21 Oct 2026 07:28:00 GMT", 0.05), ("99999", 0.05)]
)
def test_a_server_that_says_how_long_is_left_alone_for_so_long(
    header: str, wait: float, ingest: Ingest
) -> None:
    client = Client(ingest)
    ingest.answers.append((429, {"Retry-After": header}))

    assert client.write("a") == [Stored()]
    assert client.slept == [wait]


def test_no_request_is_begun_that_the_invocation_has_no_time_for(ingest: Ingest) -> None:
    ingest.answers.extend([(503, {})] * 1_000)
    client, late = Client(ingest, seconds=4.0), Client(ingest, seconds=RESERVE)

    assert client.write("a") == [Unwritten("the ingest API answered 503: as told")]
    assert client.left > RESERVE
    asked = ingest.asked
    assert late.write("a") == [Unwritten("not tried: no time left")]
    assert ingest.asked == asked
    ingest.answers.append((429, {"Retry-After": "60"}))
    assert isinstance(Client(ingest, seconds=50).write("a")[0], Unwritten)


@pytest.mark.parametrize("status", [200, 201, 202, 299])
def test_each_status_of_success_means_stored(status: int, ingest: Ingest) -> None:
    ingest.answers.append((status, {}))

    assert Client(ingest).write("a", "b") == [Stored(), Stored()]
    assert ingest.asked == 1


@pytest.mark.parametrize("status", [402, 404, 405, 409, 410, 415, 418])
def test_what_is_refused_for_good_is_rejected_whole_with_the_status(status: int, ingest: Ingest) -> None:
    ingest.answers.append((status, {}))

    assert (
        Client(ingest).write("a", "b")
        == [Refused("meter_refused", f"the ingest API answered {status}: as told")] * 2
    )
    assert ingest.asked == 1


@pytest.mark.parametrize("status", [400, 413, 422])
def test_one_record_that_is_refused_costs_one_record(status: int, ingest: Ingest) -> None:
    ingest.judging, ingest.never = status, {"37"}

    outcomes = Client(ingest).write(*map(str, range(100)))

    refused = Refused("meter_refused", f"the ingest API answered {status}: as told")
    assert [outcomes.index(refused), outcomes.count(Stored())] == [37, 99]
    assert Counter(ingest.ids()) == Counter(set(map(str, range(100))) - {"37"})


def test_the_halves_of_a_refused_post_are_under_way_at_once() -> None:
    with closing(Ingest()) as ingest:
        ingest.never, ingest.meet_alone = {"a"}, threading.Barrier(2, timeout=60)

        outcomes = send(Client(ingest).api, [record("a"), record("b")], lambda: 60.0, threads=2)

    assert [type(outcome) for outcome in outcomes] == [Refused, Stored]


def test_a_key_that_was_changed_is_read_anew(ingest: Ingest) -> None:
    ingest.keys = {"new"}
    client = Client(ingest, "secret", "new")

    assert client.write("a") == [Stored()]
    assert client.read == 2


@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_is_refused_is_no_fault_of_the_records(status: int, ingest: Ingest) -> None:
    ingest.answers.append((status, {}))

    assert Client(ingest).write("a") == [Unwritten(f"the ingest API answered {status}: as told")]


def test_a_key_that_cannot_be_read_is_asked_for_again(ingest: Ingest) -> None:
    faults = deque([client_error("ThrottlingException"), client_error("InternalServiceError", 500)])

    def read_key() -> str:
        if faults:
            raise faults.popleft()
        return "secret"

    api = Api(ingest.url, read_key, retry=Retry(lambda _: None, lambda: 0.0))

    assert api.write([record("a")], lambda: 60.0) == [Stored()]


def test_the_key_is_sent_to_no_other_address(ingest: Ingest) -> None:
    ingest.answers.append((307, {"Location": ingest.url}))

    assert Client(ingest).write("a") == [Unwritten("the ingest API answered 307: as told")]
    assert ingest.asked == 1


def test_an_api_that_is_not_there_is_tried_again_and_then_left(ingest: Ingest) -> None:
    client = Client(ingest, seconds=3.0)
    client.api = Api("http://127.0.0.1:9/ingest", lambda: "secret", retry=Retry(client.sleep, lambda: 1.0))

    (outcome,) = client.write("a")

    assert isinstance(outcome, Unwritten)
    assert outcome.detail.endswith("Error: no answer from the ingest API")
    assert len(client.slept) >= 3


@given(st.lists(st.sampled_from([1, 50, 3_000, 100_000, MAX_POST_BYTES]), min_size=1, max_size=250))
@settings(max_examples=15, deadline=None)
def test_posts_are_bounded_and_have_each_record_once_in_order(server: Ingest, sizes: list[int]) -> None:
    renew(server)
    records = [record(str(number), size) for number, size in enumerate(sizes)]

    outcomes = send(Client(server).api, records, lambda: 60.0)

    assert outcomes == [Stored()] * len(sizes)
    assert server.ids() == list(map(str, range(len(sizes))))
    for post in server.posts:
        assert len(post) <= MAX_POST_RECORDS
        assert len(post) == 1 or len(json.dumps(post, separators=(",", ":"))) <= MAX_POST_BYTES


@pytest.mark.parametrize(("room", "posts"), [(0, 1), (-1, 2)])
def test_a_post_is_as_large_as_it_may_be(room: int, posts: int, ingest: Ingest) -> None:
    first, empty = record("a"), record("b")
    size = MAX_POST_BYTES - len(f"[{first.text},{empty.text}]") - room

    parts = list(Client(ingest).api.requests(list(enumerate([first, record("b", size)]))))

    assert len(parts) == posts


statuses = st.sampled_from([200, 400, 401, 404, 429, 500, CUT_OFF])


@given(st.lists(statuses, max_size=30), st.sets(st.integers(0, 29)))
@settings(max_examples=25, deadline=None)
def test_whatever_the_api_answers_every_record_is_taken_or_kept_or_delivered_again(
    server: Ingest, answers: list[int], never: set[int]
) -> None:
    renew(server)
    server.answers.extend((status, {}) for status in answers)
    server.never = {f"m{number}" for number in never}
    objects = Objects()
    client = Client(server)
    consume = make_handler(
        client.api, objects, meter_tag=METER_TAG, tag=TAG, own_log_groups="", report=lambda _: None
    )
    rest = kinesis_event(*(data(envelope(*(line(f"m{3 * r + n}") for n in range(3)))) for r in range(10)))[
        "Records"
    ]

    for _ in range(40):
        failures = consume({"Records": rest}, Context())["batchItemFailures"]
        if not failures:
            break
        numbers = [each["kinesis"]["sequenceNumber"] for each in rest]
        rest = rest[numbers.index(failures[0]["itemIdentifier"]) :]
    else:
        pytest.fail("the batch never ends")

    kept = {json.loads(each["message"].split(" ", 1)[1])["uniqueId"] for each in objects.quarantined()}
    taken = set(server.ids())
    assert taken | kept == {f"m{number}" for number in range(30)}
    assert taken & server.never == set()
    # Twice with the API, which tells by the uniqueId, are at most those of a post that failed later on.
    assert server.never <= kept


def test_a_file_is_tried_once_where_time_is_left_for_one_try(monkeypatch: pytest.MonkeyPatch) -> None:
    """The destination retries, and knows how much time is left; botocore does not."""
    services = Services()
    for name, value in services.environment().items():
        monkeypatch.setenv(name, value)
    always = Fault(Kind.ERROR, "s3", "PUT", times=None)
    services.faults.add(always)
    files = make_destination(Settings(TAG, METER_TAG, "bucket", "/tagline/", meter_bucket="ingest"))
    left = iter([RESERVE + 1, RESERVE])

    (outcome,) = files.write([record("a")], lambda: next(left))
    tries = services.faults.clear()
    services.stop()

    assert tries == {always: 1}
    assert isinstance(outcome, Unwritten)


def test_a_key_is_read_from_a_secret_or_a_parameter(monkeypatch: pytest.MonkeyPatch) -> None:
    services = Services()
    try:
        for name, value in services.environment().items():
            monkeypatch.setenv(name, value)
        secrets, parameters = services.client("secretsmanager"), services.client("ssm")
        arns = [secrets.create_secret(Name="key", SecretString="s3cret\n")["ARN"]]
        parameters.put_parameter(Name="/meters/key", Value="s3cret", Type="SecureString")
        arns.append("arn:aws:ssm:us-east-1:123456789012:parameter/meters/key")
        broken = secrets.create_secret(Name="broken", SecretString="two\nlines")["ARN"]

        assert [read_secret(arn) for arn in arns] == ["s3cret", "s3cret"]
        with pytest.raises(SettingsError, match="holds no key") as caught:
            read_secret(broken)
        assert "lines" not in str(caught.value)
    finally:
        services.stop()


class Sts:
    """A client of STS: credentials that are good for so many minutes, and what was asked."""

    def __init__(self, *minutes: float) -> None:
        self.minutes = deque(minutes)
        self.asked: list[dict[str, str]] = []

    def assume_role(self, **request: str) -> dict[str, Any]:
        self.asked.append(request)
        return {
            "Credentials": {
                "AccessKeyId": f"key{len(self.asked)}",
                "SecretAccessKey": "secret",
                "SessionToken": "token",
                "Expiration": datetime.now(UTC) + timedelta(minutes=self.minutes.popleft()),
            }
        }


ROLE = "arn:aws:iam::999988887777:role/ingest"


def test_a_role_is_assumed_when_it_is_needed_and_again_before_its_credentials_end() -> None:
    sts = Sts(5, 60, 60)

    credentials = assume(sts, ROLE, "acme-1").get_credentials()
    assert sts.asked == []

    keys = [credentials.get_frozen_credentials().access_key for _ in range(3)]
    assert keys == ["key1", "key2", "key2"]  # those that end in five minutes are renewed
    expected = {"RoleArn": ROLE, "RoleSessionName": "tagline-meters", "ExternalId": "acme-1"}
    assert sts.asked == [expected, expected]


def test_an_external_id_is_told_only_where_there_is_one() -> None:
    sts = Sts(60)

    assume(sts, ROLE, "").get_credentials().get_frozen_credentials()

    assert sts.asked == [{"RoleArn": ROLE, "RoleSessionName": "tagline-meters"}]


def test_a_role_that_may_not_be_assumed_loses_nothing() -> None:
    class Denied(Sts):
        def assume_role(self, **_request: str) -> dict[str, Any]:
            raise client_error("AccessDenied", 403)

    client = assume(Denied(), ROLE, "").client("s3", region_name="us-west-2")
    files = destinations.Files(
        client, "b", "ingest/records/", acl="", retry=Retry(lambda _: None, lambda: 0.0)
    )

    (outcome,) = files.write([record("a")], lambda: 60.0)

    assert isinstance(outcome, Unwritten)
    assert "AccessDenied" in outcome.detail
