"""Errors of AWS's services: which of them pass."""

from __future__ import annotations

from http import HTTPStatus

from botocore.exceptions import ClientError

# What another try can fix, besides errors of the server.
_TRANSIENT_STATUSES = frozenset(
    [HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS]
)


def code(error: ClientError) -> str:
    """Return the service's word for an error; empty if the answer does not have one.

    botocore then puts the HTTP status there, or nothing.
    """
    word = str(error.response.get("Error", {}).get("Code", ""))
    return "" if word.isdigit() else word


def is_transient(error: ClientError) -> bool:
    """Return whether an error is transient, by its HTTP status.

    An answer without the service's own words is one: it was cut off, or comes from something in between.
    """
    return not code(error) or is_transient_status(status(error))


def status(error: ClientError) -> int:
    """Return the HTTP status of an error, 0 if it has no status."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def is_transient_status(status: int) -> bool:
    """Return whether an answer with a status can be another the next time."""
    return status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _TRANSIENT_STATUSES
