"""The API: its routes, what stands around them, and the Lambda handler."""

import logging
from typing import Any

from aws_lambda_powertools.metrics import MetricUnit
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from mangum import Mangum
from tagline import add
from tagline.asgi import TaglineMiddleware

from pets import models, store
from pets.routing import RouteAwareRoute
from pets.telemetry import emitter, logger, metrics
from pets.tracing import put_record, tracer

api = FastAPI(title="Pets")
api.router.route_class = RouteAwareRoute


@api.get("/")
def root() -> dict[str, str]:
    """Greet."""
    return {"message": "Hello World"}


@api.get("/pets")
def list_pets(next_token: str | None = None) -> models.PetList:
    """List pets, ten at a time."""
    page = models.PetList(**store.page(next_token))
    add(pet_count=len(page.pets))
    return page


@api.get("/pets/{pet_id}")
def get_pet(pet_id: str) -> models.Pet:
    """Return a pet."""
    add(pet=pet_id)
    return models.Pet(**store.get(pet_id))


@api.post("/pets", status_code=201)
def create_pet(new: models.NewPet) -> models.Pet:
    """Keep a new pet."""
    pet = models.Pet(**store.create(new.name, new.kind))
    metrics.add_metric(name="CreatedPets", unit=MetricUnit.Count, value=1)
    add(pet=pet.id, kind=pet.kind)
    return pet


@api.patch("/pets/{pet_id}", status_code=204)
def change_pet(pet_id: str, change: models.Change) -> None:
    """Change a pet."""
    add(pet=pet_id)
    store.change(pet_id, change.model_dump(exclude_none=True))


@api.delete("/pets/{pet_id}", status_code=204)
def delete_pet(pet_id: str) -> None:
    """Forget a pet."""
    add(pet=pet_id)
    store.delete(pet_id)


@api.get("/fail")
def fail() -> str:
    """Fail, to show what that looks like.

    Raises:
        KeyError: Always.
    """
    pets: dict[str, str] = {}
    return pets["missing_key"]


@api.exception_handler(store.PetNotFoundError)
def not_found(_request: Request, _error: store.PetNotFoundError) -> JSONResponse:
    """Answer for a pet that is not there."""
    return JSONResponse({"detail": "Pet not found"}, status_code=404)


@api.exception_handler(store.BadTokenError)
def bad_token(_request: Request, error: store.BadTokenError) -> JSONResponse:
    """Answer for an invalid token."""
    return JSONResponse({"detail": str(error)}, status_code=400)


@api.exception_handler(Exception)
async def unhandled(_request: Request, error: Exception) -> JSONResponse:
    """Answer for what nobody expected, with everything that is known of it in the log."""
    metrics.add_metric(name="UnhandledExceptions", unit=MetricUnit.Count, value=1)
    logger.error("Unhandled exception", exc_info=error)
    return JSONResponse({"detail": "Internal Server Error"}, status_code=500)


class Correlated:
    """Puts the correlation id, which TaglineMiddleware found, into every log line.

    It is pure ASGI, as TaglineMiddleware is: `@api.middleware("http")` would put a task, a stream and some
    hundred microseconds around every request.
    """

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Set it, and run the application."""
        if "tagline" in scope:  # not for health checks, which leave no record
            logger.set_correlation_id(scope["state"]["correlation_id"])
        await self.app(scope, receive, send)


class Traced:
    """Adds the usage record to the request's trace, once TaglineMiddleware has collected all of it."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Run the application, and add its record."""
        try:
            await self.app(scope, receive, send)
        finally:
            if "tagline" in scope:
                put_record(scope["tagline"])


def client(scope: Any) -> str:
    """Return who calls: a real API takes it from its authorizer, `scope["aws.event"]`."""
    headers = {bytes(name): bytes(value) for name, value in scope["headers"]}
    return headers.get(b"x-client", b"anonymous").decode("latin-1")


# The outermost is first. Around the whole of FastAPI, TaglineMiddleware sees the answers of its exception
# handler as well: added with `api.add_middleware`, it would stand inside of that.
app = Traced(TaglineMiddleware(Correlated(api), emitter=emitter, client=client))
answer = Mangum(app, lifespan="off")
# Starlette raises what its handler for Exception has answered once more; Mangum would log it a second time.
logging.getLogger("mangum.http").setLevel(logging.CRITICAL)


# Metrics come last, and are written when everything else is done.
@metrics.log_metrics(capture_cold_start_metric=True)
@logger.inject_lambda_context(clear_state=True)
@tracer.capture_lambda_handler(capture_response=False)
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Answer a request to the API."""
    answered: dict[str, Any] = answer(event, context)
    return answered
