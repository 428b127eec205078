"""What the download API takes and answers, as a document for programs: OpenAPI 3.1. Pure.

https://spec.openapis.org/oas/v3.1.0
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from exporter.downloads.jobs import Cells, State
from exporter.lake.formats import ZipFormat
from exporter.usage_api import openapi as usage

DATES = ("start_date", "end_date")
PARAMETERS = (*DATES, "format", "cells", "columns", "client", "route")
MAX_COLUMNS = 200
MAX_VALUE = 2_000

_ID = {"type": "string", "pattern": "^[0-9a-f]{32}$"}
_TEXT = {"type": "string", "minLength": 1, "maxLength": MAX_VALUE}
_JSON, _PROBLEM = "application/json", "application/problem+json"

# What API Gateway answers before or instead of the function, and when.
_OF_GATEWAY = {
    "401": "The API takes tokens, and the token is missing or invalid.",
    "403": "The request is not signed or its signer may not ask, or the token lacks the scope.",
    "413": "The body is too large.",
    "429": "There are too many requests: ask again a little later.",
    "500": "The function failed: ask again.",
    "503": "The function could not be reached, or took too long: ask again.",
}
_ANYWHERE = ("401", "403", "429", "500", "503")
# What the function refuses.
_OF_FUNCTION = {
    "400": "A parameter is missing, unknown, repeated or invalid.",
    "403": "The caller may not have these records.",
    "404": "The download does not exist, or no longer.",
    "409": "Some of the days are in the archive: `days` has them.",
    "413": "The lake's files of these days are too large together: ask for fewer days.",
    "429": "Too many downloads of the caller are in progress: ask again after `Retry-After` seconds.",
}


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens that callers have to have.

    Attributes:
        issuer: Who issues them: an https address.
        scope: The scope that they have to have.
    """

    issuer: str
    scope: str


def document(max_days: int, tokens: Tokens | None = None) -> dict[str, Any]:
    """Return the description of the API.

    Args:
        max_days: How many days can be asked for at once.
        tokens: The tokens that callers have to have; None where they sign their requests.
    """
    scheme, scopes = ("signature", []) if tokens is None else ("token", [tokens.scope])
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tagline",
            "version": "1",
            "description": "Downloads: ask for a range of days, get a link at once. Usage in numbers.",
        },
        "security": [{scheme: scopes}],
        "paths": {
            "/download/usage": {"get": _ask(max_days)},
            "/downloads": {"post": _ask_for_part(max_days)},
            "/downloads/{id}": {"get": _status(), "delete": _delete()},
            "/openapi.json": {"get": _description()},
            **usage.paths(_refused()),
        },
        "components": {
            "securitySchemes": {scheme: _signature() if tokens is None else _token(tokens)},
            "schemas": {
                "Download": _download(),
                "Problem": _problem(),
                "Refusal": _refusal(),
                **usage.schemas(),
            },
            "parameters": {
                "id": {
                    "name": "id",
                    "in": "path",
                    "required": True,
                    "description": "The download's id.",
                    "schema": {"type": "string", "minLength": 1},
                }
            },
        },
    }


def _signature() -> dict[str, Any]:
    # OpenAPI has no scheme for it. This is how API Gateway itself writes it:
    # https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-swagger-extensions-authtype.html
    return {
        "type": "apiKey",
        "in": "header",
        "name": "Authorization",
        "x-amazon-apigateway-authtype": "awsSigv4",
        "description": "AWS Signature Version 4 for the service execute-api, by who may execute-api:Invoke.",
    }


def _token(tokens: Tokens) -> dict[str, Any]:
    return {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": f"A JSON Web Token of {tokens.issuer} with the scope {tokens.scope}.",
    }


def _ask(max_days: int) -> dict[str, Any]:
    return {
        "operationId": "askForDays",
        "summary": "Ask for all records of a range of days.",
        "parameters": [
            {"name": name, "in": "query", "required": True, "schema": schema}
            for name, schema in _dates(max_days).items()
        ],
        "responses": _asked(),
    }


def _ask_for_part(max_days: int) -> dict[str, Any]:
    properties: dict[str, Any] = {
        **_dates(max_days),
        "format": {"type": "string", "enum": list(ZipFormat), "description": "What the files are to be."},
        "cells": {
            "type": "string",
            "enum": list(Cells),
            "description": "Whether text in CSV that a spreadsheet would run is behind an apostrophe.",
        },
        "columns": {
            "type": "array",
            "items": _TEXT,
            "minItems": 1,
            "maxItems": MAX_COLUMNS,
            "uniqueItems": True,
            "description": "The columns in their order. All, if it is left out.",
        },
        "client": {**_TEXT, "description": "Only records of this client."},
        "route": {**_TEXT, "description": "Only records of this route."},
    }
    schema = {
        "type": "object",
        "properties": properties,
        "required": list(DATES),
        "additionalProperties": False,
    }
    return {
        "operationId": "askForRecords",
        "summary": "Ask for records of a range of days: some columns, of a client, of a route.",
        "requestBody": {"required": True, "content": {_JSON: {"schema": schema}}},
        "responses": _asked(),
    }


