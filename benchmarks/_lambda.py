"""The consumer as Lambda runs it: its own runtime client, and no more of a processor than its memory brings.

Lambda gives a function processor time in proportion to its memory, one processor at 1,769 MB. Here a process
that has had its share of 20 ms is stopped until they are over. What it has had is read from its own clock;
what it had too much is taken from the next 20 ms. Linux only.
https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from onemachine.functions import Function, Functions

from benchmarks import consume

ROOT = Path(__file__).parents[1]
MB_PER_PROCESSOR = 1_769
PERIOD_S = 0.02
LOOK_S = 0.0005
# Of the share, in all: a look comes late where something else has the processor.
MOST_OF_THE_SHARE = 1.1
MOST_MEMORY_MB = 10_240


@dataclass(frozen=True, slots=True)
class Report:
    """What Lambda's REPORT line says of an invocation.

    Attributes:
        ms: Its duration.
        memory_mb: The most memory that its environment has had, since it was started.
    """

    ms: float
    memory_mb: float


class Consumer:
    """The consumer's function, of which there may be several environments.

    Args:
        port: Where Timestream and S3 answer.
        environments: How many there are; all are warm from here on.
        threads: Requests to Timestream that each has under way at the same time.
    """

    name = "consumer"

    def __init__(self, port: int, environments: int = 1, threads: int = 8) -> None:
        before = _children()
        here = f"http://127.0.0.1:{port}"
        self.functions = Functions(
            lambda *_: None,
            {
                "AWS_ACCESS_KEY_ID": "x",
                "AWS_SECRET_ACCESS_KEY": "x",
                "AWS_ENDPOINT_URL_TIMESTREAM_WRITE": here,
                "AWS_ENDPOINT_URL_S3": here,
            },
            concurrency=environments,
        )
        self.functions.add(
            Function(
                name=self.name,
                handler="consumers.rows.handler.handler",
                memory_mb=MOST_MEMORY_MB,
                timeout_s=900,
                environment=consume.SETTINGS | {"WRITE_THREADS": str(threads)},
                log_group="/aws/lambda/consumer",
                code=ROOT,
                path=(ROOT / "emitter", *(Path(path) for path in sys.path if path)),
            )
        )
        # So many invocations at once need an environment each, because none is there before they begin.
        payload = json.dumps(consume.kinesis_event(100, 500)).encode()
        with ThreadPoolExecutor(environments) as pool:
            list(pool.map(lambda _: self.invoke(payload), range(environments)))
        self.processes = sorted(_children() - before)
        if len(self.processes) != environments:
            raise RuntimeError(f"{len(self.processes)} processes for {environments} environments")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.functions.stop()

    def invoke(self, payload: bytes) -> Report:
        """Consume an event, all of which has to be stored."""
        result = self.functions.invoke(self.name, payload, tail=True)
        if result.error or json.loads(result.payload) != {"batchItemFailures": []}:
            raise RuntimeError(result.payload.decode())
        said = re.search(rb"\tDuration: ([\d.]+) ms\t.*Max Memory Used: (\d+) MB", result.tail)
        if said is None:
            raise RuntimeError(result.tail.decode())
        return Report(float(said[1]), float(said[2]))

    @contextlib.contextmanager
    def held(self, memory_mb: int) -> Iterator[None]:
        """Give each environment the share of a processor that so much memory brings.

        Raises:
            RuntimeError: One has had more than that.
        """
        share = memory_mb / MB_PER_PROCESSOR
        script = "import sys; from benchmarks import _lambda; _lambda.hold(*map(float, sys.argv[1:]))"
        arguments = [sys.executable, "-c", script, str(share), *map(str, self.processes)]
        with subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=_with_our_path()
        ) as holder:
            assert holder.stdout is not None
            assert holder.stdin is not None
            holder.stdout.readline()
            used, began = [seconds_of(pid) for pid in self.processes], time.monotonic()
            try:
                yield
            finally:
                took = time.monotonic() - began
                most = max(seconds_of(pid) - before for pid, before in zip(self.processes, used, strict=True))
                holder.stdin.close()
        if most > share * (took + PERIOD_S) * MOST_OF_THE_SHARE:
            raise RuntimeError(f"{most:.3f} s of processor time in {took:.3f} s, for {memory_mb} MB")


def hold(share: float, *processes: float) -> None:
    """Stop processes that have had their share, until this one's standard input ends."""
    debts = {int(pid): 0.0 for pid in processes}
    print("holding", flush=True)
    try:
        while True:
            until = time.monotonic() + PERIOD_S
            began = {pid: seconds_of(pid) for pid in debts}
            running = set(debts)
            for pid in debts:
                os.kill(pid, signal.SIGCONT)
            while time.monotonic() < until:
                for pid in sorted(running):
                    if seconds_of(pid) - began[pid] >= share * PERIOD_S - debts[pid]:
                        os.kill(pid, signal.SIGSTOP)
                        running.remove(pid)
                if select.select([sys.stdin], [], [], LOOK_S)[0]:
                    return
            for pid, debt in debts.items():
                debts[pid] = max(0.0, debt + seconds_of(pid) - began[pid] - share * PERIOD_S)
    finally:
        for pid in debts:
            os.kill(pid, signal.SIGCONT)


def seconds_of(pid: int) -> float:
    """Return the processor time that a process has had, of all its threads.

    https://man7.org/linux/man-pages/man3/clock_getcpuclockid.3.html
    """
    scheduled = 2  # which of its three clocks
    return time.clock_gettime((~pid << 3) | scheduled)


def _children() -> set[int]:
    """Return the processes that this one has started.

    https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html
    """
    found = set()
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended
            _, _, rest = status.read_text(encoding="utf-8", errors="replace").rpartition(")")
            if int(rest.split()[1]) == os.getpid():
                found.add(int(status.parent.name))
    return found


def _with_our_path() -> dict[str, str]:
    paths = [str(ROOT), *(path for path in sys.path if path)]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
