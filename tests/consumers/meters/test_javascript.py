"""Values are written as JavaScript's JSON.stringify writes them."""

import json
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.meters.javascript import MAX_DEPTH, MAX_SAFE_INTEGER, stringify
from tests.consumers.meters.meters import needs_node, node

# Number::toString and JSON.stringify of ECMA-262: https://tc39.es/ecma262/#sec-numeric-types-number-tostring
CASES = [
    ("-0", "0"),
    ("-0.0", "0"),
    ("1.0", "1"),
    ("1E2", "100"),
    ("-1.25", "-1.25"),
    ("123.4560", "123.456"),
    ("1e20", "100000000000000000000"),
    ("1e21", "1e+21"),
    ("12e21", "1.2e+22"),
    ("0.000001", "0.000001"),
    ("0.0000001", "1e-7"),
    ("1.5e-7", "1.5e-7"),
    ("5e-324", "5e-324"),
    ("1e-400", "0"),
    ("9007199254740991", "9007199254740991"),
    ("9007199254740992", "9007199254740992"),
    ("123456789012345680000", "123456789012345680000"),
    ('{"b":1,"2":1,"10":2,"01":3,"1":4}', '{"1":4,"2":1,"10":2,"b":1,"01":3}'),
    ('{"a":0,"4294967295":1,"4294967294":2,"-1":3}', '{"4294967294":2,"a":0,"4294967295":1,"-1":3}'),
    ('{"a":1,"b":2,"a":3}', '{"a":3,"b":2}'),
    ('{"__proto__":{"a":1}}', '{"__proto__":{"a":1}}'),
    (r'"\/ \u0041 \u001f \u007f \u2028 \" \\"', '"/ A \\u001f \u007f \u2028 \\" \\\\"'),
    (r'"\ud83d\ude00 \uD800 \udc00"', '"\U0001f600 \\ud800 \\udc00"'),
    (' [ true , null,\tfalse,\n"\\t" ] ', '[true,null,false,"\\t"]'),
    ("[{}]", "[{}]"),
]
FROM_NODE = "const texts = JSON.parse(require('fs').readFileSync(0, 'utf8'));"
FROM_NODE += "process.stdout.write(JSON.stringify(texts.map((text) => JSON.stringify(JSON.parse(text)))))"


@pytest.mark.parametrize(("text", "expected"), CASES)
def test_a_value_is_written_as_javascript_writes_it(text: str, expected: str) -> None:
    assert stringify(json.loads(text)) == expected


@needs_node
def test_node_says_the_same_of_these_cases() -> None:
    assert node(FROM_NODE, json.dumps([text for text, _ in CASES])) == [expected for _, expected in CASES]


numbers = st.integers(-MAX_SAFE_INTEGER, MAX_SAFE_INTEGER) | st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters())  # lone surrogates are among them
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(texts | st.integers(0, 2**33).map(str), inner, max_size=5)
    ),
    max_leaves=20,
)


@needs_node
@given(st.lists(values.map(json.dumps), min_size=1, max_size=100), st.binary(min_size=8, max_size=800))
@settings(max_examples=15, deadline=None)
def test_node_writes_any_value_the_same(texts: list[str], noise: bytes) -> None:
    doubles = struct.unpack(f"<{len(noise) // 8}d", noise[: len(noise) // 8 * 8])
    texts += [repr(double) for double in doubles if abs(double) < float("inf")]

    assert [stringify(json.loads(text)) for text in texts] == node(FROM_NODE, json.dumps(texts))


@given(values)
@settings(deadline=None)
def test_what_is_written_is_read_as_the_same(value: Any) -> None:
    # As doubles, which is what both languages' readers make of them.
    assert json.loads(stringify(value), parse_int=float) == json.loads(json.dumps(value), parse_int=float)


def test_two_halves_of_a_character_that_meet_are_the_character() -> None:
    assert stringify("\ud83d" + "\ude00") == '"\U0001f600"'


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            MAX_SAFE_INTEGER + 2,
            "9007199254740993 would become 9007199254740992: JavaScript has no such number",
        ),
        (-12345678901234567890, "-12345678901234567890 would become -12345678901234567000"),
        (10**400, "beyond 1.8e308"),
        (float("inf"), "beyond 1.8e308"),
        ({"a": [-float("inf")]}, "beyond 1.8e308"),
    ],
)
def test_a_number_that_would_become_another_is_refused(value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        stringify(value)


def nested(depth: int) -> Any:
    return json.loads("[" * depth + "]" * depth)


def test_a_value_is_taken_at_the_deepest_and_refused_past_it() -> None:
    assert stringify(nested(MAX_DEPTH + 1)) == "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1)
    with pytest.raises(ValueError, match=f"nested deeper than {MAX_DEPTH}"):
        stringify(nested(MAX_DEPTH + 2))


def test_what_json_does_not_have_is_an_error() -> None:
    with pytest.raises(TypeError, match="set is not one of JSON's types"):
        stringify({1})
