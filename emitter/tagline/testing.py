"""For the tests of code that emits: `capture()`, and the pytest fixture `tagline_records`.

    def test_an_order_is_counted():
        with capture() as records:
            handler(event, context)
        assert records[0].fields["items"] == 3

With pytest, the fixture is there as soon as the emitter is installed; where the folder was copied, name it in
the `conftest.py`: `pytest_plugins = ["tagline.pytest_plugin"]`.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import Iterator

from . import output
from .record import Record

__all__ = ["capture"]


@contextmanager
def capture(*, strict: bool = True) -> Iterator[list[Record]]:
    """Collect the records of all emitters while a block runs, instead of writing their lines.

    It also collects those of emitters that `TAGLINE_DISABLED` switches off.

    Args:
        strict: Whether to raise what emitters would swallow, such as a field's hook that fails.
    """
    records: list[Record] = []

    def take(line: str) -> None:
        records.append(Record.from_line(line))

    before = output.is_strict
    output.captures.append(take)
    output.is_strict = strict
    try:
        yield records
    finally:
        output.captures.remove(take)
        output.is_strict = before
