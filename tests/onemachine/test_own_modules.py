"""Functions in this interpreter have the modules of their own folders, whatever else is called like them."""

import importlib
import json
import logging
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import markupsafe._speedups
import pytest
from onemachine.functions import Function, Functions

import cli
import cli.stages
import consumers.settings
import exporter.stores

APP = """
import importlib, logging, sys
import cli, consumers
from cli.words import word
from importlib import import_module
from local import place

logger = logging.getLogger("an app's")
if not getattr(logger, "is_set_up", False):
    logger.is_set_up = True
    logger.addHandler(logging.StreamHandler(sys.stdout))
calls = []

def handler(event, context):
    import exporter
    from consumers.settings import settings
    from cli import words
    import app
    calls.append(event)
    logger.warning("call %d of %s", len(calls), place.NAME)
    loaded = [cli, consumers, exporter, place, words, import_module("exporter.stores"),
              importlib.import_module(".stores", "exporter")]
    return {
        "files": [module.__file__ for module in loaded],
        "words": [word(), settings()],
        "same": [app.calls is calls, words.word is word, loaded[-1] is loaded[-2]],
    }
"""
FILES = {
    "app.py": APP,
    "local/place.py": "NAME = __file__",  # folders without __init__.py are packages as well
    "cli/__init__.py": "",
    "cli/words.py": "from . import more\ndef word():\n    from .more import WORD\n    return WORD",
    "cli/more.py": "WORD = 'theirs'",
    "consumers/__init__.py": "",
    "consumers/settings.py": "def settings():\n    from cli.more import WORD\n    return WORD",
    "exporter/__init__.py": "",
    "exporter/stores.py": "",
}


class Lines(list[str]):
    """Lines that functions wrote, without the platform's, and the log group of each."""

    def __init__(self) -> None:
        super().__init__()
        self.groups: list[str] = []

    def ship(self, group: str, _stream: str, events: list[tuple[int, str]]) -> None:
        before = len(self)
        self += [text for _, text in events if not text.startswith(("INIT_START", "START", "END", "REPORT"))]
        self.groups += [group] * (len(self) - before)


@pytest.fixture
def lines() -> Lines:
    return Lines()


@pytest.fixture
def functions(lines: Lines) -> Iterator[Functions]:
    found = Functions(lines.ship, {}, in_process=True)
    yield found
    found.stop()
    logger = logging.getLogger("an app's")
    logger.handlers.clear()
    vars(logger).pop("is_set_up", None)


def add(functions: Functions, name: str, folder: Path, files: dict[str, str]) -> None:
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    functions.add(Function(name, "app.handler", 128, 30, {}, f"/aws/lambda/{name}", folder))


def answer(functions: Functions, name: str) -> Any:
    result = functions.invoke(name, b"{}")
    assert result.error is None, result.payload.decode()
    return json.loads(result.payload)


def test_a_function_has_its_own_modules_and_ours_stay_ours(functions: Functions, tmp_path: Path) -> None:
    names = ("app", "local", "cli", "consumers", "exporter")
    before = {name: module for name, module in sys.modules.items() if name.partition(".")[0] in names}
    for name in ("one", "two"):
        add(functions, name, tmp_path / name, FILES)

    for name in ("one", "two", "one"):
        found = answer(functions, name)
        assert all(Path(file).is_relative_to(tmp_path / name) for file in found["files"])
        assert (found["words"], found["same"]) == (["theirs", "theirs"], [True, True, True])
    after = {name: module for name, module in sys.modules.items() if name.partition(".")[0] in names}
    assert {name: after[name] is module for name, module in before.items()} == dict.fromkeys(before, True)
    assert after.keys() == before.keys()
    assert (cli, consumers, exporter.stores) == tuple(
        sys.modules[name] for name in ("cli", "consumers", "exporter.stores")
    )


def test_who_imports_while_a_function_does_gets_everyones_modules(
    functions: Functions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, may_end = threading.Event(), threading.Event()
    monkeypatch.setattr(logging, "begun", begun, raising=False)
    monkeypatch.setattr(logging, "may_end", may_end, raising=False)
    waits = "import logging\nlogging.begun.set()\nassert logging.may_end.wait(60)"
    add(functions, "slow", tmp_path, {**FILES, "cli/__init__.py": waits})
    found: dict[str, Any] = {}

    with ThreadPoolExecutor(3) as threads:
        of_function = threads.submit(answer, functions, "slow")
        assert begun.wait(60)
        by_statement = threads.submit(exec, "import cli", found)
        by_name = threads.submit(importlib.import_module, "cli.stages")
        time.sleep(0.2)  # time in which they would get the function's
        may_end.set()
        assert of_function.result()["words"] == ["theirs", "theirs"]
        assert by_name.result() is cli.stages
        by_statement.result()
    assert found["cli"] is cli


def test_a_logger_writes_for_the_environment_that_runs(
    functions: Functions, tmp_path: Path, lines: Lines
) -> None:
    for name in ("one", "two"):
        add(functions, name, tmp_path / name, FILES)

    answer(functions, "one")
    functions.restart({})  # as `advance` does: the first one's stdout is closed from now on
    answer(functions, "one")
    answer(functions, "two")
    functions.flush()

    places = [tmp_path / name / "local" / "place.py" for name in ("one", "one", "two")]
    assert lines == [f"call 1 of {place}" for place in places]


def test_an_error_in_a_module_leaves_ours_in_place(functions: Functions, tmp_path: Path) -> None:
    add(functions, "broken", tmp_path, {**FILES, "cli/more.py": "import cli.words, missing_one"})

    for _ in range(2):
        result = functions.invoke("broken", b"{}")
        assert json.loads(result.payload)["errorMessage"] == "No module named 'missing_one'"
    assert (sys.modules["cli"], sys.modules["consumers"]) == (cli, consumers)
    assert "cli.more" not in sys.modules


def test_a_compiled_module_is_loaded_once_and_an_installed_package_is_everyones(
    functions: Functions, tmp_path: Path
) -> None:
    compiled = Path(markupsafe._speedups.__file__)
    app = "import markupsafe, vendored\ndef handler(*_):\n    return [id(vendored.fast), id(markupsafe)]"
    for name in ("one", "two"):
        files = {"app.py": app, "vendored/__init__.py": "from vendored import _speedups as fast"}
        add(functions, name, tmp_path / name, {**files, "markupsafe/__init__.py": ""})
        (tmp_path / name / "vendored" / compiled.name).write_bytes(compiled.read_bytes())
    try:
        one, two = answer(functions, "one"), answer(functions, "two")
        assert one == two == [id(sys.modules["vendored"].fast), id(markupsafe)]
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "vendored"]:
            del sys.modules[name]


def test_what_keeps_the_stream_s_methods_writes_for_the_environment_that_runs(
    functions: Functions, tmp_path: Path, lines: Lines
) -> None:
    app = "from tagline import Emitter\ndef handler(*_):\n    Emitter().emit({})"
    for name in ("one", "two"):
        add(functions, name, tmp_path / name, {"app.py": app})

    for name in ("one", "two", "one"):
        functions.invoke(name, b"{}")
        functions.flush()

    assert lines.groups == ["/aws/lambda/one", "/aws/lambda/two", "/aws/lambda/one"]
