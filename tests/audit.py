"""What tools of others find in the templates: `make audit` runs this, outside `make check`.

cfn-lint, checkov, and AWS's own rules for AWS Control Tower with cfn-guard. All read what the transform makes
of a template, with values in place of parameters. What is left as it is has its reason in tests/audit.toml.
"""

import json
import os
import platform
import re
import subprocess
import tarfile
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from cfnlint.api import ManualArgs, lint
from onemachine.template.resolution import resolve
from onemachine.template.sam import translate

ROOT = Path(__file__).parents[1]
EXCEPTIONS = tomllib.loads((Path(__file__).parent / "audit.toml").read_text())["exception"]
EVERYTHING = {
    "Store": "timestream",
    "LogGroups": "/aws/lambda/shop",
    "MeterBucket": "ingest",
    "AlertEmail": "ops@example.com",
    "ExportFormats": "csv.gz,parquet",
}
REVIEWED = {
    **EVERYTHING,
    "KmsKeyArn": "arn:aws:kms:us-east-1:123456789012:key/11111111-2222-3333-4444-555555555555",
    "BucketVersioning": "Enabled",
    "AccessLogBucket": "access-logs",
    "ConsumerReservedConcurrency": "10",
    "MeterReservedConcurrency": "10",
    "ApiReservedConcurrency": "10",
    "LogRetentionDays": "365",
}
TEMPLATES: dict[str, tuple[str, dict[str, str]]] = {
    "pipeline": ("template.yml", EVERYTHING),
    "reviewed": ("template.yml", REVIEWED),
    "examples": ("examples/template.yml", {}),
    "pets": ("examples/pets_api/template.yml", {}),
    "pets_rest": ("examples/pets_api/template-rest.yml", {}),
}


class Finding(NamedTuple):
    """What a tool reports."""

    template: str
    check: str
    resource: str


def excuses(exception: dict[str, Any], finding: Finding) -> bool:
    return (
        finding.check in exception["checks"]
        and finding.template in exception.get("templates", TEMPLATES)
        and any(fnmatchcase(finding.resource, pattern) for pattern in exception["resources"])
    )


def plain(name: str) -> dict[str, Any]:
    """Return a template as CloudFormation has it after the transform, with values instead of functions."""
    path, parameters = TEMPLATES[name]
    template = translate(ROOT / path)
    stack = resolve(template, parameters, stack_name="tagline", endpoint="https://example.com")
    kept = ("DeletionPolicy", "UpdateReplacePolicy")
    return {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Resources": {
            name: {
                "Type": resource.type,
                "Properties": resource.properties,
                **{key: template["Resources"].get(name, {}).get(key, "Delete") for key in kept},
            }
            for name, resource in stack.resources.items()
        },
    }


def linted(name: str) -> Iterator[Finding]:
    template = translate(ROOT / TEMPLATES[name][0])
    for match in lint(json.dumps(template), config=ManualArgs(regions=["us-east-1", "eu-west-1"])):
        path = [str(part) for part in getattr(match, "path", None) or ()]
        yield Finding(name, match.rule.id, path[1] if len(path) > 1 else match.message)


def checkov(name: str, file: Path) -> Iterator[Finding]:
    arguments = ["--skip-download", "--framework", "cloudformation", "--file", str(file), "-o", "json"]
    done = subprocess.run([os.environ["CHECKOV"], *arguments], capture_output=True, text=True, check=False)
    report = json.loads(done.stdout)
    assert report["summary"]["parsing_errors"] == 0
    assert report["summary"]["passed"] > 0
    for failed in report["results"]["failed_checks"]:
        yield Finding(name, failed["check_id"], failed["resource"].rpartition(".")[2])


@pytest.fixture(scope="session")
def guard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder with cfn-guard and AWS's rules, which are packed in the package that brings them."""
    (packed,) = Path(os.environ["GUARD"]).rglob("cdk-validator-cfnguard@*.tgz")
    folder = tmp_path_factory.mktemp("guard")
    with tarfile.open(packed) as archive:
        archive.extractall(folder, filter="data")
    return folder / "package"


def guarded(name: str, file: Path, guard: Path) -> Iterator[Finding]:
    system = {"Linux": "ubuntu", "Darwin": "macos"}[platform.system()]
    machine = "aarch64" if platform.machine() in ("arm64", "aarch64") else "x86_64"
    program = guard / "bin" / system / machine / "cfn-guard"
    program.chmod(0o755)
    rules = guard / "rules" / "control-tower" / "cfn-guard"
    arguments = ["validate", "-r", str(rules), "-d", str(file), "--structured", "-S", "none", "-o", "json"]
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    (report,) = json.loads(done.stdout)
    assert len(report["compliant"]) + len(report["not_compliant"]) + len(report["not_applicable"]) > 200
    for rule in report["not_compliant"]:
        text = json.dumps(rule)
        checks = set(re.findall(r"\[(CT\.[A-Z0-9.]+)\]", text))
        resources = set(re.findall(r'"path": "/Resources/(\w+)', text))
        yield from (Finding(name, check, resource) for check in checks for resource in resources)


@pytest.fixture(scope="session")
def findings(guard: Path, tmp_path_factory: pytest.TempPathFactory) -> set[Finding]:
    folder, found = tmp_path_factory.mktemp("templates"), set()
    for name in TEMPLATES:
        file = folder / f"{name}.json"
        file.write_text(json.dumps(plain(name), indent=1))
        found |= {*linted(name), *checkov(name, file), *guarded(name, file, guard)}
    return found


def test_the_tools_find_nothing_that_is_not_excused(findings: set[Finding]) -> None:
    left = [each for each in findings if not any(excuses(one, each) for one in EXCEPTIONS)]
    assert "\n".join(sorted(map(str, left))) == ""


def test_every_exception_excuses_something(findings: set[Finding]) -> None:
    checks = {
        (number, check)
        for number, one in enumerate(EXCEPTIONS)
        for check in one["checks"]
        for each in findings
        if each.check == check and excuses(one, each)
    }
    unused = [
        f"exception {number + 1}: {check}"
        for number, one in enumerate(EXCEPTIONS)
        for check in one["checks"]
        if (number, check) not in checks
    ]
    assert unused == []
    assert all(len(one["reason"]) > 20 for one in EXCEPTIONS)
