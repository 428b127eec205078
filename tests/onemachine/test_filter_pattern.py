"""Which messages a filter pattern selects, and what it takes out of them.

Each table names its source:

page      https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/FilterAndPatternSyntax.html, and the pages
          that it was cut into in 2025 (regex-expressions, matching-terms-json-log-events)
2018      the same page as github.com/awsdocs/amazon-cloudwatch-logs-user-guide kept it until 2023
metrics   https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/FilterAndPatternSyntaxForMetricFilters.html
api       https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_TestMetricFilter.html
consumer  aws-lambda-log-example.json in github.com/amazon-archives/cloudwatch-logs-subscription-consumer
decided   no page says it: docs/reference/filter-patterns.md
"""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from onemachine.filter_pattern import (
    MAX_PATTERN_CHARACTERS,
    InvalidPatternError,
    compiled,
    extracted,
    matches,
    selected,
)

from benchmarks import filters

ERROR_400 = "[ERROR 400] BAD REQUEST"
ERROR_401 = "[ERROR 401] UNAUTHORIZED REQUEST"
ERROR_419 = "[ERROR 419] MISSING ARGUMENTS"
ERROR_420 = "[ERROR 420] INVALID ARGUMENTS"
ALL_ERRORS = [ERROR_400, ERROR_401, ERROR_419, ERROR_420]

# 2018, "OR Pattern Matching"
WARNINGS = ["ERROR WARN message", "ERROR message", "WARN message"]

TRAIL = json.dumps(
    {
        "eventType": "UpdateTrail",
        "sourceIPAddress": "111.111.111.111",
        "arrayKey": ["value", "another value"],
        "objectList": [{"name": "a", "id": 1}, {"name": "b", "id": 2}],
        "SomeObject": None,
        "cluster.name": "c",
        "ThisFlag": True,
    }
)
USERS = json.dumps(
    {
        "user": {"id": 1, "email": "John.Stiles@example.com"},
        "users": [{"id": 2, "email": "John.Doe@example.com"}, {"id": 3, "email": "Jane.Doe@example.com"}],
        "actions": ["GET", "PUT", "DELETE"],
        "coordinates": [[0, 1, 2], [4, 5, 6], [7, 8, 9]],
    }
)

ACCESS = '127.0.0.1 Prod frank [10/Oct/2000:13:25:15 -0700] "GET /index.html HTTP/1.0" 404 1534'
SERVICE = [
    "INFO 09/25/2014 12:00:00 GET /service/resource/67 1200",
    "INFO 09/25/2014 12:00:01 POST /service/resource/67/part/111 1310",
    "WARNING 09/25/2014 12:00:02 Invalid user request",
    "ERROR 09/25/2014 12:00:02 Failed to process request",
]
APACHE = [
    '127.0.0.1 - frank [10/Oct/2000:13:25:15 -0700] "GET /apache_pb.gif HTTP/1.0" 200 1534',
    '127.0.0.1 - frank [10/Oct/2000:13:35:22 -0700] "GET /apache_pb.gif HTTP/1.0" 500 5324',
    '127.0.0.1 - frank [10/Oct/2000:13:50:35 -0700] "GET /apache_pb.gif HTTP/1.0" 200 4355',
]
HTML = [
    '127.0.0.1 - frank [10/Oct/2000:13:25:15 -0700] "GET /index.html HTTP/1.0" 404 1534',
    '127.0.0.1 - frank [10/Oct/2000:13:35:22 -0700] "GET /about-us/index.html HTTP/1.0" 200 5324',
    '127.0.0.1 - frank [10/Oct/2000:13:50:35 -0700] "GET /apache_pb.gif HTTP/1.0" 404 4355',
    '127.0.0.1 - frank [10/Oct/2000:13:25:15 -0700] "GET /products/index.html HTTP/1.0" 400 1534',
]
STARTING = [
    "02 May 2014 00:34:12,525 [INFO] Starting the application",
    "02 May 2014 00:35:14,245 [DEBUG] Database connection established",
    "02 May 2014 00:34:14,663 [INFO] Executing SQL Query",
    "02 May 2014 00:34:16,142 [ERROR] Unhanded exception: InvalidQueryException",
    "02 May 2014 00:34:16,224 [ERROR] Terminating the application",
]
LAMBDA = '2015-01-13T02:28:53.213Z c342155b-1ec0-11e5-b0e2-f317438eb2f6 { "key1": 100, "key2": "value" }'


