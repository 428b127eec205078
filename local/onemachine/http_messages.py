"""Requests and responses, as they are on the wire."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Request:
    """A request as it came over the wire; header names in the order and spelling of the client."""

    method: str
    target: str
    headers: Sequence[tuple[str, str]]
    body: bytes
    source_ip: str
    protocol: str = "HTTP/1.1"

    def header(self, name: str) -> str | None:
        """Return the first value of a header, by its name in small letters; None without one."""
        return next((value for each, value in self.headers if each.lower() == name), None)


@dataclass(frozen=True)
class Response:
    """What goes back over the wire."""

    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes


def refusal(status: int, message: str) -> Response:
    """Return what API Gateway answers itself, as JSON."""
    body = json.dumps({"message": message}, separators=(",", ":")).encode()
    return Response(status, [("content-type", "application/json")], body)
