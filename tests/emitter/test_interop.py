"""Lines of other loggers, written by the real ones, are read as records; so is what `logging` is told."""

import io
import json
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aws_lambda_powertools import Logger
from aws_lambda_powertools.metrics import EphemeralMetrics
from tagline import Emitter, LogHandler, Record

from consumers.lines.extract import extract
from consumers.lines.subscription import LogEvent
from tests.emitter.lines import Lines

LOGGERS_PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "structlog.md"
METRICS_PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "metrics-in-the-line.md"
NODE_PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "node.md"


def seen(line: str) -> Record:
    """Return the record that the consumer takes from a line."""
    record = extract(LogEvent("event-1", 1_763_632_800_500, line, "group", "stream", "owner"), "usage_record")
    assert isinstance(record, Record), record
    return record


# --- logging ----------------------------------------------------------------------------------------------


@pytest.fixture
def logger(emitter: Emitter) -> Iterator[logging.Logger]:
    logger = logging.Logger("orders")  # noqa: LOG001 - one that no other test knows
    handler = LogHandler(emitter, level="INFO")
    logger.addHandler(handler)
    yield logger
    logger.removeHandler(handler)
    handler.close()


def test_what_goes_through_logging_is_a_record(logger: logging.Logger, lines: Lines) -> None:
    logger.debug("not this")
    logger.warning("%d items for %s", 3, "acme", extra={"route": "/pets", "level": "mine"})

    (record,) = lines.records
    assert record.type == "log"
    assert record.fields == {
        "logger": "orders",
        "log_level": "WARNING",
        "message": "3 items for acme",
        "route": "/pets",
        "level": "mine",
    }
    assert seen(lines.getvalue()) == record


def test_extras_keep_their_order(logger: logging.Logger, lines: Lines) -> None:
    """Another order in each process would be other shapes, and other columns, of the same records."""
    names = [f"field{number}" for number in range(20)]
    logger.info("done", extra=dict.fromkeys(reversed(names), 1))

    assert list(lines.fields)[-20:] == names[::-1]


def test_attributes_of_a_log_record_factory_are_fields(logger: logging.Logger, lines: Lines) -> None:
    """Also those of a factory that was there before the first handler was made."""
    before = logging.getLogRecordFactory()

    def factory(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = before(*args, **kwargs)
        record.tenant = "acme"
        return record

    logging.setLogRecordFactory(factory)
    try:
        logger.info("done")
    finally:
        logging.setLogRecordFactory(before)

    assert lines.fields["tenant"] == "acme"


def test_a_log_record_has_its_own_time(logger: logging.Logger, lines: Lines) -> None:
    record = logger.makeRecord("orders", logging.INFO, "file", 1, "late", (), None)
    record.created = 1_763_632_800.25
    logger.handle(record)

    assert lines.records[0].timestamp == 1_763_632_800_250


def test_log_records_of_a_request_have_its_ids(
    emitter: Emitter, logger: logging.Logger, lines: Lines
) -> None:
    context = SimpleNamespace(aws_request_id="r1")
    with emitter.collect(event={"headers": {"x-correlation-id": "c1"}}, context=context):
        logger.info("with both")
    with emitter.collect(context=context):
        logger.info("with Lambda's", extra={"correlation_id": "mine"})
    logger.info("with none")

    logged = [record.fields for record in lines.records if record.type == "log"]
    ids = [(each.get("request_id"), each.get("correlation_id")) for each in logged]
    assert ids == [("r1", "c1"), ("r1", "mine"), (None, None)]


def test_an_exception_that_is_logged_is_in_the_record(logger: logging.Logger, lines: Lines) -> None:
    pets: dict[str, int] = {}
    try:
        pets["pet"] += 1
    except KeyError:
        logger.exception("no such pet")

    fields = lines.fields
    assert (fields["error"], fields["error_type"]) == ("'pet'", "KeyError")
    assert 'pets["pet"] += 1' in fields["traceback"]


def test_a_message_whose_arguments_do_not_fit_is_a_record_all_the_same(
    logger: logging.Logger, lines: Lines
) -> None:
    logger.info("%d items", "three")

    assert lines.fields["message"] == "%d items"


# --- other loggers ----------------------------------------------------------------------------------------


def test_powertools_logger_with_the_tag_as_a_key() -> None:
    stream = io.StringIO()
    logger = Logger(service="a service that no page has", stream=stream)
    logger.info("done", extra={"_tag": "usage_record", "_type": "order", "_id": "o1", "route": "/pets"})

    record = seen(stream.getvalue())
    assert (record.id, record.type) == ("o1", "order")
    assert (record.fields["route"], record.fields["message"]) == ("/pets", "done")


def test_powertools_metrics_with_the_tag_as_metadata(capsys: pytest.CaptureFixture[str]) -> None:
    metrics = EphemeralMetrics(namespace="Shop", service="shop")
    metrics.add_metric("items", "Count", 3)
    metrics.add_metadata("_tag", "usage_record")
    metrics.add_metadata("route", "/pets")
    metrics.flush_metrics()

    record = seen(capsys.readouterr().out)
    assert (record.fields["items"], record.fields["route"]) == ([3.0], "/pets")


def test_aws_embedded_metrics_with_the_tag_as_a_property() -> None:
    context = pytest.importorskip("aws_embedded_metrics.logger.metrics_context").MetricsContext.empty()
    serializer = pytest.importorskip("aws_embedded_metrics.serializers.log_serializer").LogSerializer()
    context.put_metric("items", 3, "Count")
    context.set_property("_tag", "usage_record")
    (line,) = serializer.serialize(context)

    record = seen(line)
    assert record.fields["items"] == 3
    assert record.timestamp == json.loads(line)["_aws"]["Timestamp"]


def test_the_handler_on_the_page_for_metrics_writes_a_record() -> None:
    """Its own decorator, in Lambda's environment: elsewhere it looks for an agent to send to."""
    pytest.importorskip("aws_embedded_metrics")
    (code,) = re.findall(
        r"^```py\n(from aws_embedded.*?)^```$", METRICS_PAGE.read_text(), re.MULTILINE | re.DOTALL
    )
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nhandler({{}}, None)"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "AWS_LAMBDA_FUNCTION_NAME": "pets"},
    )

    record = seen(done.stdout)
    assert (record.type, record.fields["items"], record.fields["route"]) == ("order", 3, "/pets")


