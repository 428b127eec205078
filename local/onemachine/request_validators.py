"""Request validators of REST APIs: parameters that have to be there, and bodies that have to match a model.

https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-method-request-validation.html
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from jsonschema import Draft4Validator, SchemaError, ValidationError
from jsonschema.validators import extend

from onemachine.http_messages import Request
from onemachine.linear_regex import LinearRegex
from onemachine.payload_one import Place
from onemachine.rest_api import BAD_BODY, BAD_PARAMETERS, GatewayError, source_value

_compiled = cache(LinearRegex)


def _pattern(_: Any, pattern: str, text: Any, __: Any) -> Iterator[ValidationError]:
    if isinstance(text, str) and not _compiled(pattern).is_in(text):
        yield ValidationError(f"{text!r} does not match {pattern!r}")


# A user's pattern runs in linear time, as everywhere here.
_Model = extend(Draft4Validator, {"pattern": _pattern})


class RequestValidator:
    """Refuses requests that do not have what a method asks for.

    Args:
        required: The parameters that have to be there, such as `method.request.querystring.q`.
        schema: The model of a JSON body, with the definitions that it refers to; None for any body.
        needs_body: Whether there has to be a body.

    Raises:
        ValueError: The model is not valid, or has what is not followed on one machine.
    """

    def __init__(
        self, required: Sequence[str], schema: Mapping[str, Any] | None, *, needs_body: bool = False
    ) -> None:
        self._required = tuple(required)
        self._needs_body = needs_body
        self._model = None if schema is None else _Model(schema)
        if schema is not None:
            try:
                _Model.check_schema(schema)
            except SchemaError as error:
                raise ValueError(error.message) from None
            _check_parts(schema, schema)

    def check(self, request: Request, place: Place) -> None:
        """Check a request.

        Raises:
            GatewayError: It is refused.
        """
        missing = [each for each in self._required if not source_value(request, place, each)]
        if missing:
            names = ", ".join(each.rpartition(".")[2] for each in missing)
            message = f"Missing required request parameters: [{names}]"
            raise GatewayError(replace(BAD_PARAMETERS, message=message))
        media_type = (request.header("content-type") or "application/json").partition(";")[0].strip().lower()
        # A body of another type has no model: it is passed on.
        if self._model is None or media_type != "application/json" or not (request.body or self._needs_body):
            return
        try:
            faults = [error.message for error in self._model.iter_errors(json.loads(request.body))]
        except (ValueError, RecursionError) as error:
            faults = [str(error)]
        if faults:
            raise GatewayError(replace(BAD_BODY, details=f"[{', '.join(faults)}]"))


def _check_parts(part: Any, whole: Mapping[str, Any]) -> None:
    """Raise ValueError if a model refers to what is not there, or has what is not followed here."""
    if isinstance(part, list):
        for each in part:
            _check_parts(each, whole)
    if not isinstance(part, Mapping):
        return
    if "patternProperties" in part:
        raise ValueError("patternProperties is not followed on one machine")
    if isinstance(part.get("pattern"), str):
        _compiled(part["pattern"])
    if isinstance(target := part.get("$ref"), str):
        found: Any = whole
        for step in target.removeprefix("#/").split("/"):
            found = found.get(step) if isinstance(found, Mapping) else None
        if found is None or not target.startswith("#/"):
            raise ValueError(f"{target} is not in the API's document")
    for each in part.values():
        _check_parts(each, whole)
