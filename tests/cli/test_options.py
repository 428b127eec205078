"""Options that all commands have: `--stack` and `--json`, and what they lead to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import typer
from onemachine.pipeline import Pipeline
from tagline import Record, write
from typer.testing import CliRunner

from cli import target as targets
from cli.apps import tagline_with_samples
from cli.errors import CommandError
from cli.main import app
from cli.target import target_of
from consumers.lines.subscription import encode
from tests.builders import envelope

ROOT = Path(__file__).parents[2]
HERE = "acts on the pipeline of this machine alone"
FILES = "reads files, and no pipeline"
WITHOUT_STACK = {
    **dict.fromkeys(("demo", "up", "feed", "tick", "fault", "outbox"), HERE),
    **dict.fromkeys(("filter test", "schema show", "schema check"), FILES),
}
WITHOUT_JSON = {
    "demo": "its last line is JSON",
    "up": "runs until Ctrl-C",
    "feed": "does something; tagline query counts the rows",
    "fault": "does something",
    "dashboard": "opens a page, or saves it",
}
# What a command needs beside its options.
ARGUMENTS = {
    "query": ["SELECT 1"],
    "insights": ["limit 1"],
    "subscribe": ["--list"],
    "unsubscribe": ["group"],
    "replay": ["quarantine"],
    "quarantine show": ["quarantine/x"],
    "forget": ["--list"],
}


def leaves(command: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if hasattr(command, "commands"):
        for each, below in command.commands.items():
            yield from leaves(below, f"{name} {each}".strip())
    else:
        yield name, command


COMMANDS = dict(leaves(typer.main.get_command(app)))
OPTIONS = {
    name: {option: each for each in command.params for option in each.opts}
    for name, command in COMMANDS.items()
}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_takes_a_stack_and_json_but_for_those_with_a_reason(name: str) -> None:
    assert ("--stack" in OPTIONS[name]) != (name in WITHOUT_STACK)
    assert ("--json" in OPTIONS[name]) != (name in WITHOUT_JSON)
    if "--stack" in OPTIONS[name]:
        assert OPTIONS[name]["--stack"].envvar == "TAGLINE_STACK"


def test_the_reasons_are_of_commands_that_exist() -> None:
    assert {*WITHOUT_STACK, *WITHOUT_JSON, *ARGUMENTS} <= COMMANDS.keys()


@pytest.mark.parametrize("name", COMMANDS.keys() - WITHOUT_STACK.keys())
@pytest.mark.parametrize("way", ["option", "variable"])
def test_a_command_acts_on_the_stack_that_is_named(
    name: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def found(stack: str, _: object) -> None:
        asked.append(stack)
        raise CommandError("stop", "here")

    monkeypatch.setattr(targets, "deployed_target", found)
    line = [*name.split(), *ARGUMENTS.get(name, ())]
    if way == "option":
        line.append("--stack=prod")

    done = CliRunner().invoke(app, line, env={"TAGLINE_STACK": "prod" if way == "variable" else ""})

    assert isinstance(done.exception, CommandError)
    assert asked == ["prod"]


DAY = (datetime.now(UTC) - timedelta(days=3)).date()
GROUP = "/aws/lambda/sample-SampleApi"


def send(pipeline: Pipeline) -> None:
    """Put twenty lines into the stream, and one that has to go to quarantine."""
    noon = int(datetime(DAY.year, DAY.month, DAY.day, 12, tzinfo=UTC).timestamp() * 1_000)
    lines = [
        write(
            Record(
                f"{number:032x}",
                noon + number,
                {"client": f"c{number % 3}", "status": 200},
                src="s",
                seq=number,
            )
        )
        for number in range(20)
    ]
    where = target_of(pipeline)
    where.client("kinesis").put_record(
        StreamName=where.outputs["StreamName"],
        Data=encode(envelope(*lines, '{"_tag":"usage_record", no JSON}', group=GROUP)),
        PartitionKey="key",
    )
    pipeline.settle()


@pytest.mark.tagline(apps=tagline_with_samples(store="lake"))
def test_what_is_printed_as_json_is_an_object_on_each_line(
    tagline: Pipeline, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    target = target_of(tagline)
    monkeypatch.setattr(targets, "running_target", lambda: target)
    send(tagline)
    days = ["--from", DAY.isoformat(), "--to", DAY.isoformat()]

    def ran(*line: str, code: int = 0) -> list[dict[str, Any]]:
        done = CliRunner().invoke(app, [*line, "--json"], catch_exceptions=False)
        assert done.exit_code == code, (line, done.output)
        return [json.loads(text) for text in done.stdout.splitlines()]

    exported = ran("export", *days)
    assert {(each["format"], each["rows"]) for each in exported} == {("csv.gz", 20), ("parquet", 20)}
    assert {(each["format"], *each["problems"]) for each in ran("verify", *days)} == {
        ("csv.gz",),
        ("parquet",),
    }
    (compared,) = ran("compare", "--day", DAY.isoformat())
    assert [side["rows"] for side in compared["sides"]] == [20, 20]
    assert compared["differences"] == []
    forgotten = ran("forget", "--client", "c1", *days)
    assert {(each["format"], each["rows"]) for each in forgotten[:-1]} == {
        ("csv.gz", 7),
        ("parquet", 7),
        ("store", 7),
    }
    assert forgotten[-1] == {"done": False}
    assert ran("forget", "--list") == []
    (fetched,) = ran("download", *days, "--out", str(tmp_path / "usage.zip"))
    assert fetched["rows"] == 20
    (replayed,) = ran("replay", "quarantine")
    assert (replayed["items"], replayed["sent"]) == (1, False)
    (kept,) = ran("quarantine", "ls")
    assert kept["reason"] == "unparseable"
    assert any(each["rows"] == 20 for each in ran("reconcile", "--day", DAY.isoformat()))
    logged = ran("logs", "--function", "RowConsumer", "--filter", '{ $.message = "batch" }')
    assert all(line["message"]["message"] == "batch" for line in logged)
    (answer,) = ran("query", "SELECT count(*) AS requests FROM {table}")
    assert int(answer["requests"]) == 20
    (plan,) = ran("cost", "--measured", "--rate", "10", "--store", "lake")
    assert {"line", "packed_line", "fragment_row", "exported_row"} <= set(plan["measured"])


def test_json_of_what_reads_files(tmp_path: Path) -> None:
    log = tmp_path / "lines.log"
    log.write_text('{"status": 500}\n{"status": 200}\n')

    def ran(*line: str) -> list[dict[str, Any]]:
        done = CliRunner().invoke(app, [*line, "--json"], catch_exceptions=False)
        assert done.exit_code == 0
        return [json.loads(text) for text in done.stdout.splitlines()]

    (found,) = ran("filter", "test", "{ $.status >= 500 }", str(log))
    assert found["message"] == '{"status": 500}'
    schemas = ran("schema", "show", str(ROOT / "schemas"))
    assert all({"type", "revision", "dimensions", "measures"} <= each.keys() for each in schemas)
    assert schemas
    assert ran("schema", "check", str(ROOT / "schemas"), str(ROOT / "schemas")) == []


@pytest.mark.parametrize("name", ["up", "demo"])
def test_services_do_not_start_on_windows(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")

    with pytest.raises(CommandError, match="need Linux or macOS"):
        CliRunner().invoke(app, [name], catch_exceptions=False)


def test_commands_for_a_stack_need_nothing_that_windows_lacks(tmp_path: Path) -> None:
    lines = [
        [*name.split(), *ARGUMENTS.get(name, ()), "--stack", "none"]
        for name in COMMANDS.keys() - WITHOUT_STACK.keys()
    ]
    program = f"""
import sys
sys.modules["fcntl"] = None
from cli.main import run
for line in {lines!r}:
    try:
        run(line)
    except SystemExit:
        pass
"""
    own = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**own, "AWS_CONFIG_FILE": str(tmp_path / "none"), "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    assert done.stderr.count("cannot find the stack none") >= len(lines) - 1  # cost needs no stack