def _status() -> dict[str, Any]:
    return {
        "operationId": "tellDownload",
        "summary": "Tell how far a download is, with a new link once it is there.",
        "parameters": [{"$ref": "#/components/parameters/id"}],
        "responses": {"200": _answer("How far it is."), **_refused("403", "404")},
    }


def _delete() -> dict[str, Any]:
    return {
        "operationId": "deleteDownload",
        "summary": "Delete a download, finished or not.",
        "parameters": [{"$ref": "#/components/parameters/id"}],
        "responses": {"204": {"description": "It is deleted."}, **_refused("403", "404")},
    }


def _description() -> dict[str, Any]:
    return {
        "operationId": "describe",
        "summary": "This document.",
        "responses": {
            "200": {"description": "OpenAPI 3.1.", "content": {_JSON: {"schema": {"type": "object"}}}},
            **_refused(),
        },
    }


def _dates(max_days: int) -> dict[str, Any]:
    said = {
        "start_date": "The first day, in UTC.",
        "end_date": "The last day, inclusive: not before the first, not in the future, and at most"
        f" {max_days} days with it.",
    }
    return {
        name: {"type": "string", "format": "date", "description": description}
        for name, description in said.items()
    }


def _asked() -> dict[str, Any]:
    return {
        "200": _answer("The zip is there."),
        "202": _answer("The zip is being made; the link works once it is there."),
        **_refused("400", "403", "409", "413", "429"),
    }


def _answer(description: str) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Download"}
    return {"description": description, "content": {_JSON: {"schema": schema}}}


def _refused(*statuses: str) -> dict[str, Any]:
    """Return what is refused: with these statuses, and all that API Gateway refuses anywhere."""
    refused = {}
    for status in sorted({*statuses, *_ANYWHERE}):
        said, content = [], {}
        if status in statuses and status in _OF_FUNCTION:
            said.append(_OF_FUNCTION[status])
            content[_PROBLEM] = {"schema": {"$ref": "#/components/schemas/Problem"}}
        if status in _OF_GATEWAY:
            said.append(_OF_GATEWAY[status])
            content[_JSON] = {"schema": {"$ref": "#/components/schemas/Refusal"}}
        refused[status] = {"description": " ".join(said), "content": content}
    return refused


def _download() -> dict[str, Any]:
    count = {"type": "integer", "minimum": 0}
    day = {"type": "string", "format": "date"}
    return {
        "type": "object",
        "properties": {
            "result": {"const": "ok"},
            "message": {"type": "string"},
            "id": _ID,
            "status": {"enum": list(State)},
            "start_date": day,
            "end_date": day,
            "format": {"enum": list(ZipFormat)},
            "cells": {"enum": list(Cells)},
            "columns": {"type": "array", "items": {"type": "string"}},
            "client": {"type": "string"},
            "route": {"type": "string"},
            "progress": {"type": "number", "minimum": 0, "maximum": 1},
            "rows": count,
            "reason": {"type": "string"},
            "incident": {"type": "string"},
            "download_link": {"type": "string", "format": "uri"},
            "expires_at": {"type": "string", "format": "date-time"},
            "status_url": {"type": "string", "format": "uri"},
        },
        "required": ["id", "status", "start_date", "end_date", "format", "status_url"],
        "additionalProperties": False,
    }


def _problem() -> dict[str, Any]:
    text = {"type": "string"}
    return {
        "type": "object",
        "description": "https://www.rfc-editor.org/rfc/rfc9457",
        "properties": {
            "type": text,
            "title": text,
            "status": {"type": "integer"},
            "detail": text,
            "field": text,
            "days": {"type": "array", "items": {"type": "string", "format": "date"}},
            "result": {"const": "error"},
            "message": text,
        },
        "required": ["type", "title", "status", "detail", "result", "message"],
        "additionalProperties": False,
    }


def _refusal() -> dict[str, Any]:
    return {
        "type": "object",
        "description": "API Gateway's own answer.",
        "properties": {"message": {"type": ["string", "null"]}},
        "required": ["message"],
    }
