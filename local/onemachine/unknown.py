"""Calls that nothing stands for on one machine: an error in the form of the service, never a page of HTML."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from onemachine.protocols import Application, Environ, StartResponse, asked, refuse

CODE = "NotImplemented"
_PAGE = b"<!doctype html"


class KnownErrors:
    """Turns pages and exceptions of a web application into errors that AWS's clients understand.

    Args:
        application: What stands for the services.
    """

    def __init__(self, application: Application) -> None:
        self._application = application

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
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
            # An error of moto's without a text: botocore would read its status as the code.
            is_empty = body[0].strip() in {b"", b"{}"} and environ["REQUEST_METHOD"] != "HEAD"
            has_code = "x-amzn-errortype" in {name.lower() for name, _ in headers}
            if status.startswith("404") and is_empty and not has_code:
                message = f"{environ.get('PATH_INFO', '/')} does not exist"
                return refuse(environ, start_response, status, "ResourceNotFoundException", message)
        start_response(status, headers)
        return body


def _refuse(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    service, operation = asked(environ)
    if not environ.get("HTTP_X_AMZ_TARGET"):
        operation += f" {environ.get('PATH_INFO', '/')}"
    message = (
        f"nothing stands for {operation} of {service or 'this service'} on this machine;"
        " docs/reference/differences.md lists what differs from AWS"
    )
    return refuse(environ, start_response, "501 Not Implemented", CODE, message)
