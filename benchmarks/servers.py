"""Records of an API under real servers: four workers that share one pipe, and every line counted once.

The pets API runs under uvicorn and under gunicorn, its Flask twin under gunicorn. It prints how many requests
were answered, how many records are missing or there twice, how many lines of records are broken, and requests
per second. It needs uvicorn, gunicorn, uvicorn-worker, FastAPI and Flask.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path

ROOT = Path(__file__).parents[1]
REQUESTS = 10_000
WORKERS = 4
CLIENTS = 8
# A connection stays with one worker: new ones let all of them take part.
RECONNECT_AFTER = 10
# They need no table.
PATHS = ("/", "/", "/", "/pets?next_token=mine", "/wp-login.php")
# How long a server may take to start or to stop, in seconds.
PATIENCE_S = 60

# By name: the module to run, and its arguments. `{port}` is the port.
_GUNICORN = ("gunicorn", "--bind=127.0.0.1:{port}", f"--workers={WORKERS}", "--log-level=warning")
SERVERS = {
    "uvicorn": (
        "uvicorn",
        "pets.app:app",
        "--port={port}",
        f"--workers={WORKERS}",
        "--no-access-log",
        "--log-level=warning",
    ),
    "gunicorn_uvicorn": (*_GUNICORN, "--worker-class=uvicorn_worker.UvicornWorker", "pets.app:app"),
    "gunicorn_sync": (*_GUNICORN, "pets_flask:app"),
    "gunicorn_threads": (*_GUNICORN, "--worker-class=gthread", "--threads=4", "pets_flask:app"),
}


@dataclass
class Running:
    """A server, and what its workers wrote to the one pipe that is their stdout."""

    process: subprocess.Popen[bytes]
    port: int
    lines: list[bytes] = field(default_factory=list)
    # The correlation ids of the answers that clients received whole.
    answered: Counter[str] = field(default_factory=Counter)
    stopping: bool = False

    def ask(self, count: int) -> None:
        """Send some requests from several clients at a time; they stop when the server does."""
        with ThreadPoolExecutor(CLIENTS) as clients:
            for seen in clients.map(self._ask, [count // CLIENTS] * CLIENTS):
                self.answered += seen

    def _ask(self, count: int) -> "Counter[str]":
        seen: Counter[str] = Counter()
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)) as connection:
            for number in range(count):
                try:
                    connection.request("GET", PATHS[number % len(PATHS)])
                    with connection.getresponse() as response:
                        response.read()
                except (OSError, HTTPException):
                    connection.close()
                    if self.stopping:
                        break
                    continue
                seen[response.headers["x-correlation-id"]] += 1
                if number % RECONNECT_AFTER == 0:
                    connection.close()
        return seen

    def stop(self) -> None:
        """Stop the server as ECS and Kubernetes do, and read its pipe to the end."""
        self.stopping = True
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(PATIENCE_S)

    @property
    def numbers(self) -> dict[str, float]:
        """Return what became of the records of the answered requests."""
        recorded: Counter[str] = Counter()
        broken = 0
        for line in list(self.lines):
            if b'"_tag"' not in line:
                continue
            try:
                record = json.loads(line)
            except ValueError:
                broken += 1
                continue
            if record["_type"] == "api_request":  # work after a response leaves another one, if it is slow
                recorded[record.get("correlation_id", "")] += 1
        return {
            "answered": sum(self.answered.values()),
            "missing": sum((self.answered - recorded).values()),
            "doubled": sum(count - 1 for count in recorded.values()),
            "broken_lines": broken,
        }


@contextmanager
def serving(name: str) -> Iterator[Running]:
    """Start a server with four workers, and stop it.

    Args:
        name: One of `SERVERS`.

    Yields:
        The server, when it answers; all of its lines are there after the block.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    paths = [ROOT / "examples" / "pets_api", ROOT / "examples" / "pets_flask", ROOT / "emitter"]
    module, *arguments = (argument.format(port=port) for argument in SERVERS[name])
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdout=subprocess.PIPE,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
            "AWS_DEFAULT_REGION": "us-east-1",
            "TABLE_NAME": "pets",
            "POWERTOOLS_SERVICE_NAME": "pets",
            "POWERTOOLS_METRICS_NAMESPACE": "Pets",
        },
    )
    running = Running(process, port)
    assert process.stdout is not None
    reader = threading.Thread(target=running.lines.extend, args=(process.stdout,))
    reader.start()
    try:
        _wait(port, process)
        yield running
    finally:
        if process.poll() is None:
            running.stop()
        reader.join()
        process.stdout.close()


def _wait(port: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until and process.poll() is None:
        with closing(HTTPConnection("127.0.0.1", port, timeout=1)) as connection:
            try:
                connection.request("GET", "/health")
                with connection.getresponse() as response:
                    response.read()
            except (OSError, HTTPException):
                time.sleep(0.05)
            else:
                return
    raise RuntimeError(f"the server on port {port} did not start")


def run() -> dict[str, float]:
    """Return the numbers of every server for 10,000 requests."""
    numbers: dict[str, float] = {}
    for name in SERVERS:
        with serving(name) as running:
            began = time.perf_counter()
            running.ask(REQUESTS)
            took = time.perf_counter() - began
        for label, number in running.numbers.items():
            numbers[f"{name}_{label}"] = number
        numbers[f"{name}_requests_per_s"] = running.numbers["answered"] / took
    return numbers
