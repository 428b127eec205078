"""The adapter to Timestream's queries."""

import contextlib
import json
import threading
from collections.abc import Iterator
from datetime import date
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from exporter.store import Column, QuestionTooLargeError, Span, whole
from exporter.stores.timestream import Limits, Timestream

DAY = date(2025, 11, 20)
SPAN = Span("2025-11-20 10:00:00.000000000", "2025-11-20 10:05:00.000000000")
COLUMNS = (Column("time", "TIMESTAMP"), Column("_type", "VARCHAR"), Column("status", "DOUBLE"))
INFO = [
    {"Name": "time", "Type": {"ScalarType": "TIMESTAMP"}},
    {"Name": "measure_name", "Type": {"ScalarType": "VARCHAR"}},
    {"Name": "status", "Type": {"ScalarType": "DOUBLE"}},
]

Page = list[list[str | None]]


def answers(*pages: Page, scanned: int = 0) -> list[dict[str, Any]]:
    """Return pages as Timestream answers them: the first may hold no rows and only a token.

    https://docs.aws.amazon.com/timestream/latest/developerguide/API_query_Query.html
    """
    return [
        {
            "QueryId": "q",
            "Rows": [
                {"Data": [{"NullValue": True} if value is None else {"ScalarValue": value} for value in row]}
                for row in page
            ],
            "ColumnInfo": INFO,
            "QueryStatus": {
                "ProgressPercentage": 100.0,
                "CumulativeBytesScanned": scanned * number,
                "CumulativeBytesMetered": 10_000_000,
            },
            **({"NextToken": str(number)} if number < len(pages) else {}),
        }
        for number, page in enumerate(pages, 1)
    ]


class Pages:
    """A client of timestream-query without botocore's events."""

    meta = SimpleNamespace()

    def __init__(self, *pages: Page, scanned: int = 0) -> None:
        self.answers = answers(*pages, scanned=scanned)
        self.asked: list[str] = []
        self.read = 0

    def query(self, **arguments: Any) -> dict[str, Any]:
        if "NextToken" not in arguments:
            self.asked.append(arguments["QueryString"])
        assert arguments["QueryString"] == self.asked[-1], "a token is good for its own question"
        self.read += 1
        return self.answers[int(arguments.get("NextToken", 0))]


@contextlib.contextmanager
def server(*bodies: tuple[int, bytes]) -> Iterator[Any]:
    """Give a boto3 client of a server that answers queries with these, one after the other."""
    rest = list(bodies)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            status, body = rest.pop(0)
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as served:
        thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        client = boto3.client(
            "timestream-query",
            endpoint_url=f"http://127.0.0.1:{served.server_port}",
            config=Config(retries={"total_max_attempts": 1}),
        )
        try:
            yield client
        finally:
            client.close()
            served.shutdown()
            thread.join()


def test_all_pages_are_followed_also_when_the_first_is_empty() -> None:
    client = Pages([], [["t1", "api_request", "200.0"]], [], [["t2", "api_request", None]])

    answer = Timestream(client, "db", "table").rows(SPAN, COLUMNS)

    assert answer.columns == COLUMNS
    assert [row for page in answer.pages for row in page] == [
        ["t1", "api_request", "200"],
        ["t2", "api_request", None],
    ]


def test_botocores_answers_are_parsed_alike_with_and_without_its_event() -> None:
    rows: Page = [["t1", 'a "quoted" é \n value', "200.0"], ["t2", None, "1.5"], ["t3", "\\", None]]
    bodies = [(200, json.dumps(answer).encode()) for answer in answers([], rows)]

    with server(*bodies) as client:
        quick = [row for page in Timestream(client, "db", "t").rows(SPAN, COLUMNS).pages for row in page]
    with server(*bodies) as client:
        store = Timestream(client, "db", "t")
        client.meta.events.unregister("before-parse.timestream-query.Query", unique_id="tagline-pages")
        plain = [row for page in store.rows(SPAN, COLUMNS).pages for row in page]

    assert quick == plain
    assert quick[0] == ["t1", 'a "quoted" é \n value', "200"]


def test_errors_are_botocores_own() -> None:
    body = json.dumps({"__type": "ValidationException", "message": "line 1:8: no such column"}).encode()

    with server((400, body)) as client, pytest.raises(ClientError, match="no such column"):
        Timestream(client, "db", "t").rows(SPAN, COLUMNS)


@pytest.mark.parametrize(
    ("stored", "said"),
    [("200.0", "200"), ("0.25", "0.25"), ("-3.0", "-3"), ("1.0E10", "1.0E10"), ("0.0", "0")],
)
def test_a_whole_number_is_said_without_its_decimals(stored: str, said: str) -> None:
    client = Pages([["1.0", "2.0", stored]])

    (page,) = Timestream(client, "db", "table").rows(SPAN, COLUMNS).pages

    assert page == [["1.0", "2.0", said]]


