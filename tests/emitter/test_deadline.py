"""A record of an invocation that runs out of time, is cancelled or exits is written all the same."""

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from tagline import Emitter, add

from tests.builders import http_event
from tests.emitter.lines import Lines
from tests.emitter.pythons import EMITTER, pythons


def nothing(_event: Any, _context: Any) -> None:
    """Answer nothing."""


class Ending:
    """An invocation whose time passes."""

    def __init__(self, remaining_ms: int, request_id: str = "r1") -> None:
        self.aws_request_id = request_id
        self._ends = time.monotonic() + remaining_ms / 1000

    def get_remaining_time_in_millis(self) -> int:
        return int((self._ends - time.monotonic()) * 1000)


def until(condition: Callable[[], bool]) -> None:
    for _ in range(12_000):
        if condition():
            return
        time.sleep(0.005)
    raise AssertionError("it did not come about in a minute")


def test_a_cancelled_task_leaves_its_record(emitter: Emitter, lines: Lines) -> None:
    async def serve() -> None:
        async def request() -> None:
            with emitter.collect({"route": "/slow"}):
                await asyncio.sleep(60)

        task = asyncio.create_task(request())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(serve())

    assert (lines.fields["route"], lines.fields["error_type"]) == ("/slow", "CancelledError")


def test_a_handler_that_exits_leaves_its_record(emitter: Emitter, lines: Lines) -> None:
    def leave(_event: Any, _context: Any) -> None:
        sys.exit(3)

    with pytest.raises(SystemExit):
        emitter.handler(leave)({}, None)

    assert lines.fields["error_type"] == "SystemExit"


def test_an_invocation_that_runs_out_of_time_leaves_its_record_before_the_end(
    emitter: Emitter, lines: Lines
) -> None:
    @emitter.handler
    def handler(event: Any, context: Any) -> None:  # noqa: ARG001 - the handler's signature
        add(step="slow")
        until(lambda: lines.writes == 1)
        add(step="too late")

    handler(http_event("GET /pets/{id}", "/pets/7"), Ending(150))

    assert lines.writes == 1
    fields = lines.fields
    assert (fields["timed_out"], fields["step"], fields["route"]) == (True, "slow", "/pets/{id}")
    assert "status" not in fields


def test_an_invocation_that_ended_long_ago_did_not_time_out(emitter: Emitter, lines: Lines) -> None:
    """Lambda freezes the environment between invocations: the watch wakes up long after the deadline."""

    class Thawed(Ending):
        def get_remaining_time_in_millis(self) -> int:
            first, self._ends = self._ends, 0.0
            return 210 if first else -5_000  # when it began, and after the thaw

    context = Thawed(0)
    emitter.begin(context=context)
    until(lambda: lines.writes == 1)

    fields = lines.fields
    assert fields["unfinished"] is True
    assert not {"timed_out", "duration_ms", "remaining_ms"} & fields.keys()


@pytest.mark.parametrize("next_invocation_first", [True, False])
def test_a_warm_environment_that_still_has_the_context_says_unfinished(
    emitter: Emitter, lines: Lines, *, next_invocation_first: bool
) -> None:
    """The next invocation comes after the first one's timeout. Either it or the watch runs first then."""

    class Frozen(Ending):
        thawed = False

        def get_remaining_time_in_millis(self) -> int:
            return -60_000 if self.thawed else 30_000 if next_invocation_first else 300

    context = Frozen(0)  # something global holds it, and the draft
    draft = emitter.begin({"step": "begun"}, context=context)
    context.thawed = True
    if not next_invocation_first:
        until(lambda: lines.writes == 1)
    with emitter.collect({"step": "later"}, context=Ending(30_000, "r2")):
        pass

    first, second = lines.records
    assert (first.fields["request_id"], first.fields["unfinished"]) == ("r1", True)
    assert not {"timed_out", "duration_ms", "remaining_ms"} & first.fields.keys()
    assert (second.fields["request_id"], "unfinished" in second.fields) == ("r2", False)
    assert draft.end() is False


def test_an_invocation_whose_context_is_gone_did_not_time_out(emitter: Emitter, lines: Lines) -> None:
    """On a machine where nothing is frozen, the runtime lets go of the context when the handler raised."""

    def handler(_event: Any, context: Any) -> None:
        emitter.begin(context=context)
        raise RuntimeError("before it was ended")

    with pytest.raises(RuntimeError):
        handler({}, Ending(260))
    until(lambda: lines.writes == 1)

    assert (lines.fields["unfinished"], lines.fields["request_id"]) == (True, "r1")
    assert "timed_out" not in lines.fields


