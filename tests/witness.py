"""What an emulator of CloudFormation that is not ours makes of the template: `make witness` runs this.

It is no part of `make check`: MiniStack needs a separate environment, and its errors are not ours.
"""

import io
import json
import os
import socket
import subprocess
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from onemachine.template.sam import LOCAL_CODE_BUCKET, translate

ROOT = Path(__file__).parents[1]
GROUP, STACK = "/aws/lambda/shop", "tagline-witness"
TIMEOUT_S = 120
# The types that MiniStack does not know. It refuses a template with one, and names them.
UNKNOWN = (
    "AWS::Athena::NamedQuery",
    "AWS::CloudWatch::CompositeAlarm",
    "AWS::Logs::QueryDefinition",
    "AWS::XRay::Group",
)
# Stands in for alarms that it cannot make, of formulas and of others: the dashboard names them.
STAND_IN = {
    "Namespace": "Tagline",
    "MetricName": "stand_in",
    "ComparisonOperator": "GreaterThanThreshold",
    "EvaluationPeriods": 1,
    "Period": 60,
    "Statistic": "Sum",
    "Threshold": 1,
}
RETAINED = {
    "AWS::Lambda::LayerVersion",
    "AWS::Logs::LogGroup",
    "AWS::S3::Bucket",
    "AWS::S3::BucketPolicy",
    "AWS::SecretsManager::Secret",
}


class Emulator:
    """A MiniStack with the template's code in it."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"
        self.cloudformation = self.client("cloudformation")
        code = io.BytesIO()
        with zipfile.ZipFile(code, "w") as archive:
            archive.writestr("code.py", "")
        self.client("s3").create_bucket(Bucket=LOCAL_CODE_BUCKET)
        self.client("s3").put_object(Bucket=LOCAL_CODE_BUCKET, Key=".", Body=code.getvalue())
        self.client("logs").create_log_group(logGroupName=GROUP)

    def client(self, service: str) -> Any:
        return boto3.client(
            service,
            endpoint_url=self._url,
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )

    def arguments(self, template: dict[str, Any], **parameters: str) -> dict[str, Any]:
        """Return what a stack is made or updated with."""
        self.client("s3").put_object(
            Bucket=LOCAL_CODE_BUCKET, Key="template.json", Body=json.dumps(template).encode()
        )
        given = {"Store": "lake", "LogGroups": GROUP, **parameters}
        return {
            "StackName": STACK,
            "TemplateURL": f"{self._url}/{LOCAL_CODE_BUCKET}/template.json",
            "Parameters": [{"ParameterKey": name, "ParameterValue": value} for name, value in given.items()],
            "Capabilities": ["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
        }

    def ended(self, stack: str) -> tuple[str, list[str]]:
        """Wait for a stack, and return its status and what failed in it."""
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            events = self.cloudformation.describe_stack_events(StackName=stack)["StackEvents"]
            of_stack = [each for each in events if each["ResourceType"] == "AWS::CloudFormation::Stack"]
            status = str(of_stack[0]["ResourceStatus"])
            if not status.endswith("IN_PROGRESS"):
                failed = [
                    f"{each['LogicalResourceId']}: {each.get('ResourceStatusReason')}"
                    for each in events
                    if "FAILED" in each["ResourceStatus"]
                ]
                return status, failed
            time.sleep(0.2)
        raise TimeoutError(f"{stack} is not done after {TIMEOUT_S} seconds")

    def resources(self) -> dict[str, str]:
        """Return the physical ids of the stack's resources."""
        found = self.cloudformation.describe_stack_resources(StackName=STACK)["StackResources"]
        return {each["LogicalResourceId"]: each["PhysicalResourceId"] for each in found}


@pytest.fixture
def emulator(tmp_path: Path) -> Iterator[Emulator]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "GATEWAY_PORT": str(port),
        "BIND_HOST": "127.0.0.1",
        "S3_PERSIST": "0",
        "TMPDIR": str(tmp_path),
        "HOME": str(tmp_path),
    }
    with (
        (tmp_path / "log").open("w") as log,
        subprocess.Popen([os.environ["MINISTACK"]], env=environment, stdout=log, stderr=log) as process,
    ):
        try:
            wait_for(f"http://127.0.0.1:{port}/_ministack/health", process)
            yield Emulator(port)
        finally:
            process.terminate()


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError("MiniStack does not answer")


def known(template: dict[str, Any]) -> dict[str, Any]:
    """Return the template with what MiniStack knows of it."""
    resources = dict(template["Resources"])
    for name, resource in template["Resources"].items():
        type_ = resource["Type"] if isinstance(resource, dict) else ""
        is_formula = type_ == "AWS::CloudWatch::Alarm" and "Metrics" in resource["Properties"]
        if type_ == "AWS::CloudWatch::CompositeAlarm" or is_formula:
            resources[name] = {"Type": "AWS::CloudWatch::Alarm", "Properties": STAND_IN}
        elif type_ in UNKNOWN:
            del resources[name]
    return {**template, "Resources": resources}


def test_a_stack_with_the_lake_is_created_updated_and_deleted(emulator: Emulator) -> None:
    template = translate(ROOT / "template.yml")
    service = emulator.cloudformation
    with pytest.raises(service.exceptions.ClientError) as refused:
        service.create_stack(**emulator.arguments(template))
    assert f"Unrecognized resource types: [{', '.join(UNKNOWN)}]" in str(refused.value)

    stack = service.create_stack(**emulator.arguments(known(template)))["StackId"]
    assert emulator.ended(stack) == ("CREATE_COMPLETE", [])
    created = emulator.resources()
    assert len(created) > 100

    service.update_stack(**emulator.arguments(known(template), BatchSize="500", LakeDays="400"))
    assert emulator.ended(stack) == ("UPDATE_COMPLETE", [])
    assert emulator.resources() == created  # no resource was replaced

    service.delete_stack(StackName=STACK)
    assert emulator.ended(stack) == ("DELETE_COMPLETE", [])
    events = service.describe_stack_events(StackName=stack)["StackEvents"]
    kept = {each["ResourceType"] for each in events if each["ResourceStatus"] == "DELETE_SKIPPED"}
    assert kept == RETAINED
