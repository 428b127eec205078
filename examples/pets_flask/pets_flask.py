"""The pets API in Flask: the same routes, answers and records as `examples/pets_api`, whose table it shares.

In a container: `gunicorn --workers 4 pets_flask:app`. In Lambda, its handler is `pets_flask.handler`.
"""

from typing import Any

from apig_wsgi import make_lambda_handler
from flask import Flask, request
from pets import models, store
from pets.telemetry import emitter, logger
from pydantic import ValidationError
from tagline import add
from tagline.wsgi import TaglineMiddleware

Answer = tuple[Any, int]

app = Flask("pets")


@app.get("/")
def root() -> Answer:
    """Greet."""
    return {"message": "Hello World"}, 200


@app.get("/pets")
def list_pets() -> Answer:
    """List pets, ten at a time."""
    page = models.PetList(**store.page(request.args.get("next_token")))
    add(pet_count=len(page.pets))
    return page.model_dump(), 200


@app.get("/pets/<pet_id>")
def get_pet(pet_id: str) -> Answer:
    """Return a pet."""
    add(pet=pet_id)
    return store.get(pet_id), 200


@app.post("/pets")
def create_pet() -> Answer:
    """Keep a new pet."""
    new = models.NewPet.model_validate(request.get_json())
    pet = models.Pet(**store.create(new.name, new.kind))
    add(pet=pet.id, kind=pet.kind)
    return pet.model_dump(), 201


@app.patch("/pets/<pet_id>")
def change_pet(pet_id: str) -> Answer:
    """Change a pet."""
    add(pet=pet_id)
    store.change(pet_id, models.Change.model_validate(request.get_json()).model_dump(exclude_none=True))
    return "", 204


@app.delete("/pets/<pet_id>")
def delete_pet(pet_id: str) -> Answer:
    """Delete a pet."""
    add(pet=pet_id)
    store.delete(pet_id)
    return "", 204


@app.get("/fail")
def fail() -> Answer:
    """Fail, to show what that looks like.

    Raises:
        KeyError: Always.
    """
    pets: dict[str, str] = {}
    return pets["missing_key"], 200


@app.errorhandler(store.PetNotFoundError)
def not_found(_error: store.PetNotFoundError) -> Answer:
    """Answer a request for a pet that does not exist."""
    return {"detail": "Pet not found"}, 404


@app.errorhandler(store.BadTokenError)
def bad_token(error: store.BadTokenError) -> Answer:
    """Answer a request with a token that no list returned."""
    return {"detail": str(error)}, 400


@app.errorhandler(ValidationError)
def invalid(error: ValidationError) -> Answer:
    """Answer a request whose body is not a pet."""
    add(validation_error_count=error.error_count())
    return {"detail": error.errors(include_url=False, include_context=False)}, 422


@app.errorhandler(500)
def unhandled(error: Any) -> Answer:
    """Answer a request that failed, with the exception in the log."""
    logger.error("Unhandled exception", exc_info=error.original_exception)
    return {"detail": "Internal Server Error"}, 500


def client(environ: dict[str, Any]) -> str:
    """Return who calls: a real API takes it from its authorizer."""
    return str(environ.get("HTTP_X_CLIENT", "anonymous"))


app.wsgi_app = TaglineMiddleware(app.wsgi_app, emitter=emitter, client=client)  # type: ignore[method-assign]
handler = make_lambda_handler(app)
