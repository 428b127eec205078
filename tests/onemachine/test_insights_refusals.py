"""What Logs Insights refuses, and in which words. Every row names the page, or the users, that it is from.

The pages are in https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/. "Users' reports" are the service's
error texts in public repositories; boto3#3450 and the like are issues there. Rows without a source are
grammar.
"""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from onemachine.insights import Event, MalformedQueryError, run
from onemachine.insights.syntax import ARGUMENTS, COMMANDS

FUNCTIONS = "CWL_QuerySyntax-operations-functions"
STATS = "CWL_QuerySyntax-Stats"

UNKNOWN = "Unknown symbols found in or after stats: "
TWICE = "Ephemeral field is already defined: "


@pytest.mark.parametrize(
    ("source", "query", "message"),
    [
        # The service's own words, as users met them; positions count from 0.
        (
            "boto3#3450",
            "fields @timestamp, custom_field | count()",
            "unexpected symbol found count at line 1 and position 34",
        ),
        (
            "users' reports",
            "filter @message like /x/i",
            "unexpected symbol found i at line 1 and position 24",
        ),
        (
            "users' reports",
            "stats count(*) by bin(1d)\n| sort bin(1d) desc",
            "unexpected symbol found ( at line 2 and position 10",
        ),
        (
            "CWL_QuerySyntax-Dedup",
            "dedup a | sort a",
            "unexpected symbol found sort at line 1 and position 10",
        ),
        (
            "trade-tariff-backend#3461",
            "stats count(*) as selected | fields selected",
            f"{TWICE}selected ([36,44])",
        ),
        ("users' reports", "parse @message 'a=*' as a | fields a", f"{TWICE}a ([35,36])"),
        ("users' reports", "parse @message 'a=*' as a | stats latest(a) as a", f"{TWICE}a ([34,48])"),
        ("trade-tariff-backend#3464", "fields a, b | fields abs(b) as a", f"{TWICE}a ([21,32])"),
        ("a name made twice", "fields 1 as a, 2 as a", f"{TWICE}a ([15,21])"),
        ("a name made twice", "stats count(*) as n, sum(a) as n", f"{TWICE}n ([21,32])"),
        (
            STATS,
            "FIELDS @message | STATS SUM(Fault) by Operation | STATS MAX(strlen(@message)) AS M",
            f"{UNKNOWN}@message ([67,75])",
        ),
        (STATS, "STATS sum(a) AS b BY @logStream | STATS avg(b) BY bin(5m)", f"{UNKNOWN}@timestamp ([0,10])"),
        (STATS, "stats count(*) as n by a | filter b = 1", f"{UNKNOWN}b ([34,35])"),
        (STATS, "stats count(*) as n by a | sort b", f"{UNKNOWN}b ([32,33])"),
        (STATS, "stats a by b", f"{UNKNOWN}a ([6,7])"),
        (
            STATS,
            "stats count(*) | stats count(*) | stats count(*)",
            "a query has at most 2 stats commands ([34,39])",
        ),
        (
            STATS,
            "stats count(*) as n by a | sort n | stats max(n)",
            "sort must be after the second stats ([36,41])",
        ),
        (
            STATS,
            "stats count(*) as n by a | limit 5 | stats max(n)",
            "limit must be after the second stats ([37,42])",
        ),
        (
            FUNCTIONS,
            "fields jsonParse(@message) as j | dedup j",
            "dedup does not take a map or a list: j ([40,41])",
        ),
        (
            FUNCTIONS,
            "fields jsonParse(@message) as j | sort j",
            "sort does not take a map or a list: j ([39,40])",
        ),
        (
            FUNCTIONS,
            "fields jsonParse(@message) as j | stats count(*) by j",
            "stats does not take a map or a list: j ([52,53])",
        ),
        (
            FUNCTIONS,
            "fields jsonParse(@message) as j | stats max(j)",
            "stats does not take a map or a list: j ([44,45])",
        ),
        (
            "users' reports: the service shows nothing",
            "fields jsonParse(@message) as j, j.a as b",
            "j.a is into what the same command makes; put it in a second fields command ([33,41])",
        ),
        # What AWS has and this does not.
        (
            "CWL_QuerySyntax-Pattern",
            "pattern @message",
            "the command pattern is not supported on one machine ([0,7])",
        ),
        (
            "CWL_QuerySyntax-Diff",
            "filter a = 1 | diff",
            "the command diff is not supported on one machine ([15,19])",
        ),
        ("CWL_QuerySyntax-Anomaly", "anomaly", "the command anomaly is not supported on one machine ([0,7])"),
        (
            "CWL_QuerySyntax-Lookup",
            "lookup t a as b",
            "the command lookup is not supported on one machine ([0,6])",
        ),
        (
            "CWL_QuerySyntax-Filterindex",
            "filterIndex a = 1",
            "the command filterindex is not supported on one machine ([0,11])",
        ),
        (
            "CWL_QuerySyntax-Source",
            "SOURCE logGroups()",
            "the command source is not supported on one machine ([0,6])",
        ),
        ("CWL_QuerySyntax-Unmask", "unmask a", "the command unmask is not supported on one machine ([0,6])"),
        (
            "CWL_QuerySyntax-Addtotals",
            "addtotals",
            "the command addtotals is not supported on one machine ([0,9])",
        ),
        ("logfmt", "parse @message logfmt as a", "parse as logfmt is not supported on one machine ([15,21])"),
        ("a function of 2026", "fields md5(a)", "the function md5 is not supported on one machine ([7,10])"),
        ("on no page", "stats median(a)", "the function median is not supported on one machine ([6,12])"),
        (
            "no page says when a week begins",
            "stats count(*) by bin(1w)",
            "the period 1w is not supported on one machine ([22,24])",
        ),
        (
            "no page says when two months begin",
            "stats count(*) by bin(2mo)",
            "the period 2mo is not supported on one machine ([22,25])",
        ),
        (
            "no page says which is first",
            "fields 2 ^ 3 ^ 2",
            "unexpected symbol found ^ at line 1 and position 13",
        ),
        (
            "nothing makes a system field",
            "fields a as @message",
            "@message is every event's; a query cannot make it ([7,20])",
        ),
        # Grammar.
        ("", "", "unexpected symbol found <EOF> at line 1 and position 0"),
        ("", "fields a |", "unexpected symbol found <EOF> at line 1 and position 10"),
        ("", "fields a b", "unexpected symbol found b at line 1 and position 9"),
        ("", "fields a,", "unexpected symbol found <EOF> at line 1 and position 9"),
        ("", "filter a == 1", "unexpected symbol found = at line 1 and position 10"),
        ("", "filter a = true", "unexpected symbol found true at line 1 and position 11"),
        ("", "filter foo-bar = 'x", "unexpected symbol found ' at line 1 and position 17"),
        ("", "filter (a = 1", "unexpected symbol found <EOF> at line 1 and position 13"),
        ("", "filter a like b", "unexpected symbol found b at line 1 and position 14"),
        ("", "filter count(*) > 1", "unexpected symbol found ( at line 1 and position 12"),
        ("", "stats sum(max(a))", "unexpected symbol found ( at line 1 and position 13"),
        ("", "filter ispresent(1)", "unexpected symbol found ) at line 1 and position 18"),
        ("", "fields abs()", "abs takes 1 to 1 arguments, not 0 ([7,12])"),
        ("", "fields bin(5)", "unexpected symbol found 5 at line 1 and position 11"),
        ("", "fields bin(0m)", "a period is at least 1 ([11,13])"),
        ("", "limit 0", "limit is 0; it must be between 1 and 100000 ([6,7])"),
        ("", "limit 100001", "limit is 100001; it must be between 1 and 100000 ([6,12])"),
        ("", "limit 1.5", "unexpected symbol found 1 at line 1 and position 6"),
        ("", "parse @message 'a * b *' as x", "2 wildcards for 1 names ([6,29])"),
        ("", "parse @message 'a *'", "unexpected symbol found <EOF> at line 1 and position 20"),
        ("", "parse @message /a (b)/", "parse takes a regular expression with named groups only ([6,22])"),
        ("", "unnest a as b", "unexpected symbol found as at line 1 and position 9"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(source: str, query: str, message: str) -> None:
    with pytest.raises(MalformedQueryError) as refusal:
        run(query, [])
    assert str(refusal.value) == message, source
    assert 0 <= refusal.value.start <= refusal.value.end <= len(query)


def test_a_regular_expression_that_is_not_understood_is_refused() -> None:
    with pytest.raises(MalformedQueryError, match="not a regular expression that is understood here"):
        run(r"filter @message like /(?<!a)b/", [])


def test_a_query_may_have_ten_thousand_characters_and_no_more() -> None:
    """StartQuery: queryString has at most 10,000 characters."""
    run("limit 1" + " " * 9_993, [])
    with pytest.raises(MalformedQueryError, match="10001 characters"):
        run("limit 1" + " " * 9_994, [])


@pytest.mark.parametrize("query", ["filter " + "(" * 4_000 + "1" + ")" * 4_000, "filter 1" + "+1" * 4_000])
def test_a_query_that_is_nested_too_deeply_is_refused(query: str) -> None:
    with pytest.raises(MalformedQueryError, match="nested too deeply"):
        run(query, [])


@given(st.text(max_size=60))
def test_any_text_is_a_query_or_refused_with_its_part(query: str) -> None:
    refusal = None
    try:
        run(query, [Event(0, '{"a": 1}')])
    except MalformedQueryError as error:
        refusal = error
    assert refusal is None or 0 <= refusal.start <= refusal.end <= len(query)


def test_the_reference_names_every_command_and_function() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "insights.md").read_text()
    named = {word.lower() for word in re.findall(r"`(\w+)`", page)}
    assert named >= COMMANDS.keys() | ARGUMENTS.keys()
