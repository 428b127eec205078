"""The pytest fixture `tagline_records`."""

from __future__ import annotations

from typing import Iterator

import pytest

from .record import Record
from .testing import capture


@pytest.fixture
def tagline_records() -> Iterator[list[Record]]:
    """Give the records that emitters wrote so far in this test; what they would swallow is raised."""
    with capture() as records:
        yield records