@pytest.mark.parametrize(
    ("pattern", "messages", "selected"),
    [
        # page: unstructured log events
        ("ERROR", ALL_ERRORS, [0, 1, 2, 3]),
        ("error", ALL_ERRORS, []),
        ("ERROR ARGUMENTS", ALL_ERRORS, [2, 3]),
        ("?ERROR ?ARGUMENTS", [*ALL_ERRORS, "[INFO] fine"], [0, 1, 2, 3]),
        (
            "?ERROR ?ARGUMENTS REQUEST",
            ["[INFO] REQUEST FAILED", "[WARN] UNAUTHORIZED REQUEST", "[ERROR] 400 BAD REQUEST", ERROR_419],
            [0, 1, 2],
        ),
        ("?ERROR ?ARGUMENTS -REQUEST", ["[INFO] fine", "[INFO] REQUEST", ERROR_400, ERROR_419], [0, 3]),
        ('"INTERNAL SERVER ERROR"', ["[ERROR 500] INTERNAL SERVER ERROR", "INTERNAL ERROR SERVER"], [0]),
        ("ERROR -ARGUMENTS", ALL_ERRORS, [0, 1]),
        ('" "', [*ALL_ERRORS, "x"], [0, 1, 2, 3, 4]),
        # 2018: matching terms in log events
        ("", ["anything"], [0]),
        (" ", ["anything"], [0]),
        ('""', ["anything"], [0]),
        ("ERROR", ["[ERROR] A fatal exception has occurred", "Exiting with ERRORCODE: -1"], [0, 1]),
        ('"ERROR" -"Exiting"', ["[ERROR] A fatal exception", "Exiting with ERRORCODE: -1"], [0]),
        (
            "ERROR Exception",
            ["[ERROR] Caught IllegalArgumentException", "[ERROR] Unhandled Exception"],
            [0, 1],
        ),
        (
            '"Failed to process the request"',
            [
                "[WARN] Failed to process the request",
                "[ERROR] Unable to continue: Failed to process the request",
            ],
            [0, 1],
        ),
        ("ERROR", WARNINGS, [0, 1]),
        ("?ERROR ?WARN", WARNINGS, [0, 1, 2]),
        ("ERROR WARN", WARNINGS, [0]),
        ("ERROR -WARN", WARNINGS, [1]),
        # api
        ('"[ERROR]"', STARTING, [3, 4]),
        ('"[ERROR]" Exception', STARTING, [3]),
        # decided: a quote and a backslash inside quotes stand behind a backslash
        (r'"a \" quote"', ['with a " quote', "with a quote"], [0]),
        (r'"C:\\new"', [r"C:\new", "C:new"], [0]),
        ('"two\nlines"', ["two\nlines", "two lines"], [0]),
        ("usage_record", ['{"_tag":"usage_record"}'], [0]),
    ],
)
def test_terms_select_what_contains_them(pattern: str, messages: list[str], selected: list[int]) -> None:
    assert [number for number, message in enumerate(messages) if matches(pattern, message)] == selected


@pytest.mark.parametrize(
    ("pattern", "messages", "selected"),
    [
        # page: supported regular expressions, each with the page's own words to match
        ("%AUTHORIZED%", [ERROR_401, "[SUCCESS 200] AUTHORIZED REQUEST", ERROR_400], [0, 1]),
        ("%^[hc]at%", ["hat", "cat", "that", "bat"], [0, 1]),
        ("%[hc]at$%", ["hat", "that", "hats"], [0, 1]),
        ("%colou?r%", ["color", "colour", "colouur"], [0, 1]),
        ("%[abc]%", ["a", "b", "c", "d"], [0, 1, 2]),
        ("%[a-z]%", ["q", "Q"], [0]),
        ("%[abcx-z]%", ["a", "b", "c", "x", "y", "z", "d"], [0, 1, 2, 3, 4, 5]),
        ("%^a{3,5}$%", ["aa", "aaa", "aaaa", "aaaaa", "aaaaaa"], [1, 2, 3]),
        ("%^a{3, 5}$%", ["aa", "aaa", "aaaaaa"], [1]),
        ("%^a{3,}$%", ["aa", "aaaaaa"], [1]),
        ("%^a{,2}$%", ["aa", "aaa"], [0]),
        ("%^a{2}$%", ["a", "aa", "aaa"], [1]),
        ("%gra|ey%", ["gray", "grey", "grow"], [0, 1]),
        (
            "%^starting|^initializing|^shutting down%",
            ["starting up", "initializing", "shutting down", "skipping initializing"],
            [0, 1, 2],
        ),
        ("%abcc|ab[^c]$%", ["abcc and on", "aba", "aac"], [0, 1]),
        (r"%\[.\]%", ["[a]", "[b]", "[7]", "[@]", "[]]", "[ ]", "a", "[ab]"], [0, 1, 2, 3, 4, 5]),
        (r"%10\.10\.0\.1%", ["10.10.0.1", "10010,051"], [0]),
        ("%10.10.0.1%", ["10.10.0.1", "10010,051"], [0, 1]),
        ("%ab*c%", ["ac", "abc", "abbbc", "ab"], [0, 1, 2]),
        ("%ab[0-9]*%", ["ab", "ab0", "ab129", "a"], [0, 1, 2]),
        ("%ab+c%", ["abc", "abbc", "abbbc", "ac"], [0, 1, 2]),
        ("%^.at$%", ["hat", "cat", "bat", "4at", "#at", " at", "at"], [0, 1, 2, 3, 4, 5]),
        (r"%\d%", ["1", "a", "\u0661"], [0]),
        (r"%\D%", ["1", "a"], [1]),
        (r"%a\sb%", ["a b", "a\tb", "a\nb", "ab"], [0, 1, 2]),
        (r"%a\Sb%", ["a b", "axb"], [1]),
        (r"%\w%", ["a", "_", "0", "-", "\u00e4"], [0, 1, 2]),
        (r"%\W%", ["a", "-"], [1]),
        (r"%\x3A%", [":", ";"], [0]),
        (r"%\x28%", ["(", ")"], [0]),
        ("%:_#=@/;,-%", ["a:_#=@/;,-b", ":_"], [0]),
        # decided: operators in a class are characters
        ("%[.$^|[?*+{}-]x%", [".x", "|x", "[x", "-x", "ax"], [0, 1, 2, 3]),
        (r"%[\]\\]x%", ["]x", "\\x", "x"], [0, 1]),
        (r"%[^\d]x%", ["ax", "1x"], [0]),
    ],
)
def test_a_regular_expression_selects_where_it_is_found(
    pattern: str, messages: list[str], selected: list[int]
) -> None:
    assert [number for number, message in enumerate(messages) if matches(pattern, message)] == selected


