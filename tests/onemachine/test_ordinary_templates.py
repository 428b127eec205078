"""Ordinary templates: what cannot be run here is named and left out, and the rest runs."""

from __future__ import annotations

import os
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml
from onemachine.pipeline import Pipeline, missing_requirements
from onemachine.template.stack import ParameterError, TemplateError

from cli.apps import built, tagline_with_template

STREAM = {"Stream": {"Fn::GetAtt": "S.Arn"}, "StartingPosition": "LATEST"}


def function(event: tuple[str, dict[str, Any]] | None = None, **values: Any) -> dict[str, Any]:
    properties = {"Handler": "a.b", "Runtime": "python3.13", "CodeUri": "src", **values}
    if event:
        properties["Events"] = {"Event": {"Type": event[0], "Properties": event[1]}}
    return {"Type": "AWS::Serverless::Function", "Properties": properties}


def route(path: str) -> tuple[str, dict[str, Any]]:
    return "HttpApi", {"Path": path, "Method": "GET", "ApiId": {"Ref": "Api"}}


def written(folder: Path, resources: dict[str, Any], **sections: Any) -> Path:
    path = folder / "template.yml"
    document = {"Transform": "AWS::Serverless-2016-10-31", "Resources": resources, **sections}
    path.write_text(yaml.safe_dump(document))
    return path


IMPORTED: dict[str, Any] = {"Environment": {"Variables": {"A": {"Fn::ImportValue": "network-a"}}}}
SCHEDULED = ("Schedule", {"Schedule": "rate(1 minute)"})
LEFT_OUT: list[tuple[dict[str, Any], str]] = [
    (function(Runtime="nodejs22.x"), "its runtime is nodejs22.x; only Python runs here"),
    (function(CodeUri="s3://b/k"), "its code is in an archive; only code in a directory runs here"),
    (
        function(CodeUri={"Bucket": "b", "Key": "k"}),
        "its code is in an archive; only code in a directory runs here",
    ),
    (function(InlineCode="pass", CodeUri=None), "inline code; only code in a directory runs here"),
    (
        {"Type": "AWS::Serverless::Function", "Properties": {"PackageType": "Image", "ImageUri": "i:1"}},
        "an image; only code in a directory runs here",
    ),
    (function(CodeUri="nowhere"), "its CodeUri, nowhere, is not a folder beside the template"),
    (function(**IMPORTED), "it needs a value of another stack, by Fn::ImportValue"),
    (function(SCHEDULED, Runtime="java21"), "its runtime is java21; only Python runs here"),
    (
        function(("Kinesis", STREAM), Runtime="java21"),
        "its runtime is java21; only Python runs here",
    ),
    (
        function(route("/b"), Runtime="java21"),
        "its runtime is java21; only Python runs here",
    ),
]


def test_what_cannot_be_run_is_named_and_the_rest_runs(tmp_path: Path) -> None:
    others = {f"Other{number}": resource for number, (resource, _) in enumerate(LEFT_OUT)}
    api = {"Type": "AWS::Serverless::HttpApi", "Properties": {}}
    ours = {
        "F": function(route("/a")),
        "Api": api,
        "S": {"Type": "AWS::Kinesis::Stream", "Properties": {"ShardCount": 1}},
    }
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.py").write_text("def b(event, context):\n    return 'here'\n")
    outputs = {"Imported": {"Value": {"Fn::ImportValue": "network-a"}}}
    path = written(tmp_path, {**ours, **others}, Outputs=outputs)

    with Pipeline(tagline_with_template(path)[:1], in_process=True) as pipeline:
        assert set(pipeline.not_run) == {f"Other{n} ({why})" for n, (_, why) in enumerate(LEFT_OUT)}
        assert pipeline.functions.names() == ["app-F"]
        url = pipeline.addresses["app"]["Api"]
        with urllib.request.urlopen(f"{url}/a") as response:
            assert response.read() == b"here"


def test_a_template_of_which_nothing_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TemplateError, match=r"has no function that runs here: F \(its runtime is go1.x"):
        tagline_with_template(written(tmp_path, {"F": function(Runtime="go1.x")}))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("Resources: [", "is not YAML or JSON"),
        ("\x00", "is not YAML or JSON"),
        ("", "has no Resources"),
        ("[1]", "has no Resources"),
        ("Resources: {A: {Properties: {}}}", "resource A has no Type"),
        ("Resources: {A: }", "resource A has no Type"),
        (
            "{Transform: AWS::Serverless-2016-10-31, Resources: {A: {Type: AWS::Serverless::Function}}}",
            "Resource with id .A. is invalid",
        ),
    ],
)
def test_what_is_no_template_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "template.yml"
    path.write_text(text)
    with pytest.raises(TemplateError, match=complaint):
        tagline_with_template(path)


def test_a_parameter_is_the_templates_or_the_pipelines(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    path = written(tmp_path, {"F": function()}, Parameters={"Things": {"Type": "String"}})
    app, pipeline = tagline_with_template(path, {"Things": "a", "BatchSize": "7"})
    assert (app.parameters, pipeline.parameters["BatchSize"]) == ({"Things": "a"}, "7")
    with pytest.raises(ParameterError, match="parameter Things has no default and was not given"):
        tagline_with_template(path)


def test_what_sam_build_made_is_taken_unless_it_is_older(tmp_path: Path) -> None:
    path, made = tmp_path / "template.yml", tmp_path / ".aws-sam" / "build" / "template.yaml"
    path.write_text("")
    assert built(path) == path
    made.parent.mkdir(parents=True)
    made.write_text("")
    os.utime(path, (1_000, 1_000))
    assert built(path) == made
    os.utime(made, (999, 999))
    assert built(path) == path


def test_requirements_that_are_nowhere_are_named(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text(
        "# what it needs\n-r other.txt\nboto3>=1\nno-such-library==1.0 ; python_version > '3'\nBundled_One\n"
        "tagline @ git+https://example.com/tagline\nother[extra]\n"
    )
    bundled = tmp_path / "bundled_one-1.0.dist-info"
    bundled.mkdir()
    (bundled / "METADATA").write_text("Metadata-Version: 2.1\nName: bundled-one\nVersion: 1.0\n")
    assert missing_requirements(tmp_path) == ["no-such-library", "other"]
    assert missing_requirements(bundled) == []
