"""The lake as the environment describes it."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.config import Config

from consumers.rows.lake.writer import Lake
from consumers.settings import read_settings


@dataclass(frozen=True, slots=True)
class Settings:
    """What the function's environment says of the store; docs/reference/settings.md."""

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
        s3_client(connections),
        settings.bucket,
        kept_days=settings.lake_days,
        clock=time.time,
        sleep=time.sleep,
        jitter=random.random,
    )


def s3_client(connections: int) -> Any:
    """Return a client for as many requests at the same time, from the environment."""
    return boto3.client(
        "s3",
        config=Config(
            # The writer retries, within the time that the invocation has left.
            retries={"total_max_attempts": 1},
            connect_timeout=2,
            read_timeout=20,
            max_pool_connections=max(10, connections),
            # The writer makes all parameters, and the service checks them.
            parameter_validation=False,
        ),
    )
