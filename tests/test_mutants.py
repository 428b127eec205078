"""The mutation tool changes what runs, one expression at a time, and nothing else."""

import sys
from pathlib import Path
from typing import Any

import pytest

from tests import mutant_trials, mutants

ROOT = Path(__file__).parents[1]


def changed(source: str) -> set[str]:
    """Return the file after each of its mutants."""
    raw = source.encode()
    return {mutant.apply(raw).decode() for mutant in mutants.mutants_of("consumers/x.py", raw)}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("x = a < b", {"x = (a <= b)", "x = (a >= b)"}),
        ("x = a >= b", {"x = (a > b)", "x = (a <= b)"}),
        ("x = a == b", {"x = (a != b)"}),
        ("x = a is not b", {"x = (a is b)"}),
        ("x = a in b", {"x = (a not in b)"}),
        ("x = a and not b", {"x = (a or not b)", "x = a and b"}),
        ("x = é + a // b", {"x = (é - a // b)", "x = é + (a * b)"}),
        ("x = a if b else c", {"x = (c if b else a)"}),
        ("x = 1", {"x = 2"}),
        ("x = True", {"x = False"}),
        ("x = 'a'", {"x = 'aa'"}),
        ("x = b'a'", {"x = b'aa'"}),
        ("def f():\n    return a", {"def f():\n    return None"}),
        ("f(a)", {"pass"}),
        ("for a in b:\n    continue", {"for a in b:\n    break"}),
        ("while a:\n    break", {"while a:\n    continue"}),
    ],
)
def test_each_expression_is_changed_alone(source: str, expected: set[str]) -> None:
    assert changed(source) == {text.replace("x = a and b", "x = a and (b)") for text in expected}


@pytest.mark.parametrize(
    "source",
    [
        '"""Text."""',
        "x: Literal[1]",
        "def f(x: Literal[1]) -> Literal[2]: ...",
        "@f(1)\nclass A(B[2]): ...",
        "raise ValueError('1')",
        "x = f'1 {a}'",
        "if TYPE_CHECKING:\n    x = 1",
        "def f():\n    return None",
        "x = ''",
        "x = 'it is late'",
    ],
)
def test_what_does_nothing_when_it_runs_or_is_for_people_is_left_alone(source: str) -> None:
    assert changed(source) == set()


def test_every_mutant_of_the_consumers_is_python_and_no_two_are_the_same() -> None:
    every = mutants.sampled(ROOT, "consumers", 1_000_000, 0)

    assert len(every) > 3_000
    for path in {mutant.path for mutant in every}:
        source = (ROOT / path).read_bytes()
        texts = [mutant.apply(source) for mutant in every if mutant.path == path]
        assert source not in texts
        assert len(set(texts)) == len(texts)
        for text in texts[:5]:
            compile(text, path, "exec")


def test_a_sample_is_the_same_for_a_seed() -> None:
    some = mutants.sampled(ROOT, "consumers/lines", 20, 1)

    assert len(some) == 20
    assert mutants.sampled(ROOT, "consumers/lines", 20, 1) == some
    assert mutants.sampled(ROOT, "consumers/lines", 20, 2) != some


def write_module(root: Path, text: str) -> bytes:
    path = root / "consumers" / "x.py"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return text.encode()


def test_a_sample_keeps_the_mutants_of_functions_that_have_not_changed(tmp_path: Path) -> None:
    functions = [f"def f{number}(a):\n    return a + {number}\n" for number in range(50)]
    write_module(tmp_path, "\n".join(functions))
    before = {mutant.digest for mutant in mutants.sampled(tmp_path, "consumers", 60, 0)}

    write_module(tmp_path, "\n".join(["x = 1\n", *functions[1:]]))
    after = {mutant.digest for mutant in mutants.sampled(tmp_path, "consumers", 60, 0)}

    assert len(before - after) <= 3


