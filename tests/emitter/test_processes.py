"""Several processes, one stdout: whole lines, none lost when one is stopped, none written twice by a copy."""

import json
import os
import subprocess
import sys
import time
from typing import Any

import pytest
from tagline import Emitter, read

from tests.emitter.lines import Lines
from tests.emitter.pythons import EMITTER, pythons


def run(script: str, *arguments: object, **environment: str) -> str:
    """Run a script with the emitter as any program runs: stdout is a pipe."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        env={"PYTHONPATH": str(EMITTER), **environment},
    )
    return done.stdout


# --- one pipe ---------------------------------------------------------------------------------------------

WORKERS = """
import os, sys
from tagline import Emitter

size, count = int(sys.argv[1]), int(sys.argv[2])
emitter = Emitter(max_line_bytes=100_000)
for _ in range(3):
    if os.fork() == 0:
        break
for number in range(count):
    emitter.emit({"number": number, "text": "x" * size})
"""


@pytest.mark.parametrize("size", [600, 4_500, 70_000])  # PIPE_BUF is 4,096 bytes, a pipe holds 65,536
def test_workers_break_no_lines_on_a_pipe_whose_reader_is_slow(size: int) -> None:
    reading, writing = os.pipe()
    count = 60 if size > 10_000 else 200
    process = subprocess.Popen(
        [sys.executable, "-c", WORKERS, str(size), str(count)],
        stdout=writing,
        env={"PYTHONPATH": str(EMITTER)},
    )
    os.close(writing)
    pieces = []
    while piece := os.read(reading, 3_000 if size < 10_000 else 60_000):
        pieces.append(piece)
        time.sleep(0.0002)  # workers are quicker
    os.close(reading)
    assert process.wait() == 0

    records = [read(line) for line in b"".join(pieces).decode().splitlines()]
    assert len({(record.src, record.seq) for record in records}) == 4 * count
    assert all(len(record.fields["text"]) == size for record in records)


THREADS = """
import sys, threading
from tagline import Emitter

emitter = Emitter()

def work(number):
    for index in range(250):
        emitter.emit({"thread": number, "index": index, "text": "x" * 700})

