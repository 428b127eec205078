"""Calls that nothing stands for on one machine: an error in the form of the service, never a page of HTML.

The forms are those of https://smithy.io/2.0/aws/protocols/index.html.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any
from xml.sax.saxutils import escape

import botocore.session

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

CODE = "NotImplemented"
_SIGNED_FOR = re.compile(r"Credential=[^/,\s]+/\d{8}/[^/]+/([^/]+)/aws4_request")
_PAGE = b"<!doctype html"


class KnownErrors:
    """Turns pages and exceptions of a web application into errors that AWS's clients understand.

    Args:
        application: What stands for the services.
    """

    def __init__(self, application: Application) -> None:
        self._application = application

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer a request."""
        started: list[tuple[str, list[tuple[str, str]]]] = []

        def start(status: str, headers: list[tuple[str, str]], *_: Any) -> None:
            started.append((status, headers))

        try:
            body = self._application(environ, start)
        # Whatever it is, the client gets an answer, and the terminal no traceback.
        except Exception:  # noqa: BLE001
            return _refuse(environ, start_response)
        status, headers = started[-1]
        if status >= "4":
            # Some errors that clients read have the type of a page: what they are shows in their text.
            body = [b"".join(body)]
            if body[0].lstrip()[: len(_PAGE)].lower() == _PAGE:
                return _refuse(environ, start_response)
        start_response(status, headers)
        return body


def _refuse(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    signed = _SIGNED_FOR.search(environ.get("HTTP_AUTHORIZATION", ""))
    target = environ.get("HTTP_X_AMZ_TARGET", "")
    service = signed[1] if signed else "this service"
    operation = target.rpartition(".")[2] or f"{environ['REQUEST_METHOD']} {environ.get('PATH_INFO', '/')}"
    message = (
        f"nothing stands for {operation} of {service} on this machine;"
        " docs/reference/differences.md says what differs from AWS"
    )
    if _protocol(service) in {"query", "ec2", "rest-xml"}:
        kind = "text/xml"
        inner = f"<Error><Code>{CODE}</Code><Message>{escape(message)}</Message></Error>"
        text = inner if _protocol(service) == "rest-xml" else f"<ErrorResponse>{inner}</ErrorResponse>"
    else:
        kind = "application/x-amz-json-1.1" if target else "application/json"
        text = json.dumps({"__type": CODE, "message": message})
    body = text.encode()
    start_response(
        "501 Not Implemented",
        [("content-type", kind), ("content-length", str(len(body))), ("x-amzn-errortype", CODE)],
    )
    return [body]


@cache
def _protocol(service: str) -> str:
    """Return the protocol of the service that requests are signed for; json for an unknown one."""
    session = botocore.session.get_session()
    for name in session.get_available_services():
        if name == service:
            return str(session.get_service_model(name).protocol)
    return "json"
