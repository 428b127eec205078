"""A stdout that can be read back."""

import io
from typing import Any

from tagline import Record, read

NOW = 1_763_632_800_123  # 2025-11-20T10:00:00.123Z


class Lines(io.StringIO):
    """A stdout that counts its writes."""

    def __init__(self) -> None:
        super().__init__()
        self.writes = 0

    def write(self, text: str, /) -> int:
        self.writes += 1
        return super().write(text)

    @property
    def records(self) -> list[Record]:
        return [read(line) for line in self.getvalue().splitlines()]

    @property
    def fields(self) -> dict[str, Any]:
        (record,) = self.records
        return dict(record.fields)