SOURCE = """\
from functools import cache

LIMIT = 1 + 1

class Counter:
    step = 3

    def add(self, a):
        inner = lambda b: (b +
            self.step)
        return inner(a)

@cache
def double(a):
    return a * 2
"""


def values(module: dict[str, Any]) -> tuple[int, ...]:
    module["double"].cache_clear()
    return module["LIMIT"], module["Counter"]().add(1), module["double"](4)


def test_a_change_of_a_function_works_on_the_imported_module_and_others_need_another_import(
    tmp_path: Path,
) -> None:
    source = write_module(tmp_path, SOURCE)
    path = str(tmp_path / "consumers" / "x.py")
    seen = set()
    for mutant in mutants.mutants_of("consumers/x.py", source):
        module: dict[str, Any] = {"__name__": "x"}
        exec(compile(source, path, "exec"), module)
        expected: dict[str, Any] = {"__name__": "x"}
        exec(compile(mutant.apply(source), path, "exec"), expected)
        objects = [module["Counter"].add, module["double"].__wrapped__]
        functions = mutant_trials.live_functions(tmp_path, objects)
        changes = mutant_trials.changed_functions(mutant, source, tmp_path, functions)
        for function, code in changes:
            function.__code__ = code
        at_import = mutant.lines in {(3, 3), (6, 6)}
        assert bool(changes) != at_import
        if changes and mutant.operator != "return":
            assert values(module) == values(expected) != (2, 4, 8)
        seen.add(mutant.lines)
    assert seen == {(3, 3), (6, 6), (9, 10), (11, 11), (15, 15)}


def test_the_tests_that_run_a_statement_are_tried_those_of_its_file_first_then_the_fastest() -> None:
    mutant = mutants.Mutant("consumers/lines/x.py", 0, 1, "", "", lines=(7, 8), digest="")

    def known(name: str, seconds: float, *lines: int) -> mutant_trials.KnownTest:
        ran = sum(1 << line for line in lines)
        return mutant_trials.KnownTest(name, seconds, {"consumers/lines/x.py": ran})

    tests = [
        known("tests/consumers/test_slow.py::a", 9.0, 1, 8),
        known("tests/consumers/test_fast.py::a", 0.1, 7),
        known("tests/consumers/test_fast.py::b", 0.1, 6, 9),
        known("tests/consumers/lines/test_x.py::a", 1.0, 8),
        known("tests/consumers/lines/test_other.py::a", mutant_trials.MOST_S, 8),
    ]

    in_a_process = mutant_trials.KnownTest("tests/consumers/lines/test_x.py::process", 2.0, {})
    chosen = [test.name for test in mutant_trials.select([*tests, in_a_process], mutant)]

    assert chosen == [
        "tests/consumers/lines/test_x.py::a",
        "tests/consumers/lines/test_x.py::process",
        "tests/consumers/test_fast.py::a",
        "tests/consumers/test_slow.py::a",
    ]
    assert len(mutant_trials.select(tests[:4], mutant, at_import=True)) == 4


def test_the_tracer_notes_the_lines_of_the_package_that_run(tmp_path: Path) -> None:
    source = write_module(tmp_path, "def f(a):\n    if a:\n        return 1\n    return 2\n")
    module: dict[str, Any] = {}
    exec(compile(source, str(tmp_path / "consumers" / "x.py"), "exec"), module)
    tracer = mutant_trials.Tracer(tmp_path)

    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        module["f"](True)
    finally:
        sys.settrace(before)

    assert tracer.take() == {"consumers/x.py": 1 << 2 | 1 << 3}
    assert tracer.take() == {}


def test_each_folder_of_the_package_has_tests_that_are_tried() -> None:
    folders = {mutant.path.rpartition("/")[0] for mutant in mutants.sampled(ROOT, "consumers", 1_000_000, 0)}

    for folder in folders:
        assert [*(ROOT / "tests" / folder).glob("test_*.py")]
    for test in mutant_trials.SLOW:
        assert (ROOT / test).exists()
