"""Real servers with four workers on one pipe write every record once and whole, also when they stop."""

import threading
import time
from collections import defaultdict

import pytest
import tagline

from benchmarks.servers import SERVERS, WORKERS, Running, serving

# `python -m benchmarks servers` sends 10,000.
REQUESTS = 400
NEEDED = ("uvicorn", "gunicorn", "uvicorn_worker", "fastapi", "flask", "apig_wsgi", "aws_xray_sdk")


@pytest.fixture(autouse=True)
def installed() -> None:
    for module in NEEDED:
        pytest.importorskip(module)


def records(running: Running) -> list[tagline.Record]:
    """Return the records on the pipe; a line that is no whole record raises."""
    return [tagline.read(line.decode()) for line in list(running.lines) if b'"_tag"' in line]


@pytest.mark.parametrize("name", SERVERS)
def test_every_answer_leaves_one_whole_line_also_when_the_server_is_stopped(name: str) -> None:
    with serving(name) as running:
        for _ in range(20):
            running.ask(REQUESTS)
            # Flushed: the lines are on the pipe while the server still runs.
            until = time.monotonic() + 60
            while running.numbers["missing"] and time.monotonic() < until:
                time.sleep(0.05)
            assert running.numbers["missing"] == 0
            if len({record.src for record in records(running)}) > 1:  # the system may prefer one worker
                break
        clients = threading.Thread(target=running.ask, args=(100_000,))
        before = len(running.lines)
        clients.start()
        while len(running.lines) < before + 100:
            time.sleep(0.01)
        running.stop()
        clients.join()

    answered = running.numbers["answered"]
    assert answered > REQUESTS
    assert running.numbers == {"answered": answered, "missing": 0, "doubled": 0, "broken_lines": 0}
    written = records(running)
    assert len({record.id for record in written}) == len(written) >= answered
    sources: dict[str | None, list[int]] = defaultdict(list)
    for record in written:
        assert record.seq is not None
        sources[record.src].append(record.seq)
    assert 1 < len(sources) <= WORKERS
    for numbers in sources.values():  # no gap: nothing is lost
        assert sorted(numbers) == list(range(len(numbers)))
