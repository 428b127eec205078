"""The client with which a store writes."""

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from botocore.exceptions import ClientError

from consumers.rows.clients import write_client

CALLS: dict[str, Callable[[Any], Any]] = {
    "timestream-write": lambda client: client.write_records(DatabaseName="d", TableName="t", Records=[]),
    "s3": lambda client: client.put_object(Bucket="b", Key="k", Body=b"row"),
}


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The requests that came to a service that fails."""
    requests: list[str] = []

    class Failing(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            requests.append(self.headers["User-Agent"])
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(500)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_PUT = do_POST  # noqa: N815 - as the server calls it

        def log_message(self, *_: Any) -> None:
            """Be quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Failing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_address[1]}")
        yield requests
        server.shutdown()


@pytest.mark.parametrize("service", CALLS)
def test_a_request_is_tried_once_because_the_store_knows_how_much_time_is_left(
    service: str, asked: list[str]
) -> None:
    with pytest.raises(ClientError):
        CALLS[service](write_client(service, 4))

    assert len(asked) == 1  # for Timestream, the one that asks for its endpoints
    assert "Tagline" in asked[0]


@pytest.mark.parametrize("service", CALLS)
def test_no_connection_is_waited_for_longer_than_an_answer(service: str) -> None:
    config = write_client(service, 1).meta.config

    assert config.connect_timeout <= 5
    assert config.read_timeout <= 20


@pytest.mark.parametrize("service", CALLS)
@pytest.mark.parametrize(("threads", "connections"), [(1, 10), (10, 10), (11, 11), (64, 64)])
def test_there_is_a_connection_for_every_thread(service: str, threads: int, connections: int) -> None:
    assert write_client(service, threads).meta.config.max_pool_connections == connections