@pytest.mark.parametrize(
    ("pattern", "message", "selected"),
    [
        # page: JSON log events
        ('{ $.eventType = "UpdateTrail" }', TRAIL, True),
        ('{ $.eventType = "Update" }', TRAIL, False),
        ("{ $.sourceIPAddress != 123.123.* }", TRAIL, True),
        ("{ $.sourceIPAddress != 111.111.* }", TRAIL, False),
        ('{ $.arrayKey[0] = "value" }', TRAIL, True),
        ('{ $.arrayKey[1] = "value" }', TRAIL, False),
        ('{ $.arrayKey[9] = "value" }', TRAIL, False),
        ("{ $.eventType = %Trail% }", TRAIL, True),
        ("{ $.eventType != %Trail% }", TRAIL, False),
        ("{ $.arrayKey[*] = %val.{2}% }", TRAIL, True),
        ("{ $.arrayKey[*] = nothing }", TRAIL, False),
        (r"{ $.* = %111\.111\.111\.1[0-9]{1,2}% }", TRAIL, True),
        (r"{ $.* = %112\.111% }", TRAIL, False),
        ("{ $.['cluster.name'] = \"c\" }", TRAIL, True),
        ("{ $.cluster.name = c }", TRAIL, False),
        ("{ $.SomeObject IS NULL }", TRAIL, True),
        ("{ $.eventType IS NULL }", TRAIL, False),
        ("{ $.SomeOtherObject IS NULL }", TRAIL, False),
        ("{ $.ThisFlag IS TRUE }", TRAIL, True),
        ("{ $.ThisFlag IS FALSE }", TRAIL, False),
        ("{ $.flag IS FALSE }", '{"flag":false}', True),
        ("{ $.flag IS FALSE }", '{"flag":0}', False),
        ("{ $.flag IS TRUE }", '{"flag":1}', False),
        ("{ $.SomeOtherObject NOT EXISTS }", TRAIL, True),
        ("{ $.eventType NOT EXISTS }", TRAIL, False),
        ("{ $.SomeObject NOT EXISTS }", TRAIL, False),
        ("{ $.objectList NOT EXISTS }", TRAIL, False),
        # 2018: the page's second object of an array
        ("{ $.objectList[1].id = 2 }", TRAIL, True),
        ("{ $.objectList[*].id = 2 }", TRAIL, True),
        ("{ $.objectList[*].id = 3 }", TRAIL, False),
        ("{ $.objectList[1].name.x = 2 }", TRAIL, False),
        ("{ $.eventType[0] = U }", TRAIL, False),
        ("{$.foo = bar}", '{"foo": "bar"}', True),
        ("{$.foo = baz }", '{"foo": "bar"}', False),
        ("{$.foo = bar || $.foo = baz }", '{"foo": "baz"}', True),
        # page: compound expressions, matching and not
        ('{ ($.user.id = 1) && ($.users[0].email = "John.Doe@example.com") }', USERS, True),
        (
            '{ $.user.email = "John.Stiles@example.com" || $.coordinates[0][1] = no && $.actions[2] = no }',
            USERS,
            True,
        ),
        (
            '{ ($.user.email = "John.Stiles@example.com" || $.coordinates[0][1] = no) && $.actions[2] = no }',
            USERS,
            False,
        ),
        ('{ ($.user.id = 2 && $.users[0].email = "nonmatch") || $.actions[2] = "GET" }', USERS, False),
        ("{ $.coordinates[0][1] = 1 }", USERS, True),
        ("{ $.coordinates[*][1] = 8 }", USERS, True),
        # page: a selector that points to an array or object does not match; 2018: nor does its opposite
        ("{ $.users = 1 }", '{"users":[1,2,3]}', False),
        ("{ $.users != 1 }", '{"users":[1,2,3]}', False),
        ("{ $.users = * }", '{"users":{"a":1}}', False),
        # page: numeric operators
        ("{ $.bandwidth > 75 }", '{"bandwidth":75.5}', True),
        ("{ $.bandwidth > 75 }", '{"bandwidth":75}', False),
        ("{ $.latency < 50 }", '{"latency":49}', True),
        ("{ $.latency < 50 }", '{"latency":50}', False),
        ("{ $.refreshRate >= 60 }", '{"refreshRate":60}', True),
        ("{ $.refreshRate >= 60 }", '{"refreshRate":59.9}', False),
        ("{ $.responseTime <= 5 }", '{"responseTime":5}', True),
        ("{ $.responseTime <= 5 }", '{"responseTime":5.1}', False),
        ("{ $.errorCode = 400}", '{"errorCode":400}', True),
        ("{ $.errorCode = 400}", '{"errorCode":400.0}', True),
        ("{ $.errorCode != 500 }", '{"errorCode":400}', True),
        ("{ $.errorCode != 500 }", '{"errorCode":500}', False),
        ("{ $.number[0] = 1e+3 }", '{"number":[1000]}', True),
        ("{ $.number[0] != 1e-3 }", '{"number":[0.001]}', False),
        ("{ $.number[0] != 1e-3 }", '{"number":[0.01]}', True),
        # 2018: numeric comparisons
        ("{ $.latency >= 500 }", '{"latency":500}', True),
        ("{ $.numbers[0] < 10e3 }", '{"numbers":[9999]}', True),
        ("{ $.numbers[0] < 10e-3 }", '{"numbers":[0.02]}', False),
        (
            "{ $.processes[4].averageRuntime <= 55.5 }",
            '{"processes":[0,1,2,3,{"averageRuntime":55.5}]}',
            True,
        ),
        ("{ $.latency > +1000 }", '{"latency":1001}', True),
        ("{ $.latency > -1 }", '{"latency":0}', True),
        # page: the asterisk matches text and numbers; 2018: before or after a term, not within it
        ("{ $.errorCode = 4* }", '{"errorCode":404}', True),
        ("{ $.errorCode = 4* }", '{"errorCode":"404"}', True),
        ("{ $.errorCode = 4* }", '{"errorCode":504}', False),
        ('{ $.name = "*Event" }', '{"name":"PutEvent"}', True),
        ('{ $.name = "*Event" }', '{"name":"Events"}', False),
        ("{ $.name = Event* }", '{"name":"EventId"}', True),
        ("{ $.name = Event* }", '{"name":"AnEvent"}', False),
        ("{ $.name = *vent* }", '{"name":"EventId"}', True),
        ("{ $.name = Ev*ent }", '{"name":"Ev*ent"}', True),
        ("{ $.name = Ev*ent }", '{"name":"Ev_ent"}', False),
        # metrics
        ("{ $.latency = * }", '{"latency":50,"requestType":"GET"}', True),
        ('{ $.eventType = "*" && $.sourceIPAddress != 123.123.* }', TRAIL, True),
        # Section 4c of the fact sheet: the form needs the whole message to be JSON
        ('{ $.a = "x" }', 'INFO {"a":"x"}', False),
        ('{ $.a = "x" }', '{"a":"x"}\n', True),
        ('{ $.a = "x" }', '[{"a":"x"}]', False),
        ('{ $.a = "x" }', '"x"', False),
        ("{ $.a NOT EXISTS }", "not JSON", False),
        ("{ $.a = 1 }", '{"a":1,"b":NaN}', False),
        ("{ $.a = 1 }", '{"a":1,"b":' + "[" * 1_000_000 + "]" * 1_000_000 + "}", False),
        ("{ $.a = 1 }", '{"a":1,"b":' + "9" * 5_000 + "}", False),
        # decided
        ("{ $.a != x }", "{}", False),
        ("{ $.a != x }", '{"a":null}', False),
        ("{ $.a != x }", '{"a":true}', False),
        ("{ $.a = * }", '{"a":null}', False),
        ("{ $.a = * }", '{"a":false}', True),
        ('{ $.a = "" }', '{"a":""}', True),
        ("{ $.a = true }", '{"a":true}', False),
        ("{ $.a = true }", '{"a":"true"}', True),
        ("{ $.a = NULL }", '{"a":"NULL"}', True),
        ("{ $.status = 200 }", '{"status":"200"}', True),
        ("{ $.status > 199 }", '{"status":"200"}', False),
        ('{ $.status = "200" }', '{"status":200}', True),
        ("{ $.status != 200 }", '{"status":"OK"}', True),
        ("{ $.id = 9007199254740993 }", '{"id":9007199254740993}', True),
        ("{ $.id = 9007199254740993 }", '{"id":9007199254740992}', False),
        ("{ $.arr[*] != a }", '{"arr":["a","b"]}', True),
        ("{ $.arr[*] != a }", '{"arr":["a"]}', False),
        ("{ $.*.id = 7 }", '{"x":{"id":7}}', True),
        ("{ $.arr[*] NOT EXISTS }", '{"arr":[]}', True),
        ('{ $.a = "say \\"hi\\"" }', '{"a":"say \\"hi\\""}', True),
        ('{ $.a = "\u00e4" }', '{"a":"\\u00e4"}', True),
        ('{ $.a = "usage" }', '{"\\u0061":"\\u0075sage"}', True),
        ("{ $.a-b_c = 1 }", '{"a-b_c":1}', True),
    ],
)
def test_json_conditions_are_as_documented(pattern: str, message: str, selected: bool) -> None:
    assert matches(pattern, message) is selected


