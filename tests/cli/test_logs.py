"""`tagline logs`: each line once, late ones too, in the order of their times, until Ctrl-C."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from onemachine.services import Services
from typer.testing import CliRunner

from cli import logs as following
from cli import target as targets
from cli.errors import CommandError
from cli.logs import LogLine, Tail, follow_lines, own_groups
from cli.main import app
from cli.target import Target

CONSUMER, EXPORTER, OTHER = "/tagline/t/RowConsumer", "/tagline/t/DailyExporter", "/aws/lambda/other"


@pytest.fixture
def target() -> Iterator[Target]:
    services = Services()
    try:
        logs = services.client("logs")
        for group in (CONSUMER, EXPORTER, OTHER):
            logs.create_log_group(logGroupName=group)
            logs.create_log_stream(logGroupName=group, logStreamName="s")
        yield Target(services.endpoint, {"DownloadAuditLogGroup": "/tagline/t/audit"}, {})
    finally:
        services.stop()


def put(target: Target, group: str, when_ms: int, message: str) -> None:
    event = {"timestamp": when_ms, "message": message}
    target.client("logs").put_log_events(logGroupName=group, logStreamName="s", logEvents=[event])


def texts(lines: list[LogLine]) -> list[str]:
    return [line.message for line in lines]


def test_each_line_comes_once_in_the_order_of_times(target: Target) -> None:
    now = int(time.time() * 1_000)
    put(target, CONSUMER, now - 3_000, "second\n")
    put(target, EXPORTER, now - 4_000, "first")
    put(target, CONSUMER, now - 900_000, "before")
    tail = Tail(target, own_groups(target, ()), "", now - 600_000)

    assert texts(tail.look()) == ["first", "second"]
    assert tail.look() == []
    put(target, CONSUMER, now - 20_000, "late")
    put(target, CONSUMER, now - 1_000, "new")
    put(target, OTHER, now, "of another function")
    assert texts(tail.look()) == ["late", "new"]
    assert tail.look() == []


def test_groups_are_those_of_the_stack_or_those_that_are_named(target: Target) -> None:
    assert sorted(own_groups(target, ())) == [EXPORTER, CONSUMER]
    assert own_groups(target, ["RowConsumer", OTHER]) == [CONSUMER, OTHER]
    with pytest.raises(CommandError, match=r"^the log group /tagline/t/Row does not exist$"):
        own_groups(target, ["Row"])


def test_a_pattern_selects_and_a_wrong_one_is_refused(target: Target) -> None:
    now = int(time.time() * 1_000)
    put(target, CONSUMER, now - 2, '{"level": "INFO"}')
    put(target, CONSUMER, now - 1, '{"level": "ERROR"}')

    assert texts(Tail(target, [CONSUMER], '{ $.level = "ERROR" }', now - 10_000).look()) == [
        '{"level": "ERROR"}'
    ]
    with pytest.raises(CommandError):
        Tail(target, [CONSUMER], "{ $.level = ", now - 10_000).look()


def test_following_goes_on_until_ctrl_c(target: Target) -> None:
    now = int(time.time() * 1_000)
    shown: list[str] = []
    rests = iter(["one", "two"])

    def rest() -> None:
        try:
            put(target, CONSUMER, now, next(rests))
        except StopIteration:
            raise KeyboardInterrupt from None

    follow_lines(Tail(target, [CONSUMER], "", now - 1_000), lambda line: shown.append(line.message), rest)

    assert shown == ["one", "two"]


def test_the_command_ends_quietly_by_ctrl_c(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    put(target, CONSUMER, int(time.time() * 1_000), "[bold]a line")
    monkeypatch.setattr(targets, "running_target", lambda: target)
    monkeypatch.setattr(type(target), "now", lambda _: datetime.now(UTC))

    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(following, "rest", interrupted)
    done = CliRunner().invoke(app, ["logs", "--follow", "--function", "RowConsumer"], catch_exceptions=False)

    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.endswith("RowConsumer: [bold]a line\n")
