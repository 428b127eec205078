"""What Logs Insights answers. Every row of a table names the page, or the issue, that it is from.

The pages are in https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/ unless a row gives an address.
"""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from onemachine.insights import Event, run
from onemachine.insights.functions import UnsupportedValueError
from onemachine.insights.values import Timestamp, order, printed

LAMBDA = "/aws/lambda/shop"
REQUEST = "f612fbaf-65ce-4fd2-8d1b-6718fcb0b269"
# 2026-11-19 10:02:03.456 UTC
T = 1_795_082_523_456
MINUTE = 60_000

FIELDS = "CWL_AnalyzeLogData-discoverable-fields"
FUNCTIONS = "CWL_QuerySyntax-operations-functions"
SYNTAX_2022 = "https://github.com/awsdocs/amazon-cloudwatch-logs-user-guide CWL_QuerySyntax"


def events(*messages: Any, group: str = "app", step_ms: int = 1000) -> list[Event]:
    """Make one event per message, each a second after the one before; what is no text is written as JSON."""
    return [
        Event(
            timestamp=T + number * step_ms,
            message=message if isinstance(message, str) else json.dumps(message),
            log_group=group,
            pointer=f"p{number}",
        )
        for number, message in enumerate(messages)
    ]


def rows(query: str, *messages: Any, group: str = "app", **more: Any) -> list[dict[str, str]]:
    result = run(query, events(*messages, group=group), **more)
    return [{name: value for name, value in row if name != "@ptr"} for row in result.rows]


def value_of(expression: str, message: Any = "{}") -> str | None:
    """Return what an expression gives for one event; None where it gives nothing."""
    (row,) = rows(f"fields {expression} as result", message)
    return row.get("result")


# ---- expressions -------------------------------------------------------------------------------------------

EVENT = {
    "f1": -3,
    "f2": 2.5,
    "f5": 12.345678,
    "f6": 3.0,
    "text": "xyZfooxyZ",
    "empty": "",
    "blank": " \t",
    "digits": "0500",
    "yes": True,
    "no": False,
    "ip": "192.0.2.77",
    "ip6": "2001:db8::1",
    "inner": '{"a": {"b": [1, {"c": "d"}]}, "user.id": "123"}',
    "foo-bar": "dash",
    "none": None,
}


