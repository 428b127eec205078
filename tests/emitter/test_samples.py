"""The lines that pages show are those that their code writes: the same keys in the same order."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.builders import http_event
from tests.emitter import test_asgi, test_wsgi
from tests.emitter.lines import Lines

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    *(path for part in ("docs", "examples") for path in ROOT.glob(f"{part}/**/*.md")),
]
SHOWN = [
    (str(path.relative_to(ROOT)), line)
    for path in PAGES
    for line in path.read_text().splitlines()
    if line.startswith('{"_tag":') and '"_seq":' in line
]
FIRST = ["_tag", "timestamp", "level", "_type", "_id", "_src", "_seq"]


class Context:
    """What Lambda's context has of an invocation's id."""

    aws_request_id = "8f5ac1b8-4f5a-4d0c-8f5d-0c1b84f5a4d0"


def shown(page: str) -> dict[str, Any]:
    """Return the line that a page shows."""
    (line,) = (line for where, line in SHOWN if where == page)
    found: dict[str, Any] = json.loads(line)
    return found


def run(page: str, start: str, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Any], Lines]:
    """Run a page's block of code that begins so; return its names, and the stdout that it has."""
    monkeypatch.setattr(sys, "stdout", Lines())
    names: dict[str, Any] = {"__name__": __name__}
    text = (ROOT / page).read_text()
    (block,) = re.findall(
        rf"^```(?:py|python)\n({re.escape(start)}\n.*?)^```$", text, re.MULTILINE | re.DOTALL
    )
    exec(block, names)
    lines = sys.stdout
    assert isinstance(lines, Lines)
    return names, lines


@pytest.mark.parametrize(("page", "line"), SHOWN)
def test_a_line_on_a_page_begins_with_the_emitters_keys(page: str, line: str) -> None:
    assert re.findall(r'"(\w+)":', line)[: len(FIRST)] == FIRST, page


def test_the_readmes_handler_writes_the_line_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    names, lines = run("README.md", "from tagline import Emitter, add", monkeypatch)
    names["handler"](http_event("GET /pets/{id}", "/pets/7"), Context())

    written, line = json.loads(lines.getvalue()), shown("README.md")
    assert [name for name in written if name in line] == list(line)
    same = ("_tag", "_type", "_seq", "method", "route", "path", "status", "client", "items")
    assert {name: written[name] for name in same} == {name: line[name] for name in same}


def test_the_flask_application_writes_the_line_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("flask")
    page = "docs/how-to/flask-django.md"
    names, lines = run(page, "from flask import Flask", monkeypatch)
    client = {"REMOTE_ADDR": "127.0.0.1", "HTTP_USER_AGENT": "curl/8.5.0"}
    test_wsgi.ask(names["app"], test_wsgi.environ("/pets/7", **client))

    assert list(json.loads(lines.getvalue())) == list(shown(page))


def test_the_fastapi_application_writes_the_line_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fastapi")
    page = "docs/how-to/fastapi.md"
    names, lines = run(page, "from fastapi import FastAPI", monkeypatch)
    test_asgi.ask(names["app"])

    assert list(json.loads(lines.getvalue())) == list(shown(page))
