"""What an emulator of CloudFormation that is not ours makes of the template: `make witness` runs this.

It is no part of `make check`: MiniStack needs a separate environment, and its errors are not ours.
"""

import io
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
import zipfile
from collections.abc import Collection, Iterator, Mapping
from itertools import combinations
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
    "AWS::Logs::AccountPolicy",
    "AWS::Logs::QueryDefinition",
    "AWS::Timestream::Database",
    "AWS::Timestream::Table",
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


def known(template: dict[str, Any], given: Mapping[str, str]) -> dict[str, Any]:
    """Return the template with what MiniStack knows of it.

    Args:
        template: The template.
        given: The values of parameters.
    """
    resources = dict(template["Resources"])
    for name, resource in template["Resources"].items():
        type_ = resource["Type"] if isinstance(resource, dict) else ""
        is_formula = type_ == "AWS::CloudWatch::Alarm" and "Metrics" in resource["Properties"]
        if type_ == "AWS::CloudWatch::CompositeAlarm" or is_formula:
            resources[name] = {"Type": "AWS::CloudWatch::Alarm", "Properties": STAND_IN}
        elif type_ in UNKNOWN:
            del resources[name]
    conditions = dict(template["Conditions"])
    # In conditions it does not evaluate Fn::Join, and takes what that has for something else than any text.
    joining = {name for name, condition in conditions.items() if "Fn::Join" in json.dumps(condition)}
    values = {
        "CollectsLogGroups": given["LogGroups"] != "",
        "ExportsParquet": "parquet" in given["ExportFormats"],
        "ExportsCsvGz": "csv.gz" in given["ExportFormats"],
    }
    assert joining == values.keys()
    conditions.update({name: {"Fn::Equals": [str(value), "True"]} for name, value in values.items()})
    return {**template, "Resources": resources, "Conditions": conditions}


# ---- Parameters --------------------------------------------------------------------------------------------

KEY = "arn:aws:kms:us-east-1:000000000000:key/6f1c1a2e-0000-4000-8000-000000000000"
SECRET = "arn:aws:secretsmanager:us-east-1:000000000000:secret:key-Ab12Cd"
BOUNDARY = "arn:aws:iam::000000000000:policy/boundary"
Choice = dict[str, str]
# The main parameters, some of which make sense together only, with the values that change what is deployed.
PARAMETERS: dict[str, dict[str, Choice]] = {
    "store": {"lake": {"Store": "lake"}, "timestream": {"Store": "timestream"}},
    "stream": {"on demand": {}, "provisioned": {"StreamMode": "PROVISIONED", "ShardCount": "2"}},
    "log groups": {"one": {"LogGroups": GROUP}, "none": {"LogGroups": ""}},
    "new log groups": {"no": {}, "yes": {"NewLogGroups": "true"}},
    "formats": {
        "csv": {"ExportFormats": "csv.gz"},
        "parquet": {"ExportFormats": "parquet"},
        "both": {"ExportFormats": "parquet,csv.gz"},
    },
    "meters": {
        "none": {},
        "bucket": {"MeterBucket": "ingest"},
        "by a role": {"MeterBucket": "ingest", "MeterRoleArn": "arn:aws:iam::111122223333:role/ingest"},
        "api": {"MeterUrl": "https://ingest.example.com", "MeterApiKeyArn": SECRET},
        "search": {"SearchUrl": "https://es.example.com", "MeterApiKeyArn": SECRET},
    },
    "key": {"the services'": {}, "the customer's": {"KmsKeyArn": KEY}},
    "versions": {"no": {}, "yes": {"BucketVersioning": "Enabled"}},
    "access log": {"no": {}, "yes": {"AccessLogBucket": "access-logs"}},
    "callers": {
        "IAM": {},
        "tenants": {
            "JwtIssuer": "https://id.example.com",
            "JwtAudience": "tagline",
            "TenantClaim": "tenant",
        },
        "all": {"JwtIssuer": "https://id.example.com", "JwtAudience": "tagline", "TenantClaim": "*"},
    },
    "roles": {"plain": {}, "bounded": {"RolePath": "/apps/", "PermissionsBoundaryArn": BOUNDARY}},
    "concurrency": {
        "free": {},
        "reserved": {"ConsumerReservedConcurrency": "5", "ApiReservedConcurrency": "5"},
    },
    "alerts": {"nobody": {}, "mail": {"AlertEmail": "ops@example.com"}},
}


