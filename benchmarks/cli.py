"""The command line: how soon it answers, and how long the demonstration takes, in processes of their own.

`*_s` are seconds as a person waits, the best of some runs; `*_cpu_s` are seconds of processors, which other
programs on the machine change less. The demonstration runs in a terminal.
"""

import os
import pty
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

TAGLINE = [sys.executable, "-m", "tagline_pipeline"]
HELPS, QUERIES = 7, 7


def run() -> dict[str, float]:
    """Return the seconds of `--help`, of `query` with a pipeline that runs, and of `demo`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        numbers = best("help", folder, HELPS, "--help")
        with pipeline(folder):
            numbers |= best("query", folder, QUERIES, "query", "SELECT count(*) AS n FROM {table}")
        before = processor_s()
        first, whole = demo(folder)
        computed = processor_s() - before
    return {**numbers, "demo_first_output_s": first, "demo_s": whole, "demo_cpu_s": computed}


def best(name: str, folder: Path, times: int, *arguments: str) -> dict[str, float]:
    """Return the least seconds that a command took, after a first run that does not count."""
    waited, computed = [], []
    for _ in range(times + 1):
        began, before = time.monotonic(), processor_s()
        subprocess.run([*TAGLINE, *arguments], cwd=folder, check=True, capture_output=True)
        waited.append(time.monotonic() - began)
        computed.append(processor_s() - before)
    return {f"{name}_s": min(waited[1:]), f"{name}_cpu_s": min(computed[1:])}


def processor_s() -> float:
    """Return the seconds of processors that ended child processes have used."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@contextmanager
def pipeline(folder: Path) -> Iterator[None]:
    """Run a pipeline in a folder for as long as the block takes."""
    process = subprocess.Popen(
        [*TAGLINE, "up", "--in-process"], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        assert process.stdout is not None
        while b"Stop it" not in (line := process.stdout.readline()):
            assert line, "the pipeline ended"
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate()


def demo(folder: Path) -> tuple[float, float]:
    """Return after how many seconds the demonstration first prints something, and ends."""
    ours, its = pty.openpty()
    began = time.monotonic()
    process = subprocess.Popen([*TAGLINE, "demo"], cwd=folder, stdin=its, stdout=its, stderr=its)
    os.close(its)
    os.read(ours, 1)
    first = time.monotonic() - began
    with suppress(OSError):  # the terminal is gone with its last process
        while os.read(ours, 65_536):
            pass
    os.close(ours)
    if process.wait():
        raise RuntimeError("the demonstration failed")
    return first, time.monotonic() - began
