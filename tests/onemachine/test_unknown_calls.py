"""Every operation of Lambda's control plane on the wire: an answer, or an error that clients read."""

from collections.abc import Iterator
from typing import Any

import botocore
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.model import Shape
from onemachine.address import client
from onemachine.services import Services

# They call functions, of which these services have none.
LEFT_OUT = {"Invoke", "InvokeAsync", "InvokeWithResponseStream"}
ONCE = Config(retries={"max_attempts": 1}, parameter_validation=False, read_timeout=60)
TEXTS = ("string", "blob")


@pytest.fixture(scope="module")
def lambdas() -> Iterator[Any]:
    services = Services()
    yield client(services.endpoint, "lambda", ONCE)
    services.stop()


def value_of(shape: Shape) -> Any:
    """Return a value with what is required of a shape."""
    if shape.type_name == "structure":
        return {name: value_of(shape.members[name]) for name in shape.required_members}
    empty = {"list": [], "map": {}, "boolean": True}
    return "x" * 12 if shape.type_name in TEXTS else empty.get(shape.type_name, 1)


def refusal_of(lambdas: Any, operation: str) -> dict[str, str]:
    """Return the error that a client reads in the answer to an operation; an empty one for no error."""
    wanted = lambdas.meta.service_model.operation_model(operation).input_shape
    try:
        getattr(lambdas, botocore.xform_name(operation))(**(value_of(wanted) if wanted else {}))
    except ClientError as error:
        refusal: dict[str, str] = error.response["Error"]
        return refusal
    return {}


def test_every_operation_of_lambda_is_answered_or_refused_as_a_client_reads_it(
    lambdas: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    operations = sorted({*lambdas.meta.service_model.operation_names} - LEFT_OUT)
    refusals = {operation: refusal_of(lambdas, operation) for operation in operations}

    # Without an error that it understands, botocore takes the status for the code.
    unreadable = [name for name, said in refusals.items() if said.get("Code", "x").isdigit()]
    assert not unreadable
    assert not [name for name, said in refusals.items() if said and not said.get("Message")]
    assert not [name for name, said in refusals.items() if "<html" in str(said).lower()]
    assert not refusals["ListFunctions"]
    assert refusals["GetFunction"]["Code"] == refusals["UntagResource"]["Code"] == "ResourceNotFoundException"
    assert refusals["ListCodeSigningConfigs"]["Code"] == "NotImplemented"
    assert "Traceback" not in "".join(capfd.readouterr())
