"""The route that took an ASGI request, as Starlette's and FastAPI's routers leave it in the scope."""

from __future__ import annotations

from typing import Any, MutableMapping, Optional


def route_template(scope: MutableMapping[str, Any]) -> Optional[str]:
    """Return the template of the route that took a request, such as `/v1/pets/{pet_id}`.

    It is found where Starlette's and FastAPI's routers leave it, with the templates of the mounts and the
    prefixes of the included routers before it. A mounted application without routes (static files) counts as
    one route, `/static/{path}`.

    Args:
        scope: The request's scope, after routing.

    Returns:
        The template, or None if no route took the request or none can be told.
    """
    router = scope.get("router")
    mounted, routes = "", list(getattr(router, "routes", ()))
    if "app_root_path" in scope:
        mounted, routes = _through_mounts(routes, scope["root_path"][len(scope["app_root_path"]) :])
    # FastAPI keeps a router that was included as it is, and the route as it is with its prefix beside it.
    included = scope.get("fastapi")
    context = included.get("effective_route_context") if isinstance(included, dict) else None
    route = getattr(context, "starlette_route", None) or context
    if route is None or hasattr(route, "routes"):  # none, or a mount, whose own router went on
        route = scope.get("route") or _route_to(scope.get("endpoint"), routes)
    if route is None or hasattr(route, "routes"):  # nothing that was mounted there took the request
        return mounted + "/{path}" if mounted and not routes else None
    path = getattr(route, "path", None)
    return mounted + path if isinstance(path, str) else None


def _through_mounts(routes: list[Any], taken: str) -> tuple[str, list[Any]]:
    """Return the template of what mounts took of the path, and the routes that it leads to.

    The scope has it as the client wrote it (`/tenants/acme`); the mounts have it as the developer did.
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
    """Return the only route to an endpoint: what older Starlettes leave in the scope."""
    found = [
        route for route in routes if endpoint is not None and getattr(route, "endpoint", None) is endpoint
    ]
    return found[0] if len(found) == 1 else None