@pytest.mark.parametrize(
    ("pattern", "messages", "selected"),
    [
        # page: space-delimited log events
        (
            r"[ip=%127\.0\.0\.[1-9]%, user, username, timestamp, request =*.html*, status_code = 4*, bytes]",
            [ACCESS],
            [0],
        ),
        (r"[ip=%127\.0\.1\.[1-9]%, ...]", [ACCESS], []),
        ("[..., request =*.html*, status_code = 4*, bytes]", [ACCESS], [0]),
        (
            "[ip, user, username, time, request =*.html*, status_code = 404 || status_code = 410, bytes]",
            [ACCESS, ACCESS.replace("404", "410"), ACCESS.replace("404", "403")],
            [0, 1],
        ),
        ("[w1=ERROR, w2]", SERVICE, [3]),
        ("[w1=ERROR || w1=WARNING, w2]", SERVICE, [2, 3]),
        ("[w1!=ERROR && w1!=WARNING, w2]", SERVICE, [0, 1]),
        ("[logLevel, date, time, method, url=%/service/resource/[0-9]+$%, response_time]", SERVICE, [0]),
        (
            "[logLevel, date, time, method, url=%/service/resource/[0-9]+/part/[0-9]+$%, response_time]",
            SERVICE,
            [1],
        ),
        # metrics
        ("[ip, server, username, timestamp, request, status_code, bytes > 1000]", [ACCESS], [0]),
        ("[ip, server, username, timestamp, request, status_code, bytes > 2000]", [ACCESS], []),
        ("[w1=ERROR || w1=%WARN%, w2]", SERVICE, [2, 3]),
        # 2018
        ("[..., status_code, bytes]", APACHE, [0, 1, 2]),
        ("[ip, user, ..., status_code, bytes]", APACHE, [0, 1, 2]),
        ("[ip, user, ...]", APACHE, [0, 1, 2]),
        ("[ip, user, username, timestamp, request, status_code, bytes > 1000]", APACHE, [0, 1, 2]),
        ("[ip, user, username, timestamp, request, status_code = 200, bytes]", APACHE, [0, 2]),
        ("[ip, user, username, timestamp, request, status_code = 5*, bytes]", APACHE, [1]),
        ("[ip, user, username, timestamp, request = *html*, status_code = 4*, bytes]", HTML, [0, 3]),
        (
            "[ip, user, username, timestamp, request, status_code = 4* && status_code != 404, bytes]",
            HTML,
            [3],
        ),
        ("[w1=ERROR, w2]", WARNINGS, [0, 1]),
        ("[w1!=ERROR&&w1!=WARN, w2]", WARNINGS, []),
        # api
        ("[..., status_code=200, size]", APACHE, [0, 2]),
        ("[..., request=*.html*, status_code=4*,]", HTML, [0, 3]),
        # consumer
        ('[timestamp=*Z, request_id="*-*", event]', [LAMBDA, "START RequestId: x Version: 1"], [0]),
        # decided: fewer fields than names do not fit; each operator; a field of text is not a number
        ("[w1=ERROR, w2]", ["ERROR", "ERROR x"], [1]),
        ("[a, b, ...]", ["1", "1 2", "1 2 3"], [1, 2]),
        ("[a >= 2 && a <= 3, ...]", ["1", "2", "3.0", "4", "x"], [1, 2]),
        ("[a < 2 || a > 3, ...]", ["1", "2", "4", "-"], [0, 2]),
        ("[a = 2, ...]", ["2", "2.0", "02", "x"], [0, 1, 2]),
        ("[a != 2, ...]", ["2", "2.0", "x"], [2]),
        ('[a = "2", ...]', ["2", "2.0"], [0]),
        ('[a = "-", ...]', ["- x", "-- x"], [0]),
        ("[a=1 || a=2 && a=3, ...]", ["1", "2"], [0]),
        ("[a, b]", ["tab\tseparated", "one"], [0]),
    ],
)
def test_fields_select_by_place_and_condition(pattern: str, messages: list[str], selected: list[int]) -> None:
    assert [number for number, message in enumerate(messages) if matches(pattern, message)] == selected


