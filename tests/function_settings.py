"""Which environment variables each function reads: its own settings, and those of the store that it uses."""

import importlib
from dataclasses import fields
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# A store is created by what uses it, from settings beside it.
STORES = {
    "exporter/export": ("exporter/stores",),
    # It writes rows again, too.
    "exporter/upkeep": ("exporter/stores", "consumers/rows/lake", "consumers/rows/timestream"),
    "exporter/usage": ("exporter/stores",),
}


def settings_classes(handler: str) -> dict[str, type]:
    """Return the classes `Settings` that a function reads, by the module that declares each.

    Args:
        handler: The function's handler as the template names it, such as `consumers.rows.handler.handler`.
    """
    folder = "/".join(handler.split(".")[:-2])
    found: dict[str, type] = {}
    for place in (folder, *STORES.get(folder, ())):
        for path in sorted((ROOT / place).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            kind = getattr(importlib.import_module(name), "Settings", None)
            if kind is not None and kind.__module__ == name:
                found[name] = kind
    return found


def variables(handler: str) -> set[str]:
    """Return the names of the environment variables that a function reads into its settings."""
    return {field.name.upper() for kind in settings_classes(handler).values() for field in fields(kind)}