def test_structlog_with_the_tag_bound() -> None:
    structlog = pytest.importorskip("structlog")
    stream = io.StringIO()
    processors = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso"),
        structlog.processors.JSONRenderer(),
    ]
    logger = structlog.wrap_logger(structlog.WriteLogger(stream), processors=processors)
    logger.bind(_tag="usage_record", _id="o1").info("done", route="/pets", items=3)

    record = seen(stream.getvalue())
    assert (record.id, record.level) == ("o1", "info")
    assert record.fields == {"event": "done", "route": "/pets", "items": 3}


def test_python_json_logger_with_the_tag_as_a_static_field() -> None:
    """It leaves out extras whose names begin with `_`."""
    module = pytest.importorskip("pythonjsonlogger.json")
    formatter = module.JsonFormatter(static_fields={"_tag": "usage_record", "_type": "order"})
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    logger = logging.Logger("orders")  # noqa: LOG001 - one that no other test knows
    logger.addHandler(handler)
    logger.info("done", extra={"route": "/pets"})

    record = seen(stream.getvalue())
    assert (record.type, record.fields) == ("order", {"message": "done", "route": "/pets"})


@pytest.mark.parametrize("number", [0, 1])
def test_the_examples_on_the_page_write_records(number: int) -> None:
    pytest.importorskip(["structlog", "pythonjsonlogger"][number])
    code = re.findall(r"^```py\n(.*?)^```$", LOGGERS_PAGE.read_text(), re.MULTILINE | re.DOTALL)[number]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    record = seen(done.stdout)
    assert (record.type, record.fields["items"]) == ("order", 3)


# --- Node -------------------------------------------------------------------------------------------------

# What Lambda's runtime makes of console.log, in either of its formats. process.stdout it leaves alone:
# https://docs.aws.amazon.com/lambda/latest/dg/nodejs-logging.html
CONSOLES = {
    "bare": "",
    "text": """
        const util = require("util");
        console.log = (...said) => process.stdout.write(
            `${new Date().toISOString()}\\tc6af9ac6-7b61\\tINFO\\t${util.format(...said)}\\n`);
    """,
    "json": """
        console.log = (message) => process.stdout.write(JSON.stringify({
            timestamp: new Date().toISOString(), level: "INFO", requestId: "c6af9ac6-7b61", message,
        }) + "\\n");
    """,
}
WAYS = {
    "text of the object": 'console.log(JSON.stringify({_tag: "usage_record", _id: "n1", items: 3}));',
    "stdout itself": """
        process.stdout.write(JSON.stringify({_tag: "usage_record", _id: "n1", items: 3}) + "\\n");
    """,
    "the bare tag": 'console.log("usage_record " + JSON.stringify({_id: "n1", items: 3}));',
}


def node(script: str) -> str:
    program = shutil.which("node")
    if program is None:
        pytest.skip("there is no Node on this machine")
    done = subprocess.run([program, "-e", script], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize("console", CONSOLES)
@pytest.mark.parametrize("way", [way for way in WAYS if way != "the bare tag"])
def test_a_node_function_writes_a_record(console: str, way: str) -> None:
    record = seen(node(CONSOLES[console] + WAYS[way]))

    assert (record.id, record.fields) == ("n1", {"items": 3})


@pytest.mark.parametrize("console", CONSOLES)
def test_a_node_function_writes_a_record_behind_the_bare_tag(console: str) -> None:
    assert seen(node(CONSOLES[console] + WAYS["the bare tag"])).fields == {"items": 3}


@pytest.mark.parametrize("console", CONSOLES)
def test_the_function_on_the_page_for_node_writes_whole_records(console: str) -> None:
    (code,) = re.findall(r"^```js\n(.*?)^```$", NODE_PAGE.read_text(), re.MULTILINE | re.DOTALL)
    call = """
        const event = {routeKey: "GET /pets/{id}", requestContext: {http: {method: "GET"}}};
        exports.handler(event, {awsRequestId: "r1"}).then(() => exports.handler(event, {awsRequestId: "r2"}));
    """
    lines = node(CONSOLES[console] + code + call).splitlines()

    records = [seen(line) for line in lines]
    assert [record.fields["request_id"] for record in records] == ["r1", "r2"]
    assert [record.seq for record in records] == [0, 1]
    assert (records[0].type, records[0].fields["route"]) == ("api_request", "/pets/{id}")
    assert records[0].src == records[1].src is not None
    assert records[0].id != records[1].id
    assert all(line.isascii() for line in lines)
