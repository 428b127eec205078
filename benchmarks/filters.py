"""How many log lines a filter pattern decides on in a second.

The lines are what an API writes: records of the emitter of about 500 bytes, one in four with an error, and
one in four of another kind.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

from onemachine.filter_pattern import compiled

TERM_PATTERN = '"usage_record"'
JSON_PATTERN = '{ $._tag = "usage_record" && $.status >= 500 }'
LINES = 20_000
REPEATS = 5


def run() -> dict[str, float]:
    """Return lines per second, the best of some runs, for a quoted term and for a JSON pattern."""
    lines = [_line(number) for number in range(LINES)]
    return {
        "filter_term_lines_per_s": _rate(TERM_PATTERN, lines),
        "filter_json_lines_per_s": _rate(JSON_PATTERN, lines),
    }


def _rate(pattern: str, lines: Sequence[str]) -> float:
    select = compiled(pattern).matches
    seconds = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        found = sum(map(select, lines))
        seconds.append(time.perf_counter() - started)
        assert 0 < found < len(lines), found
    return len(lines) / min(seconds)


def _line(number: int) -> str:
    record = {
        "_tag": "usage_record" if number % 4 else "access",
        "timestamp": "2026-11-20T09:00:00.123Z",
        "level": "INFO",
        "_type": "api_request",
        "_id": f"{number:032x}",
        "_src": "2026/11/20/[$LATEST]26b6a3e5f9c94a0e8a2f4f3f5b1d7c90",
        "_seq": number,
        "route": "/orders/{id}/items",
        "method": "GET",
        "status": 503 if number % 4 == 1 else 200,
        "duration_ms": 12.5 + number % 100,
        "client": f"customer-{number % 50}",
        "request_id": "025f281a-7d0c-4f5e-9d2b-3f6f0f5b8a11",
        "user_agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko)",
        "items_count": 7,
    }
    return json.dumps(record, separators=(",", ":"))