threads = [threading.Thread(target=work, args=[number]) for number in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


@pytest.mark.parametrize("environment", [{}, {"AWS_LAMBDA_FUNCTION_NAME": "pets"}], ids=["server", "Lambda"])
@pytest.mark.parametrize("version", pythons())
def test_threads_break_no_lines_and_no_numbers(version: str, environment: dict[str, str]) -> None:
    done = subprocess.run(
        [pythons()[version], "-c", THREADS],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={"PYTHONPATH": str(EMITTER), **environment},
    )

    records = [read(line) for line in done.stdout.splitlines()]
    assert sorted((record.fields["thread"], record.fields["index"]) for record in records) == [
        (thread, index) for thread in range(8) for index in range(250)
    ]
    assert sorted(record.seq or 0 for record in records) == list(range(2_000))


def test_what_others_print_stays_in_order() -> None:
    script = 'from tagline import Emitter\nprint("before")\nEmitter().emit({"n": 1})\nprint("after")'

    before, line, after = run(script).splitlines()

    assert (before, read(line).fields, after) == ("before", {"n": 1}, "after")


def test_a_worker_that_is_killed_while_it_writes_blocks_no_other_one() -> None:
    """The system releases its lock on the pipe."""
    killed = """
import os, signal, sys
from tagline import Emitter

class Dying:
    def write(self, text):
        os.kill(os.getpid(), signal.SIGKILL)

    def flush(self):
        pass

    def fileno(self):
        return 1

if os.fork() == 0:
    Emitter(stream=Dying()).emit()
os.wait()
Emitter().emit({"alive": True})
"""
    (line,) = run(killed).splitlines()

    assert read(line).fields == {"alive": True}


# --- stopped ----------------------------------------------------------------------------------------------

STOPPED = """
import os, signal, sys
from tagline import Emitter

emitter = Emitter()
for number in range(20):
    emitter.emit({"number": number})
os.kill(os.getpid(), getattr(signal, sys.argv[1]))
"""


@pytest.mark.parametrize("signal", ["SIGTERM", "SIGKILL"])
def test_a_process_that_is_stopped_has_written_what_it_emitted(signal: str) -> None:
    lines = run(STOPPED, signal).splitlines()

    assert [read(line).fields["number"] for line in lines] == list(range(20))


IN_A_SIGNAL = """
import os, signal, sys, time
from tagline import Emitter

emitter = Emitter()
signal.signal(signal.SIGALRM, lambda *_: emitter.emit({"signal": True, "text": "s" * 5000}))
signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
for number in range(2000):
    emitter.emit({"number": number, "text": "x" * 5000})
signal.setitimer(signal.ITIMER_REAL, 0)
print(emitter.errors)
"""


def test_a_signals_handler_may_emit_while_a_line_is_written() -> None:
    *lines, errors = run(IN_A_SIGNAL).splitlines()

    records = [read(line) for line in lines]
    assert len({record.seq for record in records}) == len(records)
    # A buffered stream refuses what comes in the middle of its own write or flush. Each refusal is counted. A
    # line whose write was refused is missing; one whose flush was refused comes with the next.
    numbered = max(record.seq or 0 for record in records) + 1
    assert len(records) <= numbered <= len(records) + int(errors)
    assert sum("number" in record.fields for record in records) >= 2_000 - int(errors)


# --- copies -----------------------------------------------------------------------------------------------

FORK = """
import os
from tagline import Emitter

emitter = Emitter()
emitter.emit({"of": "parent"})
draft = emitter.begin({"of": "parent"})
if os.fork() == 0:
    print(draft.end(), draft.open)
    emitter.emit({"of": "child"})
    raise SystemExit
os.wait()
draft.end()
"""


def test_a_fork_doubles_no_line_and_leaves_an_open_record_to_the_parent() -> None:
    *lines, ended = sorted(run(FORK).splitlines(), key=lambda line: not line.startswith("{"))

    records = [read(line) for line in lines]
    assert ended == "False False"
    assert sorted((r.fields["of"], r.seq) for r in records) == [("child", 0), ("parent", 0), ("parent", 1)]
    assert len({record.id for record in records}) == 3
    assert len({record.src for record in records}) == 2


FORK_WHILE_A_THREAD_WRITES = """
import os, threading
from tagline import Emitter

emitter, stop = Emitter(), threading.Event()

def write():
    while not stop.is_set():
        emitter.emit({"text": "x" * 3000})

threads = [threading.Thread(target=write) for _ in range(4)]
for thread in threads:
    thread.start()
for _ in range(30):
    child = os.fork()
    if child == 0:
        emitter.emit({"of": "child"})
        os._exit(0)
    os.waitpid(child, 0)
stop.set()
"""


def test_a_fork_while_another_thread_writes_leaves_the_child_able_to_write() -> None:
    """The child's copy of a lock that the other thread held would never be released."""
    command = [sys.executable, "-W", "ignore", "-c", FORK_WHILE_A_THREAD_WRITES]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True, timeout=120, env={"PYTHONPATH": str(EMITTER)}
    )

    assert sum('"of":"child"' in line for line in done.stdout.splitlines()) == 30


SPAWN = """
import multiprocessing, sys
from tagline import Emitter

emitter = Emitter()


def work(number):
    emitter.emit({"number": number})


if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    processes = [context.Process(target=work, args=[number]) for number in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
"""


@pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])
def test_multiprocessings_children_are_sources_of_their_own(method: str, tmp_path: Any) -> None:
    script = tmp_path / "script.py"
    script.write_text(SPAWN)
    done = subprocess.run(
        [sys.executable, str(script), method],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={"PYTHONPATH": str(EMITTER)},
    )

    records = [read(line) for line in done.stdout.splitlines()]
    assert sorted(record.fields["number"] for record in records) == [0, 1, 2]
    assert {record.seq for record in records} == {0}
    assert len({record.src for record in records}) == 3


