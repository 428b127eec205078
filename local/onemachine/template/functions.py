"""The Lambda functions of a stack."""

from collections.abc import Mapping
from dataclasses import dataclass

from onemachine.template.sam import NOT_RUN, NOT_RUN_BUCKET
from onemachine.template.stack import Stack, refuse, text_of

# What Lambda takes where the template is silent:
# https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-lambda-function.html
# https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-lambda-eventsourcemapping.html
_DEFAULT_MEMORY_MB = 128


_DEFAULT_TIMEOUT_S = 3


@dataclass(frozen=True)
class FunctionSpec:
    """A Lambda function.

    Attributes:
        logical_id: Its name in the template.
        name: Its name in Lambda.
        handler: ``package.module.function``.
        code: The template's ``CodeUri``: a directory, relative to the template.
        memory_mb: Its memory in MiB.
        timeout_s: Seconds after which an invocation is ended.
        environment: Its environment variables.
        log_group: Where its lines go.
        log_format: ``JSON`` or ``Text``.
        runtime: For instance ``python3.13``.
        application_level: The lowest level of the application's lines that is kept, in JSON format.
        system_level: The lowest level of the platform's lines that is kept, in JSON format.
        reserved_concurrency: The invocations at once that are kept for it, None for a share of the account's.
        not_run: Why it cannot be run on one machine, whatever is in its directory; empty if it can.
    """

    logical_id: str
    name: str
    handler: str
    code: str
    memory_mb: int
    timeout_s: int
    environment: Mapping[str, str]
    log_group: str
    log_format: str
    runtime: str
    application_level: str
    system_level: str
    reserved_concurrency: int | None
    not_run: str = ""


def functions(stack: Stack) -> list[FunctionSpec]:
    """Lists a stack's Lambda functions.

    Args:
        stack: The stack.

    Returns:
        The functions, in the order of the template's CloudFormation form.

    Raises:
        TemplateError: A function has what cannot be run on one machine.
    """
    specs = []
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
        specs.append(
            FunctionSpec(
                logical_id=function.logical_id,
                name=function.name,
                handler=properties["Handler"],
                code=code["S3Key"],
                memory_mb=int(properties.get("MemorySize", _DEFAULT_MEMORY_MB)),
                timeout_s=int(properties.get("Timeout", _DEFAULT_TIMEOUT_S)),
                environment={name: text_of(value) for name, value in variables.items()},
                log_group=logging.get("LogGroup", f"/aws/lambda/{function.name}"),
                log_format=logging.get("LogFormat", "Text"),
                runtime=runtime,
                application_level=logging.get("ApplicationLogLevel", "INFO"),
                system_level=logging.get("SystemLogLevel", "INFO"),
                reserved_concurrency=None if reserved is None else int(reserved),
                not_run=not_run,
            )
        )
    return specs
