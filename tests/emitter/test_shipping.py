"""However it is shipped, the emitter works alone, on every Python that is here from 3.9 up."""

import ast
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tokenize
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tagline
from tagline import read

from tests.emitter.pythons import EMITTER, OLDEST, pythons

ROOT = Path(__file__).parents[2]

USE = """
import sys

sys.path.insert(0, sys.argv[1])
import tagline


@tagline.Emitter(metrics={"items": "Count"}, namespace="Shop").handler
def handler(event, context):
    tagline.add(items=3, when=tagline.parse_timestamp("2015-05-17T12:05:03.5+02:00"), token="hush")
    return {"statusCode": 200}


handler({"routeKey": "GET /pets", "rawPath": "/pets", "requestContext": {"http": {"method": "GET"}}}, None)
print(tagline.__version__, tagline.__file__)

import asyncio, importlib

asgi = importlib.import_module("tagline.asgi")
sent = []


async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def ask():
    scope = {"type": "http", "method": "GET", "path": "/asgi", "headers": [(b"x-request-id", b"r1")]}

    async def send(message):
        sent.append(message)

    await asgi.TaglineMiddleware(app, route=lambda scope: "/asgi", background_from_ms=float("inf"))(scope,
    None, send)


asyncio.run(ask())
print(asgi.__file__)
"""


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel and the sdist once."""
    return build(EMITTER, tmp_path_factory.mktemp("dist"))


def build(project: Path, folder: Path) -> Path:
    """Build the wheel and the sdist of a project into a folder."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-t", "sdist", "-d", str(folder)]
    subprocess.run(command, cwd=project, check=True, capture_output=True)
    return folder


def installed(distribution: object, folder: Path) -> Path:
    """Install a distribution into a folder, from nothing but itself."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    command += [
        "--no-deps",
        "--no-build-isolation",
        "--no-compile",
        "--target",
        str(folder),
        str(distribution),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return folder


def wheel(dist: Path, folder: Path) -> Path:
    return installed(next(dist.glob("*.whl")), folder)


def sdist(dist: Path, folder: Path) -> Path:
    return installed(next(dist.glob("*.tar.gz")), folder)


def layer(_dist: Path, folder: Path) -> Path:
    subprocess.run(
        ["make", "-s", "build-EmitterLayer", f"ARTIFACTS_DIR={folder}"],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("MAKE")},
        check=True,
        capture_output=True,
    )
    return folder / "python"


def copied(_dist: Path, folder: Path) -> Path:
    shutil.copytree(EMITTER / "tagline", folder / "tagline", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def from_git(_dist: Path, folder: Path) -> Path:
    """Install from a repository's subdirectory, as people do before there is a release."""
    repository = folder / "repository"
    shutil.copytree(EMITTER, repository / "emitter", ignore=shutil.ignore_patterns("__pycache__"))
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-q", "-m", "a"]):
        subprocess.run(["git", *command], cwd=repository, check=True, capture_output=True)
    return installed(f"git+file://{repository}#subdirectory=emitter", folder / "installed")


WAYS: list[Callable[[Path, Path], Path]] = [wheel, sdist, layer, copied, from_git]


