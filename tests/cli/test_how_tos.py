"""The commands of the how-to pages, run one after the other as a reader would, and what they print."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from onemachine.pipeline import Pipeline
from typer.testing import CliRunner

from cli.apps import tagline_with_samples
from cli.main import app
from cli.target import target_of, write_running
from tests.test_docs import DOCS, blocks

# The pages' examples ask for days up to the one before.
NOW = datetime(2026, 11, 20, 10, tzinfo=UTC)
CLIENTS = ("customer-17", "192.0.2.7")
LOG = "".join(
    f'{CLIENTS[n % 2]} - - [{day}/Nov/2026:10:05:{n:02} +0000] "GET /blog/{n} HTTP/1.1" 200 512\n'
    for day in (18, 19)
    for n in range(10)
)
# What needs an account or another terminal, what only the reader has, and what other tests run.
NOT_HERE = re.compile(
    r"--stack|--aws-sigv4|\$token|\$Url|, items FROM|/my-api|python my_program|^(aws|sam|make|eval|cd|cp)\b"
    r"|tagline (up|demo|schema|cost|tick|fault (kill|redeliver))"
)
# What the commands of a page print, in this order.
PRINTED = {
    "try-your-access-log.md": ("20 records written", "/blog/*", "customer-17", "2026-11-18 10:00:00"),
    "backfill.md": ("2026-11-18", "10", "2026-11-19", "10"),
    "download.md": ("november.zip: 20 rows", '"format": "jsonl"'),
    "verify.md": ("never exported", "2026-11-18", "nothing"),
    "erase.md": ("2026-11-18", "5", "--yes"),
    "reconcile.md": ("/aws/lambda/sample-AccessLogReplay",),
    "ask-the-logs.md": ("/blog/*", "20"),
    "first-record.md": (
        '"name":"Tom"',
        "/fail",
        "500",
        "/pets",
        "201",
        "csv.gz",
        "usage.zip: 2 rows",
        "lines sent: 1",
    ),
    "pets-api.md": ('"name":"Tom"', "KeyError", "@message"),
    "run-your-function.md": ("api_request", "/fail", '{"status": 503}', "All faults have ended", "No e-mail"),
    "replay.md": ("Kinesis records", '"pets"', "All faults have ended", "lines: readable", "│    26 │"),
}
# These end with another status: days were never exported; nobody has been erased.
STATUS = {"verify --from 2026-11-01 --to 2026-11-19": 1, "forget --client customer-17 --undo": 1}


needs_programs = pytest.mark.skipif(
    shutil.which("curl") is None or shutil.which("jq") is None,
    reason="curl or jq, which the pages use, is not installed",
)


@pytest.fixture
def pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipeline]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "access.log").write_text(LOG)
    (tmp_path / "lines.log").write_text('{"status": 503}\n{"status": 200}\n')
    # As the page's program calls it.
    ((_, program),) = blocks(DOCS / "how-to" / "pets-api.md", "py")
    (apps,) = re.findall(r"with Pipeline\((.+)\) as pipeline:", program)
    with Pipeline(eval(apps, {"tagline_with_samples": tagline_with_samples}), now=NOW) as running:
        write_running(target_of(running))
        yield running


def commands(page: str) -> Iterator[str]:
    """Yield what a page lets its reader type: a command, or the lines of a block that belong together."""
    for _, text in blocks(DOCS / "how-to" / page, "sh"):
        block = text.replace(".venv/bin/", "").replace("/var/log/nginx/", "")
        block = block.replace('"$(date -u +%F)"', "2026-11-20")
        if "tagline " not in block:
            yield block
            continue
        begun = ""
        for line in block.splitlines():
            begun += f"{line}\n"
            if begun.count("'") % 2 == 0 and begun.count('"') % 2 == 0:
                yield begun
                begun = ""


def shell(command: str, variables: dict[str, str]) -> str:
    """Return what a command prints in a shell with these variables."""
    done = subprocess.run(
        ["sh", "-ec", command],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout


def run(command: str, pipeline: Pipeline) -> str:
    """Return what a command prints, once all that was written before is stored."""
    piped, found, arguments = command.rpartition("tagline ")
    if piped or not found:
        typed = f"{piped}{sys.executable} -m tagline_pipeline {arguments}" if piped else command
        return shell(typed, target_of(pipeline).variables())
    pipeline.settle()
    done = CliRunner().invoke(app, shlex.split(arguments, comments=True))
    assert done.exit_code == STATUS.get(arguments.strip(), 0), (command, done.output)
    return str(done.output)


@needs_programs
def test_the_commands_of_the_how_tos_do_what_the_pages_tell(pipeline: Pipeline) -> None:
    for page, expected in PRINTED.items():
        printed = "".join(run(each, pipeline) for each in commands(page) if not NOT_HERE.search(each))
        left = printed
        for each in expected:
            _, found, left = left.partition(each)
            assert found, (page, each, printed)