@pytest.mark.parametrize(
    ("pattern", "message", "fields"),
    [
        # api, each of the page's examples
        (
            "[ip, identity, user_id, timestamp, request, status_code, size]",
            APACHE[0],
            {
                "$status_code": "200",
                "$identity": "-",
                "$request": "GET /apache_pb.gif HTTP/1.0",
                "$size": "1534",
                "$user_id": "frank",
                "$ip": "127.0.0.1",
                "$timestamp": "10/Oct/2000:13:25:15 -0700",
            },
        ),
        (
            "[..., size]",
            APACHE[0],
            {
                "$size": "1534",
                "$6": "200",
                "$4": "10/Oct/2000:13:25:15 -0700",
                "$5": "GET /apache_pb.gif HTTP/1.0",
                "$2": "-",
                "$3": "frank",
                "$1": "127.0.0.1",
            },
        ),
        (
            "[]",
            APACHE[0],
            {
                "$7": "1534",
                "$6": "200",
                "$4": "10/Oct/2000:13:25:15 -0700",
                "$5": "GET /apache_pb.gif HTTP/1.0",
                "$2": "-",
                "$3": "frank",
                "$1": "127.0.0.1",
            },
        ),
        (
            "[..., status_code=200, size]",
            APACHE[2],
            {
                "$status_code": "200",
                "$size": "4355",
                "$4": "10/Oct/2000:13:50:35 -0700",
                "$5": "GET /apache_pb.gif HTTP/1.0",
                "$2": "-",
                "$3": "frank",
                "$1": "127.0.0.1",
            },
        ),
        (
            "[..., request=*.html*, status_code=4*,]",
            HTML[3],
            {
                "$status_code": "400",
                "$request": "GET /products/index.html HTTP/1.0",
                "$7": "1534",
                "$4": "10/Oct/2000:13:25:15 -0700",
                "$2": "-",
                "$3": "frank",
                "$1": "127.0.0.1",
            },
        ),
        ("[..., request=*.html*, status_code=4*,]", HTML[1], {}),
        ('"[ERROR]"', STARTING[3], {}),
        # metrics
        (
            "[ip, server, username, timestamp, request, status_code, bytes > 1000]",
            ACCESS,
            {
                "$bytes": "1534",
                "$status_code": "404",
                "$request": "GET /index.html HTTP/1.0",
                "$timestamp": "10/Oct/2000:13:25:15 -0700",
                "$username": "frank",
                "$server": "Prod",
                "$ip": "127.0.0.1",
            },
        ),
        # consumer
        (
            '[timestamp=*Z, request_id="*-*", event]',
            LAMBDA + "\n",
            {
                "$timestamp": "2015-01-13T02:28:53.213Z",
                "$request_id": "c342155b-1ec0-11e5-b0e2-f317438eb2f6",
                "$event": '{ "key1": 100, "key2": "value" }',
            },
        ),
        # 2018: "if you are not using a space-delimited filter, this will be empty"
        ("{ $.eventType = * }", TRAIL, {}),
        # decided
        ('[a, b, "c"', "", None),
        ("[a, b]", '"" []', {"$a": "", "$b": ""}),
    ],
)
def test_fields_are_taken_out_by_name_or_number(
    pattern: str, message: str, fields: dict[str, str] | None
) -> None:
    if fields is None:
        with pytest.raises(InvalidPatternError):
            extracted(pattern, message)
    else:
        assert extracted(pattern, message) == fields


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        # page, on what is not alphanumeric
        ("my-tag", "Invalid character(s) in term 'my-tag'"),
        ("a,b", "Invalid character(s) in term 'a,b'"),
        ("gr\u00fcn", "Invalid character(s) in term"),
        ('"open', "Invalid character(s) in term"),
        ("ERROR - Exiting", "Invalid character(s) in term '-'"),
        # page: %something!% would be rejected; parentheses; multi-byte characters
        ("%something!%", "Invalid character(s) in term '!'"),
        ("%(a)%", "Invalid character(s) in term"),
        # github.com/ministryofjustice/modernisation-platform-environments/pull/5137: nor with a backslash
        (r"%\(a\)%", "Invalid character(s) in term"),
        ("%gr\u00fcn%", "Invalid character(s) in term"),
        (r"%\b%", "Invalid character(s) in term"),
        (r"%\xe4%", "Invalid character(s) in term"),
        ("%a", "two percent signs"),
        ("%a% ERROR", "two percent signs"),
        ("%", "two percent signs"),
        ("%%", "without a character"),
        ("%*a%", "nothing to repeat"),
        ("%a**%", "nothing to repeat"),
        ("%a+?%", "nothing to repeat"),
        ("%a{}%", "Invalid character(s) in term"),
        ("%a{2,1}%", "invalid repetition size: {2,1}"),
        ("%a{1001}%", "invalid repetition size: {1001}"),
        ("%[z-a]%", "invalid character class range"),
        ("%[]%", "Invalid character(s) in term"),
        ("%a]%", "Invalid character(s) in term"),
        # page, its quotas
        ("{ $.a = %x% && $.b = %y% && $.c = %z% }", "3 regular expressions, more than 2"),
        ("[a=%x%, b=%y%, c=%z%]", "3 regular expressions, more than 2"),
        ("{ $.*.b[*] = 1 }", "at most one wildcard"),
        ("{ $.a[*] = 1 || $.b[*] = 1 || $.c[*] = 1 || $.* = 1 }", "4 wildcard selectors, more than 3"),
        ("x" * (MAX_PATTERN_CHARACTERS + 1), "1025 characters, more than 1024"),
        # page: IS NOT and EXISTS are not supported
        ("{ $.a IS NOT NULL }", "IS takes NULL, TRUE or FALSE, not 'NOT'"),
        ("{ $.a EXISTS }", "an operator was expected, not 'EXISTS'"),
        ("{ $.a NOT }", "'EXISTS' was expected"),
        # page: property selectors
        ("{ a = 1 }", "a property selector was expected, not 'a'"),
        ("{ status = 401 }", "a property selector was expected"),
        ("{ $ = 1 }", "a property selector has a property"),
        ("{ $[0] = 1 }", "not a property selector"),
        ("{ $.a@b = 1 }", "not a property selector"),
        ("{ $['a'] = 1 }", "not a property selector"),
        ("{ $.a[x] = 1 }", "not a property selector"),
        ("{ $.a. = 1 }", "not a property selector"),
        # page: strings with other characters are quoted; comparisons take numbers
        ("{ $.a = my-tag }", "Invalid character(s) in term 'my-tag'"),
        ("{ $.a = x@y }", "Invalid character(s) in term"),
        ('{ $.a > "3" }', "> takes a number"),
        ("{ $.a > x }", "> takes a number"),
        ("{ $.a <= 3* }", "<= takes a number"),
        ("{ $.a = x", "no } at its end"),
        ("{ }", "it ends early"),
        ("{ $.a = }", "it ends early"),
        ("{ $.a = 1 && }", "it ends early"),
        ("{ ($.a = 1 }", "')' was expected"),
        ("{ $.a = 1) }", "unexpected ')'"),
        ("{ $.a = 1 $.b = 2 }", "unexpected '$.b'"),
        ("{ !($.a = 1) }", "Invalid character(s) in term"),
        ("{ $.a = ) }", "Invalid character(s) in term ')'"),
        ("{ $.a = 1 & $.b = 2 }", "Invalid character(s) in term"),
        ("{ " + "(" * 900 + "$.a = 1" + ")" * 100 + " }", "Invalid filter pattern"),
        # page and 2018: space-delimited
        ("[a, b", "no ] at its end"),
        ("[w1=!ERROR, w2]", "Invalid character(s) in term"),
        ("[a, ..., b, ...]", "at most one ..."),
        ("[a, a]", "each field once"),
        ("[a b]", "an operator was expected"),
        ("[(a=1), b]", "a condition on the field itself"),
        ("[a-b, c]", "a condition on the field itself"),
        # github.com/awsdocs/amazon-cloudwatch-logs-user-guide/issues/21
        ("[ip, status_code = 4* && bytes > 1000]", "a condition on the field itself"),
        # github.com/dougmoscrop/serverless-plugin-log-subscription/issues/47
        (
            "[timestamp=*Z && request_id=\u201c*-*\u201c && type && event=\u201c{*\u201c]",
            "Invalid character(s) in term",
        ),
    ],
)
def test_what_the_service_would_not_take_is_refused_with_its_words(pattern: str, says: str) -> None:
    with pytest.raises(InvalidPatternError) as refused:
        matches(pattern, "message")
    assert str(refused.value).startswith(("Invalid filter pattern: ", "Invalid character(s) in term '"))
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("selector", "message", "value"),
    [
        ("$.latency", '{"latency":50}', 50),
        ("$.a.b[1]", '{"a":{"b":[1,"x"]}}', "x"),
        ("$.a", "no JSON", None),
        ("$.b", '{"a":1}', None),
    ],
)
def test_a_selector_leads_to_a_value(selector: str, message: str, value: Any) -> None:
    assert selected([selector, "$.none"], message) == [value, None]


