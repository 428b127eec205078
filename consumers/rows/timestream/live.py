"""Timestream as the environment describes it."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from dataclasses import dataclass

from consumers.rows.clients import write_client
from consumers.rows.timestream.writer import Timestream
from consumers.settings import read_settings


@dataclass(frozen=True, slots=True)
class Settings:
    """The store's settings from the function's environment; docs/reference/settings.md."""

    timestream_database: str
    timestream_table: str


def from_environment(environ: Mapping[str, str], connections: int) -> Timestream:
    """Return the table that the environment names.

    Args:
        environ: The environment.
        connections: Requests at the same time.

    Raises:
        consumers.settings.SettingsError: If a setting is missing.
    """
    settings = read_settings(Settings, environ)
    return Timestream(
        write_client("timestream-write", connections),
        settings.timestream_database,
        settings.timestream_table,
        sleep=time.sleep,
        jitter=random.random,
    )
