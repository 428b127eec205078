"""Which settings a function reads: its handler's, and those of the stores that it can write to."""

from dataclasses import fields
from importlib import import_module
from typing import Any

from consumers.rows.stores import STORES


def classes(handler: str) -> list[Any]:
    """Return the settings classes of a handler's module."""
    module = import_module(handler)
    stores = STORES if hasattr(module, "open_store") else ()
    return [module.Settings, *(import_module(f"consumers.rows.{name}.live").Settings for name in stores)]


def names(handler: str) -> set[str]:
    """Return the environment variables that a handler's module reads."""
    return {field.name.upper() for settings in classes(handler) for field in fields(settings)}
