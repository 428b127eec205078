"""The route that matched a WSGI request, as Flask, Bottle and Django leave it."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Callable, Dict, Optional

FIELDS = "tagline.fields"  # the record's fields in the environ; PEP 3333 asks for a dot


def route_template(environ: Dict[str, Any]) -> Optional[str]:
    """Return the template of the route that matched a request, as the framework writes it.

    Flask and Bottle leave it in the environ; Django needs `django_route`. None if no route matched.
    """
    rule = getattr(environ.get("werkzeug.request"), "url_rule", None) or environ.get("route.handle")
    return getattr(rule, "rule", None)


def django_route(get_response: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Record which URL pattern matched, which only Django knows. Put it into Django's setting MIDDLEWARE."""

    def middleware(request: Any) -> Any:
        response = get_response(request)
        with suppress(Exception):
            if request.resolver_match is not None:
                request.META[FIELDS].setdefault("route", "/" + request.resolver_match.route.lstrip("^/"))
        return response

    return middleware
