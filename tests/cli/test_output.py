"""`tagline feed --lines`: a program's output becomes rows while the program runs."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest
from onemachine.faults import Kind
from onemachine.pipeline import Pipeline

from cli.access_logs.files import MAX_LINE
from cli.access_logs.requests import Unreadable
from cli.apps import tagline_with_samples
from cli.errors import CommandError
from cli.output import BATCH, BATCH_BYTES, Sent, batches, send_lines
from cli.target import target_of, write_running

WITHIN_S = 120


def record(number: int) -> str:
    return json.dumps({"_tag": "usage_record", "_id": f"r{number}", "number": number}) + "\n"


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def never(line: Unreadable) -> None:
    raise AssertionError(line)


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


def test_a_record_is_a_row_while_the_program_runs(tagline: Pipeline, pipe: Path) -> None:
    target = target_of(tagline)
    store = target.store()
    results: list[Sent] = []
    sending = threading.Thread(
        target=lambda: results.append(send_lines(target, pipe, threading.Event(), never)), daemon=True
    )
    sending.start()
    with pipe.open("w") as program:
        for number in range(2):
            target.act("fault", kind=Kind.THROTTLE, service="logs", operation="PutLogEvents", times=2)
            program.write(f"hello\n\n{record(number)}")
            program.flush()
            until(lambda expected=number + 1: store.count() == expected)  # type: ignore[misc]
        program.write("the last line has no end: usage_record")
    sending.join(WITHIN_S)

    assert results == [Sent(lines=5, marked=2)]


def test_what_was_sent_is_counted_when_the_pipeline_is_gone(
    pipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cli.output.ATTEMPTS", 1)
    problems: list[str] = []

    def send() -> None:
        try:
            send_lines(target, pipe, threading.Event(), never)
        except CommandError as error:
            problems.append(str(error))

    with Pipeline(tagline_with_samples(), in_process=True) as pipeline:
        target = target_of(pipeline)
        store = target.store()
        sending = threading.Thread(target=send, daemon=True)
        sending.start()
        program = pipe.open("w")
        program.write(record(0))
        program.flush()
        until(lambda: store.count() == 1)
    program.write(record(1))
    program.close()
    sending.join(WITHIN_S)

    (problem,) = problems
    assert "the pipeline is gone after 1 lines" in problem


def first_batch(tmp_path: Path, content: bytes) -> list[str]:
    path = tmp_path / "output"
    path.write_bytes(content)
    return next(batches(path, threading.Event(), never))


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"a\nb\r\n\n \nc", ["a", "b", "c"]),
        (gzip.compress(b"a\nb\n", mtime=0), ["a", "b"]),
        ("é\nb\n".encode("utf-16"), ["é", "b"]),
        (b"\xef\xbb\xbfa\n", ["a"]),
        (b"\xff\n", ["\ufffd"]),
    ],
)
def test_output_is_read_in_every_packing_and_encoding(
    content: bytes, lines: list[str], tmp_path: Path
) -> None:
    assert first_batch(tmp_path, content) == lines


def test_batches_are_as_large_as_a_call_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.output.BATCH_S", 60.0)
    assert len(first_batch(tmp_path, b"a\n" * (BATCH + 1))) == BATCH
    large = "\N{SMILING FACE WITH SUNGLASSES}" * MAX_LINE
    assert len(first_batch(tmp_path, f"{large}\n{large}\n".encode())) == 1
    assert len(first_batch(tmp_path, (b"a" * 99_974 + b"\n") * 20)) == BATCH_BYTES // 100_000


def test_what_cannot_be_sent_is_reported_with_its_number(tmp_path: Path) -> None:
    path, reported = tmp_path / "output.gz", list[Unreadable]()
    path.write_bytes(gzip.compress(b"a\n" + b"x" * (MAX_LINE + 1) + b"\nb\n")[:-4])

    assert [*batches(path, threading.Event(), reported.append)] == [["a", "b"]]
    assert [(line.number, line.reason.partition(":")[0]) for line in reported] == [
        (2, "longer than 250,000 characters"),
        (4, "the packed file is damaged"),
    ]
    with pytest.raises(CommandError, match="nothing: No such file"):
        next(batches(tmp_path / "nothing", threading.Event(), never))


def test_what_was_read_is_sent_when_it_is_stopped(pipe: Path) -> None:
    stopped = threading.Event()
    found = batches(pipe, stopped, never)

    def program() -> None:
        with pipe.open("w") as output:
            output.write("a\nb\n")
            output.flush()
            assert stopped.wait(WITHIN_S)
            ended.wait(WITHIN_S)

    ended = threading.Event()
    running = threading.Thread(target=program)
    running.start()
    lines = next(found)
    while len(lines) < 2:
        lines += next(found)
    stopped.set()
    assert ([*found], lines) == ([], ["a", "b"])
    ended.set()
    running.join(WITHIN_S)


def read_until(stream: IO[bytes], text: bytes) -> None:
    for line in stream:
        if text in line:
            return
    pytest.fail(f"it ended without {text!r}")


def test_what_a_program_writes_after_ctrl_c_is_sent_too(
    tagline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    target = target_of(tagline)
    write_running(target)
    store = target.store()
    process = subprocess.Popen(
        [sys.executable, "-m", "tagline_pipeline", "feed", "--lines", "-"],
        env={**os.environ, "NO_COLOR": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stderr is not None
    process.stdin.write(record(0).encode())
    process.stdin.flush()
    until(lambda: store.count() == 1)
    process.send_signal(signal.SIGINT)
    read_until(process.stderr, b"Waiting for the program's end")
    process.stdin.write((record(1) + record(2)[:10]).encode())
    out, _ = process.communicate(timeout=WITHIN_S)

    assert out.decode().splitlines() == [
        "lines sent: 3, with the tag: 2",
        "more rows in Timestream: 2, more lines in quarantine: 0",
    ]
    assert process.returncode == 0
