"""A batch is read as the standard library alone would read it, only sooner."""

import base64
import gzip
import json
import re
from collections import Counter
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tagline import Record, UnreadableLineError, write

from consumers.lines import quarantine
from consumers.lines.batch import CHUNK_CHARACTERS, LONG_LINE, MAX_LINE, tagged_lines, take_lines
from consumers.lines.extract import MAX_DEPTH, SPLIT_BYTES
from consumers.lines.ledger import Ledger
from consumers.lines.subscription import PIECE_BYTES, UndecodableError, pieces
from consumers.lines.times import milliseconds
from consumers.replay import from_quarantine
from tests.builders import CONTROL_EVENT, GROUP, LOGGED, data, envelope, kinesis_event, messages_in
from tests.twins import Objects

TAG = "usage_record"
LINE = write(Record("r1", LOGGED, {"route": "/pets"}, src="s1", seq=0))

Read = tuple[list[Record], Counter[str], list[str]]


def read(*datas: str, tag: str = TAG) -> Read:
    """Return the records of a batch, what was counted, and the details of what was rejected."""
    ledger = Ledger(kinesis_event(*datas)["Records"])
    records = [line.record for line in tagged_lines(ledger, tag, "/tagline/")]
    rejections = [(event, rejected) for _, event, rejected in ledger.rejections()]
    counts = Counter({"received": ledger.received, "ignored": ledger.ignored, "control": ledger.control})
    counts["mentioned"] = ledger.mentioned.total()
    counts.update(rejected.reason for _, rejected in rejections)
    return records, +counts, [rejected.detail for _, rejected in rejections]


def plain(text: str | bytes) -> str:
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


def packed(text: bytes) -> str:
    return plain(gzip.compress(text, mtime=0))


# --- The slow way: the standard library, one line after the other ------------------------------------------


def slowly(envelope: dict[str, Any]) -> tuple[list[Record], Counter[str]]:
    """Read lines that are an object as a whole, as docs/reference/decoding.md says it."""
    records, counts = [], Counter[str]()
    for event in envelope["logEvents"]:
        if event["id"] == "":
            counts["control"] += 1
            continue
        if TAG not in event["message"]:
            counts["ignored"] += 1
            continue
        found = slow_line(event["message"])
        if found is None:
            counts["mentioned"] += 1
            continue
        counts["received"] += 1
        written = found.pop("timestamp", None)
        time = milliseconds(written)
        if time is None and written is not None:
            found.setdefault("timestamp_", written if isinstance(written, str) else json.dumps(written))
        try:
            records.append(
                Record.from_json(
                    found,
                    default_id=event["id"],
                    default_timestamp=event["timestamp"] if time is None else time,
                )
            )
        except UnreadableLineError:
            counts["unparseable"] += 1
    return records, +counts


def slow_line(message: str) -> dict[str, Any] | None:
    try:
        line = json.loads(message)
    except ValueError:
        marked = re.search(rf'"_tag"\s*:\s*"{TAG}"|^\s*{TAG}(?![\w-])', message)
        return {} if marked else None  # not a record: unparseable
    if not isinstance(line, dict) or line.get("_tag") != TAG:
        return None
    if re.search(r"\\ud[89a-f]", json.dumps(line)):
        text = json.dumps(line, ensure_ascii=False).encode("utf-16", "surrogatepass")
        line = json.loads(text.decode("utf-16", "replace"))
    return line  # type: ignore[no-any-return]  # it is a dict


