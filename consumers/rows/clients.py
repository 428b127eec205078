"""The client with which a store writes."""

from __future__ import annotations

from typing import Any

import boto3
from botocore.config import Config


def write_client(service: str, connections: int) -> Any:
    """Return a client that leaves to the store what the store does itself.

    Args:
        service: The service, as boto3 calls it.
        connections: Requests at the same time.
    """
    return boto3.client(
        service,
        config=Config(
            # The store retries, within the time that the invocation has left.
            retries={"total_max_attempts": 1},
            connect_timeout=2,
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
