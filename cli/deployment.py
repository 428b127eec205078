"""Where a running pipeline is: its addresses, kept in a file while `tagline up` runs."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import requests
import tagline
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from local import control, services

FOLDER = Path(".tagline")
FILE = FOLDER / "running.json"


class CommandError(Exception):
    """What went wrong and what to do next, for the one at the terminal."""

    def __init__(self, problem: str, advice: str) -> None:
        super().__init__(problem)
        self.advice = advice


@dataclass(frozen=True, slots=True)
class Deployment:
    """A running pipeline.

    Attributes:
        endpoint: The address of the services; None for AWS, as this process's environment says.
        outputs: The outputs of the pipeline's stack, by name.
        samples: The outputs of the sample application's stack, by name.
        tag: The token that marks a line.
        meter_tag: The token before a meter record.
        api_key: What the download API is asked with; None where it asks for none.
    """

    endpoint: str | None
    outputs: Mapping[str, str]
    samples: Mapping[str, str]
    tag: str = tagline.DEFAULT_TAG
    meter_tag: str = "meter_record_for_stream"  # the parameter's default
    api_key: str | None = None

    @property
    def table(self) -> str:
        """The table's name as SQL."""
        return f'"{self.outputs["TimestreamDatabase"]}"."{self.outputs["TimestreamTable"]}"'

    def now(self) -> datetime:
        """Return the time by the pipeline's clock, which `tagline tick` puts forward."""
        if self.endpoint is None:
            return datetime.now(UTC)
        return datetime.fromisoformat(self.act("clock")["now"])

    def client(self, service: str) -> Any:
        """Return a boto3 client of the pipeline's services."""
        # A function may run for 15 minutes, and is not to be asked twice.
        config = Config(read_timeout=910, retries={"total_max_attempts": 1})
        if self.endpoint is None:
            return boto3.client(service, config=config if service == "lambda" else None)
        return services.client(self.endpoint, service, config)

    def invoke(self, output: str, event: Mapping[str, Any]) -> Any:
        """Call a function and return its answer.

        Args:
            output: The output that holds the function's name.
            event: What it is given.

        Raises:
            CommandError: If it fails.
        """
        name = {**self.outputs, **self.samples}[output]
        response = self.client("lambda").invoke(FunctionName=name, Payload=json.dumps(event).encode())
        answer = json.loads(response["Payload"].read())
        if "FunctionError" in response:
            raise CommandError(
                f"{name} failed: {answer.get('errorType')}: {answer.get('errorMessage')}",
                "its log group has the whole story",
            )
        return answer

    def act(self, action: str, **wanted: Any) -> Any:
        """Ask something of the pipeline itself, and return its answer.

        Raises:
            CommandError: If it refuses.
        """
        response = requests.post(f"{self.endpoint}{control.PREFIX}{action}", json=wanted, timeout=910)
        answer = response.json()
        if not response.ok:
            raise CommandError(str(answer["error"]), f"see tagline {action} --help")
        return answer


def write_running(deployment: Deployment) -> None:
    """Keep where a pipeline is, for the other commands."""
    FOLDER.mkdir(exist_ok=True)
    FILE.unlink(missing_ok=True)
    FILE.touch(0o600)  # the key is nobody else's
    FILE.write_text(
        json.dumps(
            {
                "pid": os.getpid(),
                "endpoint": deployment.endpoint,
                "outputs": dict(deployment.outputs),
                "samples": dict(deployment.samples),
                "api_key": deployment.api_key,
            },
            indent=1,
        )
    )


def forget_running() -> None:
    """Say that no pipeline runs any more."""
    FILE.unlink(missing_ok=True)


def deployed(stack: str, cloudformation: Any) -> Deployment:
    """Return the pipeline of a stack on AWS.

    Args:
        stack: The stack's name.
        cloudformation: A boto3 client, of the account and region that this process's environment says.

    Raises:
        CommandError: If there is no such stack, or its outputs are not a pipeline's.
    """
    try:
        (found,) = cloudformation.describe_stacks(StackName=stack)["Stacks"]
    except (BotoCoreError, ClientError) as error:
        raise CommandError(
            f"cannot find the stack {stack}: {error}",
            "give its name, and credentials and region that may cloudformation:DescribeStacks",
        ) from error
    outputs = {output["OutputKey"]: output["OutputValue"] for output in found.get("Outputs", [])}
    missing = sorted({"Bucket", "RowConsumerName"} - set(outputs))
    if missing:
        raise CommandError(
            f"the stack {stack} is no pipeline: it has no output {', '.join(missing)}",
            "give the name of the stack that template.yml made",
        )
    given = {each["ParameterKey"]: each["ParameterValue"] for each in found.get("Parameters", [])}
    tags = {
        field: given[name] for field, name in (("tag", "Tag"), ("meter_tag", "MeterTag")) if name in given
    }
    return Deployment(None, outputs, {}, **tags)


def running() -> Deployment:
    """Return the pipeline that runs here.

    Raises:
        CommandError: If there is none.
    """
    found = running_or_none()
    if found is None:
        raise CommandError("no pipeline is running in this folder", "start one with: tagline up")
    return found


def running_or_none() -> Deployment | None:
    """Return the pipeline that runs here, or None; a file that a dead process left behind is none."""
    try:
        read = json.loads(FILE.read_text())
        os.kill(read["pid"], 0)
    except (OSError, ValueError, KeyError):
        return None
    return Deployment(read["endpoint"], read["outputs"], read["samples"], api_key=read.get("api_key"))
