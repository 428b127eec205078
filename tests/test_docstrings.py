"""Docstrings of the production packages have one style: ruff's convention `google`, and what follows.

A function's first line is an imperative ("Return the rows"). Sections come in one order, and the fields of a
class are described under `Attributes`, all of them or none.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("emitter/tagline", "consumers", "exporter", "cli", "local/onemachine", "monitoring", "installed")

# In the order in which they come. "For example" is a command's, whose docstring is its help.
SECTIONS = ("For example", "Args", "Attributes", "Returns", "Yields", "Raises")

_SECTION = re.compile(r"^(\w[\w ]*):$", re.MULTILINE)
_FIELD = re.compile(r"^    (\w+):", re.MULTILINE)
_OTHER_STYLES = re.compile(
    r":(param|returns?|raises|class|func|meth|mod|attr|ref)\b[^:\n]*:|^-{3,}$|^\.\. ", re.MULTILINE
)
_NOT_IMPERATIVE = re.compile(r"(Returns|Yields|Raises|Gets|Sets|Makes|Reads|Writes|Tells|Creates|This)\b")


@pytest.mark.parametrize("package", PACKAGES)
def test_docstrings_have_one_style(package: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}: {fault}"
        for path in sorted((ROOT / package).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for fault in faults(node)
    ]

    assert not wrong, "\n".join(wrong)


def test_ruff_checks_googles_convention() -> None:
    ruff = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["ruff"]["lint"]

    assert ruff["pydocstyle"]["convention"] == "google"
    assert not [rule for rule in ruff["ignore"] if rule.startswith(("D3", "D4")) or rule == "D"]


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ('def f():\n    """Returns a row."""', "imperative"),
        (
            'def f():\n    """Do it.\n\n    Raises:\n        E: A.\n\n    Args:\n        a: A.\n    """',
            "order",
        ),
        ('def f():\n    """Return a row.\n\n    Parameters:\n        a: One.\n    """', "section"),
        ('def f(a):\n    """Return a row.\n\n    :param a: One.\n    """', "Google"),
        ('class C:\n    """A row."""\n    a: int\n    """One."""', "Attributes"),
        (
            'class C:\n    """A row.\n\n    Attributes:\n        a: One.\n    """\n    a: int\n    b: int',
            "lacks b",
        ),
        ('class C:\n    """A row.\n\n    Attributes:\n        a: One.\n    """', "has no a"),
    ],
)
def test_another_style_is_found(source: str, fault: str) -> None:
    assert fault in " ".join(faults(ast.parse(source).body[0]))


def faults(node: ast.AST) -> Iterator[str]:
    """Yield what of a node's docstring has another style."""
    if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return
    docstring = ast.get_docstring(node)
    if isinstance(node, ast.ClassDef):
        yield from _faults_of_fields(node, docstring or "")
    if docstring is None:
        return
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and _NOT_IMPERATIVE.match(docstring):
        yield "the first line is not imperative"
    if _OTHER_STYLES.search(docstring):
        yield "not Google's style"
    sections = _SECTION.findall(docstring)
    if unknown := set(sections) - {*SECTIONS}:
        yield f"unknown section {', '.join(unknown)}"
    elif sections != sorted(sections, key=SECTIONS.index):
        yield f"sections not in the order {', '.join(SECTIONS)}"


def _faults_of_fields(node: ast.ClassDef, docstring: str) -> Iterator[str]:
    for field, text in zip(node.body, node.body[1:], strict=False):
        if isinstance(field, ast.Assign | ast.AnnAssign) and isinstance(text, ast.Expr):
            yield "a field is described after itself, not under Attributes"
    if "Attributes:\n" not in docstring:
        return
    described = {*_FIELD.findall(docstring.partition("Attributes:\n")[2].partition("\n\n")[0])}
    fields = {
        each.target.id
        for each in node.body
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
    }
    assigned = {each.attr for each in ast.walk(node) if isinstance(each, ast.Attribute)}
    named = {each.name for each in node.body if isinstance(each, ast.FunctionDef)}
    if lacking := {each for each in fields - described if not each.startswith("_")}:
        yield f"Attributes lacks {', '.join(sorted(lacking))}"
    if absent := described - fields - assigned - named:
        yield f"the class has no {', '.join(sorted(absent))}"
