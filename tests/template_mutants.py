"""Mutation tests of template.yml: `make template-mutants` drops or turns one thing at a time, and tests fail.

What is changed: permissions, statements, failure settings, dimensions, deletion policies, conditions, whole
resources and other properties, bounds of parameters, and rules. Not what people read: descriptions, names and
saved questions. Each mutant of a seeded sample is tried in a copy of the tree, in a process that has imported
what tests need, with the tests that read the template: fast ones first. What no test notices is printed.
Mutants that were killed before are not tried again: .mutants/template has them, until it is deleted.

    python -m tests.template_mutants --sample 200 --seed 0
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from tests.mutant_trials import PRELOADED, copy_tree

ROOT = Path(__file__).resolve().parents[1]
TEMPLATE = "template.yml"
KILLED = ROOT / ".mutants" / "template"
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# Parts of the template that are changed, and keys that are for people alone, or name something.
SECTIONS = ("Parameters", "Rules", "Conditions", "Globals", "Resources")
LEFT_ALONE = {
    *("Description", "ConstraintDescription", "AssertDescription", "AlarmDescription", "AllowedValues"),
    *("Sid", "PolicyName", "Metadata", "Id", "QueryString", "DashboardBody", "Name", "Tags", "LicenseInfo"),
}
QUESTIONS = ("AWS::Logs::QueryDefinition", "AWS::Athena::NamedQuery", "AWS::CloudWatch::Dashboard")
# What is opposite.
TURNED = {
    "true": "false",
    "false": "true",
    "Allow": "Deny",
    "Deny": "Allow",
    "ENABLED": "DISABLED",
    "Enabled": "Disabled",
    "notBreaching": "breaching",
    "breaching": "notBreaching",
    "GreaterThanOrEqualToThreshold": "LessThanThreshold",
    "TRIM_HORIZON": "LATEST",
    "Retain": "Delete",
    "RetainExceptOnCreate": "Delete",
    "Active": "PassThrough",
}
# In stages: those of seconds, then those of a minute.
TESTS: Sequence[Sequence[str]] = (
    (
        *("tests/test_template.py", "tests/test_template_review.py", "tests/test_monitoring.py"),
        *("-k", "not cfn_lint and not older_one_has_left and not prometheus and not goes_on_by"),
    ),
    ("tests/test_template.py", "-k", "cfn_lint and pipeline"),
    ("tests/test_permissions.py",),
)


class Change(NamedTuple):
    """A change of the template.

    Attributes:
        start: Where in the text it begins.
        end: Where it ends.
        text: What stands there instead.
        name: What it is.
    """

    start: int
    end: int
    text: str
    name: str

    @property
    def digest(self) -> str:
        """What tells it from others, wherever it stands."""
        return hashlib.blake2b(f"{self.name} {self.text}".encode(), digest_size=8).hexdigest()

    def apply(self, source: str) -> str:
        """Return the template with the change."""
        return source[: self.start] + self.text + source[self.end :]


def changes(source: str) -> Iterator[Change]:
    """Yield all changes of a template."""
    root = yaml.compose(source, LOADER)
    assert isinstance(root, yaml.MappingNode)
    for key, value in root.value:
        if key.value in SECTIONS:
            yield from _inside(source, value, key.value)


def _inside(source: str, node: yaml.Node, path: str) -> Iterator[Change]:
    if isinstance(node, yaml.ScalarNode):
        if node.value in TURNED and not node.style:
            text = source[node.start_mark.index : node.end_mark.index].replace(node.value, TURNED[node.value])
            yield Change(node.start_mark.index, node.end_mark.index, text, f"{path}: {text}")
    elif isinstance(node, yaml.SequenceNode):
        yield from _of_list(source, node, path)
    elif isinstance(node, yaml.MappingNode):
        if any(key.value == "Type" and value.value in QUESTIONS for key, value in node.value):
            return
        pairs = [(key, value) for key, value in node.value if key.value not in LEFT_ALONE]
        yield from _dropped(source, node, pairs, path)
        for key, value in pairs:
            yield from _inside(source, value, f"{path}.{key.value}")


def _of_list(source: str, node: yaml.SequenceNode, path: str) -> Iterator[Change]:
    """Yield the changes of a list, or of a function's arguments: without one it is not a function."""
    if node.tag == "!If" and node.flow_style:
        _, yes, no = (slice(part.start_mark.index, part.end_mark.index) for part in node.value)
        text = source[no] + source[yes.stop : no.start] + source[yes]
        yield Change(yes.start, no.stop, text, f"{path}: branches exchanged")
    elif node.tag == "!Not":
        (one,) = node.value
        text = source[one.start_mark.index : one.end_mark.index]
        yield Change(node.start_mark.index, node.end_mark.index, text, f"{path}: without !Not")
    elif not node.tag.startswith("!"):
        yield from _dropped(source, node, [(each, each) for each in node.value], path)
    if node.tag == "!If" or not node.tag.startswith("!"):
        for number, part in enumerate(node.value):
            yield from _inside(source, part, f"{path}[{number}]")


def _dropped(
    source: str, node: yaml.CollectionNode, items: Sequence[tuple[yaml.Node, yaml.Node]], path: str
) -> Iterator[Change]:
    """Yield the node without each of some items, which are keys with values, or twice the same."""
    starts = [each[0] if isinstance(each, tuple) else each for each in node.value]
    ends = [each[1] if isinstance(each, tuple) else each for each in node.value]
    if len(starts) == 1:
        return
    for first, last in items:
        if isinstance(first, yaml.ScalarNode) and first.value in {"Type", "Ref"} and first is not last:
            continue
        number = next(index for index, each in enumerate(starts) if each is first)
        label = first.value if isinstance(first, yaml.ScalarNode) else _label(first) or str(number)
        follows = number + 1 < len(starts)
        if node.flow_style:
            start = first.start_mark.index if follows else ends[number - 1].end_mark.index
            end = starts[number + 1].start_mark.index if follows else last.end_mark.index
        else:
            start, end = _block(source, first, last, starts[number + 1] if follows else None)
        yield Change(start, end, "", f"{path}: without {label}")


