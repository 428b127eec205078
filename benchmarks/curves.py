"""The curves of docs/how-to/tune-the-consumer.md: measured here, drawn, and written over the pictures there.

Runs only when it is named. It needs matplotlib.
"""

from __future__ import annotations

import importlib
import os
import statistics
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks import consume

PICTURES = Path(__file__).parents[1] / "docs" / "how-to" / "pictures"
LINES = (1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000)
PER_SECOND = (1, 10, 100, 1_000)
WINDOWS_S = (0, 1, 2, 5, 10, 20, 30, 60)
THREADS = (1, 2, 4, 8, 16, 32)
EVENT_LINES = (2_000, 5_000, 10_000, 20_000)
ROUNDS = 5

Curves = dict[str, list[tuple[float, float]]]


def run() -> dict[str, float]:
    """Measure, draw, and return what was measured."""
    with consume.servers() as ports, consume.environment():
        cost = by_batch_size(ports[0])
        speed = by_threads(ports)
    memory = by_event()
    window = by_window(cost)
    draw("batch-size", {"": cost}, "records in a batch", "CPU per record, µs", scale="log")
    draw("window", window, "batching window, s", "CPU per record, µs")
    draw("threads", speed, "requests at the same time", "rows per second")
    draw("memory", {"": memory}, "log events in a batch, half of them records", "peak beside the event, MiB")
    return (
        {f"cpu_us_of_{records:g}_records": cpu_us for records, cpu_us in cost}
        | {
            f"rows_per_s_{name}_{threads:g}": rate
            for name, points in speed.items()
            for threads, rate in points
        }
        | {f"peak_mib_of_{lines:g}_events": mib for lines, mib in memory}
    )


def by_batch_size(port: int) -> list[tuple[float, float]]:
    """Return the CPU per record of a whole invocation, by how many records it has."""
    consumer = consume.ours(port)
    points = []
    for records in LINES:
        event = consume.kinesis_event(10, records)
        times = max(1, 1_000 // records)

        def again(event: dict[str, Any] = event, times: int = times) -> None:
            for _ in range(times):
                consumer(event)

        cpus, _ = consume.rounds({"": again}, ROUNDS, records * times)
        points.append((float(records), statistics.median(cpus[""])))
    return points


def by_window(cost: list[tuple[float, float]]) -> Curves:
    """Return what a record costs by the batching window, at some rates: a batch has what comes in it."""
    return {
        f"{rate:,} records a second": [
            (float(seconds), _between(cost, max(1.0, rate * seconds))) for seconds in WINDOWS_S
        ]
        for rate in PER_SECOND
    }


def _between(points: list[tuple[float, float]], x: float) -> float:
    """Return a curve's value between the points where it was measured, and its last beyond."""
    for (x0, y0), (x1, y1) in pairwise(points):
        if x0 <= x <= x1:
            return y0 + (y1 - y0) * (x - x0) / (x1 - x0)
    return points[-1][1]


def by_threads(ports: dict[int, int]) -> Curves:
    """Return rows per second by requests at the same time, at two latencies of the store."""
    rows = consume.some_rows(3_200)
    curves: Curves = {}
    for milliseconds in consume.LATENCIES_MS[1:]:
        turns = {str(threads): consume.threaded(ports[milliseconds], threads, rows) for threads in THREADS}
        _, walls = consume.rounds(turns, ROUNDS, len(rows))
        curves[f"{milliseconds} ms a request"] = [
            (float(threads), 1e6 / statistics.median(walls[str(threads)])) for threads in THREADS
        ]
    return curves


def by_event() -> list[tuple[float, float]]:
    """Return how far an invocation's peak memory is above the process with its event. Linux only."""
    paths = os.pathsep.join(path for path in sys.path if path)
    return [
        (
            float(lines),
            float(
                subprocess.run(
                    [sys.executable, "-c", f"from benchmarks import curves; curves.consume_once({lines})"],
                    env=os.environ | {"PYTHONPATH": paths},
                    check=True,
                    capture_output=True,
                    text=True,
                ).stdout
            ),
        )
        for lines in EVENT_LINES
    ]


def consume_once(lines: int) -> None:
    """Consume one event in this process, and print by how many MiB its peak is above what it had before."""
    with consume.servers() as ports, consume.environment():
        consumer = consume.ours(ports[0])
        consumer(consume.kinesis_event(100, 100))
        event = consume.kinesis_event(100, lines // 2)
        # Forget the peak of making the event: https://man7.org/linux/man-pages/man5/proc_pid_clear_refs.5.html
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        before = _peak_kib()
        consumer(event)
        print((_peak_kib() - before) / 1024)


def _peak_kib() -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1])


def draw(
    name: str, curves: Curves, x: str, y: str, scale: str = "linear", *, folder: Path = PICTURES
) -> None:
    """Write curves as a picture whose text is text."""
    matplotlib: Any = importlib.import_module("matplotlib")
    matplotlib.use("svg")
    matplotlib.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "tagline", "font.size": 11}
    pyplot = importlib.import_module("matplotlib.pyplot")
    figure, axes = pyplot.subplots(figsize=(6.4, 3.6), layout="constrained")
    for label, points in curves.items():
        axes.plot(*zip(*points, strict=True), marker="o", label=label)
    axes.set(xlabel=x, ylabel=y, xscale=scale, yscale=scale)
    if scale == "linear":
        axes.set_ylim(bottom=0)
    axes.grid(visible=True, alpha=0.3)
    if len(curves) > 1:
        axes.legend()
    folder.mkdir(exist_ok=True)
    figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
    pyplot.close(figure)
