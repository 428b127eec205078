"""Types as a type checker sees them, and annotations as those see them who evaluate them."""

import importlib.util
import inspect
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import tagline

from tests.emitter.pythons import EMITTER, pythons

# What is right has the type that it says; what is wrong is an error where it says so, and only there.
CHECKED = """
from typing import Any, Mapping, Optional
from typing_extensions import assert_type
from tagline import Draft, Emitter, LogHandler, Privacy, Record, add, carry, read, write

record = Record(id="x", timestamp=0)
assert_type(record.id, str)
assert_type(record.timestamp, int)
assert_type(record.fields, Mapping[str, Any])
assert_type(record.src, Optional[str])
assert_type(record.seq, Optional[int])
assert_type(record.trunc, tuple[str, ...])
assert_type(record.to_line(), str)
assert_type(Record.from_line("x"), Record)
assert_type(read(write(record)), Record)
assert_type(record.replace(type="order"), Record)
record.no_such_attribute  # ERROR
read("x").tmestamp + 1  # ERROR
record.timestamp.upper()  # ERROR

emitter = Emitter()
emitter.begin(tipe="order")  # ERROR
assert_type(emitter.begin(type="order"), Draft)
assert_type(emitter.bind(service="shop"), Emitter)
emitter.emit({"a": 1}, timestamp=1.5)
emitter.emit({"a": 1}, timestamp=[])  # ERROR
Emitter(metrics={"items": "Count", "latency_ms": ("Milliseconds", 1)}, namespace="Shop")
Emitter(metrics={"items": 7}, namespace="Shop")  # ERROR
Emitter(privacy=Privacy(deny=["body"]), on_error=print)
LogHandler(emitter, level="INFO")

with emitter.collect(event={}) as draft:
    assert_type(draft, Draft)
    assert_type(draft["a"], Any)
    assert_type(draft.add(a=1), bool)
assert_type(add(items=3), bool)


@emitter.handler
def handler(event: dict[str, Any], context: object) -> dict[str, int]:
    return {"statusCode": 200}


@emitter.handler(type="order", route=lambda event: "/", fields={"a": 1})
def with_arguments(event: dict[str, Any], context: object) -> dict[str, int]:
    return {"statusCode": 200}


@emitter.handler
async def awaited(event: dict[str, Any], context: object) -> int:
    return 7


async def use() -> None:
    assert_type(await awaited({}, None), int)


assert_type(handler({}, None), dict[str, int])
assert_type(with_arguments({}, None), dict[str, int])
handler(7)  # ERROR
carry(handler)({}, None)["statusCode"].upper()  # ERROR
"""
WRONG = {number for number, line in enumerate(CHECKED.splitlines(), 1) if line.endswith("# ERROR")}


def test_mypy_accepts_what_is_right_and_refuses_what_is_wrong(tmp_path: Path) -> None:
    if importlib.util.find_spec("mypy") is None:
        pytest.skip("mypy is not installed: make lint")
    checked = tmp_path / "checked.py"
    checked.write_text(CHECKED)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-incremental", "--config-file=", str(checked)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={"MYPYPATH": str(EMITTER)},
    )

    errors = [line for line in done.stdout.splitlines() if ": error: " in line]
    assert {int(line.split(":")[1]) for line in errors} == WRONG, done.stdout + done.stderr


def test_pyright_accepts_what_is_right_and_refuses_what_is_wrong(tmp_path: Path) -> None:
    # Pyright with its own Node; requirements/lint.in has it.
    program = shutil.which("basedpyright", path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip("basedpyright is not installed: make lint")
    checked = tmp_path / "checked.py"
    checked.write_text(CHECKED.replace("typing_extensions", "typing"))
    (tmp_path / "pyrightconfig.json").write_text(
        json.dumps({"typeCheckingMode": "standard", "pythonVersion": "3.12", "extraPaths": [str(EMITTER)]})
    )
    done = subprocess.run(
        [program, "--outputjson", "-p", str(tmp_path)], capture_output=True, text=True, check=False
    )
    found = json.loads(done.stdout)["generalDiagnostics"]
    wrong = {each["range"]["start"]["line"] + 1 for each in found if each["severity"] == "error"}

    assert wrong == WRONG, done.stdout


HINTS = """
import inspect, sys, typing
sys.path.insert(0, sys.argv[1])
import tagline, tagline.asgi, tagline.testing

def callables():
    for module in (tagline, tagline.asgi, tagline.testing):
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.isclass(value) or inspect.isfunction(value):
                yield value
            if inspect.isclass(value):
                yield from (each for each in vars(value).values() if inspect.isfunction(each))

for each in callables():
    typing.get_type_hints(each)
print(typing.get_type_hints(tagline.Record)["src"])
print(typing.get_type_hints(tagline.Emitter.emit)["type"])
"""


@pytest.mark.parametrize("version", pythons())
def test_annotations_can_be_evaluated(version: str) -> None:
    """As FastAPI, beartype and Sphinx do."""
    done = subprocess.run(
        [pythons()[version], "-I", "-S", "-W", "error", "-c", HINTS, str(EMITTER)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert set(done.stdout.splitlines()) <= {"typing.Optional[str]", "str | None"}


def test_all_is_what_the_package_gives() -> None:
    namespace: dict[str, Any] = {}
    exec("from tagline import *", namespace)
    namespace.pop("__builtins__")

    assert set(namespace) == set(tagline.__all__)
    assert not any(inspect.ismodule(value) for value in namespace.values())
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = tagline.nothing


def test_real_signatures() -> None:
    options = {"type", "id", "timestamp", "tag"}
    for method in (tagline.Emitter.collect, tagline.Emitter.begin):
        assert set(inspect.signature(method).parameters) == {"self", "fields", *options, "event", "context"}
    assert set(inspect.signature(tagline.Emitter.emit).parameters) == {"self", "fields", *options}
    assert get_type_hints(tagline.Emitter.end)["return"] is bool
