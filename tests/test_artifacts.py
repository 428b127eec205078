"""What `sam build` ships of each function is all that it needs, and nothing else of ours."""

import importlib.util
import os
import platform
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
import yaml

from tests.licences import pinned
from tests.supply import FUNCTIONS, build, imported, list_of, megabytes

ROOT = Path(__file__).resolve().parent.parent
# What is imported only when it is needed: for a sampled invocation, and for a fragment of the lake.
RARE = {"RowConsumer": "import aws_xray_sdk.core, arro3.core, arro3.io, xxhash"}
# What the Lambda runtime has of itself: boto3 and what it imports.
RUNTIME = ("boto3", "botocore", "s3transfer", "urllib3", "dateutil", "six.py", "jmespath")

# As the Makefile's LAMBDA_PLATFORMS.
SYSTEMS = ("manylinux_2_28", "manylinux_2_24", "manylinux_2_17", "manylinux2014")


@pytest.fixture(scope="session")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that has only what the Lambda runtime brings."""
    folder = tmp_path_factory.mktemp("runtime")
    spec = importlib.util.find_spec("boto3")
    assert spec is not None
    assert spec.origin is not None
    packages = Path(spec.origin).parent.parent
    for name in RUNTIME:
        (folder / name).symlink_to(packages / name)
    return folder


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_handler_is_imported_from_its_artifact_alone_within_its_limits(
    function: str, runtime: Path, tmp_path: Path
) -> None:
    # Wheels that this machine can import, instead of those for Lambda.
    build(
        function,
        tmp_path,
        LAMBDA_PYTHON=f"{sys.version_info.major}.{sys.version_info.minor}",
        LAMBDA_PLATFORMS=" ".join(f"{system}_{platform.machine()}" for system in SYSTEMS),
    )

    shipped_function = FUNCTIONS[function]
    done = imported(shipped_function.handler, tmp_path, runtime, then=RARE.get(function, ""))

    assert megabytes(tmp_path) <= shipped_function.megabytes
    assert done.modules <= shipped_function.modules
    installed = {path.name.lower() for path in tmp_path.glob("*.dist-info")}
    assert {
        f"{name.replace('-', '_')}-{version}.dist-info" for name, version, _ in pinned(list_of(function))
    } <= installed
    shipped = {path.name for path in tmp_path.iterdir()} & {
        "consumers",
        "exporter",
        "tagline",
        "onemachine",
        "cli",
    }
    assert done.ours <= shipped
    assert shipped <= {"consumers", "exporter", "tagline"}
    assert ("exporter" in shipped) is shipped_function.handler.startswith("exporter")
    schemas = {path.name for path in (tmp_path / "schemas").glob("*")}
    makes_rows = function in ("RowConsumer", "DailyExporter")
    assert schemas == {path.name for path in (ROOT / "schemas").glob("*") if makes_rows}


def test_the_layer_is_imported_as_the_runtime_does_and_has_all_of_the_emitter(tmp_path: Path) -> None:
    # Lambda unpacks a layer into /opt, and looks for Python in /opt/python:
    # https://docs.aws.amazon.com/lambda/latest/dg/packaging-layers.html
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    command = ["make", "-s", "build-EmitterLayer", f"ARTIFACTS_DIR={tmp_path}"]
    done = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("", "")

    shipped = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    ours = {path for path in (ROOT / "emitter" / "tagline").iterdir() if path.is_file()}
    assert {path for path in shipped if "__pycache__" not in path} == {
        f"python/tagline/{path.name}" for path in ours
    }
    assert {"python/tagline/asgi.py", "python/tagline/py.typed"} <= shipped
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'python')!r})\n"
        "import tagline, tagline.asgi\n"
        "tagline.Emitter().emit({'items': 3})\n"
        "print(tagline.__file__, tagline.asgi.__file__)\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-B", "-c", script], capture_output=True, text=True, check=True
    )
    line, files = done.stdout.splitlines()
    assert '"items":3' in line
    assert all(Path(file).is_relative_to(tmp_path) for file in files.split())


def test_the_build_takes_the_wheels_of_all_these_tags() -> None:
    # pip takes tags as they are written. Without one, it would not find the version that is pinned.
    (platforms,) = re.findall(r"(?m)^LAMBDA_PLATFORMS := (.*)$", (ROOT / "Makefile").read_text())
    assert platforms.split() == [f"{system}_aarch64" for system in SYSTEMS]


def test_every_function_of_the_template_is_among_them() -> None:
    class Loader(yaml.SafeLoader):
        pass

    Loader.add_multi_constructor("!", lambda loader, suffix, node: None)  # noqa: ARG005 - intrinsics are not of interest
    resources = yaml.load((ROOT / "template.yml").read_text(), Loader)["Resources"]

    functions = {
        name
        for name, resource in resources.items()
        if not name.startswith("Fn::ForEach") and resource["Type"] == "AWS::Serverless::Function"
    }
    assert functions == set(FUNCTIONS)


REQUIREMENTS = sorted((ROOT / "requirements").glob("*.txt"))


def test_lists_that_share_an_environment_agree_on_every_version() -> None:
    # A package may have two versions in a list, for different versions of Python.
    found: dict[str, set[frozenset[str]]] = defaultdict(set)
    for path in REQUIREMENTS:
        if path.stem not in ("audit", "witness", "supply"):
            versions: dict[str, set[str]] = defaultdict(set)
            for name, version in re.findall(r"(?m)^([a-z0-9._-]+)(?:\[.*?\])?==(\S+)", path.read_text()):
                versions[name].add(version)
            for name, those in versions.items():
                found[name].add(frozenset(those))

    assert len(found) > 100
    assert {name: lists for name, lists in found.items() if len(lists) > 1} == {}


@pytest.mark.parametrize("path", REQUIREMENTS, ids=lambda path: path.stem)
def test_a_list_is_pinned_by_hash_and_names_no_index(path: Path) -> None:
    text = path.read_text()

    assert re.findall(r"(?m)^[a-z].*==.*[^\\]$", text) == []
    assert "--hash=sha256:" in text
    assert not re.search(r"https?:|--index-url|--find-links", text)