def test_a_forked_child_is_another_source_and_does_not_write_its_parents_record(
    emitter: Emitter, lines: Lines
) -> None:
    emitter.emit()
    reading, writing = os.pipe()
    draft = emitter.begin({"name": "parent"})
    child = os.fork()
    if child == 0:
        draft.end()
        emitter.emit()
        os.write(writing, lines.getvalue().encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        of_child = [read(line) for line in pipe.read().splitlines()]
    os.waitpid(child, 0)
    emitter.emit()
    assert draft.end()

    before, own = of_child  # what was in its copy of the buffer, and its own
    assert own.src != before.src
    assert (own.seq, own.id != before.id) == (0, True)
    assert [record.seq for record in lines.records] == [0, 1, 2]
    assert len({record.src for record in lines.records}) == 1


SNAPSHOT = """
import sys, time
from snapshot_restore_py import get_after_restore
from tagline import Emitter

class Ending:
    aws_request_id = "r1"

    def get_remaining_time_in_millis(self):
        return 1_200

emitter = Emitter()
emitter.emit()
draft = emitter.begin(context=Ending())
for hook, arguments, keywords in get_after_restore():
    hook(*arguments, **keywords)
time.sleep(1.1)  # what was due before the snapshot is not due any more
draft.end()
emitter.emit()
"""


def test_an_environment_restored_from_a_snapshot_is_another_source() -> None:
    """As https://docs.aws.amazon.com/lambda/latest/dg/snapstart-runtime-hooks-python.html has it."""
    pytest.importorskip("snapshot_restore_py")
    lines = run(SNAPSHOT, AWS_LAMBDA_INITIALIZATION_TYPE="snap-start").splitlines()

    before, after = [read(line) for line in lines]
    assert before.src != after.src
    assert (before.seq, after.seq) == (0, 0)


RESTORED_TWICE = """
import os
from tagline import Emitter

Emitter().emit()  # what was drawn before the snapshot is in both copies of it
for name in "ab":
    if os.fork() == 0:
        Emitter().emit()
        os._exit(0)
    os.wait()
"""


def test_ids_are_never_in_two_copies_of_a_process() -> None:
    records = [read(line) for line in run(RESTORED_TWICE).splitlines()]

    assert len({record.id for record in records}) == len({record.src for record in records}) == 3


# --- other systems ----------------------------------------------------------------------------------------

ELSEWHERE = """
import os, sys, time
for name in ("register_at_fork", "fork", "fstat"):
    delattr(os, name)
sys.modules["fcntl"] = None  # an import of it fails
real = time.gmtime
def gmtime(seconds=None):
    if seconds is not None and seconds < 0:
        raise OSError(22, "Invalid argument")
    return real(seconds)
time.gmtime = gmtime
import tagline
from datetime import datetime, timezone

emitter = tagline.Emitter()
emitter.emit({"when": datetime(1960, 1, 1, tzinfo=timezone.utc)}, timestamp=datetime(1960, 1, 1))
with emitter.collect():
    tagline.add(n=1)
"""


@pytest.mark.parametrize("version", pythons())
def test_what_only_unix_has_is_needed_neither_at_import_nor_later(version: str) -> None:
    """As on Windows: no `os.register_at_fork`, no `fcntl`, no `time.gmtime` of a time before 1970."""
    done = subprocess.run(
        [pythons()[version], "-c", ELSEWHERE],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(EMITTER)},
    )

    assert (done.returncode, done.stderr) == (0, "")
    first, second = [read(line) for line in done.stdout.splitlines()]
    assert first.timestamp == -315_619_200_000
    assert second.fields["n"] == 1


def test_a_stream_that_cannot_be_locked_is_written_to_all_the_same() -> None:
    """As a pipe on macOS, whose descriptor has no record locks."""
    script = """
import fcntl
def refuse(*_):
    raise OSError(22, "Invalid argument")
fcntl.lockf = refuse
from tagline import Emitter
Emitter().emit({"n": 1})
"""
    (line,) = run(script).splitlines()

    assert json.loads(line)["n"] == 1
