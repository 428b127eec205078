"""What a command acts on: the pipeline that runs here, or a stack on AWS."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import requests
import tagline
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from onemachine import address, control

from cli.errors import CommandError
from consumers.accounts.compaction import READERS
from consumers.bucket import Bucket
from exporter.lake.forgotten_list import ForgottenList, key_of_secret
from exporter.stores import store_of_stack

if TYPE_CHECKING:
    from onemachine.pipeline import Pipeline

    from exporter.store import SqlStore

FOLDER = Path(".tagline")
FILE = FOLDER / "running.json"


@dataclass(frozen=True, slots=True)
class Target:
    """A pipeline that a command acts on.

    Attributes:
        endpoint: The address of the services on this machine; None for AWS, which this process's environment
            configures.
        outputs: The outputs of the pipeline's stack, by name.
        samples: The outputs of the stacks beside it, by name: the samples', or those of the user's template.
        tag: The token that marks a line.
        meter_tag: The token before a meter record; empty if records go to a search cluster instead.
        api_key: The key for the download API; None if it asks for none.
        prefix: What may be before a record on its line: the parameter LinePrefix.
    """

    endpoint: str | None
    outputs: Mapping[str, str]
    samples: Mapping[str, str]
    tag: str = tagline.DEFAULT_TAG
    meter_tag: str = "meter_record_for_stream"  # the parameter's default
    api_key: str | None = None
    prefix: str = ""

    def variables(self) -> dict[str, str]:
        """Return the variables of the pages' examples: addresses, names and, on this machine, credentials."""
        here = address.environment(self.endpoint) if self.endpoint else {}
        key = {"ApiKey": self.api_key} if self.api_key else {}
        return {**here, **self.samples, **self.outputs, **key}

    def now(self) -> datetime:
        """Return the time by the pipeline's clock, which `tagline tick` puts forward."""
        if self.endpoint is None:
            return datetime.now(UTC)
        return datetime.fromisoformat(self.act("clock")["now"])

    def client(self, service: str) -> Any:
        """Return a boto3 client of the pipeline's services."""
        # A function may run for 15 minutes, and is not called twice.
        config = Config(read_timeout=910, retries={"total_max_attempts": 1}, max_pool_connections=READERS)
        if self.endpoint is None:
            pool = Config(max_pool_connections=READERS)
            return boto3.client(service, config=config if service == "lambda" else pool)
        return address.client(self.endpoint, service, config)

    def bucket(self) -> Bucket:
        """Return the pipeline's bucket."""
        return Bucket(self.client("s3"), self.outputs["Bucket"])

    def forgotten(self) -> ForgottenList:
        """Return the pipeline's list of forgotten clients."""
        return ForgottenList(self.bucket(), key_of_secret(self.outputs["ForgottenKeyArn"], self.client))

    def store(self) -> SqlStore:
        """Return the pipeline's store, to ask it questions."""
        return store_of_stack(self.outputs["StoreName"], self.outputs, self.client)

    def invoke(self, output: str, event: Mapping[str, Any]) -> Any:
        """Call a function and return its answer.

        Args:
            output: The output that holds the function's name.
            event: The function's event.

        Raises:
            CommandError: If the function fails.
        """
        name = {**self.outputs, **self.samples}.get(output)
        if name is None:
            raise CommandError(
                f"the stack has no output {output}: an older template deployed it", "deploy this version's"
            )
        response = self.client("lambda").invoke(FunctionName=name, Payload=json.dumps(event).encode())
        answer = json.loads(response["Payload"].read())
        if "FunctionError" in response:
            group = output.removesuffix("Name") if output in self.outputs else f"/aws/lambda/{name}"
            raise CommandError(
                f"{name} failed: {answer.get('errorType')}: {answer.get('errorMessage')}",
                f"its log group has the details: tagline logs --function {group}",
            )
        return answer

    def act(self, action: str, **wanted: Any) -> Any:
        """Ask something of the pipeline that runs here, and return its answer.

        Raises:
            CommandError: If it refuses.
        """
        response = requests.post(f"{self.endpoint}{control.PREFIX}{action}", json=wanted, timeout=910)
        answer = response.json()
        if not response.ok:
            raise CommandError(str(answer["error"]), f"see tagline {action} --help")
        return answer


def find_target(stack: str | None) -> Target:
    """Return what a command acts on.

    Args:
        stack: The option `--stack`: a stack's name on AWS, or None for the pipeline that runs here.

    Raises:
        CommandError: If no pipeline runs here, or the stack is not a pipeline's.
    """
    return running_target() if stack is None else deployed_target(stack, boto3.client)


def deployed_target(stack: str, client: Callable[[str], Any]) -> Target:
    """Return the pipeline of a stack on AWS.

    Args:
        stack: The stack's name.
        client: Gives a boto3 client by a service's name.

    Raises:
        CommandError: If the stack does not exist, or its outputs are not a pipeline's.
    """
    try:
        (found,) = client("cloudformation").describe_stacks(StackName=stack)["Stacks"]
    except (BotoCoreError, ClientError) as error:
        raise CommandError(
            f"cannot find the stack {stack}: {error}",
            "give its name, and credentials and region that may cloudformation:DescribeStacks",
        ) from error
    outputs = {output["OutputKey"]: output["OutputValue"] for output in found.get("Outputs", [])}
    missing = sorted({"Bucket", "ForgottenKeyArn", "RowConsumerName", "StoreName"} - set(outputs))
    if missing:
        raise CommandError(
            f"the stack {stack} is not a pipeline: it has no output {', '.join(missing)}",
            "give the name of a stack that this version of template.yml made",
        )
    given = {each["ParameterKey"]: each["ParameterValue"] for each in found.get("Parameters", [])}
    return Target(None, outputs, {}, **_marks(given))


def running_target() -> Target:
    """Return the pipeline that runs here.

    Raises:
        CommandError: If no pipeline runs here.
    """
    found = running_or_none()
    if found is None:
        raise CommandError("no pipeline is running in this folder", "start one with: tagline up")
    return found


def running_or_none() -> Target | None:
    """Return the pipeline that runs here, or None; also if there is only a file that a dead process left."""
    try:
        read = json.loads(FILE.read_text())
        os.kill(read.pop("pid"), 0)
        return Target(**read)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def target_of(pipeline: Pipeline) -> Target:
    """Return a pipeline of this process as a target."""
    samples = {
        name: value
        for stack in ("sample", "pets", "app")
        for name, value in pipeline.outputs.get(stack, {}).items()
    }
    marks = _marks(pipeline.parameters["tagline"])
    return Target(
        pipeline.services.endpoint, pipeline.outputs["tagline"], samples, api_key=pipeline.api_key, **marks
    )


def _marks(parameters: Mapping[str, str]) -> dict[str, str]:
    """Return how lines are marked, by the parameters of a pipeline's stack."""
    names = {"tag": "Tag", "meter_tag": "MeterTag", "prefix": "LinePrefix"}
    marks = {field: parameters[name] for field, name in names.items() if name in parameters}
    # With a search cluster, the consumer of meters reads the same lines as the other.
    return {**marks, "meter_tag": ""} if parameters.get("SearchUrl") else marks


def write_running(target: Target) -> None:
    """Write a pipeline's addresses to a file, for the other commands."""
    FOLDER.mkdir(exist_ok=True)
    FILE.unlink(missing_ok=True)
    FILE.touch(0o600)  # it holds the API's key
    FILE.write_text(json.dumps({"pid": os.getpid(), **asdict(target)}, indent=1))


def remove_running() -> None:
    """Remove that file: no pipeline runs here any more."""
    FILE.unlink(missing_ok=True)
