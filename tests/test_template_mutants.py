"""The mutation tool of the template drops or turns one thing at a time, and leaves the rest as it is."""

import pytest

from tests import template_mutants


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ("A: [x, y]", {"A: [y]", "A: [x]"}),
        ("A: {x: 1, y: 2}", {"A: {y: 2}", "A: {x: 1}"}),
        ("A:\n    - x # why\n    - y", {"A:\n    - y", "A:\n    - x # why\n"}),
        ("A:\n    x: 1\n    y:\n      - 2", {"A:\n    y:\n      - 2", "A:\n    x: 1\n"}),
        ("A:\n    - x: 1\n      y: 2", {"A:\n    - y: 2", "A:\n    - x: 1\n"}),
        ("A: [!If [c, x, y]]", {"A: [!If [c, y, x]]"}),
        ("A: !Not [!Equals [x, y]]", {"A: !Equals [x, y]"}),
        ("A: [true]", {"A: [false]"}),
        ('A: ["true"]', set()),
        ("A: {Effect: Allow, Sid: x}", {"A: {Sid: x}", "A: {Effect: Deny, Sid: x}"}),
        ("A: {Type: AWS::Logs::QueryDefinition, x: 1}", set()),
    ],
)
def test_each_change_drops_or_turns_one_thing(section: str, expected: set[str]) -> None:
    head = "Resources:\n  "
    source = f"{head}{section}\n"
    changed = {each.apply(source) for each in template_mutants.changes(source)}
    assert {each.removeprefix(head).removesuffix("\n") for each in changed} == {
        each.removesuffix("\n") for each in expected
    }


def test_a_sample_is_the_same_for_the_same_seed_and_each_of_it_is_another_template() -> None:
    source = (template_mutants.ROOT / template_mutants.TEMPLATE).read_text()
    sample = template_mutants.sampled(source, 20, 1)
    assert sample == template_mutants.sampled(source, 20, 1)
    assert sample != template_mutants.sampled(source, 20, 2)
    assert len({each.apply(source) for each in sample} - {source}) == 20
