"""Adapters of the asking port, one file per store."""