@pytest.fixture(scope="module", params=WAYS, ids=lambda way: way.__name__)
def shipped(request: pytest.FixtureRequest, dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return request.param(dist, tmp_path_factory.mktemp(request.param.__name__))


@pytest.mark.parametrize("version", pythons())
def test_it_writes_a_record_from_where_it_was_put(version: str, shipped: Path) -> None:
    # -I and -S: neither this checkout nor the virtual environment can be reached. -W: nothing is deprecated.
    done = subprocess.run(
        [pythons()[version], "-I", "-S", "-W", "error", "-c", USE, str(shipped)],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONDONTWRITEBYTECODE": "1"},
    )

    assert (done.returncode, done.stderr) == (0, "")
    line, said, request, asgi_file = done.stdout.splitlines()
    number, file = said.split(" ", 1)
    assert number == tagline.__version__
    assert Path(file).is_relative_to(shipped)
    fields = read(line).fields
    assert (fields["items"], fields["status"], fields["token"]) == (3, 200, "***")
    assert fields["when"] == 1_431_857_103_500
    assert '"_aws":{' in line
    assert Path(asgi_file).is_relative_to(shipped)
    served = read(request).fields
    assert (served["route"], served["status"], served["correlation_id"]) == ("/asgi", 204, "r1")


def test_the_oldest_python_that_is_promised_is_the_oldest_that_is_tested() -> None:
    declared = tomllib.loads((EMITTER / "pyproject.toml").read_text())["project"]

    assert declared["requires-python"] == f">={OLDEST[0]}.{OLDEST[1]}"
    assert declared["dependencies"] == []


def test_the_syntax_is_that_of_the_oldest_python_also_where_it_is_not_installed() -> None:
    with pytest.raises(SyntaxError):
        ast.parse("match 1:\n    case 1:\n        pass", feature_version=OLDEST)  # Python 3.10

    for path in (EMITTER / "tagline").glob("*.py"):
        ast.parse(path.read_text(), filename=path.name, feature_version=OLDEST)


def test_the_version_is_said_in_one_place(dist: Path) -> None:
    """By https://semver.org, and read from there by what builds the distributions."""
    assert re.fullmatch(r"\d+\.\d+\.\d+", tagline.__version__)
    assert {path.name for path in dist.iterdir()} == {
        f"tagline_emitter-{tagline.__version__}-py3-none-any.whl",
        f"tagline_emitter-{tagline.__version__}.tar.gz",
    }
    said = [
        path
        for path in EMITTER.rglob("*")
        if path.is_file() and tagline.__version__.encode() in path.read_bytes()
    ]
    assert [path.suffix for path in said if path.suffix != ".pyc"] == [".py"]


def test_a_distribution_has_the_package_its_types_and_its_metadata_and_nothing_else(dist: Path) -> None:
    with zipfile.ZipFile(next(dist.glob("*.whl"))) as archive:
        names = archive.namelist()
        folder = f"tagline_emitter-{tagline.__version__}.dist-info"
        metadata = archive.read(f"{folder}/METADATA").decode()
        points = archive.read(f"{folder}/entry_points.txt").decode()
    with tarfile.open(next(dist.glob("*.tar.gz"))) as source:
        sources = source.getnames()

    package = {f"tagline/{path.name}" for path in (EMITTER / "tagline").iterdir() if path.is_file()}
    assert {"tagline/__init__.py", "tagline/asgi.py", "tagline/py.typed"} <= package
    assert {name for name in names if not name.startswith(folder)} == package
    assert package <= {name.partition("/")[2] for name in sources}
    assert f"{folder}/licenses/LICENSE" in names
    assert "Requires-Dist" not in metadata
    for line in ("Requires-Python: >=3.9", "License-Expression: Apache-2.0", "Classifier: Typing :: Typed"):
        assert line in metadata.splitlines()
    assert "# tagline-emitter" in metadata  # the readme
    assert points.split() == ["[pytest11]", "tagline", "=", "tagline.pytest_plugin"]
    assert (EMITTER / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()


def test_a_distribution_is_the_same_bytes_whoever_builds_it_and_when(dist: Path, tmp_path: Path) -> None:
    """From another folder, with other times and modes of its files."""
    copy = tmp_path / "elsewhere" / "emitter"
    shutil.copytree(EMITTER, copy, ignore=shutil.ignore_patterns("__pycache__"))
    for path in copy.rglob("*"):
        os.utime(path, (1_000_000_000, 1_000_000_000))
        path.chmod(0o700 if path.is_dir() else 0o600)
    built = build(copy, tmp_path / "dist")

    assert {path.name: path.read_bytes() for path in built.iterdir()} == {
        path.name: path.read_bytes() for path in dist.iterdir()
    }


def test_pytest_finds_the_fixture_of_an_installed_emitter(dist: Path, tmp_path: Path) -> None:
    folder = wheel(dist, tmp_path / "installed")
    (tmp_path / "test_it.py").write_text("def test_it(tagline_records):\n    assert tagline_records == []\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_it.py"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={"PYTHONPATH": str(folder)},
    )

    assert "1 passed" in done.stdout


def test_the_files_are_few_and_short() -> None:
    """Someone who has not seen the emitter reads it in half an hour."""
    lines = {path.name: len(path.read_text().splitlines()) for path in (EMITTER / "tagline").glob("*.py")}

    assert [name for name, number in lines.items() if number > 300] == []
    functions = [
        (node.name, node.end_lineno - node.lineno + 1 - documentation_lines(node))
        for path in (EMITTER / "tagline").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.end_lineno
    ]
    assert [name for name, number in functions if number > 60] == []


def test_the_core_is_at_most_1400_lines_of_code() -> None:
    """Without blank lines, comments and docstrings, and without what serves one framework or tests only."""
    apart = ("asgi", "wsgi", "testing", "pytest_plugin")
    core = [path for path in (EMITTER / "tagline").glob("*.py") if not path.stem.startswith(apart)]

    assert sum(len(code_lines(path.read_text())) for path in core) <= 1_400


def code_lines(source: str) -> set[int]:
    """Return the numbers of the lines that have code."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    lines = {
        number
        for token in tokens
        if token.string.strip() and token.type != tokenize.COMMENT
        for number in range(token.start[0], token.end[0] + 1)
    }
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            text = node.body[0]
            if ast.get_docstring(node) is not None:
                lines -= set(range(text.lineno, (text.end_lineno or text.lineno) + 1))
    return lines


def documentation_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    text = ast.get_docstring(function, clean=False)
    return len(text.splitlines()) if text else 0
