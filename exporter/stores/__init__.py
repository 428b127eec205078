"""Adapters of the asking port, a file for each store of the registry; a setting names one of them."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from consumers.rows.registry import STORES
from consumers.settings import SettingsError
from exporter.store import BillingStore, SqlStore


def store_of_function(kind: str, environ: Mapping[str, str], client: Callable[..., Any]) -> BillingStore:
    """Return the store that a function asks.

    Args:
        kind: The setting STORE.
        environ: The function's environment, which has the store's own settings.
        client: Gives a boto3 client by a service's name.

    Raises:
        SettingsError: If the store is unknown, or one of its settings is missing.
    """
    store: BillingStore = _adapter(kind).from_environment(environ, client)
    return store


def store_of_stack(kind: str, outputs: Mapping[str, str], client: Callable[[str], Any]) -> SqlStore:
    """Return the store of a stack.

    Args:
        kind: A value of the setting STORE.
        outputs: The stack's outputs.
        client: Gives a boto3 client by a service's name.

    Raises:
        SettingsError: If the store is unknown.
    """
    store: SqlStore = _adapter(kind).of_stack(outputs, client)
    return store


def _adapter(kind: str) -> Any:
    if kind not in STORES:
        raise SettingsError(f"STORE is {kind!r}; the stores are {', '.join(STORES)}")
    return importlib.import_module(f"{__package__}.{kind}")
