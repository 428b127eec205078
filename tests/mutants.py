"""Mutation tests of consumers/: `make mutants` changes one expression at a time, and tests have to fail.

A seeded sample of all mutants is tried in a copy of this tree, each with the tests that run the changed
statement, those of its own file first and then the fastest: tests/mutant_trials.py. What no test notices is
printed. Those that were killed are kept in a folder: a run that was interrupted continues, and the next one
tries the survivors again. The sample of a seed keeps the mutants of functions that have not changed.

    python -m tests.mutants --sample 300 --seed 0
"""

from __future__ import annotations

import argparse
import ast
import difflib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "consumers"

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
        lines: The first and the last line of the statement, without the statements in it.
        digest: A name of the function, or statement outside of one, with the change.
    """

    path: str
    start: int
    end: int
    text: str
    operator: str
    lines: tuple[int, int]
    digest: str

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

    for node, statement, scope in _executed(ast.parse(source)):
        for text, operator in _changes(node):
            (start, end), (first, last) = place(node), place(scope)
            changed = b"\0".join([path.encode(), source[first:start], text.encode(), source[end:last]])
            digest = hashlib.blake2b(changed, digest_size=16).hexdigest()
            yield Mutant(path, start, end, text, operator, _lines(statement), digest)


def _executed(
    node: ast.AST, statement: ast.stmt | None = None, scope: ast.stmt | None = None
) -> Iterator[tuple[ast.expr | ast.stmt, ast.stmt, ast.stmt]]:
    """Yield a node's descendants that do something when they run, with their statement and their function."""
    for name, value in ast.iter_fields(node):
        if name in {"annotation", "returns", "decorator_list", "bases", "type_params"}:
            continue
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or _is_idle(child):
                continue
            here = child if isinstance(child, ast.stmt) else statement
            around = child if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) else scope
            if isinstance(child, ast.expr | ast.stmt) and here is not None:
                yield child, here, around or here
            yield from _executed(child, here, around)


def _lines(statement: ast.stmt) -> tuple[int, int]:
    """Return the first and the last line of a statement, without the statements in it."""
    inner = getattr(statement, "body", None)
    if isinstance(statement, ast.Match):
        inner = [statement.cases[0].pattern]
    if inner:
        return statement.lineno, max(statement.lineno, inner[0].lineno - 1)
    return statement.lineno, statement.end_lineno or statement.lineno


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


def sampled(root: Path, package: str, number: int, seed: int) -> list[Mutant]:
    """Return some mutants of a package's modules, in the order of the files.

    Args:
        root: The tree's root.
        package: The package's folder.
        number: How many.
        seed: Where chance begins: the same for the same functions and seed.
    """
    every = [
        mutant
        for file in sorted((root / package).rglob("*.py"))
        for mutant in mutants_of(str(file.relative_to(root)), file.read_bytes())
    ]
    every.sort(key=lambda mutant: hashlib.blake2b(f"{seed} {mutant.digest}".encode()).digest())
    return sorted(every[:number], key=lambda mutant: (mutant.path, mutant.start, mutant.text))


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
    from tests import mutant_trials

    mutant_trials.run(sampled(ROOT, asked.package, asked.sample, asked.seed))


if __name__ == "__main__":
    main()
