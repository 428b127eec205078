"""A request's body of our own making goes out as it was made, signed, or a plain call does."""

import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError
from onemachine.signatures import Keys, SignedRequest, verify_headers
from tagline import Record

from consumers.outcomes import Stored
from consumers.rows.table import UNDECLARED, row
from consumers.rows.timestream.calls import Calls
from consumers.rows.timestream.mapping import RecordPacker, body
from consumers.rows.timestream.writer import Timestream
from tests.twins import TimestreamWrite, merged

KEY, SECRET, REGION = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "eu-west-1"
FIELDS = {"route": "/pets", "q": 'é "\n'}
ROWS = [
    row(
        Record(id=f"r{n}", timestamp=1_431_857_103_000, fields={"route": "/pets", "q": 'é "\n'}),
        "/g",
        UNDECLARED,
    )
    for n in range(3)
]
pack = RecordPacker().record
BODY = body("tagline", "records", [(pack(row), pack(row).time_ns(0)) for row in ROWS])


class Server(ThreadingHTTPServer):
    """What is on the other side of the wire.

    Attributes:
        got: The requests as they came.
        answers: What is answered, one after the other: status and object. None counts the records.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answering)
        self.got: list[SignedRequest] = []
        self.answers: list[tuple[int, dict[str, Any]]] = []

    def bodies(self) -> list[Any]:
        return [json.loads(request.body) for request in self.got]


class Answering(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    server: Server

    def do_POST(self) -> None:
        said = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append(SignedRequest("POST", self.path, list(self.headers.items()), said))
        counted = (200, {"RecordsIngested": {"Total": len(json.loads(said)["Records"])}})
        status, answer = self.server.answers.pop(0) if self.server.answers else counted
        text = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/x-amz-json-1.0")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_said: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def client_of(server: Server, **config: Any) -> Any:
    return boto3.client(
        "timestream-write",
        REGION,
        endpoint_url=f"http://127.0.0.1:{server.server_port}",
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
        config=Config(retries={"total_max_attempts": 1}, **({"parameter_validation": False} | config)),
    )


class Deaf:
    """A client of a botocore that does not emit some events: handlers of them are taken, and never called."""

    def __init__(self, client: Any, *events: str) -> None:
        def register(name: str, handler: Any) -> None:
            if not name.startswith(events):
                client.meta.events.register(name, handler)

        self.meta = SimpleNamespace(events=SimpleNamespace(register=register))
        self.write_records = client.write_records


def test_the_body_goes_out_byte_for_byte(server: Server) -> None:
    calls = Calls(client_of(server))

    assert calls.write(BODY, 3)["RecordsIngested"]["Total"] == 3
    assert [request.body for request in server.got] == [BODY]
    headers = {name.lower(): value for name, value in server.got[0].headers}
    assert headers["x-amz-target"] == "Timestream_20181101.WriteRecords"
    assert headers["content-type"] == "application/x-amz-json-1.0"
    assert not calls.plain


def test_the_signature_is_of_the_body_that_goes_out(server: Server) -> None:
    Calls(client_of(server)).write(BODY, 3)
    (request,) = server.got

    # As botocore's signer finds it, which made it,
    assert verify_headers(request, Keys({KEY: SECRET}, REGION), "timestream", datetime.now(UTC)) == KEY
    # and as the specification does:
    # https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
    headers = {name.lower(): value for name, value in request.headers}
    names = headers["authorization"].split("SignedHeaders=")[1].split(",")[0]
    canonical = "\n".join(
        [
            "POST",
            "/",
            "",
            *[f"{name}:{' '.join(headers[name].split())}" for name in names.split(";")],
            "",
            names,
            hashlib.sha256(BODY).hexdigest(),
        ]
    )
    stamp = headers["x-amz-date"]
    scope = f"{stamp[:8]}/{REGION}/timestream/aws4_request"
    to_sign = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = f"AWS4{SECRET}".encode()
    for part in (*scope.split("/"), to_sign):
        key = hmac.digest(key, part.encode(), "sha256")
    assert headers["authorization"].endswith(f"Signature={key.hex()}")


def test_what_the_plain_call_says_is_the_same(server: Server) -> None:
    calls = Calls(client_of(server))
    calls.plain = True

    calls.write(BODY, 3)

    assert server.bodies() == [json.loads(BODY)]


@pytest.mark.parametrize(
    ("events", "unheard"),
    [
        (["before-call"], []),  # stopped before it is sent
        (["before-send"], [BODY]),  # sent, unseen
        (["before-call", "before-send"], [b'{"Records": []}']),
    ],
    ids=["before-call", "before-send", "both"],
)
def test_where_botocore_does_not_emit_its_events_calls_are_plain_from_then_on(
    server: Server, events: list[str], unheard: list[bytes]
) -> None:
    calls = Calls(Deaf(client_of(server), *events))

    for _ in range(2):
        assert calls.write(BODY, 3)["RecordsIngested"]["Total"] == 3

    assert calls.plain
    assert server.bodies() == [json.loads(each) for each in [*unheard, BODY, BODY]]


def test_a_service_that_refuses_the_request_without_records_gets_the_plain_one(server: Server) -> None:
    server.answers = [(400, {"__type": "ValidationException", "message": "at least 1 record"})]
    calls = Calls(Deaf(client_of(server), "before-call", "before-send"))

    assert calls.write(BODY, 3)["RecordsIngested"]["Total"] == 3
    assert server.bodies() == [{"Records": []}, json.loads(BODY)]


def test_a_body_that_was_changed_on_the_way_does_not_go_out(server: Server) -> None:
    client = client_of(server)
    changes = [b'{"Records": []}']

    def change(request: Any, **_event: Any) -> None:
        if changes:
            request.data = changes.pop()

    client.meta.events.register("request-created.timestream-write.WriteRecords", change)
    calls = Calls(client)

    assert calls.write(BODY, 3)["RecordsIngested"]["Total"] == 3
    assert calls.plain
    assert server.bodies() == [json.loads(BODY)]


def test_a_client_that_validates_gets_plain_calls(server: Server) -> None:
    calls = Calls(client_of(server, parameter_validation=True))

    calls.write(BODY, 3)

    assert calls.plain
    assert server.bodies() == [json.loads(BODY)]


def test_a_client_without_events_gets_plain_calls() -> None:
    client = TimestreamWrite()

    assert Calls(client).write(BODY, 3) == {"RecordsIngested": {"Total": 3}}
    assert client.requests == [merged(json.loads(BODY))]


def test_an_answer_that_counts_fewer_records_is_asked_for_once_more_in_a_plain_call(server: Server) -> None:
    server.answers = [(200, {"RecordsIngested": {"Total": 2}})]
    calls = Calls(client_of(server))

    assert calls.write(BODY, 3)["RecordsIngested"]["Total"] == 3
    assert server.bodies() == [json.loads(BODY)] * 2
    assert not calls.plain


def test_what_the_service_answers_passes_through_and_is_no_reason_for_plain_calls(server: Server) -> None:
    rejected = [{"RecordIndex": 1, "Reason": "why"}]
    server.answers = [
        (419, {"__type": "RejectedRecordsException", "message": "m", "RejectedRecords": rejected}),
        (429, {"__type": "ThrottlingException", "message": "slower"}),
        (500, {"__type": "InternalServerException", "message": "m"}),
    ]
    calls = Calls(client_of(server))

    with pytest.raises(ClientError) as refused:
        calls.write(BODY, 3)
    assert refused.value.response["RejectedRecords"] == rejected
    for code in ("ThrottlingException", "InternalServerException"):
        with pytest.raises(ClientError, match=code):
            calls.write(BODY, 3)
    assert not calls.plain
    assert [request.body for request in server.got] == [BODY] * 3


def test_a_connection_that_fails_is_no_reason_for_plain_calls(server: Server) -> None:
    client = client_of(server)
    client.meta.events.register(
        "before-send.timestream-write.WriteRecords", lambda **_: (_ for _ in ()).throw(ConnectionError("no"))
    )
    calls = Calls(client)

    with pytest.raises(ConnectionError):
        calls.write(BODY, 3)
    assert not calls.plain
    assert server.got == []


def test_missing_credentials_are_said_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "none")
    monkeypatch.setenv("AWS_CONFIG_FILE", "none")
    session = boto3.Session(region_name=REGION)
    client = session.client(
        "timestream-write",
        endpoint_url="http://127.0.0.1:9",
        config=Config(retries={"total_max_attempts": 1}, parameter_validation=False),
    )

    with pytest.raises((NoCredentialsError, EndpointConnectionError)):
        Calls(client).write(BODY, 3)


def test_threads_do_not_get_each_others_bodies(server: Server) -> None:
    calls = Calls(client_of(server))
    bodies = [
        body("tagline", "records", [(pack(row), pack(row).time_ns(number))])
        for row in ROWS
        for number in range(20)
    ]
    threads = [
        threading.Thread(target=lambda part: [calls.write(each, 1) for each in part], args=(bodies[n::4],))
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert sorted(request.body for request in server.got) == sorted(bodies)
    for request in server.got:
        verify_headers(request, Keys({KEY: SECRET}, REGION), "timestream", datetime.now(UTC))


def test_rows_are_written_through_a_real_client(server: Server) -> None:
    store = Timestream(client_of(server), "tagline", "records", sleep=lambda _: None, jitter=lambda: 0.0)

    assert store.write([pack(each) for each in ROWS], lambda: 60.0) == [Stored()] * 3
    assert [request.body for request in server.got] == [BODY]
