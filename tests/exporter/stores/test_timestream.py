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

from exporter.store import Column, QuestionTooLargeError, Span, StoreError, whole
from exporter.stores.timestream import Timestream

DAY = date(2025, 11, 20)
SPAN = Span("2025-11-20 10:00:00.000000000", "2025-11-20 10:05:00.000000000")
COLUMNS = (Column("time", "timestamp"), Column("_type", "text"), Column("status", "number"))
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


def test_an_error_is_the_ports_own_with_the_words_of_the_service() -> None:
    body = json.dumps({"__type": "ValidationException", "message": "line 1:8: no such column"}).encode()

    with (
        server((400, body)) as client,
        pytest.raises(StoreError, match="Timestream: line 1:8: no such column"),
    ):
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

    store = Timestream(client, "db", 'odd"name', max_rows=99)
    store.rows(SPAN, COLUMNS)
    # What else two rows of one identity may differ in; a table without these columns would refuse them.
    store.rows(SPAN, (*COLUMNS, Column("client", "text"), Column("route", "text")))

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


def test_a_page_bills_what_all_pages_of_its_answer_so_far_have_cost() -> None:
    bills: list[tuple[int, int]] = []
    store = Timestream(Pages([], [["t", "x", "1"]], scanned=500), "db", "table")
    store.bill = lambda: lambda scanned, billed: bills.append((scanned, billed))

    list(store.rows(SPAN, COLUMNS).pages)

    assert bills == [(500, 10_000_000), (1_000, 10_000_000)]


def test_the_columns_of_a_day_are_asked_of_the_minute_of_its_first_row() -> None:
    client = Pages([["2025-11-20 10:05:00.000000000", "3", None]])
    client.answers[0]["ColumnInfo"] = INFO[:2]
    client.answers[0]["Rows"][0]["Data"].pop()
    store = Timestream(client, "db", "table")

    store.columns(DAY)
    store.columns(DAY)

    question = (
        'SELECT * FROM "db"."table" WHERE time >= TIMESTAMP \'2025-11-20 10:05:00.000000000\' '
        "AND time < TIMESTAMP '2025-11-20 10:06:00.000000000' LIMIT 1"
    )
    assert client.asked[1:] == [question, question]


def test_sql_is_asked_as_it_is_with_the_name_of_the_table() -> None:
    client = Pages([["t1", "api_request", "200.0"]])

    answer = Timestream(client, "db", "table").sql("SELECT * FROM {table}")

    assert client.asked == ['SELECT * FROM "db"."table"']
    assert [column.name for column in answer.columns] == ["time", "measure_name", "status"]
    assert list(answer.rows) == [["t1", "api_request", "200.0"]]  # as Timestream writes it


def test_an_answer_with_more_rows_than_it_may_have_is_refused() -> None:
    store = Timestream(Pages([["t", "x", "1"]] * 2, [["t", "x", "1"]] * 2), "db", "table", max_rows=3)

    with pytest.raises(QuestionTooLargeError, match="more than 3 rows"):
        list(store.rows(SPAN, COLUMNS).pages)
