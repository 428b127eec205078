"""A service on one machine is a `Service` and one line: its resources, their names, its faults."""

import json
from pathlib import Path
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from onemachine.address import client
from onemachine.faults import Fault, Kind
from onemachine.pipeline import App, Pipeline
from onemachine.registry import SERVICES
from onemachine.service import Client, Host, ResourceType, Service
from onemachine.template.stack import Resource

removed: list[Any] = []


def create_parameter(client: Client, resource: Resource) -> None:
    client("ssm").put_parameter(Name=resource.name, **resource.properties)


def install(host: Host) -> str:
    return f"installed with {host.data}"


SSM = Service(
    "ssm",
    (
        ResourceType(
            "AWS::SSM::Parameter",
            "Name",
            others={"Value": "{Value}", "Arn": "arn:aws:ssm:{region}:{account}:parameter/{name}"},
            create=create_parameter,
        ),
    ),
    install=install,
    remove=removed.append,
    errors={Kind.THROTTLE: ("400 Bad Request", "TooManyUpdates")},
)

TEMPLATE = {
    "Transform": "AWS::Serverless-2016-10-31",
    "Resources": {
        "Colour": {"Type": "AWS::SSM::Parameter", "Properties": {"Type": "String", "Value": "green"}},
        "Other": {"Type": "AWS::EFS::FileSystem", "Properties": {}},
    },
    "Outputs": {
        "Name": {"Value": {"Ref": "Colour"}},
        "Value": {"Value": {"Fn::GetAtt": ["Colour", "Value"]}},
        "Arn": {"Value": {"Fn::GetAtt": ["Colour", "Arn"]}},
    },
}


def test_a_service_of_one_line_is_made_from_a_template_with_its_names_and_its_faults(tmp_path: Path) -> None:
    path = tmp_path / "template.yml"
    path.write_text(json.dumps(TEMPLATE))
    removed.clear()

    with Pipeline([App("app", path)], standing=(*SERVICES, SSM)) as pipeline:
        assert pipeline.outputs["app"] == {
            "Name": "app-Colour",
            "Value": "green",
            "Arn": "arn:aws:ssm:us-east-1:123456789012:parameter/app-Colour",
        }
        assert pipeline.not_run == ["Other (AWS::EFS::FileSystem)"]
        once = client(pipeline.services.endpoint, "ssm", Config(retries={"total_max_attempts": 1}))
        assert once.get_parameter(Name="app-Colour")["Parameter"]["Value"] == "green"

        pipeline.services.faults.add(Fault(Kind.THROTTLE, "ssm", "GetParameter"))
        with pytest.raises(ClientError, match="TooManyUpdates"):
            once.get_parameter(Name="app-Colour")

    assert removed == ["installed with None"]


def test_what_no_service_stands_for_is_named(tmp_path: Path) -> None:
    path = tmp_path / "template.yml"
    path.write_text(json.dumps({**TEMPLATE, "Outputs": {}}))

    with Pipeline([App("app", path)]) as pipeline:
        assert pipeline.not_run == ["Colour (AWS::SSM::Parameter)", "Other (AWS::EFS::FileSystem)"]


def test_no_two_services_have_one_name_or_type() -> None:
    types = [each.name for service in SERVICES for each in service.types]

    assert len({each.name for each in SERVICES}) == len(SERVICES)
    assert len(set(types)) == len(types)