# Numbers as they are written, beside those that Python would write.
NUMBERS = st.sampled_from(
    ["0", "-0", "-0.0", "1E5", "1e400", "-1e400", "NaN", "Infinity", "-Infinity", "1e-400", "5e-324"]
    + [f"{sign}{2**power + more}" for sign in ("", "-") for power in (53, 63, 64, 200) for more in (-1, 0, 1)]
    + ["9" * 19, "9" * 310, "9" * 4_300, "1.5" + "0" * 40, "01", "1.", "+1", ".5"]
)
TEXTS = st.text(st.characters()) | st.sampled_from(["\ud800", "a\udfff", "\ud83d\ude00", "\0", "\x7f", TAG])
KEYS = st.sampled_from(
    ["_id", "_type", "timestamp", "level", "level_", "_level", "_aws", "_src", "_seq", "_trunc"]
)
VALUES = st.recursive(
    NUMBERS
    | TEXTS.map(json.dumps)
    | st.sampled_from(["true", "false", "null"])
    | st.floats().map(json.dumps),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{','.join(items)}]")
        | st.lists(st.tuples(TEXTS.map(json.dumps), inner), max_size=3).map(
            lambda items: "{" + ", ".join(f"{key}: {value}" for key, value in items) + "}"
        )
    ),
    max_leaves=8,
)
PAIRS = st.lists(st.tuples((KEYS | TEXTS).map(json.dumps), VALUES), max_size=6)
HEADS = st.sampled_from(
    [
        '"_tag":"usage_record"',
        LINE[1 : LINE.index(',"route')],
        '"_tag": "usage_record" ',
        '"_tag":"other"',
        '"a":1',
    ]
)
LINES = st.builds(
    lambda head, pairs, end: "{" + ",".join([head, *(f"{key}:{value}" for key, value in pairs)]) + end,
    HEADS,
    PAIRS,
    st.sampled_from(["}", "}\n", " }  ", ""]),
)


@given(st.lists(LINES | st.text(), max_size=8))
@example(['{"_tag":"usage_record","a":18446744073709551616}'])
@example(['{"_tag":"usage_record","a":{"b":[123456789012345678901234567890]}}'])
@example(['{"_tag":"usage_record","a":"\\ud83d"}', '{"_tag":"usage_record","a":1,"a":2}'])
@example(['{"_tag":"usage_record","_id":7}', '{"_tag":"usage_record","_type":""}', "usage_records"])
def test_a_batch_is_read_as_the_standard_library_reads_it(messages: list[str]) -> None:
    said = envelope(*messages)
    said["logEvents"].append(CONTROL_EVENT)

    records, counts, _ = read(data(said))

    expected, expected_counts = slowly(said)
    # Their text tells NaN, -0.0 and 1 from 1.0; and the order of fields is that of columns.
    assert [repr(record) for record in records] == [repr(record) for record in expected]
    assert counts == expected_counts


# --- Shapes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "fields"),
    [
        ('{"_tag":"usage_record","a":1,"a":2}', {"a": 2}),
        ('{"_tag":"usage_record","a":18446744073709551617}', {"a": 18446744073709551617}),
        ('{"_tag":"usage_record","a":[[-9223372036854775809]]}', {"a": [[-9223372036854775809]]}),
        ('{"_tag":"usage_record","a":"cut \\ud83d"}', {"a": "cut \ufffd"}),
        ('{"_tag":"usage_record","a":1e999}', {"a": float("inf")}),
        ('{"_tag":"usage_record","a":' + "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1) + "}", None),
        ('{"timestamp":"t","message":"usage_record {\\"a\\":1}","level":"INFO"}', {"a": 1}),
    ],
)
def test_what_is_unusual_is_read(message: str, fields: dict[str, Any] | None) -> None:
    (record,), counts, _ = read(data(envelope(message)))

    assert fields is None or record.fields == fields
    assert counts == {"received": 1}


