"""Requests to the sample applications: generated ones, or those of an access log."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from http import HTTPStatus
from itertools import islice
from pathlib import Path
from typing import Any

import requests
from tagline import format_timestamp

from cli import access_log
from cli.errors import CommandError
from cli.target import Target

Advance = Callable[[int], None]

# An invocation's event may have 6 MB; a line of an access log is seldom longer than a few hundred bytes.
# https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
BATCH = 500
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
        path: The file.
        lines: How many lines tell of a request.
        last: The latest request's time.
        unreadable: The numbers of the lines that do not, with why.
    """

    path: Path
    lines: int
    last: datetime
    unreadable: list[tuple[int, str]] = field(default_factory=list)


def read_access_log(path: Path) -> AccessLog:
    """Read an access log through, to know its last time before the first request is sent.

    Raises:
        CommandError: If there is no such file, or no line of it is an access log's.
    """
    lines = 0
    last: datetime | None = None
    unreadable: list[tuple[int, str]] = []
    for number, found in _requests(path):
        if isinstance(found, access_log.Request):
            lines += 1
            last = found.time if last is None else max(last, found.time)
        else:
            unreadable.append((number, str(found)))
    if last is None:
        raise CommandError(
            f"{path} has no line in common or combined format",
            "give a web server's access log, such as Apache's or nginx's",
        )
    return AccessLog(path, lines, last, unreadable)


def send_access_log(target: Target, log: AccessLog, advance: Advance) -> None:
    """Let the sample function say an access log's requests again, as of the days up to yesterday.

    Args:
        target: The pipeline.
        log: The log.
        advance: Is told how many more were said.

    Raises:
        CommandError: If the sample application does not run.
    """
    if "AccessLogReplayName" not in target.samples:
        raise CommandError(
            "the sample application does not run here", "start it with: tagline up, without --template"
        )
    shift = access_log.shift(log.last, target.now().date())
    events = (
        {
            "id": found.id,
            "timestamp": format_timestamp(int((found.time + shift).timestamp() * 1000)),
            **found.fields,
        }
        for _, found in _requests(log.path)
        if isinstance(found, access_log.Request)
    )
    while batch := list(islice(events, BATCH)):
        answer = target.invoke("AccessLogReplayName", {"requests": batch})
        advance(answer["emitted"])


def send_requests(target: Target, count: int, advance: Advance) -> None:
    """Send requests to the pets API, or to the sample API where that does not run, a few at a time.

    They are always the same ones, but for the ids of the pets.
    """
    pets_url = target.samples.get("PetsApiUrl")
    url, routes = (pets_url, PETS_ROUTES) if pets_url else (target.samples["SampleApiUrl"], ROUTES)
    chance = random.Random(0)  # noqa: S311 - a demonstration's requests
    calls = [(*chance.choice(routes), chance.choice(CLIENTS)) for _ in range(count)]
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


def _requests(path: Path) -> Iterator[tuple[int, Any]]:
    try:
        with path.open(encoding="utf-8", errors="replace", newline="\n") as lines:
            yield from access_log.requests(lines)
    except OSError as error:
        raise CommandError(f"cannot read {path}: {error.strerror}", "give the path of a log file") from error
