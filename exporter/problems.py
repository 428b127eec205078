"""What both APIs answer when they cannot: problem documents, https://www.rfc-editor.org/rfc/rfc9457."""

from __future__ import annotations

import json
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response

from consumers.documents import NewerDocumentError
from exporter.downloads.parameters import ForbiddenError, InvalidParameterError

# Answers are for their caller alone.
NO_STORE = {"Cache-Control": "no-store"}


def problem(
    status: HTTPStatus,
    detail: str,
    *,
    field: str | None = None,
    retry_after_s: int | None = None,
    days: Sequence[str] = (),
) -> Response[Any]:
    """Return an error as a problem document.

    Args:
        status: The status.
        detail: What is wrong, with the value and the limit.
        field: The parameter that is wrong, where it is one.
        retry_after_s: When to ask again, in seconds.
        days: The days that are meant.
    """
    body = {
        "type": "about:blank",
        "title": status.phrase,
        "status": status,
        "detail": detail,
        **({"field": field} if field else {}),
        **({"days": days} if days else {}),
        "result": "error",
        "message": detail,
    }
    pause = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
    return Response(
        status,
        content_type="application/problem+json",
        body=json.dumps(body),
        headers={**NO_STORE, **pause},
    )


def answer_errors(app: APIGatewayHttpResolver) -> None:
    """Let an API answer with problems to what both APIs refuse.

    Args:
        app: The API.
    """

    def unknown(_error: Exception) -> Response[Any]:
        return problem(HTTPStatus.NOT_FOUND, f"there is no {app.current_event.path}")

    def invalid(error: InvalidParameterError) -> Response[Any]:
        return problem(HTTPStatus.BAD_REQUEST, str(error), field=error.field)

    def forbidden(error: ForbiddenError) -> Response[Any]:
        return problem(HTTPStatus.FORBIDDEN, str(error))

    def newer(error: NewerDocumentError) -> Response[Any]:
        return problem(HTTPStatus.INTERNAL_SERVER_ERROR, str(error))

    app.not_found(unknown)
    app.exception_handler(InvalidParameterError)(invalid)
    app.exception_handler(ForbiddenError)(forbidden)
    app.exception_handler(NewerDocumentError)(newer)