def test_pages_are_read_as_rows_are_asked_for() -> None:
    client = Pages([["t1", "x", "1"]], [["t2", "x", "2"]], [["t3", "x", "3"]])

    answer = Timestream(client, "db", "table").rows(SPAN, COLUMNS)

    next(answer.pages)
    assert client.read == 1


def test_a_question_for_rows_names_its_columns_its_time_its_order_and_how_many_at_most() -> None:
    client = Pages([])

    store = Timestream(client, "db", 'odd"name', Limits(rows=99))
    store.rows(SPAN, COLUMNS)
    # What else two rows of one identity may differ in; a table without these columns would refuse them.
    store.rows(SPAN, (*COLUMNS, Column("client", "VARCHAR"), Column("route", "VARCHAR")))

    assert client.asked.pop().endswith(
        'ORDER BY time, "_id", measure_name, "source", "route", "client" LIMIT 100'
    )
    assert client.asked == [
        (
            'SELECT "time", measure_name AS "_type", "status" FROM "db"."odd""name" '
            "WHERE time >= TIMESTAMP '2025-11-20 10:00:00.000000000' "
            "AND time < TIMESTAMP '2025-11-20 10:05:00.000000000' "
            'ORDER BY time, "_id", measure_name, "source" LIMIT 100'
        ),
    ]


def test_rows_are_counted_by_the_minute() -> None:
    client = Pages(
        [["2025-11-20 00:00:00.000000000", "3", None]], [["2025-11-20 23:59:00.000000000", "2", None]]
    )
    client.answers = [
        {**answer, "ColumnInfo": INFO[:2], "Rows": [{"Data": row["Data"][:2]} for row in answer["Rows"]]}
        for answer in client.answers
    ]

    assert Timestream(client, "db", "table").tally(DAY) == {0: 3, 1439: 2}
    assert client.asked[0].endswith(
        f"WHERE time >= TIMESTAMP '{whole(DAY).start}' AND time < TIMESTAMP '{whole(DAY).end}'"
        " GROUP BY bin(time, 1m)"
    )


def test_which_columns_have_values_is_asked_of_those_columns_alone() -> None:
    client = Pages([["0", "7", "0"]])

    assert Timestream(client, "db", "table").filled(DAY, ["a", "b", "c"]) == {"b"}
    assert client.asked[0].startswith('SELECT count("a"), count("b"), count("c") FROM')


def test_what_questions_cost_is_summed_up() -> None:
    store = Timestream(Pages([], [["t", "x", "1"]], scanned=500), "db", "table")

    for _ in range(2):
        list(store.rows(SPAN, COLUMNS).pages)

    # An answer's pages say the sum of all pages so far.
    assert (store.spent.questions, store.spent.scanned, store.spent.metered) == (2, 2_000, 20_000_000)


def test_a_question_that_reads_more_than_it_may_is_refused_by_its_setting() -> None:
    store = Timestream(Pages([["t", "x", "1"]], scanned=10**9 + 1), "db", "table", Limits(scanned=10**9))

    with pytest.raises(QuestionTooLargeError, match=r"more than 1\.0 GB: raise EXPORT_MAX_SCANNED_GB"):
        store.rows(SPAN, COLUMNS)


def test_an_answer_with_more_rows_than_it_may_have_is_refused() -> None:
    store = Timestream(Pages([["t", "x", "1"]] * 2, [["t", "x", "1"]] * 2), "db", "table", Limits(rows=3))

    with pytest.raises(QuestionTooLargeError, match="more than 3 rows"):
        list(store.rows(SPAN, COLUMNS).pages)


def test_the_limit_is_for_what_is_asked_since_it_was_counted_anew() -> None:
    client = Pages([["t", "x", "1"]], scanned=600_000_000)
    store = Timestream(client, "db", "table", Limits(scanned=10**9))

    for _ in range(3):
        store.count_anew()
        list(store.rows(SPAN, COLUMNS).pages)
    with pytest.raises(QuestionTooLargeError, match="1.2 GB, more than 1.0 GB".replace(".", r"\.")):
        store.rows(SPAN, COLUMNS)


def test_a_page_that_comes_after_counting_began_anew_is_not_counted() -> None:
    store = Timestream(Pages([], [["t1", "api_request", "200.0"]], scanned=1_000), "db", "table")
    pages = store.rows(SPAN, COLUMNS).pages
    next(pages)

    store.count_anew()
    next(pages)

    assert (store.spent.questions, store.spent.scanned) == (0, 0)
