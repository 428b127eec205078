"""WebSockets under uvicorn, with a client that is not ours: what the client saw is what the record has."""

import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.emitter.pythons import EMITTER

pytest.importorskip("uvicorn")
pytest.importorskip("fastapi")
websockets = pytest.importorskip("websockets.sync.client")
exceptions = pytest.importorskip("websockets.exceptions")

PATIENCE_S = 60
APP = """
from fastapi import FastAPI, WebSocket
from tagline import add
from tagline.asgi import TaglineMiddleware

app = FastAPI()
app.add_middleware(TaglineMiddleware)


@app.websocket("/rooms/{room}")
async def enter(websocket: WebSocket, room: str):
    add(room=room)
    if room == "closed":
        return await websocket.close()
    await websocket.accept()
    async for text in websocket.iter_text():
        if text == "leave":
            return await websocket.close(4001)
        if text == "fail":
            raise KeyError(room)
        await websocket.send_text(text.upper())
"""


class Running:
    """uvicorn with the application, on a socket that is open before: a client that is early waits."""

    def __init__(self, folder: Path, listening: socket.socket) -> None:
        (folder / "rooms.py").write_text(APP)
        listening.listen()
        self.url = f"ws://127.0.0.1:{listening.getsockname()[1]}"
        command = [sys.executable, "-m", "uvicorn", "rooms:app", f"--fd={listening.fileno()}"]
        self.process = subprocess.Popen(
            [*command, "--no-access-log", "--log-level=critical"],
            cwd=folder,
            env={"PYTHONPATH": str(EMITTER)},
            pass_fds=[listening.fileno()],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def enter(self, room: str, **how: Any) -> Any:
        """Open a WebSocket."""
        return websockets.connect(f"{self.url}/rooms/{room}", open_timeout=PATIENCE_S, **how)

    def record(self) -> dict[str, Any]:
        """Return the next record on the server's stdout, once it is there."""
        too_late = threading.Timer(PATIENCE_S, self.process.kill)
        too_late.start()
        assert self.process.stdout
        line = self.process.stdout.readline()
        too_late.cancel()
        found: dict[str, Any] = json.loads(line)
        return found


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        running = Running(tmp_path, listening)
        try:
            yield running
        finally:
            running.process.kill()
            running.process.communicate()


def chat(server: Running) -> None:
    with server.enter("lobby", additional_headers={"x-correlation-id": "c1"}) as connection:
        assert connection.response.headers["x-correlation-id"] == "c1"
        connection.send("häh")
        assert connection.recv(PATIENCE_S) == "HÄH"


def be_sent_away(server: Running) -> None:
    with server.enter("lobby") as connection:
        connection.send("leave")
        with pytest.raises(exceptions.ConnectionClosed):
            connection.recv(PATIENCE_S)
        assert connection.close_code == 4001


def be_refused(server: Running) -> None:
    with pytest.raises(exceptions.InvalidStatus) as refused:
        server.enter("closed")
    assert refused.value.response.status_code == 403


def meet_an_error(server: Running) -> None:
    with server.enter("lobby") as connection:
        connection.send("fail")
        with pytest.raises(exceptions.ConnectionClosed):
            connection.recv(PATIENCE_S)


def vanish(server: Running) -> None:
    connection = server.enter("lobby")
    connection.socket.shutdown(socket.SHUT_RDWR)
    connection.socket.close()


COUNTS = {"received_count": 0, "sent_count": 0, "request_bytes": 0, "response_bytes": 0}
OPENED = {"_type": "websocket", "route": "/rooms/{room}", "room": "lobby", "status": 101, **COUNTS}
CASES: list[tuple[Callable[[Running], None], dict[str, Any]]] = [
    (
        chat,
        {**OPENED, "correlation_id": "c1", "close_code": 1000}
        | {"received_count": 1, "sent_count": 1, "request_bytes": 4, "response_bytes": 4},
    ),
    (be_sent_away, {**OPENED, "close_code": 4001, "received_count": 1, "request_bytes": 5}),
    (be_refused, {**OPENED, "status": 403, "room": "closed", "close_code": None}),
    (meet_an_error, {**OPENED, "error_type": "KeyError", "received_count": 1, "request_bytes": 4}),
    (vanish, {**OPENED, "error_type": None, "incomplete": None}),
]


def test_each_connection_leaves_one_record_of_what_its_client_saw(server: Running) -> None:
    for act, expected in CASES:
        act(server)
        record = server.record()
        assert {name: record.get(name) for name in expected} == expected, act.__name__
        assert record["_seq"] == CASES.index((act, expected))
        assert act is not vanish or record["close_code"] in (1005, 1006)  # nobody sent a code


def test_a_connection_that_is_open_when_the_server_stops_leaves_its_record(server: Running) -> None:
    with server.enter("lobby") as connection:
        connection.send("hello")
        connection.recv(PATIENCE_S)
        server.process.send_signal(signal.SIGTERM)  # as ECS stops it

        record = server.record()
        assert (record["status"], record["sent_count"], record["close_code"]) == (101, 1, 1012)
        with pytest.raises(exceptions.ConnectionClosed):
            connection.recv(PATIENCE_S)
        assert connection.close_code == 1012
