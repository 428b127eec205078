"""What a request on the wire asks for, and errors in the form of its service.

The forms are those of https://smithy.io/2.0/aws/protocols/index.html.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any
from xml.sax.saxutils import escape

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]

# The service is in the scope of a request's signature.
# https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
_SCOPE = re.compile(r"Credential=[^/]+/\d{8}/[^/]+/([^/]+)/aws4_request|/\d{8}/[^/]+/([^/]+)/aws4_request")


def asked(environ: Environ) -> tuple[str, str]:
    """Return the service and the operation that a request asks for; empty if it has none."""
    signed = environ.get("HTTP_AUTHORIZATION", "") + environ.get("QUERY_STRING", "").replace("%2F", "/")
    scope = _SCOPE.search(signed)
    service = (scope[1] or scope[2]) if scope else ""
    target = environ.get("HTTP_X_AMZ_TARGET", "")
    return service, target.rpartition(".")[2] if target else environ["REQUEST_METHOD"]


def sends_form(environ: Environ) -> bool:
    """Tell whether a request is of AWS's oldest protocol: a form in, XML out."""
    return bool(environ.get("CONTENT_TYPE", "").startswith("application/x-www-form-urlencoded"))


def refuse(
    environ: Environ, start_response: StartResponse, status: str, code: str, message: str
) -> Iterable[bytes]:
    """Answer a request with an error: XML for forms and from services like S3, otherwise JSON.

    Args:
        environ: The request.
        start_response: Takes the status and the headers.
        status: The status line, such as `400 Bad Request`.
        code: The error's code, such as `ThrottlingException`.
        message: Its message.
    """
    error = f"<Error><Code>{code}</Code><Message>{escape(message)}</Message></Error>"
    if sends_form(environ):
        content_type, text = "text/xml", f"<ErrorResponse>{error}</ErrorResponse>"
    elif _protocol(asked(environ)[0]) == "rest-xml":
        content_type, text = "application/xml", error
    else:
        content_type = "application/x-amz-json-1.1"
        text = json.dumps({"__type": code, "message": message})
    body = text.encode()
    start_response(
        status,
        [("content-type", content_type), ("content-length", str(len(body))), ("x-amzn-errortype", code)],
    )
    return [body]


@cache
def _protocol(service: str) -> str:
    """Return the protocol of the service that requests are signed for; json for an unknown one."""
    # A command that only lists the kinds of faults does not wait for botocore.
    import botocore.session  # noqa: PLC0415

    session = botocore.session.get_session()
    known = service in session.get_available_services()
    return str(session.get_service_model(service).protocol) if known else "json"
