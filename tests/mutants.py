"""Mutation tests of consumers/: `make mutants` changes one expression at a time, and tests have to fail.

A seeded sample of all mutants is tried in a copy of this tree, each with the tests that reach its module:
those of its own file first, then those of its folder, then whole batches. What no test notices is printed.
Those that were killed are kept in a file: a run that was interrupted continues, and the next one tries the
survivors again.

    python -m tests.mutants --sample 300 --seed 0
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import difflib
import hashlib
import importlib
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "consumers"
KILLED = ROOT / ".mutants"
# A mutant that hangs is killed after this time, and four times what its tests take without it.
TIMEOUT_S = 30.0
# What tests import of others' modules: once, and not for every mutant.
PRELOADED = (
    *("aws_lambda_powertools", "boto3", "duckdb", "hypothesis.strategies", "orjson", "requests", "typer"),
    *("moto.kinesis.models", "moto.logs.models", "moto.moto_server.werkzeug_app", "moto.s3.responses"),
    *("samtranslator.translator.translator", "sqlglot"),
)

MATRIX = "tests/consumers/test_fault_matrix.py"
# Tests of whole batches, tried on what the tests of its folder do not notice.
BATCHES = (
    "tests/consumers/test_trust.py",
    f"{MATRIX}::test_whatever_fails_together_every_line_is_found_exactly_once_in_any_order",
)
# Folders whose modules are used by these tests as well.
ALSO = {
    "consumers": ("tests/consumers/rows/test_handler.py", "tests/cli/test_replay.py"),
    "consumers/lines": ("tests/consumers/rows/test_handler.py", "tests/consumers/meters/test_handler.py"),
    "consumers/rows": (
        "tests/consumers/rows/timestream/test_mapping.py",
        "tests/consumers/lines/test_telemetry.py",
    ),
    "consumers/meters": ("tests/consumers/lines/test_telemetry.py",),
    "consumers/rows/timestream": ("tests/exporter/upkeep/test_rejected_rows.py",),
}
# They measure memory, kill processes or run a whole pipeline, which takes most of a minute.
SLOW = (
    MATRIX,
    "tests/consumers/lines/test_memory.py",
    "tests/consumers/test_kills.py",
    "tests/consumers/test_faulty_pipeline.py",
)

_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}


@dataclass(frozen=True, slots=True)
class Mutant:
    """A change of a file.

    Attributes:
        path: The file, from the tree's root.
        start: Where in its UTF-8 bytes the change begins.
        end: Where it ends.
        text: What stands there instead.
        operator: What kind of change it is.
    """

    path: str
    start: int
    end: int
    text: str
    operator: str

    @property
    def name(self) -> str:
        """What the change is; the same change of another text of the file may have the same name."""
        return f"{self.path}:{self.start}-{self.end} {self.operator}: {self.text}"

    def apply(self, source: bytes) -> bytes:
        """Return the file with the change."""
        return source[: self.start] + self.text.encode() + source[self.end :]


def mutants_of(path: str, source: bytes) -> Iterator[Mutant]:
    """Yield all mutants of a file, in no particular order.

    Left alone is what has no effect when it runs, or only on people: annotations, docstrings, decorators,
    imports for the type checker, raised errors, and texts of several words.
    """
    lines = [0]
    for line in source.splitlines(keepends=True):
        lines.append(lines[-1] + len(line))

    def place(node: ast.expr | ast.stmt) -> tuple[int, int]:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return lines[node.lineno - 1] + node.col_offset, lines[node.end_lineno - 1] + node.end_col_offset

    for node in _executed(ast.parse(source)):
        for text, operator in _changes(node):
            yield Mutant(path, *place(node), text, operator)


def _executed(node: ast.AST) -> Iterator[ast.expr | ast.stmt]:
    """Yield a node's descendants that do something when they run."""
    for name, value in ast.iter_fields(node):
        if name in {"annotation", "returns", "decorator_list", "bases", "type_params"}:
            continue
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or _is_idle(child):
                continue
            if isinstance(child, ast.expr | ast.stmt):
                yield child
            yield from _executed(child)


