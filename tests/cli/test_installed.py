"""Installed for a project that has a `local`, `cli`, `consumers` and `exporter`, which stay the project's."""

import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import boto3
import pytest
from onemachine.address import client

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "how-to" / "run-your-function.md"
STARTS_WITHIN_S = 120

APP = """
import cli, consumers.rows, exporter
from local import place
from tagline import Emitter, add

emitter = Emitter()

@emitter.handler
def handler(event, context):
    import consumers.meters
    if event["items"] < 0:
        raise ValueError("items are not negative")
    add(client=event["client"], items=event["items"])
    return {"items": event["items"], "modules": [
        module.__file__ for module in (cli, consumers.rows, consumers.meters, exporter, place)
    ]}
"""
TEMPLATE = """
Transform: AWS::Serverless-2016-10-31
Resources:
  Orders:
    Type: AWS::Serverless::Function
    Properties: {Handler: app.handler, Runtime: python3.13, CodeUri: .}
"""
PROJECT = {
    "app.py": APP,
    "template.yml": TEMPLATE,
    # Some are packages, some are folders without __init__.py.
    "cli/__init__.py": "",
    "local/place.py": "",
    "consumers/rows.py": "",
    "consumers/meters.py": "",
    "exporter/__init__.py": "",
    "test_ours.py": """
import cli, consumers.rows, exporter, local.place
import pytest

def test_a_project_meets_its_own_folders_only(tagline, request):
    for module in (cli, consumers.rows, exporter, local.place):
        assert module.__file__.startswith(str(request.config.rootpath)), module

@pytest.mark.tagline(template="template.yml")
def test_so_does_its_function(tagline, request):
    answer = tagline.invoke("app-Orders", {"client": "acme", "items": 2})
    assert all(file.startswith(str(request.config.rootpath)) for file in answer["modules"]), answer
""",
}


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment in which our three distributions are installed, from their wheels."""
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    python = folder / "venv" / "bin" / "python"
    for project in (ROOT, ROOT / "emitter", ROOT / "local"):
        command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
        subprocess.run(command, cwd=project, check=True, capture_output=True)
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    wheels = [*folder.glob("*.whl")]
    subprocess.run([*pip, "--no-index", "--no-deps", *wheels], check=True, capture_output=True)
    # What they need is this interpreter's; the .pth files there, which name our checkout, do not count.
    (site,) = (folder / "venv" / "lib").glob("python*/site-packages")
    (site / "needed.pth").write_text(sysconfig.get_path("purelib"))
    return python


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name, text in PROJECT.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def environment() -> dict[str, str]:
    """Return this process's variables, without those by which it would find the checkout."""
    ours = ("PYTHONPATH", "PYTEST_ADDOPTS", "PYTEST_CURRENT_TEST", "PYTEST_XDIST_WORKER")
    return {name: value for name, value in os.environ.items() if name not in ours}


def test_the_wheels_bring_no_name_that_a_project_may_have(python: Path) -> None:
    (site,) = (python.parents[1] / "lib").glob("python*/site-packages")
    names = {path.name for path in site.iterdir() if not path.name.endswith((".dist-info", ".pth"))}
    assert names == {"tagline", "onemachine", "tagline_pipeline"}


def test_the_page_s_tests_and_a_project_s_pass(python: Path, project: Path) -> None:
    section = PAGE.read_text().partition("## In your tests")[2].partition("\n## ")[0]
    for name, text in re.findall(r"```python\n# (\S+)\n(.*?)```", section, re.DOTALL):
        (project / name).write_text(text)

    done = subprocess.run(
        [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", project],
        cwd=project,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 passed" in done.stdout


@pytest.fixture(params=[(), ("--in-process",)], ids=["processes", "in-process"])
def running(python: Path, project: Path, request: pytest.FixtureRequest) -> Iterator[Mapping[str, str]]:
    """What `tagline up` with the project's template writes for other commands."""
    command = [str(python.with_name("tagline")), "up", "--template", "template.yml", *request.param]
    process = subprocess.Popen(
        command,
        cwd=project,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        written, deadline = project / ".tagline" / "running.json", time.monotonic() + STARTS_WITHIN_S
        while not written.is_file() or not written.read_text().endswith("}"):
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                pytest.fail(f"{command} did not start: {process.communicate()[0]}")
            time.sleep(0.05)
        yield json.loads(written.read_text())
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=STARTS_WITHIN_S)


def test_the_command_runs_a_project_s_function(
    running: Mapping[str, str], project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onemachine.address.boto3", boto3.Session())
    calls = client(running["endpoint"], "lambda")

    response = calls.invoke(FunctionName="app-Orders", Payload=b'{"client": "acme", "items": 2}')

    answer = json.loads(response["Payload"].read())
    assert "FunctionError" not in response, answer
    assert all(Path(file).is_relative_to(project) for file in answer["modules"]), answer
