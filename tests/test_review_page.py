"""What docs/how-to/pass-a-review.md says to add to the template works there."""

import re
from pathlib import Path
from typing import Any

from onemachine.template.sam import translate

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "how-to" / "pass-a-review.md").read_text()
TEMPLATE = (ROOT / "template.yml").read_text()


def snippet(section: str) -> str:
    """Return the YAML of a section, indented as the properties of a resource are."""
    (found,) = re.findall(
        r"```yaml\n(.*?)```", PAGE.partition(f"\n## {section}\n")[2].partition("\n## ")[0], re.DOTALL
    )
    return re.sub(r"(?m)^", "      ", found.rstrip()) + "\n"


def changed(tmp_path: Path, before: str, text: str) -> dict[str, Any]:
    """Return the resources of the template with a text behind a line that it has once."""
    assert TEMPLATE.count(before) == 1
    path = tmp_path / "template.yml"
    path.write_text(TEMPLATE.replace(before, before + text))
    found: dict[str, Any] = translate(path)["Resources"]
    return found


def of_type(resources: dict[str, Any], type_: str) -> dict[str, Any]:
    return {
        name: each for name, each in resources.items() if isinstance(each, dict) and each["Type"] == type_
    }


def test_a_canary_shifts_the_stream_to_a_new_version(tmp_path: Path) -> None:
    before = "  RowConsumer:\n    Type: AWS::Serverless::Function\n"
    rest = TEMPLATE.partition(before)[2]
    properties = before + rest[: rest.index("    Properties:\n")] + "    Properties:\n"
    resources = changed(tmp_path, properties, snippet("Deploy step by step"))

    ((alias, of_alias),) = of_type(resources, "AWS::Lambda::Alias").items()
    assert of_alias["Properties"]["FunctionName"] == {"Ref": "RowConsumer"}
    ((_, group),) = of_type(resources, "AWS::CodeDeploy::DeploymentGroup").items()
    (alarm,) = group["Properties"]["AlarmConfiguration"]["Alarms"]
    assert resources[alarm["Name"]["Ref"]]["Type"] == "AWS::CloudWatch::Alarm"
    mappings = of_type(resources, "AWS::Lambda::EventSourceMapping").values()
    assert {"Ref": alias} in [each["Properties"]["FunctionName"] for each in mappings]


def test_functions_are_in_the_vpc(tmp_path: Path) -> None:
    resources = changed(tmp_path, "Globals:\n  Function:\n", re.sub("(?m)^  ", "", snippet("In a VPC")))

    found = [
        each["Properties"].get("VpcConfig") for each in of_type(resources, "AWS::Lambda::Function").values()
    ]
    assert len(found) > 5
    assert all(
        each == {"SubnetIds": ["subnet-1", "subnet-2"], "SecurityGroupIds": ["sg-1"]} for each in found
    )