def _is_idle(node: ast.AST) -> bool:
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)  # a docstring
    if isinstance(node, ast.If):
        return isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    return isinstance(node, ast.Raise | ast.JoinedStr | ast.Import | ast.ImportFrom)


def _changes(node: ast.expr | ast.stmt) -> Iterator[tuple[str, str]]:
    """Yield what can stand instead of a node, and which kind of change that is."""
    match node:
        case ast.Compare():
            yield from ((_text(other), "comparison") for other in _comparisons(node))
        case ast.BoolOp(operator, values):
            other = ast.Or() if isinstance(operator, ast.And) else ast.And()
            yield _text(ast.BoolOp(other, values)), "boolean"
        case ast.UnaryOp(ast.Not(), operand):
            yield _text(operand), "boolean"
        case ast.BinOp(left, operation, right) if type(operation) in _ARITHMETIC:
            yield _text(ast.BinOp(left, _ARITHMETIC[type(operation)](), right)), "arithmetic"
        case ast.IfExp(test, body, orelse):
            yield _text(ast.IfExp(test, orelse, body)), "condition"
        case ast.Constant(value):
            yield from ((repr(other), "constant") for other in _constants(value))
        case ast.stmt():
            yield from _statements(node)


def _statements(node: ast.stmt) -> Iterator[tuple[str, str]]:
    match node:
        case ast.Return(value) if value is not None and not _is_none(value):
            yield "return None", "return"
        case ast.Expr(ast.Call()):
            yield "pass", "call"
        case ast.Continue():
            yield "break", "jump"
        case ast.Break():
            yield "continue", "jump"


def _comparisons(node: ast.Compare) -> Iterator[ast.expr]:
    """Yield a comparison with its first operator opposite, at the other side of the boundary, or turned."""
    first, more = node.ops[0], node.ops[1:]
    if type(first) in _COMPARISONS:
        yield ast.Compare(node.left, [_COMPARISONS[type(first)](), *more], node.comparators)
    if isinstance(first, ast.Lt | ast.LtE):
        yield ast.Compare(node.left, [ast.GtE(), *more], node.comparators)
    if isinstance(first, ast.Gt | ast.GtE):
        yield ast.Compare(node.left, [ast.LtE(), *more], node.comparators)


def _constants(value: Any) -> Iterator[Any]:
    match value:
        case bool():
            yield not value
        case int() | float():
            yield value + 1
        case str() if value and " " not in value:
            yield value + value[0]
        case bytes() if value:
            yield value + value[:1]


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _text(node: ast.expr) -> str:
    return f"({ast.unparse(node)})"


# --- Trying them -------------------------------------------------------------------------------------------


def stages(path: str, root: Path) -> list[list[str]]:
    """Return the tests for a module, in the order in which they are tried.

    Args:
        path: The module's file.
        root: The tree's root.
    """
    folder, _, name = path.rpartition("/")
    own = root / "tests" / folder / f"test_{name}"
    beside = sorted((root / "tests" / folder).glob("test_*.py"))
    first = [str(own.relative_to(root))] if own.exists() else []
    then = [str(file.relative_to(root)) for file in beside] + list(ALSO.get(folder, ()))
    tried, found = {*SLOW}, []
    for tests in (first, then, list(BATCHES)):
        found.append([each for each in tests if each not in tried])
        tried |= {*tests}
    return [tests for tests in found if tests]