@pytest.mark.parametrize(
    ("source", "expression", "expected"),
    [
        # Arithmetic.
        (FUNCTIONS, "1 + 2", "3"),
        (FUNCTIONS, "1 - 2", "-1"),
        (FUNCTIONS, "2 * 3", "6"),
        (FUNCTIONS, "7 / 2", "3.5"),
        (FUNCTIONS, "2 ^ 3", "8"),
        (FUNCTIONS, "10 % 3", "1"),
        ("precedence", "1 + 2 * 3", "7"),
        ("precedence", "(1 + 2) * 3", "9"),
        ("precedence", "10 - 2 - 3", "5"),
        ("precedence", "2 * 3 ^ 2", "18"),
        ("precedence", "-2 + 5", "3"),
        ("no number can be made", "1 / 0", None),
        ("no number can be made", "9 ^ 999", None),
        ("no number can be made", "text + 1", None),
        ("no number can be made", "(0 - 8) ^ 0.5", None),
        ("text that is a number, as parse makes it", "digits + 1", "501"),
        # Numbers are printed as the service prints them: four digits after the point.
        ("results of AWS's sample query for memory", "128000000 / 1024 / 1024", "122.0703"),
        ("all digits of what the event says", "f5", "12.345678"),
        ("and four of what is computed of it", "f5 + 0", "12.3457"),
        ("a whole number, however it is written", "f6", "3"),
        ("no trailing zeros", "5 / 2", "2.5"),
        # Numeric functions.
        (FUNCTIONS, "abs(f1)", "3"),
        (FUNCTIONS, "ceil(f2)", "3"),
        (FUNCTIONS, "floor(f2)", "2"),
        (FUNCTIONS, "greatest(f1, f2, 1)", "2.5"),
        (FUNCTIONS, "least(f1, f2, 1)", "-3"),
        ("sample query of cold starts", "greatest(missing, 0) + f2", "2.5"),
        (FUNCTIONS, "log(1)", "0"),
        (FUNCTIONS, "log(10)", "2.3026"),
        (FUNCTIONS, "sqrt(16)", "4"),
        ("no number can be made", "sqrt(f1)", None),
        ("no number can be made", "log(0)", None),
        # Booleans are 1 and 0: https://github.com/aws-powertools/powertools-lambda-dotnet/issues/667
        ("powertools-lambda-dotnet#667", "yes", "1"),
        ("powertools-lambda-dotnet#667", "no", "0"),
        (SYNTAX_2022, "ispresent(f1)", "1"),
        (SYNTAX_2022, "ispresent(missing)", "0"),
        (FIELDS, "ispresent(none)", "0"),
        (FUNCTIONS, "coalesce(missing, none, f1, f2)", "-3"),
        (FUNCTIONS, "coalesce(missing)", None),
        # Strings.
        (FUNCTIONS, "isempty(empty)", "1"),
        (FUNCTIONS, "isempty(missing)", "1"),
        (FUNCTIONS, "isempty(blank)", "0"),
        (FUNCTIONS, "isblank(blank)", "1"),
        (FUNCTIONS, "isblank(missing)", "1"),
        (FUNCTIONS, "isblank(text)", "0"),
        (SYNTAX_2022, "concat(text, '-', f1)", "xyZfooxyZ--3"),
        (SYNTAX_2022, 'ltrim("xyZfooxyZ","xyZ")', "fooxyZ"),
        (SYNTAX_2022, 'rtrim("xyZfooxyZ","xyZ")', "xyZfoo"),
        (SYNTAX_2022, 'trim("xyZfooxyZ","xyZ")', "foo"),
        (FUNCTIONS, 'ltrim("xyZxyfooxyZ","xyZ")', "fooxyZ"),
        (FUNCTIONS, 'rtrim("xyZfooxyxyZ","xyZ")', "xyZfoo"),
        (FUNCTIONS, 'trim("xyZxyfooxyxyZ","xyZ")', "foo"),
        (FUNCTIONS, 'ltrim("  a ")', "a "),
        (FUNCTIONS, 'rtrim(" a ")', " a"),
        (FUNCTIONS, 'trim(" a ")', "a"),
        (FUNCTIONS, 'strlen("naïve 🙂")', "7"),
        (FUNCTIONS, "toupper(text)", "XYZFOOXYZ"),
        (FUNCTIONS, "tolower(text)", "xyzfooxyz"),
        (SYNTAX_2022, 'substr("xyZfooxyZ",3, 3)', "foo"),
        (SYNTAX_2022, 'substr("xyZfooxyZ",3)', "fooxyZ"),
        ("no such part", "substr(text, 99)", ""),
        ("no such part", "substr(text, 0 - 1)", None),
        (SYNTAX_2022, 'replace("foo","o","0")', "f00"),
        (FUNCTIONS, 'replace("a smoke_test b","smoke_test","Smoke")', "a Smoke b"),
        (FUNCTIONS, 'strcontains(text, "foo")', "1"),
        (FUNCTIONS, 'strcontains(text, "FOO")', "0"),
        # Times. The page's "...:18:031.000-08:00" is 2022-01-14 21:18:31 UTC.
        (FUNCTIONS, "toMillis(fromMillis(1642195111000))", "1642195111000"),
        (FUNCTIONS, "fromMillis(1642195111000)", "2022-01-14 21:18:31.000"),
        (FUNCTIONS, "toMillis(@timestamp)", str(T)),
        (FUNCTIONS, "datefloor(@timestamp, 1h)", "2026-11-19 10:00:00.000"),
        (FUNCTIONS, "dateceil(@timestamp, 1h)", "2026-11-19 11:00:00.000"),
        (FUNCTIONS, "dateceil(datefloor(@timestamp, 1h), 1h)", "2026-11-19 10:00:00.000"),
        (FUNCTIONS, "bin(5m)", "2026-11-19 10:00:00.000"),
        (FUNCTIONS, "bin(1m)", "2026-11-19 10:02:00.000"),
        (FUNCTIONS, "bin(50ms)", "2026-11-19 10:02:03.450"),
        (FUNCTIONS, "bin(6h)", "2026-11-19 06:00:00.000"),
        (FUNCTIONS, "bin(1day)", "2026-11-19 00:00:00.000"),
        (FUNCTIONS, "bin(1mo)", "2026-11-01 00:00:00.000"),
        (FUNCTIONS, "bin(1qtr)", "2026-10-01 00:00:00.000"),
        (FUNCTIONS, "bin(1yr)", "2026-01-01 00:00:00.000"),
        (FUNCTIONS, "dateceil(@timestamp, 1mon)", "2026-12-01 00:00:00.000"),
        (FUNCTIONS, "dateceil(@timestamp, 1q)", "2027-01-01 00:00:00.000"),
        (FUNCTIONS, "dateceil(@timestamp, 1y)", "2027-01-01 00:00:00.000"),
        ("CWL_QuerySyntax-Stats: hr and hrs", "bin(2hrs)", "2026-11-19 10:00:00.000"),
        ("CWL_QuerySyntax-Stats: msec", "bin(100 msec)", "2026-11-19 10:02:03.400"),
        ("page: bin(300s) is 60 seconds", "bin(300s)", "2026-11-19 10:02:00.000"),
        ("page: the cap of m is 60", "bin(90m)", "2026-11-19 10:00:00.000"),
        ("page: the cap of h is 24", "bin(48h)", "2026-11-19 00:00:00.000"),
        ("page: the cap of ms is 1000", "bin(5000ms)", "2026-11-19 10:02:03.000"),
        ("only times have periods", "datefloor(text, 1h)", None),
        # JSON.
        (FUNCTIONS, "jsonParse(inner).a.b[0]", "1"),
        (FUNCTIONS, "jsonParse(inner).a.b[1].c", "d"),
        (FUNCTIONS, "jsonParse(inner).`user.id`", "123"),
        (FUNCTIONS, "jsonParse(inner).a.b[7]", None),
        (FUNCTIONS, "jsonParse(inner).a.b.c", None),
        (FUNCTIONS, "jsonParse(text)", None),
        (FUNCTIONS, "jsonParse('5')", None),
        (FUNCTIONS, "jsonParse('[1, 2]')", "[1,2]"),
        (FUNCTIONS, "jsonStringify(jsonParse(inner).a)", '{"b":[1,{"c":"d"}]}'),
        (FUNCTIONS, "jsonStringify(text)", None),
        ("page: maps are null to strings", "toupper(jsonParse(inner))", None),
        ("page: maps are null to numbers", "abs(jsonParse(inner))", None),
        ("page: comparing a map gives false", "jsonParse(inner) = jsonParse(inner)", "0"),
        ("page: comparing a map gives false", "jsonParse(inner) != 1", "0"),
        # Addresses.
        (FUNCTIONS, "isValidIp(ip)", "1"),
        (FUNCTIONS, "isValidIp(ip6)", "1"),
        (FUNCTIONS, "isValidIp(text)", "0"),
        (FUNCTIONS, "isValidIpV4(ip)", "1"),
        (FUNCTIONS, "isValidIpV4(ip6)", "0"),
        (FUNCTIONS, "isValidIpV6(ip6)", "1"),
        (FUNCTIONS, "isValidIpV6(ip)", "0"),
        (FUNCTIONS, 'isIpInSubnet(ip, "192.0.2.0/24")', "1"),
        (FUNCTIONS, 'isIpInSubnet(ip6, "2001:db8::/32")', "1"),
        (FUNCTIONS, 'isIpInSubnet(ip, "198.51.100.0/24")', "0"),
        (FUNCTIONS, 'isIpInSubnet(ip, "nonsense")', "0"),
        (FUNCTIONS, 'isIpv4InSubnet(ip, "192.0.2.0/24")', "1"),
        (FUNCTIONS, 'isIpv4InSubnet(ip6, "2001:db8::/32")', "0"),
        (FUNCTIONS, 'isIpv6InSubnet(ip6, "2001:db8::/32")', "1"),
        (FUNCTIONS, 'isIpv6InSubnet(missing, "2001:db8::/32")', "0"),
        # Comparisons and booleans.
        (FUNCTIONS, "f2 = 2.5", "1"),
        (FUNCTIONS, "f2 != 2.5", "0"),
        (FUNCTIONS, "f1 < f2", "1"),
        (FUNCTIONS, "f1 > f2", "0"),
        (FUNCTIONS, "f1 <= 0 - 3", "1"),
        (FUNCTIONS, "f1 >= 0", "0"),
        (FUNCTIONS, "'abc' < 'abd'", "1"),
        ("text and text", "digits = '500'", "0"),
        ("text and number", "digits = 500", "1"),
        (FUNCTIONS, "f1 < 0 and f2 > 0", "1"),
        (FUNCTIONS, "f1 > 0 or f2 > 9", "0"),
        (FUNCTIONS, "not f1 > 0", "1"),
        ("and binds before or", "1 = 1 or 1 = 1 and 1 = 2", "1"),
        ("CWL_QuerySyntax-Guidelines", "`foo-bar`", "dash"),
        ("quotes in a text", r"'it\'s'", "it's"),
        ("function names have no case: isPresent, BIN", "ISPRESENT(f1)", "1"),
    ],
)
def test_an_expression_gives_what_the_service_gives(
    source: str, expression: str, expected: str | None
) -> None:
    assert value_of(expression, EVENT) == expected, source


