"""Text that a user typed is not a record, wherever an application logs it; docs/reference/trust.md."""

import io
import json
import logging
import shutil
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from aws_lambda_powertools import Logger
from awslambdaric.lambda_runtime_log_utils import JsonFormatter
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tagline import Emitter, LogHandler, Record, write

from consumers.lines.batch import tagged_lines
from consumers.lines.extract import Rejected, extract, written_number
from consumers.lines.ledger import Ledger
from consumers.lines.subscription import LogEvent
from consumers.meters.meter import Entry, extract_meter
from consumers.replay import from_quarantine, preview
from consumers.rows.handler import make_handler
from consumers.rows.timestream.writer import Timestream
from tests.builders import GROUP, LOGGED, Context, data, envelope, kinesis_event
from tests.consumers.meters.meters import METER_TAG, TIME, line, meter
from tests.twins import Objects, TimestreamWrite

TAG = "usage_record"
RECORD = write(Record("victim", LOGGED, {"client": "victim"}, src="s1", seq=10**15))
METER_RECORD = write(Record("m1", TIME, meter(), type="meter"))

# What a user types who knows the tags, and wants to be read.
FORGED = [
    RECORD,
    METER_RECORD,
    line().strip(),
    'usage_record {"client":"victim","_src":"s1","_seq":1000000000000000}',
    'x usage_record {"client":"victim","items":1000000}',
    f"m {line().strip()}",
    f"INFO {RECORD}",
    f"2025-11-20T10:00:00.000Z\tc6af9ac6\tINFO\t{RECORD}",
    f"[INFO]\t2025-11-20T10:00:00.000Z\tc6af9ac6\t{RECORD}",
    json.dumps({"timestamp": "2025-11-20T10:00:00Z", "level": "INFO", "message": RECORD}),
    json.dumps({"timestamp": "2025-11-20T10:00:00Z", "level": "INFO", "message": line().strip()}),
    f'"}} {RECORD}',
    f'","_tag":"usage_record","x":{RECORD}',
    f"\\{RECORD}",
]
# A line break ends the event: what is behind it is a whole line. The page says so.
TYPED = st.one_of(
    st.sampled_from(FORGED),
    st.tuples(st.text(), st.sampled_from(FORGED), st.text()).map("".join),
    st.lists(st.sampled_from([*FORGED, TAG, METER_TAG, "{", "}", '"', "\t", " ", ":", "INFO"])).map("".join),
).map(lambda text: " ".join(text.splitlines()))


# --- How applications log ----------------------------------------------------------------------------------


def printed(text: str) -> str:
    return f"cannot find {text}\n"


def printed_in_the_middle(text: str) -> str:
    return f"INFO user {text} has logged in\n"


def logged_as_text(text: str) -> str:
    return f"[INFO]\t2025-11-20T10:00:00.000Z\tc6af9ac6\tsearch for {text}\n"


def logged(handler: logging.Handler, text: str) -> None:
    logger = logging.Logger("shop")  # noqa: LOG001 - one that no other test knows
    logger.addHandler(handler)
    logger.warning("search for %s", text, extra={"query": text})


def logged_as_json(text: str) -> str:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logged(handler, text)
    return stream.getvalue()


def through_powertools(text: str) -> str:
    stream = io.StringIO()
    logger = Logger(service="shop", stream=stream, logger_handler=logging.StreamHandler(stream))
    logger.info(text, extra={"query": text})
    return stream.getvalue()


def through_structlog(text: str) -> str:
    structlog = pytest.importorskip("structlog")
    stream = io.StringIO()
    logger = structlog.wrap_logger(
        structlog.WriteLogger(stream), processors=[structlog.processors.JSONRenderer()]
    )
    logger.info(text, query=text)
    return stream.getvalue()


def from_node_as_text(text: str) -> str:
    return f"2025-11-20T10:00:00.000Z\tc6af9ac6\tINFO\tsearch for {text}\n"


def from_node_as_json(text: str) -> str:
    message = f"search for {text}"
    return json.dumps(
        {"timestamp": "2025-11-20T10:00:00Z", "level": "INFO", "requestId": "r", "message": message}
    )


def an_object_from_node_as_json(text: str) -> str:
    message = {"query": text, text: 1}
    return json.dumps(
        {"timestamp": "2025-11-20T10:00:00Z", "level": "INFO", "requestId": "r", "message": message}
    )


LOGGERS = [
    *(printed, printed_in_the_middle, logged_as_text, logged_as_json, through_powertools, through_structlog),
    *(from_node_as_text, from_node_as_json, an_object_from_node_as_json),
]


