"""What the API of usage takes and answers, as a part of an OpenAPI document. Pure."""

from __future__ import annotations

from typing import Any

from exporter.usage.names import COUNTS, MEASURES, RANGES, SORTS

DEFAULT_RANGE = "7d"
FORMATS = ("json", "csv")
# The longest range, the longest one by the hour, and that of some requests only, in days.
MOST_DAYS, MOST_DAYS_BY_HOUR, MOST_NARROWED_DAYS_BY_HOUR = 400, 31, 7
MOST_SEED_DAYS = 90
MAX_TEXT = 2_000
MAX_LIMIT = 1_000

_RANGE = ("range", "from", "to")
_FILTER, _ROWS = ("method", "route", "client"), ("sort", "search", "limit")
# What each question takes, by its path.
PARAMETERS: dict[str, tuple[str, ...]] = {
    "/usage": (*_RANGE, *_FILTER, "format"),
    "/usage/series": (*_RANGE, "interval", *_FILTER, "format"),
    "/usage/routes": (*_RANGE, *_ROWS, "format"),
    "/usage/clients": (*_RANGE, *_ROWS, "format"),
    "/usage/route": (*_RANGE, "method", "route"),
    "/usage/client": (*_RANGE, "client"),
    "/api/analytics/usage": ("days",),
    "/dashboard": (),
}
_NEEDED = {"/usage/route": ("method", "route"), "/usage/client": ("client",)}
_SUMMARIES = {
    "/usage": "The figures of a range, and those of the time before.",
    "/usage/series": "The figures of each part of a range.",
    "/usage/routes": "A row for each route.",
    "/usage/clients": "A row for each client.",
    "/usage/route": "One route: its figures, its series, its requests by client.",
    "/usage/client": "One client: its figures, its series, its requests by route.",
    "/api/analytics/usage": "Requests by date, and by route and method.",
    "/dashboard": "A link to the usage page.",
    "/metrics": "The counters, for Prometheus.",
    "/health": "How healthy the API and its pipeline are: the status only.",
    "/health/details": "The same, with what was found.",
    "/health/live": "Whether the API answers.",
    "/health/ready": "Whether the API can read the bucket.",
}
_TEXT = {"type": "string", "minLength": 1, "maxLength": MAX_TEXT}
_TIME = {"type": "string", "pattern": "^[12][0-9]{3}-[0-9]{2}-[0-9]{2}(T[0-9]{2}(:00(:00)?)?Z)?$"}
_PARAMETERS: dict[str, tuple[dict[str, Any], str]] = {
    "range": (
        {"type": "string", "enum": list(RANGES), "default": DEFAULT_RANGE},
        "The time until now; or give from and to.",
    ),
    "from": (_TIME, "The first day or hour, in UTC."),
    "to": (_TIME, f"The last day, inclusive, or an hour, exclusive, in UTC; at most {MOST_DAYS} days."),
    "interval": (
        {"type": "string", "enum": ["hour", "day"]},
        f"By the hour at most {MOST_DAYS_BY_HOUR} days, with a filter {MOST_NARROWED_DAYS_BY_HOUR}.",
    ),
    "method": (_TEXT, "Only requests with this method; not together with client."),
    "route": (_TEXT, "Only requests of this route; not together with client."),
    "client": (_TEXT, "Only requests of this client."),
    "sort": ({"type": "string", "enum": list(SORTS)}, "The figure by which rows are ordered."),
    "search": (_TEXT, "Only rows whose name has this text."),
    "limit": ({"type": "integer", "minimum": 1, "maximum": MAX_LIMIT}, "How many rows."),
    "format": ({"type": "string", "enum": list(FORMATS)}, "JSON or CSV; `Accept: text/csv` does the same."),
    "days": ({"type": "integer", "minimum": 1, "maximum": MOST_SEED_DAYS}, "How many days, today included."),
}
_WHEN = {"type": "string", "format": "date-time"}
_COUNT, _MAYBE_COUNT = {"type": "integer", "minimum": 0}, {"type": ["integer", "null"]}
_COUNTS = {"type": "object", "additionalProperties": _COUNT}
_NUMBER, _MAYBE_TEXT = {"type": ["number", "null"]}, {"type": ["string", "null"]}
_OPEN = ("/health", "/health/live", "/health/ready")
_JSON, _PROBLEM = "application/json", "application/problem+json"
_REFUSED = {
    "400": "A parameter cannot be used.",
    "403": "The caller may not have these numbers.",
    "404": "There are no numbers yet.",
}


def paths(refusals: dict[str, Any]) -> dict[str, Any]:
    """Return the operations by their paths.

    Args:
        refusals: What API Gateway itself answers on any route, by status.
    """
    found = {path: {"get": _question(path, refusals)} for path in PARAMETERS}
    metrics = {
        "text/plain": {"schema": {"type": "string"}},
        "application/openmetrics-text": {"schema": {"type": "string"}},
    }
    found["/metrics"] = {
        "get": _operation("/metrics", {"200": _content("The counters.", metrics)}, refusals, "403", "404")
    }
    health = {
        kind: {"schema": {"$ref": "#/components/schemas/Health"}}
        for kind in (_JSON, "application/health+json")
    }
    for path in (*_OPEN, "/health/details"):
        answers = {"200": _content("All is well, or nearly.", health), "503": _content("It is not.", health)}
        found[path] = {"get": _operation(path, answers, refusals)}
    return found