@pytest.mark.parametrize(
    ("message", "detail"),
    [
        ('{"_tag":"usage_record","a":' + "[" * MAX_DEPTH + "]" * MAX_DEPTH + "}", "deeper than 200 levels"),
        ('{"_tag":"usage_record","a":' + '{"a":' * 10_000 + "1" + "}" * 10_001, "deeper than 200 levels"),
        (LINE + LINE, "text after the object, from character"),
        (LINE[:-9] + ',"text":"' + "x" * SPLIT_BYTES, "split by CloudWatch Logs, at 256 KB"),
        ('{"timestamp":"t","level":"INFO","message":"{\\"_tag\\":\\"usage_record\\",\\"a\\":"}', "not JSON"),
        ('{"_tag":"usage_record","a":' + "9" * 4_301 + "}", "not JSON"),
    ],
    ids=["deep", "very deep", "two objects", "split", "cut inside a text", "more digits than Python takes"],
)
def test_a_bad_line_costs_that_line_and_says_why(message: str, detail: str) -> None:
    records, counts, details = read(data(envelope(LINE, message, LINE)))

    assert len(records) == 2
    assert counts == {"received": 3, "unparseable": 1}
    assert detail in details[0]


def test_the_second_half_of_a_split_line_is_nobodys() -> None:
    assert read(data(envelope('rest of the text","b":1}'))) == ([], {"ignored": 1}, [])


