"""The mutation tool changes what runs, one expression at a time, and nothing else."""

from pathlib import Path

import pytest

from tests import mutants

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


def test_each_module_has_tests_and_they_are_there() -> None:
    for path in {mutant.path for mutant in mutants.sampled(ROOT, "consumers", 1_000_000, 0)}:
        stages = mutants.stages(path, ROOT)
        assert len(stages) >= 2
        for test in (test for tests in stages for test in tests):
            file, _, name = test.partition("::")
            assert f"def {name}" in (ROOT / file).read_text()
