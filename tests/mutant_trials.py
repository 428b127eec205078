"""Trials of mutants: each in a copy of the tree, with the tests that run the changed statement.

One process imports the tests and the modules once. For each mutant it forks a child, which replaces the code
of the changed function and runs tests until one fails. A statement that runs when its module is imported is
tried in a child of a process that has imported neither; it takes some seconds more.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import importlib
import inspect
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any, NamedTuple

import pytest

from tests.mutants import PACKAGE, ROOT, Mutant, diff

FOLDER = ROOT / ".mutants"
# The tests that are tried, if they run the changed statement.
TESTS = ("tests/consumers", "tests/cli/test_replay.py", "tests/exporter/upkeep/test_rejected_rows.py")
# Not tried: they measure memory, kill processes or run a whole pipeline, which takes most of a minute.
SLOW = (
    "tests/consumers/lines/test_memory.py",
    "tests/consumers/test_kills.py",
    "tests/consumers/test_faulty_pipeline.py",
)
# What tests import of others' modules: once, and not for every mutant.
PRELOADED = (
    *("aws_lambda_powertools", "boto3", "duckdb", "hypothesis.strategies", "orjson", "requests", "typer"),
    *("moto.kinesis.models", "moto.logs.models", "moto.moto_server.werkzeug_app", "moto.s3.responses"),
    *("samtranslator.translator.translator", "sqlglot"),
)
# A mutant survives when tests of so many seconds have passed.
MOST_S = 30.0
# A test that takes longer than this, and than ten times what it takes without the mutant, kills it.
TIMEOUT_S = 20.0
# So many calls of a function by a test are watched.
MOST_CALLS = 500


class KnownTest(NamedTuple):
    """A test, and what it runs.

    Attributes:
        name: pytest's node id.
        seconds: How long it takes while it is watched.
        lines: By file, the lines that it runs: bit n is line n.
    """

    name: str
    seconds: float
    lines: dict[str, int]


def run(mutants: Sequence[Mutant]) -> None:
    """Try mutants, and print how many were killed and what the others are."""
    for name in PRELOADED:
        importlib.import_module(name)
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"  # byte code of one mutant could be taken for the next
    sys.dont_write_bytecode = True
    FOLDER.mkdir(exist_ok=True)
    kept = FOLDER / "killed"
    killed = set(kept.read_text().splitlines()) if kept.exists() else set()
    left = [mutant for mutant in mutants if mutant.digest not in killed]
    survivors = 0
    with tempfile.TemporaryDirectory() as folder:
        root = copy_tree(Path(folder) / "tree")
        began = time.monotonic()
        for number, (mutant, failed) in enumerate(_trials(root, left), 1):
            if failed:
                with kept.open("a") as file:
                    file.write(f"{mutant.digest}\n")
            else:
                survivors += 1
            outcome = f"killed by {failed}" if failed else f"survived\n{_diff(mutant)}"
            _say(f"{number}/{len(left)} {time.monotonic() - began:.0f} s {mutant.name} {outcome}")
    _say(f"{len(mutants) - survivors} of {len(mutants)} killed")


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _diff(mutant: Mutant) -> str:
    return diff(mutant, (ROOT / mutant.path).read_bytes())


def copy_tree(root: Path) -> Path:
    listing = ["git", "ls-files", "-co", "--exclude-standard"]
    for name in subprocess.check_output(listing, cwd=ROOT, text=True).splitlines():
        if (ROOT / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, root / name)
    return root


def _trials(root: Path, mutants: Sequence[Mutant]) -> Iterator[tuple[Mutant, str]]:
    """Yield mutants, each with the test that failed, or nothing if all passed."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    session = Session(root, sender, mutants)
    process = _fork(lambda: _run_pytest(root, TESTS, session, session.tracer))
    at_import: list[tuple[Mutant, list[tuple[str, float]]]] = []
    while process.is_alive() or receiver.poll():
        if not receiver.poll(1):
            continue
        match receiver.recv():
            case str(text):
                _say(text)
            case int(index), str(failed):
                yield mutants[index], failed
            case int(index), list(tests):
                at_import.append((mutants[index], tests))
    if process.exitcode:
        raise RuntimeError(_output(root).read_text())
    for mutant, tests in at_import:
        files = sorted({name.partition("::")[0] for name, _ in tests})
        with _changed(root, mutant):
            yield mutant, _trial(root, lambda: _run_pytest(root, files, Selected(root, tests)))  # noqa: B023


