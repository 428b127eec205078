"""Which messages a filter pattern selects.

Rows marked with a page are examples or rules of
https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/FilterAndPatternSyntax.html.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.filter_pattern import MAX_PATTERN_CHARACTERS, InvalidPatternError, matches

EXCEPTION = "[ERROR 400] BAD REQUEST\n[ERROR 401] UNAUTHORIZED REQUEST"


@pytest.mark.parametrize(
    ("pattern", "message", "selected"),
    [
        ("", "anything", True),
        (" ", "anything", True),
        ("ERROR", EXCEPTION, True),
        ("error", EXCEPTION, False),
        ("ERROR ARGUMENTS", "[ERROR 419] MISSING ARGUMENTS", True),
        ("ERROR ARGUMENTS", "[ERROR 401] UNAUTHORIZED REQUEST", False),
        ("?ERROR ?ARGUMENTS", "[INFO] INVALID ARGUMENTS", True),
        ("?ERROR ?ARGUMENTS", "[INFO] fine", False),
        ("?ERROR ?WARN INFO", "[INFO] fine", True),
        ("?ERROR ?WARN INFO", "[ERROR] bad", False),
        ('"INTERNAL SERVER ERROR"', "500 INTERNAL SERVER ERROR", True),
        ('"INTERNAL SERVER ERROR"', "500 INTERNAL ERROR SERVER", False),
        ("ERROR -ARGUMENTS", "[ERROR 401] UNAUTHORIZED REQUEST", True),
        ("ERROR -ARGUMENTS", "[ERROR 419] MISSING ARGUMENTS", False),
        ('-"not this"', "this", True),
        ('"usage_record"', '{"_tag":"usage_record"}', True),
        ('"a \\" quote"', 'with a " quote', True),
        ('{ $.tag = "AUDIT" }', '{"tag":"AUDIT"}', True),
        ('{ $.tag = "AUDIT" }', '{"tag":"AUDITS"}', False),
        ('{$.a.b="x"}', '{"a":{"b":"x"}}', True),
        ('{ $.a = "x" }', '{"a":{"b":"x"}}', False),
        ('{ $.a = "x" }', '{"b":"x"}', False),
        ('{ $.a = "x" }', 'INFO {"a":"x"}', False),
        ('{ $.a = "x" }', "[1]", False),
        ("{ $.status = 200 }", '{"status":200}', True),
        ("{ $.status = 200 }", '{"status":404}', False),
        ("{ $.status = GET }", '{"status":"GET"}', True),
        ("{ $.status = GET }", '{"status":5}', False),
    ],
)
def test_a_pattern_selects_what_the_service_would(pattern: str, message: str, selected: bool) -> None:
    assert matches(pattern, message) is selected


@pytest.mark.parametrize(
    "pattern",
    [
        "my-tag",
        '"open',
        "a,b",
        "[ip, user, ...]",
        "%regex%",
        "{ $.a > 3 }",
        '{ $.a = "x" && $.b = "y" }',
        "{ $.a = x",
        "x" * (MAX_PATTERN_CHARACTERS + 1),
    ],
)
def test_what_is_not_understood_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidPatternError):
        matches(pattern, "message")


def test_the_longest_pattern_is_understood() -> None:
    assert not matches("x" * MAX_PATTERN_CHARACTERS, "message")


@given(st.text(), st.text())
def test_a_quoted_term_selects_what_contains_it(term: str, around: str) -> None:
    quoted = '"' + term.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if term and len(quoted) <= MAX_PATTERN_CHARACTERS and "\n" not in term:
        assert matches(quoted, around + term + around)
        assert matches(quoted, around) is (term in around)