def test_the_margin_is_a_setting_and_zero_turns_it_off(monkeypatch: pytest.MonkeyPatch, lines: Lines) -> None:
    monkeypatch.setenv("TAGLINE_TIMEOUT_MARGIN_MS", "0")
    with Emitter(stream=lines).collect(context=Ending(0)):
        time.sleep(0.05)
        assert lines.writes == 0

    assert "timed_out" not in lines.fields
    assert Emitter(timeout_margin_ms=50).timeout_margin_ms == 50
    monkeypatch.setenv("TAGLINE_TIMEOUT_MARGIN_MS", "soon")
    assert Emitter().timeout_margin_ms == 200


def test_an_earlier_end_than_the_watched_one_is_not_missed(emitter: Emitter, lines: Lines) -> None:
    contexts = Ending(600_000), Ending(250)
    late = emitter.begin({"name": "late"}, context=contexts[0])
    early = emitter.begin({"name": "early"}, context=contexts[1])
    until(lambda: lines.writes == 1)

    assert lines.fields["name"] == "early"
    assert [early.end(), late.end()] == [False, True]


def test_a_stream_that_ends_a_thread_does_not_end_the_watch(emitter: Emitter, lines: Lines) -> None:
    class Leaving:
        def write(self, text: str, /) -> None:  # noqa: ARG002 - stdout's signature
            raise SystemExit

    contexts = Ending(201), Ending(201)
    broken = Emitter(stream=Leaving()).begin(context=contexts[0])
    until(lambda: not broken.open)
    emitter.begin(context=contexts[1])
    until(lambda: lines.writes == 1)

    assert lines.fields["timed_out"] is True


def test_many_invocations_are_watched_by_one_thread(emitter: Emitter, lines: Lines) -> None:
    handler = emitter.handler(nothing)
    before = set(threading.enumerate())

    for _ in range(200):
        handler({}, Ending(30_000))

    new = set(threading.enumerate()) - before
    assert sum(thread.name == "tagline-timeout" for thread in new) <= 1
    assert lines.writes == 200


CHILD_TIMES_OUT = """
import os, sys, time
from tagline import Emitter

emitter = Emitter()

class Ending:
    aws_request_id = "r1"

    def get_remaining_time_in_millis(self):
        return 150

context = Ending()

def wait_for_the_watch(draft):
    for _ in range(6_000):
        if not draft.open:
            return
        time.sleep(0.01)
    print("no watch")

wait_for_the_watch(emitter.begin(context=context))  # a thread of the parent
if os.fork() == 0:
    wait_for_the_watch(emitter.begin({"of": "child"}, context=context))
    os._exit(0)
os.wait()
"""


def test_a_forked_child_has_a_watch_of_its_own() -> None:
    done = subprocess.run(
        [sys.executable, "-uc", CHILD_TIMES_OUT],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(EMITTER)},
    )

    parents, childs = done.stdout.splitlines()[:2]
    assert '"timed_out":true' in parents
    assert '"timed_out":true' in childs
    assert '"of":"child"' in childs


FORKS = """
import os, sys
sys.path.insert(0, sys.argv[1])
from tagline import Emitter

class Context:
    aws_request_id = "r"

    def get_remaining_time_in_millis(self):
        return 30_000

@Emitter().handler
def handler(event, context):
    if os.fork() == 0:
        os._exit(0)
    os.wait()

handler({}, Context())
"""


@pytest.mark.parametrize("version", [version for version in ("3.12", "3.13", "3.14") if version in pythons()])
def test_without_the_watch_a_handler_may_fork_without_a_warning(version: str) -> None:
    """Python 3.12 warns of a fork in a process that has threads."""
    done = subprocess.run(
        [pythons()[version], "-I", "-W", "error", "-c", FORKS, str(EMITTER)],
        capture_output=True,
        text=True,
        check=False,
        env={"TAGLINE_TIMEOUT_MARGIN_MS": "0"},
    )

    # -I ignores PYTHON* variables only.
    assert (done.returncode, done.stderr, len(done.stdout.splitlines())) == (0, "", 1)