def schemas() -> dict[str, Any]:
    """Return the schemas that the operations refer to."""
    by_date = {"type": "object", "additionalProperties": _COUNTS}
    link = {"type": "string", "format": "uri"}
    health = {"status": {"type": "string"}, "timestamp": _WHEN, "checks": {"type": "object"}}
    return {
        "Usage": {**_object(_usage()), "required": ["range", "data_through"]},
        "UsageByDate": _object({"period_days": _COUNT, "usage_by_date": by_date}),
        "Dashboard": _object({"result": {"const": "ok"}, "dashboard_link": link, "expires_at": _WHEN}),
        "Health": {**_object(health), "required": ["status"]},
    }


def _usage() -> dict[str, Any]:
    """Return the fields that answers have; each has some of them."""
    figures = {**dict.fromkeys(COUNTS, _COUNT), **dict.fromkeys(MEASURES, _NUMBER)}
    named = dict.fromkeys(("method", "route", "client"), _MAYBE_TEXT)
    part = {"start": _WHEN, "end": _WHEN, "complete": {"type": "boolean"}, **figures}
    row = {
        **figures,
        **named,
        "previous_requests": _MAYBE_COUNT,
        "change": _NUMBER,
        "last_seen": _MAYBE_TEXT,
        "other": _COUNT,
    }
    rows = {"oneOf": [_COUNT, {"type": "array", "items": {**_object(row), "required": ["requests"]}}]}
    incomplete = dict.fromkeys(("lost", "quarantined", "replayed"), _MAYBE_COUNT)
    return {
        "range": _object({"from": _WHEN, "to": _WHEN, "interval_s": _COUNT}),
        "data_through": _WHEN,
        "compared": {"type": ["object", "null"]},
        "revision": {"type": "string"},
        "error_bound": _NUMBER,
        "base": _MAYBE_TEXT,
        "completeness": _object(incomplete),
        "total": _object(figures),
        "previous": {"oneOf": [{"type": "null"}, _object(figures)]},
        "changes": {"type": ["object", "null"], "additionalProperties": _NUMBER},
        "new_clients": _MAYBE_COUNT,
        "live": {"oneOf": [{"type": "null"}, _live()]},
        "series": {"type": "array", "items": _object(part)},
        "routes": rows,
        "clients": rows,
        **named,
        "statuses": _COUNTS,
        "errors": _COUNTS,
        **dict.fromkeys(("other_clients", "other_routes"), _COUNT),
    }


def _live() -> dict[str, Any]:
    counts = dict.fromkeys(("requests", "client_errors", "failures", "rate_limited", "auth_failures"), _COUNT)
    minute = _object({"start": _WHEN, **counts})
    route = _object({"method": _MAYBE_TEXT, "route": _MAYBE_TEXT, **counts})
    return _object(
        {
            "from": _WHEN,
            "to": _WHEN,
            "total": _object(counts),
            "minutes": {"type": "array", "items": minute},
            "routes": {"type": "array", "items": route},
        }
    )


def _question(path: str, refusals: dict[str, Any]) -> dict[str, Any]:
    schema = {"/api/analytics/usage": "UsageByDate", "/dashboard": "Dashboard"}.get(path, "Usage")
    content: dict[str, Any] = {_JSON: {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    if "format" in PARAMETERS[path]:
        content["text/csv"] = {"schema": {"type": "string"}}
    answers = {"200": _content("The numbers." if path != "/dashboard" else "The link.", content)}
    if path != "/dashboard":
        answers["304"] = {"description": "The numbers are those that `If-None-Match` names."}
    operation = _operation(path, answers, refusals, "400", "403", "404")
    operation["parameters"] = [
        {
            "name": name,
            "in": "query",
            "required": name in _NEEDED.get(path, ()),
            "schema": schema,
            "description": text,
        }
        for name in PARAMETERS[path]
        for schema, text in [_PARAMETERS[name]]
    ]
    return operation


def _operation(path: str, answers: dict[str, Any], refusals: dict[str, Any], *refused: str) -> dict[str, Any]:
    of_gateway = {
        status: each for status, each in refusals.items() if path not in _OPEN or status not in ("401", "403")
    }
    responses = {**of_gateway, **answers}
    for status in refused:
        by_gateway = of_gateway.get(status, {"description": "", "content": {}})
        responses[status] = {
            "description": f"{_REFUSED[status]} {by_gateway['description']}".strip(),
            "content": {
                **by_gateway["content"],
                _PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}},
            },
        }
    return {
        "operationId": "".join(word.capitalize() for word in path.replace("/", " ").split()),
        "summary": _SUMMARIES[path],
        **({"security": []} if path in _OPEN else {}),
        "responses": dict(sorted(responses.items())),
    }


def _content(description: str, content: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": content}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
