"""The tutorial's own files, taken from its page, run beside the pipeline: a request becomes a row."""

import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from onemachine.pipeline import Pipeline

from cli.apps import tagline_with_template

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "first-record.md"


def block(language: str, start: str) -> str:
    """Return the page's block of a language that begins so."""
    fenced = re.compile(rf"^```{language}\n({re.escape(start)}.*?)^```$", re.MULTILINE | re.DOTALL)
    found = fenced.findall(PAGE.read_text())
    assert len(found) == 1
    return str(found[0])


@pytest.fixture
def pipeline(tmp_path: Path) -> Iterator[Pipeline]:
    (tmp_path / "app.py").write_text(block("python", "from tagline import"))
    template = tmp_path / "template.yml"
    template.write_text(block("yaml", "Transform:"))
    with Pipeline(tagline_with_template(template), in_process=False) as running:
        yield running


def test_the_handler_of_the_tutorial_leaves_a_row(pipeline: Pipeline) -> None:
    """In a process under the Lambda runtime client, as `tagline up` runs it."""
    with urllib.request.urlopen(f"{pipeline.outputs['app']['Url']}/pets/7", timeout=60) as answer:
        assert answer.read() == b"ok"
    pipeline.settle()

    outputs = pipeline.outputs["tagline"]
    table = f'"{outputs["TimestreamDatabase"]}"."{outputs["TimestreamTable"]}"'
    found = pipeline.client("timestream-query").query(QueryString=f"SELECT route, client, items FROM {table}")
    rows = [[datum["ScalarValue"] for datum in row["Data"]] for row in found["Rows"]]
    assert rows == [["/pets/{id}", "acme", "3.0"]]