def _block(source: str, first: yaml.Node, last: yaml.Node, following: yaml.Node | None) -> tuple[int, int]:
    """Return where an item in block style begins and ends."""
    line = source.rfind("\n", 0, first.start_mark.index) + 1
    is_first_key = source[line : first.start_mark.index].strip() == "-" and first is not last
    if following is not None:
        next_line = source.rfind("\n", 0, following.start_mark.index) + 1
        return (first.start_mark.index, following.start_mark.index) if is_first_key else (line, next_line)
    end = last.end_mark.index
    end_line = source.rfind("\n", 0, end) + 1
    if source[end_line:end].strip():
        end_line = source.find("\n", end) + 1
    return line, end_line


def _label(node: yaml.Node) -> str:
    """Return what a statement or another mapping is called."""
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    names = [value.value for key, value in pairs if key.value in {"Sid", "Id", "Name"}]
    return str(names[0]) if names else ""


def sampled(source: str, number: int, seed: int) -> list[Change]:
    """Return some changes that leave a template, the same for the same seed and template."""

    def order(change: Change) -> bytes:
        return hashlib.blake2b(f"{seed} {change.name} {change.text}".encode()).digest()

    whole = _plain(source)
    chosen: list[Change] = []
    for change in sorted(changes(source), key=order):
        if len(chosen) == number:
            break
        try:
            changed = _plain(change.apply(source))
        except yaml.YAMLError:
            continue
        if changed != whole:
            chosen.append(change)
    return sorted(chosen)


def _plain(source: str) -> object:
    """Return a template's content, with intrinsic functions as pairs."""
    root = yaml.compose(source, LOADER)
    assert root is not None
    return _content(root)


def _content(node: yaml.Node) -> object:
    if isinstance(node, yaml.MappingNode):
        return node.tag, [(_content(key), _content(value)) for key, value in node.value]
    return node.tag, [_content(each) for each in node.value] if isinstance(node.value, list) else node.value


# ---- Trials ------------------------------------------------------------------------------------------------


def _survives(root: Path, stages: int) -> bool:
    """Run the tests in a child, and tell whether all pass."""
    process = multiprocessing.get_context("fork").Process(target=_run_tests, args=(root, stages))
    process.start()
    process.join()
    return process.exitcode == 0


def _run_tests(root: Path, stages: int) -> None:
    os.chdir(root)
    output = os.open(root.parent / "output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    ours = {str(ROOT), str(ROOT / "emitter"), str(ROOT / "local")}
    sys.path[:] = [
        *(str(root), str(root / "emitter"), str(root / "local")),
        *(path for path in sys.path if path not in ours),
    ]
    for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
        del sys.modules[name]
    quiet = ("-q", "-x", "-n", "0", "-p", "no:cacheprovider", "-p", "no:randomly")
    fast, *others = TESTS[:stages]
    if pytest.main([*quiet, "-W", "ignore::pytest.PytestAssertRewriteWarning", *fast]):
        os._exit(1)
    # They run whole pipelines, so each has a process that nothing was imported in.
    for stage in others:
        if subprocess.run([sys.executable, "-m", "pytest", *quiet, *stage], check=False).returncode:
            os._exit(1)
    os._exit(0)


def main() -> None:
    """Try a sample of mutants, and print how many were killed and what the others are."""
    parser = argparse.ArgumentParser(prog="python -m tests.template_mutants", description=__doc__)
    parser.add_argument("--sample", type=int, default=200, help="how many mutants (default 200)")
    parser.add_argument("--seed", type=int, default=0, help="where chance begins (default 0)")
    parser.add_argument(
        "--stages", type=int, default=len(TESTS), help="1: the fast tests only (default: all)"
    )
    asked = parser.parse_args()
    for name in PRELOADED:
        importlib.import_module(name)
    sys.dont_write_bytecode = True
    source = (ROOT / TEMPLATE).read_text()
    mutants = sampled(source, asked.sample, asked.seed)
    KILLED.parent.mkdir(exist_ok=True)
    known = set(KILLED.read_text().split()) if KILLED.exists() else set()
    left = [mutant for mutant in mutants if mutant.digest not in known]
    survivors = 0
    with tempfile.TemporaryDirectory() as folder:
        root = copy_tree(Path(folder) / "tree")
        if not _survives(root, asked.stages):
            sys.exit((root.parent / "output").read_text()[-3000:] + "\nThe tests fail without a change.")
        began = time.monotonic()
        for number, change in enumerate(left, 1):
            (root / TEMPLATE).write_text(change.apply(source))
            survived = _survives(root, asked.stages)
            survivors += survived
            if not survived:
                with KILLED.open("a") as file:
                    file.write(f"{change.digest}\n")
            outcome = "SURVIVED" if survived else "killed"
            seconds = time.monotonic() - began
            sys.stdout.write(f"{number}/{len(left)} {seconds:.0f} s {outcome} {change.name}\n")
            sys.stdout.flush()
    killed = len(mutants) - survivors
    sys.stdout.write(f"{killed} of {len(mutants)} killed ({100 * killed / max(1, len(mutants)):.1f} %)\n")


if __name__ == "__main__":
    main()
