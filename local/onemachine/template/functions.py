"""The Lambda functions of a stack."""

from pathlib import Path

from onemachine.functions import Function
from onemachine.template.sam import NOT_RUN, NOT_RUN_BUCKET
from onemachine.template.stack import Stack, refuse, text_of

# What Lambda takes where the template is silent:
# https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-lambda-function.html
# https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-lambda-eventsourcemapping.html
_DEFAULT_MEMORY_MB = 128


_DEFAULT_TIMEOUT_S = 3


def functions(stack: Stack) -> list[Function]:
    """List a stack's Lambda functions.

    Args:
        stack: The stack.

    Returns:
        The functions, in the order of the template's CloudFormation form; `code` is relative to it.

    Raises:
        TemplateError: A function has what cannot be run on one machine.
    """
    found = []
    for function in stack.of_type("AWS::Lambda::Function"):
        properties = function.properties
        refuse(function, properties, {"DeadLetterConfig"}, "use an EventInvokeConfig with a destination")
        logging = properties.get("LoggingConfig", {})
        reserved = properties.get("ReservedConcurrentExecutions")
        variables = properties.get("Environment", {}).get("Variables", {})
        code, runtime = properties["Code"], properties.get("Runtime", "")
        not_run = NOT_RUN[code["S3Key"]] if code["S3Bucket"] == NOT_RUN_BUCKET else ""
        if not not_run and not runtime.startswith("python3."):
            not_run = f"its runtime is {runtime or 'not given'}; only Python runs here"
        found.append(
            Function(
                logical_id=function.logical_id,
                name=function.name,
                handler=properties["Handler"],
                code=Path(code["S3Key"]),
                memory_mb=int(properties.get("MemorySize", _DEFAULT_MEMORY_MB)),
                timeout_s=int(properties.get("Timeout", _DEFAULT_TIMEOUT_S)),
                environment={name: text_of(value) for name, value in variables.items()},
                log_group=logging.get("LogGroup", f"/aws/lambda/{function.name}"),
                log_format=logging.get("LogFormat", "Text"),
                application_level=logging.get("ApplicationLogLevel", "INFO"),
                system_level=logging.get("SystemLogLevel", "INFO"),
                reserved_concurrency=None if reserved is None else int(reserved),
                not_run=not_run,
            )
        )
    return found