def test_a_value_is_not_taken_from_a_wildcard() -> None:
    with pytest.raises(InvalidPatternError, match="wildcard"):
        selected(["$.a[*]"], "{}")


def test_a_pattern_tells_what_metrics_can_be_made_of() -> None:
    assert compiled("{ $.a = 1 && $.b.c NOT EXISTS }").selectors == {"$.a", "$.b.c"}
    assert compiled("[ip, ..., size]").selectors == {"$ip", "$size"}
    assert compiled("ERROR").selectors == frozenset()
    assert [compiled(each).kind for each in ("", "a", "%a%", "{ $.a = 1 }", "[a]")] == [
        "everything",
        "terms",
        "regex",
        "json",
        "fields",
    ]
    assert [compiled(each).regexes for each in ("%a%", "{ $.a = %x% }", "[a=%x%||a=%y%]")] == [1, 1, 2]


def test_the_benchmark_gives_its_two_numbers() -> None:
    assert sorted(filters.run()) == ["filter_json_lines_per_s", "filter_term_lines_per_s"]


def test_the_longest_pattern_is_understood() -> None:
    assert not matches("x" * MAX_PATTERN_CHARACTERS, "message")


@given(st.text(), st.text())
def test_a_quoted_term_selects_what_contains_it(term: str, around: str) -> None:
    quoted = '"' + term.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if len(quoted) <= MAX_PATTERN_CHARACTERS:
        assert matches(quoted, around + term + around)
        assert matches(quoted, around) is (not term.strip() or term in around)