def test_now_is_when_the_query_began_in_seconds() -> None:
    """CWL_QuerySyntax-operations-functions: 4xx answers of the past two hours."""
    query = """parse @message "Status Code: *;" as statusCode
        | filter statusCode >= 400 and statusCode <= 499
        | filter toMillis(@timestamp) >= (now() * 1000 - 7200000)"""
    messages = ("Status Code: 404; a", "Status Code: 200; b", "Status Code: 499; c", "no code")
    found = rows(query, *messages, now_s=T // 1000 + 7201)
    assert [row["statusCode"] for row in found] == ["499"]


# ---- fields ------------------------------------------------------------------------------------------------

CLOUDTRAIL = {
    "eventVersion": "1.0",
    "userIdentity": {"type": "IAMUser", "userName": "Alice"},
    "requestParameters": {"instancesSet": {"items": [{"instanceId": "i-abcde123"}]}},
    "responseElements": {"instancesSet": {"items": [{"currentState": {"code": 0, "name": "pending"}}]}},
}
NODE_LINE = (
    '2026-11-19T10:02:03.456Z\tf612fbaf-65ce-4fd2-8d1b-6718fcb0b269\tINFO\t{"a": {"b": 1}} {"a": {"b": 2}}'
)
PYTHON_LINE = f'[INFO]\t2026-11-19T10:02:03.456Z\t{REQUEST}\t{{"a": 1}}'
REPORT = (
    f"REPORT RequestId: {REQUEST}\tDuration: 2.03 ms\tBilled Duration: 3 ms\tMemory Size: 512 MB\t"
    "Max Memory Used: 70 MB\tInit Duration: 120.50 ms\t\n"
    "XRAY TraceId: 1-5f8d SegmentId: 4c2\tSampled: true\t\n"
)


@pytest.mark.parametrize(
    ("message", "group", "field", "expected"),
    [
        (CLOUDTRAIL, "app", "userIdentity.type", "IAMUser"),
        (CLOUDTRAIL, "app", "requestParameters.instancesSet.items.0.instanceId", "i-abcde123"),
        (CLOUDTRAIL, "app", "responseElements.instancesSet.items.0.currentState.code", "0"),
        (CLOUDTRAIL, "app", "userIdentity", None),
        (CLOUDTRAIL, "app", "@message", json.dumps(CLOUDTRAIL)),
        ({"@example.com": "x"}, "app", "`@@example.com`", "x"),
        ({"@user": "x"}, "app", "@@user", "x"),
        ({"@message": "x"}, "app", "@@message", "x"),
        ({"api": {"data": '{"startTime":1234}'}}, "app", "api.data.startTime", None),
        ({"api": {"data": '{"startTime":1234}'}}, "app", "jsonParse(api.data).startTime", "1234"),
        ({"odd key": {"x": 1}}, "app", "`odd key`.x", "1"),
        ({"odd key": {"x": 1}}, "app", "`odd key.x`", "1"),
        # The first fragment, wherever it is, but only in a function's log.
        (NODE_LINE, LAMBDA, "a.b", "1"),
        (NODE_LINE, "app", "a.b", None),
        (NODE_LINE, LAMBDA, "@requestId", REQUEST),
        (PYTHON_LINE, LAMBDA, "a", "1"),
        (PYTHON_LINE, LAMBDA, "@requestId", REQUEST),
        ('config {foo=2} then {"a": 3}', LAMBDA, "a", "3"),
        ("no JSON { here", LAMBDA, "a", None),
        ("[1, 2]", "app", "`0`", None),
        # https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/CWL_QuerySyntax-examples.html: in bytes
        (REPORT, LAMBDA, "@type", "REPORT"),
        (REPORT, LAMBDA, "@requestId", REQUEST),
        (REPORT, LAMBDA, "@duration", "2.03"),
        (REPORT, LAMBDA, "@billedDuration", "3"),
        (REPORT, LAMBDA, "@memorySize", "512000000"),
        (REPORT, LAMBDA, "@maxMemoryUsed", "70000000"),
        (REPORT, LAMBDA, "@initDuration", "120.5"),
        (REPORT, LAMBDA, "@xrayTraceId", "1-5f8d"),
        (REPORT, LAMBDA, "@xraySegmentId", "4c2"),
        (REPORT, "app", "@type", None),
        (f"START RequestId: {REQUEST} Version: 3\n", LAMBDA, "@type", "START"),
        (f"END RequestId: {REQUEST}", LAMBDA, "@type", "END"),
        (f"END RequestId: {REQUEST}", LAMBDA, "@duration", None),
    ],
)
def test_fields_are_found_as_the_service_finds_them(
    message: Any, group: str, field: str, expected: str | None
) -> None:
    """CWL_AnalyzeLogData-discoverable-fields."""
    (row,) = rows(f"fields {field} as found", message, group=group)
    assert row.get("found") == expected


def test_a_function_that_shares_a_log_group_is_known_by_its_stream() -> None:
    event = Event(T, f"END RequestId: {REQUEST}", "2026/11/19/shop[$LATEST]" + "0a" * 16, "/shared")
    assert run("fields @type", [event]).rows[0][0] == ("@type", "END")


def test_two_hundred_fields_are_found_and_no_more() -> None:
    """CWL_AnalyzeLogData-discoverable-fields: at most 200 fields of a JSON event."""
    message = {f"f{number}": number for number in range(201)}
    assert rows("fields f199, f200", message) == [{"f199": "199"}]


def test_every_event_has_the_system_fields() -> None:
    event = Event(T, "m", "s", "g", ingestion_time=T + 5, account="111122223333", pointer="p")
    ((*cells,),) = run("fields @timestamp, @message, @logStream, @log, @ingestionTime", [event]).rows
    assert cells == [
        ("@timestamp", "2026-11-19 10:02:03.456"),
        ("@message", "m"),
        ("@logStream", "s"),
        ("@log", "111122223333:g"),
        ("@ingestionTime", "2026-11-19 10:02:03.461"),
        ("@ptr", "p"),
    ]


# ---- commands ----------------------------------------------------------------------------------------------

F = [{"f1": "an Exception", "f2": "a", "f3": 30}, {"f1": 10, "f2": "b", "f3": 1}, {"f1": "fine", "f2": "a"}]
LINE = "25 May 2019 10:24:39,474 [ERROR] {foo=2, bar=data} The error was: DataIntegrityException"
CALLS = [
    "user=ann, method:GET, latency := 10",
    "user=ann, method:GET, latency := 20",
    "user=bob, method:PUT, latency := 5",
]


@pytest.mark.parametrize(
    ("source", "query", "messages", "expected"),
    [
        # fields and display
        (
            SYNTAX_2022,
            "fields `foo-bar`, action, abs(f3-f4)",
            [{"foo-bar": 1, "action": "go", "f3": 2, "f4": 5}],
            [{"foo-bar": "1", "action": "go", "abs(f3-f4)": "3"}],
        ),
        (
            SYNTAX_2022,
            "fields concat(Operation, '-', StatusCode) as opStatus",
            [{"Operation": "Get", "StatusCode": 200}],
            [{"opStatus": "Get-200"}],
        ),
        (
            "CWL_QuerySyntax-Fields: several show all",
            "fields f2 | fields f3 | filter f3 = 1",
            F,
            [{"f2": "b", "f3": "1"}],
        ),
        (
            "CWL_QuerySyntax-Display: the last one counts",
            "fields f1 | display f2 | display f3 | filter f3 = 1",
            F,
            [{"f3": "1"}],
        ),
        (
            "CWL_QuerySyntax-Display",
            (
                'fields @message | parse @message "[*] *" as loggingType, loggingMessage'
                ' | filter loggingType = "ERROR" | display loggingMessage'
            ),
            ["[ERROR] it broke", "[INFO] fine"],
            [{"loggingMessage": "it broke"}],
        ),
        ("a field without a value is left out", "fields f2, f3 | limit 1", F, [{"f2": "a"}]),
        (
            "SYNTAX_2022: no fields shows the event",
            "filter (f3>20)",
            F,
            [{"@timestamp": "2026-11-19 10:02:03.456", "@message": json.dumps(F[0])}],
        ),
        (
            "CWL_QuerySyntax-alias",
            "fields f3 as ID | filter ispresent(ID) | sort ID desc",
            F,
            [{"ID": "30"}, {"ID": "1"}],
        ),
        ("newest first", "fields f2", F, [{"f2": "a"}, {"f2": "b"}, {"f2": "a"}]),
        # filter
        (SYNTAX_2022, "fields f2 | filter (f1=10 or f3>25)", F, [{"f2": "b"}, {"f2": "a"}]),
        (SYNTAX_2022, "fields f2 | filter f1 like /Exception/", F, [{"f2": "a"}]),
        (SYNTAX_2022, "fields f2 | filter f1 =~ /Exception/", F, [{"f2": "a"}]),
        (SYNTAX_2022, 'fields f2 | filter f1 like "Exception"', F, [{"f2": "a"}]),
        (SYNTAX_2022, 'fields f2 | filter f1 like "exception"', F, []),
        (SYNTAX_2022, "fields f2 | filter f1 like /(?i)exception/", F, [{"f2": "a"}]),
        (SYNTAX_2022, "fields f1 | filter f1 =~ /^(?i)FINE$/", F, [{"f1": "fine"}]),
        (SYNTAX_2022, r"fields f1 | filter f1 like /1\d$/", F, [{"f1": "10"}]),
        ("CWL_QuerySyntax-Filter: not like", "fields f1 | filter f1 not like /[xe]/", F, [{"f1": "10"}]),
        (SYNTAX_2022, 'fields f1 | filter f1 in [10, "fin"]', F, [{"f1": "10"}]),
        (SYNTAX_2022, 'fields f1 | filter f1 not in ["fine","bar",10]', F, [{"f1": "an Exception"}]),
        ("CWL_QuerySyntax-Filter: or in a regex", "fields f3 | filter f2 like /b|c/", F, [{"f3": "1"}]),
        ("CWL_QuerySyntax-Where", "fields f3 | where f2 like /b/", F, [{"f3": "1"}]),
        (
            "a slash in a regex",
            r"fields m | filter m like /a\/b/",
            [{"m": "a/b"}, {"m": "ab"}],
            [{"m": "a/b"}],
        ),
        (
            "powertools-lambda-dotnet#667",
            "fields n | filter ok = 1",
            [{"n": 1, "ok": True}, {"n": 2, "ok": False}],
            [{"n": "1"}],
        ),
        (
            "a condition may be a value",
            "fields n | filter ok",
            [{"n": 1, "ok": True}, {"n": 2}],
            [{"n": "1"}],
        ),
        ("a missing field is not compared", "fields f2 | filter f3 != 1", F, [{"f2": "a"}]),
        # parse
        (
            SYNTAX_2022,
            (
                'parse @message "[*] * The error was: *" as level, config, exception | display'
                " level, config, exception"
            ),
            [LINE],
            [{"level": "ERROR", "config": "{foo=2, bar=data}", "exception": "DataIntegrityException"}],
        ),
        (
            SYNTAX_2022,
            (
                r"parse @message /\[(?<level>\S+)\]\s+(?<config>\{.*\})\s+The error was: (?<exception>\S+)/"
                " | display level, config, exception"
            ),
            [LINE],
            [{"level": "ERROR", "config": "{foo=2, bar=data}", "exception": "DataIntegrityException"}],
        ),
        (
            "CWL_QuerySyntax-Parse",
            "parse @message \"'fieldsA': '*', 'fieldsB': ['*']\" as fld, array | display fld, array",
            ["{'fieldsA': 'logs', 'fieldsB': ['x', 'y']}"],
            [{"fld": "logs", "array": "x', 'y"}],
        ),
        (
            "CWL_QuerySyntax-Parse",
            "parse @message /(?<NetworkInterface>eni-.*?) / | display NetworkInterface",
            ["2 eni-0a1b 10.0.0.1", "2 none"],
            [{}, {"NetworkInterface": "eni-0a1b"}],
        ),
        (
            "CWL_QuerySyntax-Parse",
            (
                'parse @message "user=*, method:*, latency := *" as @user,\n    @method, @latency'
                " | stats avg(@latency) by @method,\n    @user"
            ),
            CALLS,
            [
                {"@method": "PUT", "@user": "bob", "avg(@latency)": "5"},
                {"@method": "GET", "@user": "ann", "avg(@latency)": "15"},
            ],
        ),
        (
            "a query of AWS's support; and names in classes and behind escapes are characters",
            r"parse @message /user=(?<@user2>\w+)[(?<n>]?\(?/ | stats count() as n by @user2 | sort n",
            ["user=a", "user=b(", "user=b"],
            [{"@user2": "a", "n": "1"}, {"@user2": "b", "n": "2"}],
        ),
        (
            "expressions and wildcards that a backtracking engine would try for centuries",
            (
                f"parse @message '{'*a' * 12}=' as {', '.join(f'f{number}' for number in range(12))}"
                f" | filter @message like /(a|a)*(b|b)*=/ or @message =~ /{'a*' * 12}=/"
            ),
            ["a" * 4_000],
            [],
        ),
        (
            "CWL_QuerySyntax-Parse",
            (
                'FIELDS @message | PARSE @message "* [*] *" as loggingTime, loggingType, loggingMessage'
                ' | FILTER loggingType IN ["ERROR", "INFO"]'
                ' | DISPLAY loggingMessage, loggingType = "ERROR" as isError'
            ),
            ["10:00 [ERROR] no", "10:01 [DEBUG] x", "10:02 [INFO] yes"],
            [{"loggingMessage": "yes", "isError": "0"}, {"loggingMessage": "no", "isError": "1"}],
        ),
        (
            "CWL_QuerySyntax-Parse: from @logStream",
            'parse @logStream "*e*" as before, after | stats count(*) by before, after',
            [{}, {}],
            [{"before": "str", "after": "am", "count(*)": "2"}],
        ),
        (
            "CWL_QuerySyntax-Parse: chained",
            (
                'fields @message | parse @message "url=*" as url | parse url "/api/*/users/*" as'
                " apiVersion, userId"
                " | display apiVersion, userId"
            ),
            ["url=/api/v2/users/7", "url=/other"],
            [{}, {"apiVersion": "v2", "userId": "7"}],
        ),
        (
            "CWL_QuerySyntax-Parse: from a JSON field",
            (
                r"parse requestUri /\/api\/(?<version>v\d+)\/(?<resource>[^\/]+)/ | stats"
                r" count(*) by version, resource"
            ),
            [{"requestUri": "/api/v1/cart/3"}, {"requestUri": "/api/v1/cart"}, {}],
            [{"count(*)": "1"}, {"version": "v1", "resource": "cart", "count(*)": "2"}],
        ),
        ("CWL_QuerySyntax-Parse: @message by default", "parse 'n=*' as n | display n", ["n=4"], [{"n": "4"}]),
        (
            "unconfirmed: parsed fields are shown",
            "fields @message | parse @message 'n=*' as n",
            ["n=4"],
            [{"@message": "n=4", "n": "4"}],
        ),
        # sort and limit
        (SYNTAX_2022, "fields f1, f2, f3 | sort f3 desc | display f3", F, [{"f3": "30"}, {"f3": "1"}, {}]),
        (SYNTAX_2022, "sort @timestamp asc | limit 2 | display f2", F, [{"f2": "a"}, {"f2": "b"}]),
        (
            "sample query: sort by",
            "display f2 | sort by f2 desc, @timestamp asc",
            F,
            [{"f2": "b"}, {"f2": "a"}, {"f2": "a"}],
        ),
        ("CWL_QuerySyntax-Limit", "fields f2 | limit any 1", F, [{"f2": "a"}]),
        # dedup
        (
            "CWL_QuerySyntax-Dedup",
            "fields server, n | sort @timestamp desc | dedup server",
            [{"server": "a", "n": 1}, {"server": "b", "n": 2}, {"server": "a", "n": 3}],
            [{"server": "a", "n": "3"}, {"server": "b", "n": "2"}],
        ),
        (
            "CWL_QuerySyntax-Dedup: unsorted is newest first",
            "fields n | dedup server, zone | limit 2",
            [
                {"server": "a", "zone": 1, "n": 1},
                {"server": "a", "zone": 1, "n": 2},
                {"server": "a", "zone": 2, "n": 3},
            ],
            [{"n": "3"}, {"n": "2"}],
        ),
        (
            "CWL_QuerySyntax-Dedup: nulls are kept",
            "fields n | dedup server",
            [{"n": 1}, {"n": 2}, {"server": "a", "n": 3}, {"server": "a", "n": 4}],
            [{"n": "4"}, {"n": "2"}, {"n": "1"}],
        ),
        # unnest
        (
            "CWL_QuerySyntax-Unnest",
            (
                "fields jsonParse(@message) as json_message | unnest json_message.events into"
                " event | display event.name"
            ),
            [{"events": [{"name": "exception"}, {"name": "user action"}]}],
            [{"event.name": "exception"}, {"event.name": "user action"}],
        ),
        (
            "CWL_QuerySyntax-Unnest",
            (
                "fields jsonParse(@message) as js | unnest js.accounts into account | filter"
                ' account.type = "internal"'
                " | display account.id"
            ),
            [{"accounts": [{"type": "internal", "id": 1}, {"type": "external", "id": 2}]}],
            [{"account.id": "1"}],
        ),
        (
            "CWL_QuerySyntax-Unnest",
            (
                "fields jsonParse(trimmedData) as accounts | unnest accounts into account"
                " | stats sum(account.droppedSpans) as n by account.accountId | sort n desc | limit 10"
            ),
            [
                {"trimmedData": '[{"accountId": 1, "droppedSpans": 2}, {"accountId": 2, "droppedSpans": 9}]'},
                {"trimmedData": '[{"accountId": 1, "droppedSpans": 3}]'},
            ],
            [{"account.accountId": "2", "n": "9"}, {"account.accountId": "1", "n": "5"}],
        ),
        (
            "CWL_QuerySyntax-Unnest: anything else is one item",
            "fields jsonParse(@message) as js | unnest js.a into item | display item",
            [{"a": "x"}, {"a": {"b": 1}}],
            [{"item": '{"b":1}'}, {"item": "x"}],
        ),
        # comments
        (
            "CWL_QuerySyntax-alias",
            "fields n\n    # | filter n like /delay/\n    | limit 20 # the rest",
            [{"n": 1}],
            [{"n": "1"}],
        ),
        ("a hash in a text is no comment", "fields n | filter s = '#1'", [{"n": 1, "s": "#1"}], [{"n": "1"}]),
        # structures
        (
            FUNCTIONS,
            "fields jsonParse(@message) as json_message | stats count() by json_message.status_code",
            [{"status_code": 200}, {"status_code": 200}],
            [{"json_message.status_code": "200", "count()": "2"}],
        ),
        (
            FUNCTIONS,
            (
                'fields jsonParse(@message) as json_message | filter json_message.users[1].action = "PutData"'
                " | display json_message.users[0].action"
            ),
            [{"users": [{"action": "Get"}, {"action": "PutData"}]}, {"users": []}],
            [{"json_message.users[0].action": "Get"}],
        ),
        (
            FUNCTIONS,
            'fields jsonParse(@message) as json_message | filter json_message.`user.id` = "123" | display n',
            [{"user.id": "123", "n": 1}, {"user": {"id": "123"}, "n": 2}],
            [{"n": "1"}],
        ),
        (
            "a text may hold a bar: floci#1448",
            "fields n | filter job = 'JOB-1|JOB-2'",
            [{"n": 1, "job": "JOB-1|JOB-2"}],
            [{"n": "1"}],
        ),
    ],
)
def test_a_query_answers_what_the_service_answers(
    source: str, query: str, messages: list[Any], expected: list[dict[str, str]]
) -> None:
    assert rows(query, *messages) == expected, source


# Six events in two periods of five minutes, two minutes apart: 10:02:03, :04, :06, :08, :10, :12.
REQUESTS = [
    {"route": "/a", "ms": 10, "bytes": 1048576, "id": "r1"},
    {"route": "/a", "ms": 20, "bytes": 1048576, "id": "r2"},
    {"route": "/b", "ms": 40, "bytes": 2097152, "id": "r3"},
    {"route": "/b", "ms": 30.5, "id": "r4"},
    {"route": "/b", "bytes": 524288, "id": "r5"},
    {"route": "/c", "ms": 5, "bytes": 0},
]
STATS = "CWL_QuerySyntax-Stats"


def by_minutes(query: str) -> list[dict[str, str]]:
    result = run(query, events(*REQUESTS, step_ms=2 * MINUTE))
    return [dict(row) for row in result.rows]


@pytest.mark.parametrize(
    ("source", "query", "expected"),
    [
        (STATS, "stats count(*), count(), count(ms)", [{"count(*)": "6", "count()": "6", "count(ms)": "5"}]),
        (
            STATS,
            "stats sum(ms) as s, avg(ms) as a, min(ms) as l, max(ms) as h",
            [{"s": "105.5", "a": "21.1", "l": "5", "h": "40"}],
        ),
        (STATS, "stats count_distinct(route) as n", [{"n": "3"}]),
        # 5 10 20 30.5 40
        (
            STATS,
            "stats pct(ms, 50) as p50, pct(ms, 90) as p90, pct(ms, 0) as p0",
            [{"p50": "20", "p90": "40", "p0": "5"}],
        ),
        # The deviations from 15 are -5 and 5.
        (STATS, "filter route = '/a' | stats stddev(ms) as d", [{"d": "5"}]),
        (STATS, "stats earliest(id) as e, latest(id) as l", [{"e": "r1", "l": "r5"}]),
        (STATS, "stats sortsFirst(route) as f, sortsLast(route) as l", [{"f": "/a", "l": "/c"}]),
        (
            STATS,
            "stats count(*) as n by route, bin(5m)",
            [
                {"route": "/c", "bin(5m)": "2026-11-19 10:10:00.000", "n": "1"},
                {"route": "/b", "bin(5m)": "2026-11-19 10:10:00.000", "n": "1"},
                {"route": "/b", "bin(5m)": "2026-11-19 10:05:00.000", "n": "2"},
                {"route": "/a", "bin(5m)": "2026-11-19 10:00:00.000", "n": "2"},
            ],
        ),
        (
            "CWL_QuerySyntax-alias",
            "stats count(*) by route as place | sort place desc",
            [
                {"place": "/c", "count(*)": "1"},
                {"place": "/b", "count(*)": "3"},
                {"place": "/a", "count(*)": "2"},
            ],
        ),
        (
            "CWL_QuerySyntax-examples: memory",
            (
                "stats max(ms) as provisioned, min(ms) as used, provisioned - used as over by"
                " route | sort over desc | limit 2"
            ),
            [
                {"route": "/a", "provisioned": "20", "used": "10", "over": "10"},
                {"route": "/b", "provisioned": "40", "used": "30.5", "over": "9.5"},
            ],
        ),
        (
            STATS,
            (
                "FIELDS bytes + 0 AS message_length | STATS sum(message_length)/1024/1024 as"
                " logs_mb BY bin(5m)"
                " | STATS max(logs_mb) AS peak_ingest_mb, min(logs_mb) AS min_ingest_mb,"
                " avg(logs_mb) AS avg_ingest_mb"
            ),
            # 2 MB, 2 MB, 0.5 MB
            [{"peak_ingest_mb": "2", "min_ingest_mb": "0.5", "avg_ingest_mb": "1.5"}],
        ),
        (
            STATS,
            (
                "STATS count_distinct(id) AS ids, count(*) AS requests BY route | FILTER ids > 1"
                " | STATS count(*) AS routes, sum(requests) / count(*) AS avg_requests"
            ),
            [{"routes": "2", "avg_requests": "2.5"}],
        ),
        (
            STATS,
            (
                "FIELDS bytes + 0 AS message_length | STATS sum(message_length) / 1024 / 1024 AS"
                " logs_mb BY BIN(5m) as @t"
                " | STATS max(logs_mb) AS peak BY dateceil(@t, 10m) as until | sort until asc"
            ),
            # 10:00 is its own end, 10:05 and 10:10 end at 10:10.
            [
                {"until": "2026-11-19 10:00:00.000", "peak": "2"},
                {"until": "2026-11-19 10:10:00.000", "peak": "2"},
            ],
        ),
        (
            STATS,
            (
                "FIELDS bytes + 0 AS message_length"
                " | STATS sum(message_length) AS ingested_bytes, max(@timestamp) as @t BY @logStream"
                " | STATS avg(ingested_bytes) BY dateceil(@t, 5m)"
            ),
            [{"dateceil(@t, 5m)": "2026-11-19 10:15:00.000", "avg(ingested_bytes)": "4718592"}],
        ),
        (
            STATS,
            (
                "STATS sum(bytes) as sum_x by route, id | STATS max(sum_x) as max_x by route |"
                " sort max_x desc | limit 1"
            ),
            [{"route": "/b", "max_x": "2097152"}],
        ),
        ("users' reports: times become milliseconds", "stats min(@timestamp) as t", [{"t": str(T)}]),
        ("users' reports: times become milliseconds", "stats earliest(@timestamp) as t", [{"t": str(T)}]),
        (
            "and fromMillis makes them times",
            "stats fromMillis(latest(@timestamp)) as t",
            [{"t": "2026-11-19 10:12:03.456"}],
        ),
        (
            "an aggregate of an expression",
            "stats sum(ms > 15) as slow, 100 * sum(ms > 15) / count(*) as share",
            [{"slow": "3", "share": "50"}],
        ),
        (
            "conditions on aggregates",
            "stats count(*) > 5 and max(ms) < 50 as calm, max(route) like /c/ as c",
            [{"calm": "1", "c": "1"}],
        ),
        ("nothing to count", "filter route = '/z' | stats count(*) as n, sum(ms) as s", [{"n": "0"}]),
        ("nothing to group", "filter route = '/z' | stats count(*) as n by route", []),
        (
            "what stats made can be shown",
            "stats count(*) as n, sum(bytes) as b by route | display n | sort n desc | limit 1",
            [{"n": "3"}],
        ),
        (
            "what stats made can be computed with",
            "stats count(*) as n by route | fields n * 2 as m | filter n = 3",
            [{"route": "/b", "n": "3", "m": "6"}],
        ),
    ],
)
def test_stats_gives_what_the_service_gives(source: str, query: str, expected: list[dict[str, str]]) -> None:
    assert by_minutes(query) == expected, source


def test_sort_orders_as_the_page_shows() -> None:
    """CWL_QuerySyntax-Sort, the page's example; its values are shuffled here."""
    ascending = ["!:", "#", "*%04", "0#", "5A", "111A", "2345_", "@", "@_", "A", "A9876fghj", "a12345hfh"]
    ascending += ["0", "01", "1", "2", "3"]
    shuffled = sorted(ascending, key=lambda value: value[::-1])
    found = rows("fields v | sort v asc", *[{"v": value} for value in shuffled])
    assert [row["v"] for row in found] == ascending
    found = rows("fields v | sort v desc", *[{"v": value} for value in shuffled])
    assert [row["v"] for row in found] == ascending[::-1]


def test_numbers_sort_by_their_size() -> None:
    found = rows("fields v | sort v", {"v": 10}, {"v": 9.5}, {"v": -1}, {"v": "x"}, {})
    assert [row.get("v") for row in found] == [None, "x", "-1", "9.5", "10"]


def test_a_sort_by_several_fields_keeps_the_first_first() -> None:
    found = rows("fields a, b | sort a asc, b desc", {"a": 1, "b": 1}, {"a": 2, "b": 1}, {"a": 1, "b": 2})
    assert [(row["a"], row["b"]) for row in found] == [("1", "2"), ("1", "1"), ("2", "1")]


@pytest.mark.parametrize(
    ("query", "limit", "expected"),
    [
        # CWL_QuerySyntax-Limit, and StartQuery's limit, which is as a limit after the query.
        ("fields n", None, 10_000),
        ("fields n | limit 10001", None, 10_001),
        ("fields n", 10_001, 10_001),
        ("fields n", 3, 3),
        ("fields n | limit 2", 3, 2),
        ("fields n | limit 5", 3, 3),
    ],
)
def test_there_are_ten_thousand_rows_unless_a_limit_says_otherwise(
    query: str, limit: int | None, expected: int
) -> None:
    many = [Event(T, "{}")] * 10_001
    assert len(run(query, many, limit=limit).rows) == expected


def test_statistics_say_what_was_looked_at() -> None:
    result = run("filter f3 > 0 | limit 1", events(*F, "naïve"))
    size = sum(len(json.dumps(message)) for message in F) + len("naïve".encode())
    assert (len(result.rows), result.matched, result.scanned, result.bytes_scanned) == (1, 2, 4, size)
    assert run("filter f3 > 0 | stats count(*) by f2", events(*F)).matched == 2


def test_conditions_may_be_many() -> None:
    query = "filter " + " or ".join(f"a = {number}" for number in range(900))
    assert len(rows(query, {"a": 899}, {"a": 900})) == 1


@pytest.mark.parametrize("command", ["sort item", "dedup item", "stats count(*) by item", "stats max(item)"])
def test_a_map_that_turns_up_where_none_may_be_fails_the_query(command: str) -> None:
    """CWL_QuerySyntax-operations-functions: no maps and lists in dedup, sort and stats."""
    with pytest.raises(UnsupportedValueError):
        rows(f"fields jsonParse(@message) as j | unnest j.a into item | {command}", {"a": [{"b": 1}]})


# ---- properties --------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(st.dictionaries(st.sampled_from(["a", "b", "c d"]), JSON, max_size=3), max_size=6))
def test_no_event_is_lost_between_the_groups(messages: list[dict[str, Any]]) -> None:
    found = rows("stats count(*) as n by a", *messages)
    assert sum(int(row["n"]) for row in found) == len(messages)
    assert len(rows("fields a | sort b desc, `c d`", *messages)) == len(messages)


@given(st.text(), st.sampled_from(["app", LAMBDA]))
def test_any_message_has_its_system_fields(message: str, group: str) -> None:
    assert rows("fields @message, a", message, group=group)[0]["@message"] == message


@given(st.lists(st.none() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6), max_size=8))
def test_all_values_have_one_order_whatever_they_are(values: list[Any]) -> None:
    turned = values[::-1]
    ascending = [order(value) for value in sorted(values, key=order)]
    assert ascending == [order(value) for value in sorted(turned, key=order)]
    assert ascending == [order(value) for value in sorted(values, key=order, reverse=True)][::-1]


@given(st.integers(min_value=0, max_value=4 * 10**12))
def test_a_time_is_printed_as_a_date_with_milliseconds(milliseconds: int) -> None:
    shown = printed(Timestamp(milliseconds))
    assert len(shown) == 23
    assert shown.endswith(f".{milliseconds % 1000:03d}")


@given(st.lists(st.integers(min_value=-(10**6), max_value=10**6), min_size=1, max_size=20))
def test_a_percentile_is_one_of_the_values(values: list[int]) -> None:
    (row,) = rows("stats pct(v, 90) as p, min(v) as l, max(v) as h", *[{"v": value} for value in values])
    assert int(row["p"]) in values
    assert sum(value <= int(row["p"]) for value in values) >= 0.9 * len(values)
    assert (int(row["l"]), int(row["h"])) == (min(values), max(values))
