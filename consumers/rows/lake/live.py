"""The lake as the environment describes it."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from dataclasses import dataclass

from consumers.rows.clients import write_client
from consumers.rows.lake.writer import Lake
from consumers.settings import read_settings


@dataclass(frozen=True, slots=True)
class Settings:
    """The store's settings from the function's environment; docs/reference/settings.md."""

    bucket: str
    lake_days: int


def from_environment(environ: Mapping[str, str], connections: int) -> Lake:
    """Return the lake in the bucket that the environment names.

    Args:
        environ: The environment.
        connections: Requests at the same time.

    Raises:
        consumers.settings.SettingsError: If a setting is missing.
    """
    settings = read_settings(Settings, environ)
    return Lake(
        write_client("s3", connections),
        settings.bucket,
        kept_days=settings.lake_days,
        clock=time.time,
        sleep=time.sleep,
        jitter=random.random,
    )