JSON_VALUES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)


@given(st.dictionaries(st.sampled_from(["a", "b", "\u00e4"]), JSON_VALUES), JSON_VALUES, st.booleans())
@example({"a": "x/y"}, "x/y", True)
def test_a_json_string_is_found_however_it_is_written(
    document: dict[str, Any], wanted: Any, ascii_only: bool
) -> None:
    if isinstance(wanted, str) and wanted.strip("*") == wanted:
        quoted = wanted.replace("\\", "\\\\").replace('"', '\\"')
        found = document.get("a")
        is_number = isinstance(found, (int, float)) and not isinstance(found, bool)
        expected = (str(found) if is_number else found) == wanted
        assert matches(f'{{ $.a = "{quoted}" }}', json.dumps(document, ensure_ascii=ascii_only)) is expected


@given(st.integers() | st.floats(allow_nan=False, allow_infinity=False), st.integers(-1000, 1000))
def test_numbers_are_in_the_order_of_numbers(value: float, limit: int) -> None:
    message = json.dumps({"a": value})
    assert matches(f"{{ $.a < {limit} }}", message) is (value < limit)
    assert matches(f"{{ $.a >= {limit} }}", message) is (value >= limit)
    assert matches(f"{{ $.a = {limit} }}", message) is (value == limit)


