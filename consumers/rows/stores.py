"""Which stores there are: a value of the setting `STORE` is the name of a package beside this module."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Final

from consumers.rows.store import Limits, Store
from consumers.settings import SettingsError

STORES: Final = ("timestream",)


def open_store(name: str, environ: Mapping[str, str], connections: int) -> Store[Any]:
    """Return a store that the environment describes.

    Args:
        name: One of `STORES`.
        environ: The environment, with the store's own settings.
        connections: Requests at the same time.

    Raises:
        SettingsError: If there is no such store, or its settings are missing.
    """
    if name not in STORES:
        raise SettingsError(f"STORE is {name!r}, not one of: {', '.join(STORES)}")
    store: Store[Any] = import_module(f"{__package__}.{name}.live").from_environment(environ, connections)
    return store


# What a row may have in every store, so that a column has the same name, and a record the same row, in each:
# tests/consumers/rows/test_store_contract.py holds all stores to it.
LIMITS: Final[Limits] = import_module(f"{__package__}.{STORES[0]}.limits").LIMITS
