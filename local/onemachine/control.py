"""How a command reaches a running pipeline: actions at the services' address, under `/_onemachine/`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from onemachine.protocols import Application, Environ, StartResponse

PREFIX = "/_onemachine/"

Action = Callable[[dict[str, Any]], Any]


class Control:
    """Actions by name, in front of a web application.

    `POST /_onemachine/<name>` with a JSON object calls an action with it, and answers its result as JSON;
    400 where the action raises ValueError or KeyError, 404 where no action has that name.

    Args:
        application: What answers everything else.
    """

    def __init__(self, application: Application) -> None:
        self._application = application
        self.actions: dict[str, Action] = {}

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request."""
        path = environ.get("PATH_INFO", "")
        if not path.startswith(PREFIX):
            return self._application(environ, start_response)
        action = self.actions.get(path.removeprefix(PREFIX))
        if action is None or environ["REQUEST_METHOD"] != "POST":
            return _answer(start_response, "404 Not Found", {"error": f"POST {path} is unknown"})
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        try:
            return _answer(start_response, "200 OK", action(json.loads(body or b"{}")))
        except (ValueError, KeyError) as error:
            # A KeyError's text is its argument's repr.
            message = error.args[0] if isinstance(error, KeyError) else error
            return _answer(start_response, "400 Bad Request", {"error": str(message)})


def _answer(start_response: StartResponse, status: str, value: Any) -> Iterable[bytes]:
    body = json.dumps(value).encode()
    start_response(status, [("content-type", "application/json"), ("content-length", str(len(body)))])
    return [body]