def pairs_of(row: dict[str, str]) -> set[frozenset[tuple[str, str]]]:
    """Return all pairs of a row's values."""
    return {frozenset(pair) for pair in combinations(row.items(), 2)}


def pairwise(values: Mapping[str, Collection[str]]) -> list[dict[str, str]]:
    """Return rows in which each pair of two parameters' values occurs.

    Each row begins with a pair that no row has yet, and takes for each other parameter the value that brings
    the most pairs of those.
    """
    missing = {
        frozenset(((one, first), (other, second)))
        for one, other in combinations(values, 2)
        for first in values[one]
        for second in values[other]
    }
    rows: list[dict[str, str]] = []
    while missing:
        row = dict(min(missing, key=sorted))
        for name in values:
            if name not in row:
                row[name] = max(values[name], key=lambda value: len(pairs_of({**row, name: value}) & missing))
        rows.append({name: row[name] for name in values})
        missing -= pairs_of(row)
    return rows


ROWS = pairwise({name: list(values) for name, values in PARAMETERS.items()})


def test_the_rows_have_each_pair_of_values() -> None:
    pairs = set().union(*map(pairs_of, ROWS))
    sizes = [len(values) for values in PARAMETERS.values()]
    assert len(pairs) == sum(one * other for one, other in combinations(sizes, 2))
    shown = f"{len(pairs)} pairs of {len(PARAMETERS)} parameters in {len(ROWS)} rows"
    sys.stdout.write(f"\n{shown}; types that it does not know: {', '.join(UNKNOWN)}\n")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: ", ".join(row.values()))
def test_a_stack_is_created_updated_and_deleted(row: dict[str, str], emulator: Emulator) -> None:
    template = translate(ROOT / "template.yml")
    service = emulator.cloudformation
    given = {name: value for each in row for name, value in PARAMETERS[each][row[each]].items()}
    sys.stdout.write(f"\n{given}\n")

    stack = service.create_stack(**emulator.arguments(known(template, given), **given))["StackId"]
    status, failed = emulator.ended(stack)
    assert (status, failed) == ("CREATE_COMPLETE", [])
    created = emulator.resources()
    assert len(created) > 100

    changed = {**given, "BatchSize": "500", "LakeDays": "400", "LogRetentionDays": "7"}
    service.update_stack(**emulator.arguments(known(template, changed), **changed))
    assert emulator.ended(stack) == ("UPDATE_COMPLETE", [])
    assert emulator.resources() == created  # no resource was replaced

    service.delete_stack(StackName=STACK)
    assert emulator.ended(stack) == ("DELETE_COMPLETE", [])
    events = service.describe_stack_events(StackName=stack)["StackEvents"]
    kept = {each["ResourceType"] for each in events if each["ResourceStatus"] == "DELETE_SKIPPED"}
    assert kept == RETAINED


def test_what_it_does_not_know_it_names(emulator: Emulator) -> None:
    template, named = translate(ROOT / "template.yml"), set[str]()
    for store in ("lake", "timestream"):
        given = emulator.arguments(template, Store=store, NewLogGroups="true")
        with pytest.raises(emulator.cloudformation.exceptions.ClientError) as refused:
            emulator.cloudformation.create_stack(**given)
        found = re.search(r"Unrecognized resource types: \[(.*)\]", str(refused.value))
        assert found
        named.update(found[1].split(", "))
    assert named == set(UNKNOWN)
