"""One clock for everything on this machine."""

import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from onemachine.clock import OFFSET, Clock


@pytest.fixture
def clock() -> Iterator[Clock]:
    made = Clock()
    yield made
    made.stop()


def test_the_clock_is_put_to_a_time_and_goes_on_from_there(clock: Clock) -> None:
    at = datetime(2031, 5, 17, 10, tzinfo=UTC)

    clock.put(at)
    first = time.time_ns()
    second = time.time_ns()

    assert timedelta() <= datetime.now(UTC) - at < timedelta(minutes=1)
    assert second > first


def test_steps_add_up_and_end_with_the_clock(clock: Clock) -> None:
    real = time.monotonic(), time.time()

    clock.advance(timedelta(days=1))
    clock.advance(timedelta(days=2))
    ahead = time.time() - real[1] - (time.monotonic() - real[0])
    clock.stop()

    assert 3 * 86_400 - 60 < ahead < 3 * 86_400 + 60
    assert abs(time.time() - real[1] - (time.monotonic() - real[0])) < 60


def test_a_process_follows_by_its_environment(clock: Clock) -> None:
    clock.advance(timedelta(days=365))
    script = "from onemachine.clock import follow; follow(); import time; print(time.time())"

    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**clock.environment(), "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )

    assert abs(float(done.stdout) - time.time()) < 3_600


def test_the_real_time_needs_no_variable(clock: Clock) -> None:
    assert clock.environment() == {}
    clock.advance(timedelta(hours=1))
    assert clock.environment() == {OFFSET: "3600.0"}
