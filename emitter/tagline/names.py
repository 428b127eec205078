"""Names of the user's fields, beside the keys of the format."""

from __future__ import annotations

RESERVED = frozenset(["timestamp", "level"])


def field_key(name: str) -> str:
    """Return the key of a user's field on the line: a name of the format's gets `_` appended.

    So does a name that this rule made, which keeps it reversible: `level` is `level_`, `level_` is `level__`.
    """
    return name + "_" if name.startswith("_") or name.rstrip("_") in RESERVED else name


def field_name(key: str) -> str:
    """Return the user's name of a field by its key on the line: the inverse of `field_key`."""
    return key[:-1] if key.endswith("_") and (key.startswith("_") or key.rstrip("_") in RESERVED) else key
