"""The lake store: rows in fragments under `store/`, and in exported days. docs/reference/lake-store.md."""

from exporter.stores.lake.questions import from_environment, of_stack

__all__ = ["from_environment", "of_stack"]
