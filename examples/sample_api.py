"""A small API whose every request leaves a record: pets in memory, two lines of Tagline."""

import json
import re
from typing import Any

from tagline import Emitter, add

emitter = Emitter()

PETS = {str(number): {"id": str(number), "kind": kind} for number, kind in enumerate(["cat", "dog", "newt"])}


@emitter.handler
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:  # noqa: ARG001 - the handler's signature
    """Answer a request to the API.

    Raises:
        RuntimeError: For `/fail`, to show what a record of a failure looks like.
    """
    method = event["requestContext"]["http"]["method"]
    path = event["rawPath"]
    add(client=event["headers"].get("x-client", "anonymous"))
    if path == "/":
        return answer(200, {"message": "Hello World"})
    if path == "/pets":
        add(route="/pets")
        return answer(201, {"id": "3"}) if method == "POST" else answer(200, {"pets": list(PETS.values())})
    if found := re.fullmatch(r"/pets/(\w+)", path):
        add(route="/pets/{id}", pet=found[1])
        pet = PETS.get(found[1])
        return answer(200, pet) if pet else answer(404, {"detail": "Pet not found"})
    if path == "/fail":
        add(route="/fail")
        raise RuntimeError("this route always fails")
    add(route="unknown")
    return answer(404, {"detail": "Not Found"})


def answer(status: int, body: dict[str, Any]) -> dict[str, Any]:
    """Return an HTTP answer, and say its size."""
    text = json.dumps(body)
    add(bytes=len(text))
    return {"statusCode": status, "headers": {"content-type": "application/json"}, "body": text}