# --- Processes ---------------------------------------------------------------------------------------------


def _fork(work: Callable[[], object]) -> Any:
    """Return a started child that does work in a group of its own."""

    def main() -> None:
        os.setsid()
        work()

    process = multiprocessing.get_context("fork").Process(target=main)
    process.start()
    return process


def _trial(root: Path, work: Callable[[], object]) -> str:
    """Do work in a child, and return the test that it was at when it failed, or nothing if it did not."""
    current = _current(root)
    current.write_text("the import of the module")
    process = _fork(work)
    process.join()
    with contextlib.suppress(ProcessLookupError):  # what tests started, too
        os.killpg(process.pid, signal.SIGKILL)
    if not process.exitcode:
        return ""
    return current.read_text() + (" (it hangs)" if process.exitcode == -signal.SIGALRM else "")


def _current(root: Path) -> Path:
    """Return the file that names the test that runs."""
    return root.parent / "current"


def _output(root: Path) -> Path:
    """Return the file that the tests print to."""
    return root.parent / "output"


@contextlib.contextmanager
def _changed(root: Path, mutant: Mutant) -> Iterator[None]:
    """Change the file for the block."""
    path = root / mutant.path
    source = path.read_bytes()
    path.write_bytes(mutant.apply(source))
    try:
        yield
    finally:
        path.write_bytes(source)


