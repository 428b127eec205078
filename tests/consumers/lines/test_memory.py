"""The worst events that can reach a consumer, each in a process of its own that is measured."""

import json
import subprocess
import sys

import pytest

# The default of ConsumerMemoryMB, and what the meter consumer has; docs/reference/decoding.md has the limits.
ROWS_MB, METERS_MB = 512, 1024


@pytest.mark.parametrize(
    ("name", "consumer", "limit", "whole"),
    [
        ("refused", "rows", ROWS_MB, 4),
        ("parsed", "rows", ROWS_MB, 0),
        ("rejected", "rows", ROWS_MB, 1),
        ("parsed", "lake", ROWS_MB, 0),
        ("many", "lake", ROWS_MB, 0),
        ("meters", "meters", METERS_MB, 0),
    ],
)
def test_the_worst_events_fit_into_the_functions_memory(
    name: str, consumer: str, limit: int, whole: int
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.consumers.lines.worst_events", name, consumer],
        capture_output=True,
        text=True,
        check=True,
    )

    measured = json.loads(done.stdout.splitlines()[-1])
    assert measured["peak"] < limit
    # What is refused is in quarantine, and a batch that is cut ends.
    assert measured["quarantined"].get("undecodable", 0) == whole
