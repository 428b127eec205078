"""The registry of stores, and the limits of a row in all of them."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Final

from consumers.rows.limits import Limits, strictest

# The values of the setting `STORE`: the packages beside this module. The `live.py` of each has
# `from_environment`; exporter/stores/ has a module of the same name with `from_environment` and `of_stack`.
STORES: Final = tuple(module.name for module in iter_modules([str(Path(__file__).parent)]) if module.ispkg)

# The one of them that runs on one machine unless another is named: the store that this project was begun for.
LOCAL_STORE: Final = "timestream"

# What a row may have in every store, so that a column has the same name, and a record the same row, in each:
# tests/consumers/rows/test_store_contract.py holds all stores to it.
LIMITS: Final[Limits] = strictest([import_module(f"{__package__}.{name}.limits").LIMITS for name in STORES])