def records(message: str) -> tuple[object, object]:
    event = LogEvent("e1", LOGGED, message, GROUP, "stream", "123456789012")
    return extract(event, TAG), extract_meter(event, METER_TAG, TAG)


@pytest.mark.parametrize("log", LOGGERS)
@settings(max_examples=40)
@given(TYPED)
def test_what_a_user_typed_is_not_a_record_in_an_applications_line(
    log: Callable[[str], str], text: str
) -> None:
    message = log(text)

    record, metered = records(message)

    assert record is None or isinstance(record, Rejected)
    assert metered is None or isinstance(metered, Rejected)
    # No number of it is looked for among the emitters': `lost` stays as it is.
    assert written_number(message, TAG) is None
    # Nothing that has the tag vanishes.
    ledger = Ledger(kinesis_event(data(envelope(message)))["Records"])
    assert list(tagged_lines(ledger, TAG, "")) == []
    assert ledger.received + ledger.mentioned.total() == (TAG in message)


@settings(max_examples=40)
@given(TYPED)
@example("\ud800" + RECORD)
def test_what_a_user_typed_into_a_record_is_a_field_of_it(text: str) -> None:
    stream = io.StringIO()
    emitter = Emitter(stream=stream)
    emitter.emit({"message": f"search for {text}", "query": text, text[:50]: {"body": text}})
    logged(LogHandler(emitter), text)

    first, second = map(records, stream.getvalue().splitlines())

    for (record, metered), seq in ((first, 0), (second, 1)):
        assert isinstance(record, Record)
        assert (record.seq, record.type in {"api_request", "log"}, metered) == (seq, True, None)
        assert record.id != "victim"


@settings(max_examples=40)
@given(TYPED)
def test_a_whole_line_is_only_for_someone_who_knows_the_tag(text: str) -> None:
    event = LogEvent("e1", LOGGED, text, GROUP, "stream", "123456789012")

    assert extract(event, "usage_record_9f2c41d7") is None
    assert extract_meter(event, "meter_9f2c41d7", "usage_record_9f2c41d7") is None


def test_a_whole_line_of_someone_who_knows_the_tag_is_a_record() -> None:
    assert isinstance(records(RECORD)[0], Record)
    assert isinstance(records(line())[1], Entry)


NODE = """
const texts = JSON.parse(require("fs").readFileSync(0, "utf8"));
const util = require("util");
for (const text of texts) {
  const said = util.format("search for %s", text);
  const object = util.inspect({query: text, [text]: 1}, {breakLength: Infinity});
  for (const message of [said, object])
    console.log(`${new Date().toISOString()}\\tc6af9ac6-7b61\\tINFO\\t${message}`);
}
"""


def test_what_a_user_typed_is_not_a_record_in_what_node_prints() -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("there is no Node on this machine")
    done = subprocess.run(
        [node, "-e", NODE], input=json.dumps(FORGED), capture_output=True, text=True, check=True
    )

    messages = done.stdout.splitlines()
    assert len(messages) == 2 * len(FORGED)
    for message in messages:
        assert not any(isinstance(found, Record | Entry) for found in records(message)), message


# --- The setting TAGLINE_PREFIX ----------------------------------------------------------------------------


def test_a_line_behind_a_prefix_is_stored_by_a_replay_after_the_prefix_was_set() -> None:
    message = f'2026-11-20 10:00:00 {{}} INFO orders - {{"level":"INFO",{RECORD[1:]}'
    client, objects, ledgers = TimestreamWrite(), Objects(), list[Ledger]()

    def deliver(records: list[dict[str, Any]], prefix: str) -> None:
        store = Timestream(client, "tagline", "records", sleep=lambda _: None, jitter=lambda: 0.0)
        handler = make_handler(
            store, objects, tag=TAG, own_log_groups="/tagline/", report=ledgers.append, prefix=prefix
        )
        assert handler({"Records": records}, Context()) == {"batchItemFailures": []}

    deliver(kinesis_event(data(envelope(message)))["Records"], "")
    ((key, body),) = objects.under("quarantine/").items()
    again = from_quarantine(key, body)
    deliver(again, "* * {} INFO * -")

    assert key.startswith("quarantine/prefix/")
    assert [ledger.quarantined for ledger in ledgers] == [{"prefix": 1}, {}]
    assert client.ids() == ["victim"]
    assert preview(again, TAG, "/tagline/", prefix="* * {} INFO * -") == {"readable": 1}
    assert preview(again, TAG, "/tagline/") == {"prefix": 1}
