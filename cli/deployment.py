"""Where a running pipeline is: its addresses, kept in a file while `tagline up` runs."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from botocore.config import Config

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
        endpoint: The address of the services.
        outputs: The outputs of the pipeline's stack, by name.
        samples: The outputs of the sample application's stack, by name.
    """

    endpoint: str
    outputs: Mapping[str, str]
    samples: Mapping[str, str]

    @property
    def table(self) -> str:
        """The table's name as SQL."""
        return f'"{self.outputs["TimestreamDatabase"]}"."{self.outputs["TimestreamTable"]}"'

    def client(self, service: str) -> Any:
        """Return a boto3 client of the pipeline's services."""
        # A function may run for 15 minutes, and is not to be asked twice.
        return services.client(
            self.endpoint, service, Config(read_timeout=910, retries={"total_max_attempts": 1})
        )

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
        response = requests.post(self.endpoint + control.PREFIX + action, json=wanted, timeout=910)
        answer = response.json()
        if not response.ok:
            raise CommandError(str(answer["error"]), f"see tagline {action} --help")
        return answer


def write_running(deployment: Deployment) -> None:
    """Keep where a pipeline is, for the other commands."""
    FOLDER.mkdir(exist_ok=True)
    FILE.write_text(
        json.dumps(
            {
                "pid": os.getpid(),
                "endpoint": deployment.endpoint,
                "outputs": dict(deployment.outputs),
                "samples": dict(deployment.samples),
            },
            indent=1,
        )
    )


def forget_running() -> None:
    """Say that no pipeline runs any more."""
    FILE.unlink(missing_ok=True)


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
    return Deployment(read["endpoint"], read["outputs"], read["samples"])
