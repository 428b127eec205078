"""Pets in DynamoDB. Every function is a subsegment of the request's trace."""

import base64
import json
import os
from functools import cache
from typing import Any
from uuid import uuid4

import boto3
from boto3.dynamodb.conditions import Attr

from pets.telemetry import logger
from pets.tracing import tracer

PAGE = 10


class PetNotFoundError(LookupError):
    """No pet has that id."""


class BadTokenError(ValueError):
    """A `next_token` that no list gave."""


@tracer.capture_method
def create(name: str, kind: str) -> dict[str, Any]:
    """Keep a new pet, and return it with its id."""
    pet = {"id": str(uuid4()), "name": name, "kind": kind}
    logger.info("Creating pet", extra={"pet": pet["id"]})
    table().put_item(Item=pet)
    return pet


@tracer.capture_method
def get(pet_id: str) -> dict[str, Any]:
    """Return a pet.

    Raises:
        PetNotFoundError: No pet has that id.
    """
    logger.info("Getting pet", extra={"pet": pet_id})
    found: dict[str, Any] = table().get_item(Key={"id": pet_id})
    if "Item" not in found:
        raise PetNotFoundError(pet_id)
    return dict(found["Item"])


@tracer.capture_method
def change(pet_id: str, changes: dict[str, str]) -> None:
    """Change what is named of a pet.

    Raises:
        PetNotFoundError: No pet has that id.
    """
    logger.info("Updating pet", extra={"pet": pet_id, "changes": sorted(changes)})
    if not changes:
        get(pet_id)
        return
    # `name` is one of DynamoDB's reserved words, so no name is written as it is.
    _only_if_there(
        table().update_item,
        pet_id,
        UpdateExpression="SET " + ", ".join(f"#{name} = :{name}" for name in changes),
        ExpressionAttributeNames={f"#{name}": name for name in changes},
        ExpressionAttributeValues={f":{name}": value for name, value in changes.items()},
    )


@tracer.capture_method
def delete(pet_id: str) -> None:
    """Forget a pet.

    Raises:
        PetNotFoundError: No pet has that id.
    """
    logger.info("Deleting pet", extra={"pet": pet_id})
    _only_if_there(table().delete_item, pet_id)


@tracer.capture_method
def page(next_token: str | None) -> dict[str, Any]:
    """Return up to `PAGE` pets, from where a token says, and a token where there are more.

    Raises:
        BadTokenError: We did not make the token.
    """
    logger.info("Listing pets")
    start = {"ExclusiveStartKey": _decoded(next_token)} if next_token else {}
    found = table().scan(Limit=PAGE, **start)
    last = found.get("LastEvaluatedKey")
    return {"pets": found["Items"], "next_token": _encoded(last) if last else None}


@cache
def table() -> Any:
    """Return the table; the first request creates the client."""
    return boto3.resource("dynamodb").Table(os.environ["TABLE_NAME"])


def _only_if_there(write: Any, pet_id: str, **what: Any) -> None:
    try:
        write(Key={"id": pet_id}, ConditionExpression=Attr("id").exists(), **what)
    except table().meta.client.exceptions.ConditionalCheckFailedException as error:
        raise PetNotFoundError(pet_id) from error


def _encoded(key: dict[str, str]) -> str:
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode()


def _decoded(token: str) -> dict[str, str]:
    try:
        return {"id": str(json.loads(base64.urlsafe_b64decode(token))["id"])}
    except (ValueError, KeyError, TypeError) as error:
        raise BadTokenError(f"next_token is {token!r}, which no list gave") from error
