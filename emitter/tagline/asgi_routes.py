"""The route that matched an ASGI request, as Starlette's and FastAPI's routers leave it in the scope."""

from __future__ import annotations

from typing import Any, MutableMapping, Optional


def route_template(scope: MutableMapping[str, Any]) -> Optional[str]:
    """Return the template of the route that matched a request, such as `/v1/pets/{pet_id}`.

    It begins with the templates of the mounts and the prefixes of the included routers. A mounted application
    without routes (static files) counts as one route, `/static/{path}`.

    Args:
        scope: The request's scope, after routing.

    Returns:
        The template, or None if no route matched, or the framework leaves none.
    """
    router = scope.get("router")
    mounted, routes = "", list(getattr(router, "routes", ()))
    if "app_root_path" in scope:
        mounted, routes = _through_mounts(routes, scope["root_path"][len(scope["app_root_path"]) :])
    # FastAPI keeps an included router unchanged: the prefix is in a context beside the route.
    included = scope.get("fastapi")
    context = included.get("effective_route_context") if isinstance(included, dict) else None
    route = getattr(context, "starlette_route", None) or context
    if route is None or hasattr(route, "routes"):  # none, or a mount, whose own router chose the route
        route = scope.get("route") or _route_to(scope.get("endpoint"), routes)
    if route is None or hasattr(route, "routes"):  # nothing mounted there matched
        return mounted + "/{path}" if mounted and not routes else None
    path = getattr(route, "path", None)
    return mounted + path if isinstance(path, str) else None


def _through_mounts(routes: list[Any], taken: str) -> tuple[str, list[Any]]:
    """Return the template of the part of the path that mounts matched, and the routes behind them.

    The scope has that part as the client wrote it (`/tenants/acme`), the mounts as the developer did.
    """
    if taken:
        for mount in routes:
            regex = getattr(mount, "path_regex", None)
            found = regex.match(taken + "/") if regex and hasattr(mount, "routes") else None
            if found:
                left = found["path"].rstrip("/")
                template, inner = _through_mounts(list(mount.routes), "/" + left if left else "")
                return mount.path + template, inner
    return taken, routes


def _route_to(endpoint: Any, routes: list[Any]) -> Any:
    """Return the only route to an endpoint: older Starlettes leave just the endpoint in the scope."""
    found = [
        route for route in routes if endpoint is not None and getattr(route, "endpoint", None) is endpoint
    ]
    return found[0] if len(found) == 1 else None
