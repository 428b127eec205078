"""The order of the lake's columns: a new column comes last, and none ever moves."""

from __future__ import annotations

import json
from collections.abc import Iterable

from consumers.bucket import Objects
from consumers.documents import load, stamped
from exporter.lake.manifest import STATE, columns_from_json, columns_to_json
from exporter.store import FIRST_COLUMNS, Column, extended

KEY = f"{STATE}columns.json"
# Version 1 was the list alone.
_VERSION = 2
_TRIES = 20


def lake_columns(objects: Objects) -> tuple[Column, ...]:
    """Return the columns of the lake's newest files."""
    found = objects.read(KEY)
    return FIRST_COLUMNS if found is None else _from_json(found[0])


def extend_lake_columns(objects: Objects, found: Iterable[Column]) -> tuple[Column, ...]:
    """Add columns to the lake's unless it has them, and return all in their order.

    A table over CSV goes by position: it would read a column that moved under the name of another.

    Raises:
        OSError: If other runs keep changing the columns.
    """
    found = tuple(found)
    for _ in range(_TRIES):
        kept = objects.read(KEY)
        known = FIRST_COLUMNS if kept is None else _from_json(kept[0])
        columns = extended(known, found)
        if kept is not None and columns == known:
            return columns
        document = stamped({"columns": columns_to_json(columns)}, _VERSION)
        if objects.replace(KEY, json.dumps(document, indent=1).encode() + b"\n", kept and kept[1]):
            return columns
    raise OSError(f"{KEY} was changed by others {_TRIES} times in a row")


def _from_json(document: bytes) -> tuple[Column, ...]:
    if document.startswith(b"["):
        return columns_from_json(json.loads(document))
    return columns_from_json(load(document, _VERSION, KEY)["columns"])