class Copy:
    """A copy of the tree, in which mutants are tried."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "tree"
        self._seconds: dict[tuple[str, ...], float] = {}
        tracked = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard"],
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        ).stdout.splitlines()
        for name in tracked:
            source = ROOT / name
            if source.is_file():
                (self.root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, self.root / name)

    def passes(self, tests: Sequence[str], *, timeout_s: float | None = None, compiles: bool = False) -> bool:
        """Return whether tests pass.

        Args:
            tests: Files of tests.
            timeout_s: Tests that take longer do not pass.
            compiles: Whether byte code is kept. That of a mutant must not be: it could be taken for the next.
        """
        run = multiprocessing.get_context("fork").Process(
            target=_run_tests, args=(self.root, tests), kwargs={"compiles": compiles}
        )
        run.start()
        assert run.pid is not None
        run.join(timeout_s)
        with contextlib.suppress(ProcessLookupError):  # what tests started, too
            os.killpg(run.pid, signal.SIGKILL)
        run.join()
        return run.exitcode == 0

    def kills(self, mutant: Mutant) -> bool:
        """Return whether a test notices a mutant.

        Raises:
            RuntimeError: If the tests fail without it.
        """
        path = self.root / mutant.path
        source = path.read_bytes()
        for tests in stages(mutant.path, self.root):
            if (*tests,) not in self._seconds:
                began = time.monotonic()
                if not self.passes(tests, compiles=True):
                    raise RuntimeError(f"without a change, these tests fail: {' '.join(tests)}")
                self._seconds[*tests,] = time.monotonic() - began
            path.write_bytes(mutant.apply(source))
            try:
                if not self.passes(tests, timeout_s=TIMEOUT_S + 4 * self._seconds[*tests,]):
                    return True
            finally:
                path.write_bytes(source)
        return False


def _run_tests(root: Path, tests: Sequence[str], *, compiles: bool) -> None:
    """Run tests in this process, which is a copy of one that has imported what they need of others."""
    os.setsid()
    os.chdir(root)
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    sys.dont_write_bytecode = not compiles
    sys.path[:] = [str(root), str(root / "emitter"), *(path for path in sys.path if path != str(ROOT))]
    for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
        del sys.modules[name]
    # Plug-ins that are imported already are not rewritten for their assertions.
    quiet = ("-q", "--no-header", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning")
    status = pytest.main(["-x", *quiet, *tests])
    os._exit(status)


def sampled(root: Path, package: str, number: int, seed: int) -> list[Mutant]:
    """Return some mutants of a package's modules.

    Args:
        root: The tree's root.
        package: The package's folder.
        number: How many.
        seed: Where chance begins: the same for the same files and seed.
    """
    every = [
        mutant
        for file in sorted((root / package).rglob("*.py"))
        for mutant in mutants_of(str(file.relative_to(root)), file.read_bytes())
    ]
    every.sort(key=lambda mutant: mutant.name)
    return random.Random(seed).sample(every, min(number, len(every)))


def digest(mutant: Mutant, source: bytes) -> str:
    """Return a name of a mutated file: the same for the same text in the same place."""
    return hashlib.blake2b(mutant.path.encode() + mutant.apply(source), digest_size=16).hexdigest()


def diff(mutant: Mutant, source: bytes) -> str:
    """Return a mutant as a diff of its file, with a line of context."""
    old, new = (text.decode().splitlines() for text in (source, mutant.apply(source)))
    return "\n".join(difflib.unified_diff(old, new, mutant.path, mutant.operator, lineterm="", n=1))


def main() -> None:
    """Try a sample of mutants, and print how many were killed and what the others are."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutants", description="Mutation tests of consumers/."
    )
    parser.add_argument("--sample", type=int, default=300, help="how many mutants (default 300)")
    parser.add_argument("--seed", type=int, default=0, help="where chance begins (default 0)")
    parser.add_argument("--package", default=PACKAGE, help="the folder whose modules are changed")
    asked = parser.parse_args()
    for name in PRELOADED:
        importlib.import_module(name)
    killed = set(KILLED.read_text().splitlines()) if KILLED.exists() else set()
    survivors = 0
    with tempfile.TemporaryDirectory() as folder, KILLED.open("a") as kept:
        copy = Copy(Path(folder))
        mutants = sampled(copy.root, asked.package, asked.sample, asked.seed)
        for number, mutant in enumerate(mutants, 1):
            source = (copy.root / mutant.path).read_bytes()
            name = digest(mutant, source)
            if name in killed:
                continue
            began = time.monotonic()
            if copy.kills(mutant):
                outcome = "killed"
                kept.write(f"{name}\n")
                kept.flush()
            else:
                outcome = f"survived\n{diff(mutant, source)}"
                survivors += 1
            _say(f"{number}/{len(mutants)} {time.monotonic() - began:.0f} s {mutant.name} {outcome}")
    _say(f"{len(mutants) - survivors} of {len(mutants)} killed")


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