@given(
    st.lists(
        st.sampled_from(
            [
                *'{}[]()%"$.*=!<>&|?-+,^\\ a1é',
                "$.a",
                "&&",
                "||",
                "...",
                "IS",
                "NULL",
                "NOT",
                "EXISTS",
                "\\x41",
            ]
        ),
        max_size=25,
    ).map("".join)
    | st.text(max_size=20)
)
def test_any_text_is_a_pattern_or_is_refused(pattern: str) -> None:
    with suppress(InvalidPatternError):
        assert compiled(pattern).matches('{"a": 1}') in (True, False)


@given(st.text(alphabet=r"ab1[]^-\d.*+?{},|$ ", min_size=1, max_size=12))
def test_any_regular_expression_is_read_without_a_warning_or_refused(text: str) -> None:
    with suppress(InvalidPatternError):
        compiled(f"%{text}%").matches("ab1 [x]")


def test_a_pattern_that_a_backtracking_engine_would_try_for_centuries_ends() -> None:
    """Twelve stars over 4,000 letters: 4,000 ^ 12 / 12! ways to divide them, and none that fits."""
    message = "a" * 4_000
    many = "a*" * 12
    assert not matches(f"%{many}=%", message)
    assert not matches(f"{{ $.a = %{many}=% }}", json.dumps({"a": message}))
    assert not matches(f"[a = %{many}=%]", message)


def test_half_a_surrogate_pair_in_json_is_a_character_like_any() -> None:
    assert matches("{ $.a = %^x.y$% }", '{"a": "x\\ud800y"}')
    assert not matches("{ $.a = %^xy$% }", '{"a": "x\\ud800y"}')


@given(st.lists(st.text(alphabet="abc:/", min_size=1, max_size=4), min_size=1, max_size=6))
def test_fields_without_names_are_the_words(words: list[str]) -> None:
    assert extracted("[]", " ".join(words)) == {f"${number}": word for number, word in enumerate(words, 1)}
