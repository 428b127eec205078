"""What a command acts on: the pipeline that runs here, or a stack on AWS."""

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import boto3
import pytest
from botocore.stub import Stubber
from onemachine.pipeline import App, Pipeline
from onemachine.services import Services
from typer.testing import CliRunner

from cli.apps import ROOT
from cli.errors import CommandError
from cli.main import app
from cli.target import FILE, Target, deployed_target, running_or_none, target_of, write_running


def test_a_deployed_stack_is_found_by_its_outputs_and_its_tag() -> None:
    outputs = {"Bucket": "b", "ForgottenKeyArn": "a", "RowConsumerName": "f", "StoreName": "timestream"}
    stack = {
        "StackName": "prod",
        "CreationTime": datetime.now(UTC),
        "StackStatus": "UPDATE_COMPLETE",
        "Parameters": [
            {"ParameterKey": "Tag", "ParameterValue": "my_tag"},
            {"ParameterKey": "MeterTag", "ParameterValue": "my_meter"},
            {"ParameterKey": "LinePrefix", "ParameterValue": "web-* |"},
            {"ParameterKey": "ShardCount", "ParameterValue": "1"},
        ],
        "Outputs": [{"OutputKey": name, "OutputValue": value} for name, value in outputs.items()],
    }
    client = boto3.client("cloudformation")
    with Stubber(client) as answers:  # It holds them against botocore's model of the service.
        answers.add_response("describe_stacks", {"Stacks": [stack]}, {"StackName": "prod"})
        answers.add_response("describe_stacks", {"Stacks": [{**stack, "Outputs": []}]})
        answers.add_client_error("describe_stacks", "ValidationError", "Stack with id none does not exist")

        found = deployed_target("prod", lambda _: client)
        with pytest.raises(
            CommandError, match="has no output Bucket, ForgottenKeyArn, RowConsumerName, StoreName"
        ):
            deployed_target("other", lambda _: client)
        with pytest.raises(CommandError, match=r"cannot find the stack none: .* does not exist"):
            deployed_target("none", lambda _: client)

    assert found == Target(None, outputs, {}, "my_tag", "my_meter", prefix="web-* |")
    assert found.client("lambda").meta.endpoint_url == "https://lambda.us-east-1.amazonaws.com"
    assert found.client("lambda").meta.config.retries["total_max_attempts"] == 1


@pytest.mark.parametrize(
    ("parameters", "meter_tag"),
    [({}, "meter_record_for_stream"), ({"SearchUrl": "https://es.example.com"}, "")],
)
def test_the_pipeline_that_runs_here_marks_lines_as_its_parameters_say(
    parameters: dict[str, str], meter_tag: str
) -> None:
    given = {"Tag": "my_tag", "LinePrefix": "web |", "Store": "timestream", **parameters}
    app = App("tagline", ROOT / "template.yml", given)
    pipeline = Pipeline([app])
    pipeline.outputs = {"tagline": {}}
    pipeline.services = Services()
    try:
        found = target_of(pipeline)
    finally:
        pipeline.services.stop()

    assert (found.tag, found.meter_tag, found.prefix) == ("my_tag", meter_tag, "web |")


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave boto3 without a region, so that a stack on AWS cannot be looked for."""
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)


@pytest.mark.usefixtures("nowhere")
@pytest.mark.tagline(processes=True)  # in this process, functions would take stdout from the commands
def test_the_option_or_the_environment_names_a_stack_instead_of_the_pipeline_that_runs_here(
    tagline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_running(target_of(tagline))

    days = ("--from", "2026-01-01", "--to", "2026-01-01")
    for command in (
        ("quarantine", "ls"),
        ("replay", "quarantine"),
        ("reconcile",),
        ("forget", "--client", "acme", *days),
    ):
        here = CliRunner().invoke(app, command)
        by_option = CliRunner().invoke(app, [*command, "--stack", "prod"])
        by_environment = CliRunner(env={"TAGLINE_STACK": "prod"}).invoke(app, command)

        assert here.exit_code == 0, here.output
        for named in (by_option, by_environment):
            assert isinstance(named.exception, CommandError)
            assert "cannot find the stack prod: You must specify a region" in str(named.exception)


def test_a_file_that_is_not_of_a_running_pipeline_is_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert running_or_none() is None
    target = Target("http://127.0.0.1:1", {"Bucket": "b"}, {}, api_key="secret")
    write_running(target)

    assert running_or_none() == target
    FILE.write_text(json.dumps({**json.loads(FILE.read_text()), "of_another_version": 1}))
    assert running_or_none() is None
    FILE.write_text("no JSON")
    assert running_or_none() is None


@pytest.mark.parametrize("modules", ["cli.main", "cli.main, cli.target, cli.answers"])
def test_the_command_and_a_question_import_no_services(modules: str) -> None:
    """They take seconds to import: `python -m benchmarks cli` has what a person waits."""
    heavy = {"moto", "duckdb", "sqlglot", "flask", "samtranslator", "pyarrow"}
    said = subprocess.run(
        [sys.executable, "-c", f"import sys, {modules}; print(*({heavy} & sys.modules.keys()))"],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )

    assert said.stdout.split() == []
