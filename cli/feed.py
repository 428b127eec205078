"""Requests to the sample applications: generated ones, or those of an access log."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from typing import IO, Any

import requests
from tagline import format_timestamp

from cli.access_logs.files import open_log, read_lines
from cli.access_logs.formats import Format, formats
from cli.access_logs.requests import Request, Unreadable, format_of, read_requests, shift
from cli.errors import CommandError
from cli.target import Target

Advance = Callable[[int], None]

# An invocation's event may have 6 MB, and a call of PutLogEvents 1 MB, counted with 26 bytes an event:
# https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html,
# https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutLogEvents.html
BATCH = 500
BATCH_BYTES = 1_000_000
WORKERS = 4

CLIENTS = ("acme", "globex", "initech", "umbrella")
ROUTES = (
    ("GET", "/pets"),
    ("GET", "/pets/0"),
    ("GET", "/pets/1"),
    ("GET", "/pets/nobody"),
    ("POST", "/pets"),
    ("GET", "/"),
    ("GET", "/fail"),
)
# Those of the pets API; `{pet}` is the id of a pet that an earlier request made.
PETS_ROUTES = (
    ("POST", "/pets"),
    ("GET", "/pets"),
    ("GET", "/pets/{pet}"),
    ("PATCH", "/pets/{pet}"),
    ("DELETE", "/pets/{pet}"),
    ("GET", "/pets/nobody"),
    ("GET", "/"),
    ("GET", "/fail"),
)


@dataclass(frozen=True, slots=True)
class AccessLog:
    """An access log that was read through once.

    Attributes:
        name: The file's name.
        format: What people call its format.
        lines: How many lines are requests.
        last: The latest request's time.
        unreadable: The lines that do not, with why.
    """

    name: str
    format: str
    lines: int
    last: datetime
    unreadable: list[Unreadable]
    _file: IO[bytes]
    _format: Format

    def requests(self) -> Iterator[Request]:
        """Yield the requests, from the first."""
        found = read_requests(read_lines(self._file), self._format)
        return (each for each in found if isinstance(each, Request))


@contextmanager
def open_access_log(path: Path) -> Iterator[AccessLog]:
    """Read an access log through, to find its format and its last time before the first request is sent.

    Args:
        path: A file or a pipe, packed or not; `-` is standard input.

    Raises:
        CommandError: If it cannot be read, or no line of it is an access log's.
    """
    with open_log(path) as file:
        format_, name = format_of(read_lines(file)) or (None, "")
        lines = 0
        last: datetime | None = None
        unreadable: list[Unreadable] = []
        for each in read_requests(read_lines(file), format_) if format_ else ():
            if isinstance(each, Request):
                lines += 1
                last = each.time if last is None else max(last, each.time)
            else:
                unreadable.append(each)
        if format_ is None or last is None:
            raise CommandError(
                f"{path} has no line in a format that is known",
                f"give a log in one of these formats: {'; '.join(each.name for each in formats())}",
            )
        yield AccessLog(path.name, name, lines, last, unreadable, file, format_)


def send_access_log(target: Target, log: AccessLog, advance: Advance) -> int:
    """Let the sample function write a record of each request, as of the days up to yesterday.

    Args:
        target: The pipeline.
        log: The log.
        advance: Called with the number of further lines written.

    Returns:
        How many were written.

    Raises:
        CommandError: If the sample application does not run.
    """
    if "AccessLogReplayName" not in target.samples:
        raise CommandError(
            "the sample application does not run here", "start it with: tagline up, without --template"
        )
    days = shift(log.last, target.now().date())
    events = (
        {
            "id": found.id,
            "timestamp": format_timestamp(int((found.time + days).timestamp() * 1000)),
            **found.fields,
        }
        for found in log.requests()
    )
    written = 0
    for batch in _batches(events):
        answer = target.invoke("AccessLogReplayName", {"requests": batch})
        written += answer["emitted"]
        advance(answer["emitted"])
    return written


def _batches(events: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    size = 0
    for event in events:
        length = len(json.dumps(event))
        if batch and (size + length > BATCH_BYTES or len(batch) == BATCH):
            yield batch
            batch, size = [], 0
        batch.append(event)
        size += length
    if batch:
        yield batch


def send_requests(target: Target, count: int, advance: Advance) -> None:
    """Send requests to the pets API, or to the sample API where that does not run, a few at a time.

    They are always the same ones, but for the ids of the pets.
    """
    pets_url = target.samples.get("PetsApiUrl")
    url, routes = (pets_url, PETS_ROUTES) if pets_url else (target.samples["SampleApiUrl"], ROUTES)
    chance = random.Random(0)  # noqa: S311 - a demonstration's requests
    # The first are answered well: the demonstration shows them.
    calls = [("POST" if pets_url else "GET", "/pets", client) for client in CLIENTS][:count]
    calls += [(*chance.choice(routes), chance.choice(CLIENTS)) for _ in range(count - len(calls))]
    own = threading.local()
    pets = ["nobody"]

    def call(what: tuple[str, str, str]) -> None:
        method, path, client = what
        if not hasattr(own, "session"):
            own.session = requests.Session()
        pet = {"name": client, "kind": "cat"} if pets_url and method in {"POST", "PATCH"} else None
        answer = own.session.request(
            method, url + path.format(pet=pets[-1]), json=pet, headers={"x-client": client}, timeout=30
        )
        if pet and answer.status_code == HTTPStatus.CREATED:
            pets.append(answer.json()["id"])
        advance(1)

    with ThreadPoolExecutor(WORKERS) as workers:
        list(workers.map(call, calls))


def place_orders(target: Target, count: int, advance: Advance) -> int:
    """Invoke the sample function that writes its records with aws-embedded-metrics.

    Returns:
        How many items were ordered: what its metric `items` counts.
    """
    chance = random.Random(0)  # noqa: S311 - a demonstration's orders
    items = 0
    for _ in range(count):
        order = {"items": chance.randrange(1, 5), "client": chance.choice(CLIENTS)}
        items += target.invoke("OrdersName", order)["items"]
        advance(1)
    return items