@pytest.mark.parametrize(
    "message",
    [
        "one usage_record was written",
        "the usage_record of {today} is {late",
        '{"note": "usage_record {", "a": 1}',
    ],
)
def test_the_tag_in_a_sentence_is_counted(message: str) -> None:
    ledger = Ledger(kinesis_event(data(envelope("noise")), data(envelope(message, LINE, message)))["Records"])

    (line,) = tagged_lines(ledger, TAG, "/tagline/")

    assert line.record.id == "r1"
    assert ledger.mentioned == {(1, LOGGED // 86_400_000, GROUP): 2}
    counts = ledger.counts()
    assert (counts["received"], counts["mentioned"], counts["ignored"]) == (1, 2, 1)


@pytest.mark.parametrize(
    "bad",
    [
        {"id": "e", "timestamp": 1},
        {"id": "e", "timestamp": "1", "message": LINE},
        {"id": "e", "timestamp": True, "message": LINE},
        {"id": 7, "timestamp": 1, "message": LINE},
        {"timestamp": 1, "message": LINE},
        {"id": "e", "timestamp": 1, "message": {"_tag": TAG}},
        {"id": "e", "timestamp": 1, "message": [TAG]},
        f"usage_record {LINE}",
        [TAG],
    ],
)
def test_a_malformed_log_event_costs_that_event(bad: Any) -> None:
    said = envelope(LINE, "noise", LINE)
    said["logEvents"].insert(1, bad)

    records, counts, _ = read(data(said))

    assert len(records) == 2
    tagged = TAG in json.dumps(bad)
    assert counts == {"received": 2, "ignored": 1 if tagged else 2, **({"undecodable": 1} if tagged else {})}


def test_bytes_that_are_not_utf_8_cost_their_event() -> None:
    text = json.dumps(envelope(LINE, LINE.replace("pets", "p?ts"), LINE, "n?ise"))
    records, counts, details = read(packed(text.encode().replace(b"?", b"\xff")))

    assert (len(records), counts) == (2, {"received": 3, "unparseable": 1, "ignored": 1})
    assert "not UTF-8" in details[0]


def test_lines_of_several_groups_and_accounts_keep_where_they_came_from() -> None:
    first, second = envelope(LINE, group="/a"), {**envelope(LINE, group="/b"), "owner": "210987654321"}
    policy = {**envelope(LINE), "policyLevel": "ACCOUNT_LEVEL_POLICY"}
    ledger = Ledger(kinesis_event(data(first), data(second), data(policy))["Records"])

    lines = list(tagged_lines(ledger, TAG, "/tagline/"))

    assert [(line.position, line.event.log_group, line.event.owner[0]) for line in lines] == [
        (0, "/a", "1"),
        (1, "/b", "2"),
        (2, GROUP, "1"),
    ]


# --- Envelopes ---------------------------------------------------------------------------------------------


def test_an_envelope_that_is_not_gzip_is_read_as_json() -> None:
    assert messages_in(plain(json.dumps(envelope("a", "b")))) == ["a", "b"]


def large(messages: int, *, size: int = 50_000) -> dict[str, Any]:
    return envelope(*(f'{number} }},{{"id":"' + "x" * size for number in range(messages)))


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
def test_an_envelope_larger_than_a_piece_is_read_whole(separators: tuple[str, str]) -> None:
    said = large(100)
    text = json.dumps(said, separators=separators).encode()
    assert len(text) > 3 * PIECE_BYTES

    assert messages_in(packed(text)) == [event["message"] for event in said["logEvents"]]


def test_pieces_hold_some_of_a_large_envelope_each() -> None:
    sizes = [len(piece.log_events) for piece in pieces(data(large(100)))]

    assert len(sizes) > 3
    assert sum(sizes) == 100


@pytest.mark.parametrize("end", [-1, -20, -5_000])
def test_a_large_envelope_that_ends_early_yields_nothing(end: int) -> None:
    text = gzip.compress(json.dumps(large(60), separators=(",", ":")).encode(), mtime=0)

    with pytest.raises(UndecodableError, match="gzip ends early"):
        next(pieces(plain(text[:end])))


def test_keys_behind_the_log_events_are_read_too() -> None:
    said = large(60)
    said["logGroup"] = said.pop("logGroup")  # now the last

    read = list(pieces(data(said)))

    assert {piece.log_group for piece in read} == {GROUP}
    assert sum(len(piece.log_events) for piece in read) == 60


# --- Kinesis records without data, and long lines -----------------------------------------------------------


@pytest.mark.parametrize("odd", [None, 7, {"a": 1}, ["x"], "missing"])
def test_a_kinesis_record_without_data_is_kept_and_its_neighbours_are_read(odd: Any) -> None:
    whole = data(envelope(LINE))
    records = kinesis_event(whole, "", whole)["Records"]
    if odd == "missing":
        del records[1]["kinesis"]["data"]
    else:
        records[1]["kinesis"]["data"] = odd
    ledger, objects = Ledger(records), Objects()

    lines = list(tagged_lines(ledger, TAG, ""))
    ledger.keep(objects)

    assert [line.position for line in lines] == [0, 2]
    assert ledger.quarantined == {"undecodable": 1}
    assert ledger.bytes() == 2 * len(whole)
    ((key, body),) = objects.items()
    (kept,) = quarantine.read(body)
    assert (kept.event, kept.data) == (None, "")
    assert f"data is {None if odd == 'missing' else odd}, not text" in kept.detail
    (again,) = from_quarantine(key, body)
    assert again["kinesis"]["data"] == ""


def test_a_line_that_waits_for_the_store_keeps_its_text() -> None:
    messages = [LINE[:-1] + f',"text":"{text}"}}' for text in ("x" * LONG_LINE, "\U0001f600" * LONG_LINE)]
    ledger = Ledger(kinesis_event(data(envelope(*messages)))["Records"])

    lines = list(tagged_lines(ledger, TAG, ""))
    for line in lines:
        line.forget()

    assert [line.event.message for line in lines] == messages


def test_lines_are_taken_until_they_are_many_or_long() -> None:
    long = LINE[:-1] + f',"text":"{"x" * (CHUNK_CHARACTERS // 2)}"}}'
    ledger = Ledger(kinesis_event(data(envelope(long, LINE, long, LINE, LINE, LINE)))["Records"])
    lines = tagged_lines(ledger, TAG, "")

    assert [len(take_lines(lines, 2)) for _ in range(4)] == [2, 2, 2, 0]
    lines = tagged_lines(ledger, TAG, "")
    assert [len(take_lines(lines, 9)) for _ in range(3)] == [3, 3, 0]


def test_a_line_longer_than_cloudwatchs_is_rejected() -> None:
    _, counts, details = read(data(envelope(LINE[:-1] + f',"text":"{"x" * MAX_LINE}"}}')))

    assert counts == {"received": 1, "unparseable": 1}
    assert "longer than 1,048,576 characters" in details[0]