def _run_pytest(root: Path, tests: Sequence[str], plugin: object, tracer: Tracer | None = None) -> None:
    """Run tests in this process, a fork of one that has imported what they need of others."""
    os.chdir(root)
    output = os.open(_output(root), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.path[:] = [
        str(root),
        str(root / "emitter"),
        str(root / "local"),
        str(root / "installed"),
        *(path for path in sys.path if path != str(ROOT)),
    ]
    for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
        del sys.modules[name]
    # Plug-ins that are imported already are not rewritten for their assertions.
    quiet = ("-q", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning")
    order = ("-p", "no:randomly", f"--basetemp={root.parent / 'temporary'}")
    if tracer:
        sys.settrace(tracer)
    status = pytest.main([*quiet, *order, *(f"--ignore={path}" for path in SLOW), *tests], plugins=[plugin])
    os._exit(status)


class Selected:
    """A plug-in that runs known tests, in their order, until one fails."""

    def __init__(self, root: Path, tests: Sequence[tuple[str, float]]) -> None:
        self._root = root
        self._tests = tests

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run the tests; the process ends."""
        items = {item.nodeid: item for item in session.items}
        chosen = [(items[name], seconds) for name, seconds in self._tests]
        following = (*(item for item, _ in chosen[1:]), None)
        for (item, seconds), next_item in zip(chosen, following, strict=False):
            _current(self._root).write_text(item.nodeid)
            signal.setitimer(signal.ITIMER_REAL, TIMEOUT_S + 10 * seconds)
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=next_item)
            if session.testsfailed:
                os._exit(1)
        os._exit(0)


class Session:
    """A plug-in that tries mutants once all tests are imported.

    Args:
        root: The copy of the tree.
        sender: Where each mutant's position goes, with the test that failed, or with the tests for a change
            of what runs at import.
        mutants: What is tried.
    """

    def __init__(self, root: Path, sender: Connection, mutants: Sequence[Mutant]) -> None:
        self.tracer = Tracer(root)
        self._root = root
        self._sender = sender
        self._mutants = mutants

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Find out which lines each test runs, and try the mutants; the process ends."""
        sys.settrace(None)
        imported = self.tracer.take()
        tests = self._watch(session)
        functions = live_functions(self._root, gc.get_objects())
        gc.collect()
        gc.freeze()  # the children leave the objects' pages alone
        for index, mutant in enumerate(self._mutants):
            source = (self._root / mutant.path).read_bytes()
            # A statement that none of them runs may run in a process that a test starts.
            chosen = select(tests, mutant) or select(tests, mutant, at_import=True)
            changes = changed_functions(mutant, source, self._root, functions)
            if not changes or imported.get(mutant.path, 0) & _bits(*mutant.lines):
                chosen = select(tests, mutant, at_import=True)
                # As plain values: this process has another copy of this module.
                self._sender.send((index, [(test.name, test.seconds) for test in chosen]))
                continue
            with _changed(self._root, mutant):
                failed = _trial(self._root, lambda: self._try(session, changes, chosen))  # noqa: B023
            self._sender.send((index, failed))
        os._exit(0)

    def _try(
        self, session: pytest.Session, changes: list[tuple[FunctionType, CodeType]], tests: list[KnownTest]
    ) -> None:
        for function, code in changes:
            function.__code__ = code
        Selected(self._root, [(test.name, test.seconds) for test in tests]).pytest_runtestloop(session)

    def _watch(self, session: pytest.Session) -> list[KnownTest]:
        """Return all tests that pass with the lines that they run; what has not changed is known already."""
        folder = FOLDER / "tests"
        folder.mkdir(exist_ok=True)
        files: dict[str, list[pytest.Item]] = {}
        for item in session.items:
            files.setdefault(item.nodeid.partition("::")[0], []).append(item)
        shared = _digest(
            path
            for part in (PACKAGE, "tests")
            for path in sorted((self._root / part).rglob("*.py"))
            if not path.name.startswith(("test_", "mutant"))
        )
        tests: list[KnownTest] = []
        wanted = set()
        for name, items in files.items():
            kept = folder / f"{shared}-{_digest([self._root / name])}.json"
            wanted.add(kept)
            if not kept.exists():
                self._sender.send(f"watching {name}")
                _trial(self._root, lambda: self._write_watched(session, items, kept))  # noqa: B023
            if kept.exists():
                tests += [KnownTest(*test) for test in json.loads(kept.read_text())]
            else:
                self._sender.send(f"{name} ended the process that ran it: its tests are left out")
        for old in set(folder.iterdir()) - wanted:
            old.unlink()
        return tests

    def _write_watched(self, session: pytest.Session, items: Sequence[pytest.Item], kept: Path) -> None:
        """Run tests and write those that pass with the lines that they run."""
        found: list[KnownTest] = []
        threading.settrace(self.tracer)
        sys.settrace(self.tracer)
        for item in items:
            self.tracer.take()
            failed = session.testsfailed
            began = time.process_time()
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
            if session.testsfailed == failed:
                seconds = round(time.process_time() - began, 3)
                found.append(KnownTest(item.nodeid, seconds, self.tracer.take()))
        sys.settrace(None)
        kept.with_suffix(".part").write_text(json.dumps(found))
        kept.with_suffix(".part").rename(kept)
        os._exit(0)


def _digest(paths: Iterator[Path] | Sequence[Path]) -> str:
    content = hashlib.blake2b(digest_size=16)
    for path in paths:
        content.update(path.read_bytes())
    return content.hexdigest()


# --- Which tests run which lines ---------------------------------------------------------------------------


class Tracer:
    """Notes which lines of the package run, in this and in later threads: `sys.settrace(tracer)`."""

    def __init__(self, root: Path) -> None:
        self._root = f"{root}/"
        self._package = f"{root}/{PACKAGE}/"
        self._calls: Counter[int] = Counter()
        self._lines: set[tuple[str, int]] = set()

    def take(self) -> dict[str, int]:
        """Return by file the lines that ran since the last call of this method: bit n is line n."""
        found: dict[str, int] = {}
        for path, line in self._lines:
            name = path.removeprefix(self._root)
            found[name] = found.get(name, 0) | 1 << line
        self._calls.clear()
        self._lines = set()
        return found

    def __call__(self, frame: FrameType, _event: str, _arg: object) -> Callable[..., Any] | None:
        """Watch a call, if it is one of the package's, and not one of too many."""
        code = frame.f_code
        if not code.co_filename.startswith(self._package):
            return None
        self._calls[id(code)] += 1
        return self._note if self._calls[id(code)] <= MOST_CALLS else None

    def _note(self, frame: FrameType, _event: str, _arg: object) -> Callable[..., Any]:
        self._lines.add((frame.f_code.co_filename, frame.f_lineno))
        return self._note


def _bits(first: int, last: int) -> int:
    return (1 << last + 1) - (1 << first)


def select(tests: Sequence[KnownTest], mutant: Mutant, *, at_import: bool = False) -> list[KnownTest]:
    """Return the tests that run a mutant's statement: those of its own file first, then the fastest.

    A test of its own file that runs no line of the module may start a process which does.

    Args:
        tests: All tests.
        mutant: The mutant.
        at_import: Whether to return the tests that run any line of the mutant's file, or if there are none,
            those in its folder.
    """
    folder, _, name = mutant.path.rpartition("/")
    own = f"tests/{folder}/test_{name}::"
    lines = -1 if at_import else _bits(*mutant.lines)
    able = [
        test
        for test in tests
        if test.lines.get(mutant.path, 0) & lines
        or (test.name.startswith(own) and mutant.path not in test.lines)
    ]
    if at_import and not able:
        able = [test for test in tests if test.name.startswith(f"tests/{folder}/")]
    chosen, seconds = [], 0.0
    for test in sorted(able, key=lambda test: (not test.name.startswith(own), test.seconds)):
        seconds += test.seconds
        if seconds > MOST_S:
            break
        chosen.append(test)
    return chosen


# --- Changing functions in memory --------------------------------------------------------------------------

Place = tuple[str, int, str]


def _place(code: CodeType) -> Place:
    return code.co_filename, code.co_firstlineno, code.co_qualname


def live_functions(root: Path, objects: Iterable[object]) -> dict[Place, list[FunctionType]]:
    """Return the package's functions by where their code is.

    Args:
        root: The root of the tree that they were imported from.
        objects: All objects.
    """
    found: dict[Place, list[FunctionType]] = {}
    for each in objects:
        if isinstance(each, FunctionType) and each.__code__.co_filename.startswith(f"{root}/{PACKAGE}/"):
            found.setdefault(_place(each.__code__), []).append(each)
    return found


def changed_functions(
    mutant: Mutant, source: bytes, root: Path, functions: dict[Place, list[FunctionType]]
) -> list[tuple[FunctionType, CodeType]]:
    """Return the functions that a mutant changes, with their code; none if it changes what runs at import.

    Args:
        mutant: The mutant.
        source: Its file without the change.
        root: The root of the tree that the functions were imported from.
        functions: All functions.
    """
    path = str(root / mutant.path)
    pairs = _pairs(compile(source, path, "exec"), compile(mutant.apply(source), path, "exec"))
    changes = [(function, new) for old, new in pairs for function in functions.get(_place(old), [])]
    if any(function.__code__.co_freevars != new.co_freevars for function, new in changes):
        return []
    return changes


def _pairs(old: CodeType, new: CodeType) -> list[tuple[CodeType, CodeType]]:
    """Return the code of functions that differ, at any depth; none if the outermost code differs itself."""
    if _instructions(old) != _instructions(new):
        return []
    pairs = []
    for inner, changed in zip(_inner(old), _inner(new), strict=True):
        if inner.co_flags & inspect.CO_OPTIMIZED:  # a function, not a class
            if not _is_same(inner, changed):
                pairs += [(inner, changed), *_pairs(inner, changed)]
        else:
            pairs += _pairs(inner, changed)
    return pairs


def _inner(code: CodeType) -> list[CodeType]:
    return [each for each in code.co_consts if isinstance(each, CodeType)]


def _instructions(code: CodeType) -> tuple[bytes, tuple[str, ...], list[str]]:
    constants = [repr(each) for each in code.co_consts if not isinstance(each, CodeType)]
    return code.co_code, code.co_names, constants


def _is_same(old: CodeType, new: CodeType) -> bool:
    """Return whether two pieces of code do the same, wherever their lines are."""
    inner = zip(_inner(old), _inner(new), strict=False)
    return _instructions(old) == _instructions(new) and all(_is_same(one, other) for one, other in inner)
