"""When an alarm changes its state: AWS's published tables, and what holds for every alarm."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from onemachine.alarms.composite import InvalidRuleError, parse_rule
from onemachine.alarms.evaluation import COMPARISONS, TREATMENTS, Condition, State, evaluate, has_few_samples
from onemachine.alarms.metric_math import UnknownExpressionError, parse

SYMBOLS = {"0": 0.0, "X": 1.0, "-": None}
KEPT = "the state before"


def points(text: str) -> list[float | None]:
    return [SYMBOLS[symbol] for symbol in text.split()]


# https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarms-and-missing-data.html
# Both tables, and the examples of its last section: M, N, data points, then the states by `TREATED`.
TREATED = ("missing", "ignore", "breaching", "notBreaching")
PUBLISHED = [
    (3, 3, "0 - X - X", "OK", "OK", "OK", "OK"),
    (3, 3, "0 - - - -", "OK", "OK", "OK", "OK"),
    (3, 3, "- - - - -", "INSUFFICIENT_DATA", KEPT, "ALARM", "OK"),
    (3, 3, "0 X X - X", "ALARM", "ALARM", "ALARM", "ALARM"),
    (3, 3, "- - X - -", "ALARM", KEPT, "ALARM", "OK"),
    (2, 3, "0 - X - X", "ALARM", "ALARM", "ALARM", "ALARM"),
    (2, 3, "0 0 X 0 X", "ALARM", "ALARM", "ALARM", "ALARM"),
    (2, 3, "0 - X - -", "OK", "OK", "ALARM", "OK"),
    (2, 3, "- - - - 0", "OK", "OK", "ALARM", "OK"),
    (2, 3, "- - - X -", "ALARM", KEPT, "ALARM", "OK"),
    # AWS says of these two only that they do not go into ALARM if missing data are treated as missing.
    (3, 3, "- - - - X", "INSUFFICIENT_DATA", KEPT, "ALARM", "OK"),
    (3, 3, "- - - X -", "INSUFFICIENT_DATA", KEPT, "ALARM", "OK"),
]


@pytest.mark.parametrize("before", ["OK", "ALARM", "INSUFFICIENT_DATA"])
@pytest.mark.parametrize("row", PUBLISHED, ids=str)
def test_missing_data_have_the_effect_that_aws_publishes(
    row: tuple[int, int, str, str, str, str, str], before: State
) -> None:
    to_alarm, periods, data, *states = row
    for treatment, expected in zip(TREATED, states, strict=True):
        condition = Condition("GreaterThanThreshold", 0.5, periods, to_alarm, treatment)
        found = evaluate(condition, points(data), before)
        assert found == (before if expected == KEPT else expected), treatment


POINTS = st.lists(st.sampled_from([0.0, 1.0, None]), min_size=1, max_size=12)


@st.composite
def conditions(draw: st.DrawFn) -> Condition:
    periods = draw(st.integers(1, 6))
    return Condition(
        "GreaterThanThreshold",
        0.5,
        periods,
        draw(st.integers(1, periods)),
        draw(st.sampled_from(TREATMENTS)),
    )


@given(conditions(), POINTS, st.sampled_from(["OK", "ALARM", "INSUFFICIENT_DATA"]))
def test_only_the_range_counts_and_data_are_stronger_than_treatments(
    condition: Condition, data: list[float | None], before: State
) -> None:
    state = evaluate(condition, data, before)

    assert (
        evaluate(condition, [1.0, *data[-condition.range :]], before) == state or len(data) < condition.range
    )
    newest = [value for value in reversed(data[-condition.range :]) if value is not None][: condition.periods]
    if sum(value > 0.5 for value in newest) >= condition.to_alarm:
        assert state == "ALARM"
    elif len(newest) == condition.periods:
        assert state == "OK"
    if state == "INSUFFICIENT_DATA" != before:
        assert condition.missing == "missing"


@pytest.mark.parametrize(
    ("comparison", "breaching"),
    [
        ("GreaterThanThreshold", [3]),
        ("GreaterThanOrEqualToThreshold", [2, 3]),
        ("LessThanThreshold", [1]),
        ("LessThanOrEqualToThreshold", [1, 2]),
    ],
)
def test_each_comparison_is_with_the_threshold(comparison: str, breaching: list[int]) -> None:
    condition = Condition(comparison, 2, 1, 1)
    assert [value for value in (1, 2, 3) if evaluate(condition, [value], "OK") == "ALARM"] == breaching
    assert comparison in COMPARISONS


@pytest.mark.parametrize(
    ("percentile", "enough"), [(50, 20), (95, 200), (99, 1000), (99.9, 10_000), (10, 100), (100, 0)]
)
def test_a_percentile_needs_ten_values_on_its_smaller_side(percentile: float, enough: int) -> None:
    assert not has_few_samples(percentile, enough)
    assert enough == 0 or has_few_samples(percentile, enough - 1)


# ---- Metric math -------------------------------------------------------------------------------------------

# https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/using-metric-math.html: its examples, one
# value of each metric for each time.
M1, M2 = [30.0, 20.0, 0.0, 0.0], [20.0, None, 20.0, None]
EXAMPLES = [
    ("m1 < m2", M1, M2, [], [0, 0, 1, 0]),
    ("m1 >= 30", M1, M2, [], [1, 0, 0, 0]),
    ("m1 > 15 AND m2 > 15", M1, M2, [], [1, 0, 0, 0]),
    ("m1 > 15 && m2 > 15 || m1 == 20", M1, M2, [], [1, 1, 0, 0]),
    (
        "IF(m1, m2, m3)",
        [1, 1, 0, 0, None],
        [30, None, 0, 0, 30],
        [0, 0, 20, None, 20],
        [30, 0, 20, None, None],
    ),
    ("IF(m1, 5, m3)", [1, 1, 0, 0, None], [], [0, 0, 20, None, 20], [5, 5, 20, None, None]),
    ("IF(m1, m2, 5)", [1, 1, 0, 0, None], [30, None, 0, 0, 30], [], [30, 0, 5, 5, None]),
    ("IF(m1 < 400, m1)", [100, 500, None], [], [], [100, None, None]),
    # Missing values count as 0 beside others; what would be divided by zero is left out.
    ("m1 + m2", [1, None, None], [2, 2, None], [], [3, 2, None]),
    ("100 * m1 / m2", [1, 1, None], [4, 0, None], [], [25, None, None]),
    ("-(m1 - 2) * 3", [1, None], [], [], [3, None]),
    ("m1 / 2 / 5 - 1 - 1", [20], [], [], [0]),
]


@pytest.mark.parametrize(("text", "m1", "m2", "m3", "expected"), EXAMPLES)
def test_metric_math_computes_what_aws_publishes(
    text: str,
    m1: list[float | None],
    m2: list[float | None],
    m3: list[float | None],
    expected: list[float | None],
) -> None:
    expression = parse(text)
    metrics = {"m1": m1, "m2": m2, "m3": m3}

    found = [
        expression.compute({name: metrics[name][time] for name in expression.names})
        for time in range(len(expected))
    ]

    assert found == expected


@pytest.mark.parametrize(
    "text",
    ["", "m1 +", "(m1", "m1 m2", "SUM(m1)", "FILL(m1, 0)", "AVG(METRICS())", "m1 ^ 2", "IF(m1)", "sum(m1)"],
)
def test_what_is_not_computed_here_is_refused(text: str) -> None:
    with pytest.raises(UnknownExpressionError, match="metric math"):
        parse(text)


# ---- Composite rules ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("ALARM(a)", True),
        ('ALARM("a") AND ALARM("b c")', False),
        ("ALARM(a) OR ALARM(b)", True),
        ("ALARM(a) AND NOT ALARM(b)", True),
        ("NOT (ALARM(a) OR ALARM(b))", False),
        ("OK(b) AND INSUFFICIENT_DATA(c)", True),
        # AND binds more strongly than OR.
        ("ALARM(a) OR ALARM(b) AND ALARM(c)", True),
        ("(ALARM(a) OR ALARM(b)) AND ALARM(c)", False),
        ("TRUE AND NOT FALSE", True),
        ("ALARM(arn:aws:cloudwatch:us-east-1:123456789012:alarm:a)", True),
    ],
)
def test_a_rule_combines_the_states_of_other_alarms(rule: str, expected: bool) -> None:
    states = {"a": "ALARM", "b": "OK", "b c": "OK", "c": "INSUFFICIENT_DATA"}
    parsed = parse_rule(rule)

    assert parsed.holds(states) is expected
    assert set(parsed.names) <= states.keys()


@pytest.mark.parametrize(
    "rule", ["", "ALARM(a", "ALARM(a) ALARM(b)", "a", "ALARM(a) XOR ALARM(b)", "(ALARM(a)", "AND ALARM(a)"]
)
def test_a_rule_that_cannot_be_read_is_refused(rule: str) -> None:
    with pytest.raises(InvalidRuleError, match="the rule"):
        parse_rule(rule)


def test_a_rule_names_at_most_a_hundred_alarms() -> None:
    named = " OR ".join(f"ALARM(a{number})" for number in range(101))
    with pytest.raises(InvalidRuleError, match="101 alarms"):
        parse_rule(named)
    assert len(parse_rule(named.rpartition(" OR ")[0]).names) == 100
