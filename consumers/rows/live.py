"""The store that the environment names."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from consumers.rows.registry import STORES
from consumers.rows.store import Store
from consumers.settings import SettingsError

# Imported with this module: the start of an environment gets more of a processor than its first invocation.
_IMPORTED = {
    name: import_module(f"{__package__}.{name}.live") for name in STORES if name == os.environ.get("STORE")
}


def open_store(name: str, environ: Mapping[str, str], connections: int) -> Store[Any]:
    """Return a store that the environment describes.

    Args:
        name: One of `STORES`.
        environ: The environment, with the store's own settings.
        connections: Requests at the same time.

    Raises:
        SettingsError: If no store has this name, or its settings are missing.
    """
    if name not in STORES:
        raise SettingsError(f"STORE is {name!r}, not one of: {', '.join(STORES)}")
    # Functions of one process have their own modules, which only this import has found.
    live = _IMPORTED.get(name) or import_module(f"{__package__}.{name}.live")
    store: Store[Any] = live.from_environment(environ, connections)
    return store
