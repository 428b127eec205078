"""Whole records: where the consumer keeps a record that was too long for the store. Pure."""

from __future__ import annotations

from typing import TypeGuard

PREFIX = "overflow/"


def is_whole_record(key: str | None) -> TypeGuard[str]:
    """Tell whether a row's `_overflow`, which can come from outside, may be the key of a whole record."""
    return key is not None and key.startswith(PREFIX)
