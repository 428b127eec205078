"""The registry of stores, and the limits of a row in all of them."""

from __future__ import annotations

from importlib import import_module
from typing import Final

from consumers.rows.limits import Limits

# The values of the setting `STORE`. Each is the name of a package beside this module, whose `live.py` has
# `from_environment`, and of a module of exporter/stores/, which has `from_environment` and `of_stack`.
# The first is the default, and the store of stacks that do not name theirs.
STORES: Final = ("timestream",)

# What a row may have in every store, so that a column has the same name, and a record the same row, in each:
# tests/consumers/rows/test_store_contract.py holds all stores to it.
LIMITS: Final[Limits] = import_module(f"{__package__}.{STORES[0]}.limits").LIMITS
