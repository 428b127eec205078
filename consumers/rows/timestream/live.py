"""Timestream as the environment describes it."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.config import Config

from consumers.rows.timestream.writer import Timestream
from consumers.settings import read_settings


@dataclass(frozen=True, slots=True)
class Settings:
    """What the function's environment says of the store; docs/reference/settings.md."""

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
        write_client(connections),
        settings.timestream_database,
        settings.timestream_table,
        sleep=time.sleep,
        jitter=random.random,
    )


def write_client(connections: int) -> Any:
    """Return a client for as many requests at the same time, from the environment."""
    return boto3.client(
        "timestream-write",
        config=Config(
            # The writer retries, within the time that the invocation has left.
            retries={"total_max_attempts": 1},
            connect_timeout=5,
            read_timeout=20,
            # Else threads close connections that others have to open again.
            max_pool_connections=max(10, connections),
            # The mapping makes what is sent and the service judges it: checking it here as well takes
            # half of the consumer's time.
            parameter_validation=False,
            # Else botocore puts one together, twice for every request.
            user_agent=f"Boto3/{boto3.__version__} Tagline",
        ),
    )
