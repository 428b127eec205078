"""Lambda functions on one machine, under the runtime client that Lambda itself uses for Python."""

from onemachine.functions.definition import (
    ACCOUNT_ID,
    DEFAULT_REGION,
    MAX_PAYLOAD_BYTES,
    Function,
    FunctionFailedError,
    Invoke,
    Observe,
    Result,
    Ship,
    ThrottledError,
    function_arn,
    unobserved,
)
from onemachine.functions.own_modules import OwnModules
from onemachine.functions.pools import Functions

__all__ = [
    "ACCOUNT_ID",
    "DEFAULT_REGION",
    "MAX_PAYLOAD_BYTES",
    "Function",
    "FunctionFailedError",
    "Functions",
    "Invoke",
    "Observe",
    "OwnModules",
    "Result",
    "Ship",
    "ThrottledError",
    "function_arn",
    "unobserved",
]
