"""What can only be said when the route is known: after routing, before the endpoint."""

from collections.abc import Callable, Coroutine
from typing import Any

from aws_lambda_powertools.metrics import MetricUnit, single_metric
from fastapi import Request, Response
from fastapi.routing import APIRoute

from pets.telemetry import logger

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class RouteAwareRoute(APIRoute):
    """Puts the route's template into every further log line, and counts the request by it."""

    def get_route_handler(self) -> Handler:
        """Return FastAPI's own handler with that before it."""
        answer = super().get_route_handler()

        async def route_aware(request: Request) -> Response:
            logger.append_keys(
                fastapi={"path": request.url.path, "route": self.path, "method": request.method}
            )
            logger.info("Received request")
            # A separate dimension needs a separate line: all metrics of a line share their dimensions.
            with single_metric(name="RequestCount", unit=MetricUnit.Count, value=1) as metric:
                metric.add_dimension(name="route", value=f"{request.method} {self.path}")
            return await answer(request)

        return route_aware
