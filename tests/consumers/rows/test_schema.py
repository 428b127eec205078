"""Schemas are read with every problem named, and a change of them is judged by what it does to stored rows.

Limits of Timestream: https://docs.aws.amazon.com/timestream/latest/developerguide/ts-limits.html
"""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tagline import Record, write

from consumers.lines.ledger import Ledger
from consumers.rows import schema, table
from consumers.rows.handler import make_handler
from consumers.rows.schema import Schema, SchemaError, Verdict, changes, parse, plans
from consumers.rows.table import UNDECLARED, Measure, Row, UnmappableError, row
from consumers.rows.timestream import mapping
from consumers.rows.timestream.writer import Timestream
from tests.builders import LOGGED, Context, data, envelope, kinesis_event
from tests.twins import Objects, TimestreamWrite

TIME = 1_431_857_103_000
SOURCE = "/aws/lambda/orders"
SHIPPED = Path(__file__).parents[3] / "schemas"

ORDERS = """
type = "order placed"
revision = 3
description = "An order, when it is placed."

[dimensions]
region = { bytes = 32, values = ["eu-*", "us-east-1"], description = "Where." }
client = { buckets = 16, pii = true }

[measures]
total = "DOUBLE"
paid = { type = "BOOLEAN", default = false }
item_count = "BIGINT"
"first name" = { pii = true, description = "Of whoever ordered." }
weight = { type = "BIGINT", default = 7 }
"""


def schemas(*texts: str, **files: str) -> tuple[Schema, ...]:
    numbered = {f"t{number}": text for number, text in enumerate(texts)}
    return parse({f"{name}.toml": text.encode() for name, text in {**numbered, **files}.items()})


def mapped(*texts: str, type_: str = "t0", **fields: Any) -> Row:
    return row(Record(id="r1", timestamp=TIME, type=type_, fields=fields), SOURCE, plans(schemas(*texts)))


def measured(made: Row) -> dict[str, Any]:
    """Return a row's measures without those of every row."""
    return {
        name: measure.value
        for name, measure in made.measures.items()
        if name not in ("_id", *table.PARTITION)
    }


# --- Reading ------------------------------------------------------------------------------------------------


def test_a_schema_says_what_becomes_of_a_record() -> None:
    made = mapped(
        ORDERS,
        type_="order placed",
        region="eu-south-1",
        client="acme",
        total=3,
        **{"first name": "Ada", "note": "undeclared"},
    )

    assert made.type == "order.x20.placed"
    assert made.dimensions == {"source": SOURCE, "client": "other-1", "region": "eu-*"}
    assert measured(made) == {
        "_said": '{"client":"acme","region":"eu-south-1"}',
        "total": 3.0,
        "first.x20.name": "Ada",
        "note": "undeclared",
        "paid": False,
        "item_count": -1,
        "weight": 7,
    }
    assert (made.version, made.others) == (table.REVISION + 3, 1)


def test_a_type_without_a_schema_follows_the_values_or_the_schema_of_all_others() -> None:
    others = 'type = "*"\nrevision = 1\nundeclared = "extra"\nmeasures.status = "BIGINT"'

    assert measured(mapped(ORDERS, type_="new", note="n", status=200)) == {"note": "n", "status": 200.0}
    assert measured(mapped(ORDERS, others, type_="new", note="n", status=200)) == {
        "_extra": '{"note":"n"}',
        "status": 200,
    }


def test_columns_are_the_table_s_whichever_type_declares_them() -> None:
    # A dimension of one type cannot be a measure of another, and a measure has one type in all.
    one = "revision = 1\nmeasures.size = 'BIGINT'\ndimensions.region = {}"

    assert measured(mapped(one, type_="other", size=3, region="eu")) == {
        "size": 3,
        "_extra": '{"region":"eu"}',
    }
    assert measured(mapped(one, type_="other", size="3")) == {"_extra": '{"size":"3"}'}
    with pytest.raises(UnmappableError, match="size is"):
        mapped(one, size="3")


def test_a_schema_is_of_the_type_that_its_file_is_named_after() -> None:
    assert schemas(background_task="revision = 1")[0].type == "background_task"


def test_the_shipped_schemas_are_valid_and_make_the_rows_that_there_were_without_them() -> None:
    fields = {
        "status": 200,
        "duration_ms": 1.5,
        "cold_start": True,
        "path": "/pets/1",
        "client": "acme",
        "n": 3,
    }
    record = Record(id="r1", timestamp=TIME, fields=fields)
    made, before = row(record, SOURCE, schema.load_schemas(SHIPPED)), row(record, SOURCE, UNDECLARED)

    assert (made.dimensions, made.measures) == (before.dimensions, before.measures)
    assert made.version > before.version


def test_what_tells_of_a_person_is_known_by_its_column() -> None:
    assert schemas(ORDERS)[0].personal() == ("client", "first.x20.name")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("revision = ", "t0.toml: not TOML: "),
        ("measures.a = 'DOUBLE'", "t0.toml: revision is not set; it is a whole number from 1 to 1,000,000"),
        ("revision = 1000001", "t0.toml: revision is 1,000,001, not from 1 to 1,000,000"),
        ("revision = '1'", "t0.toml: revision is '1', not a whole number"),
        ("revision = true", "t0.toml: revision is True, not a whole number"),
        ("revision = 1\ncolour = 1", "t0.toml: colour is unknown; there is type, revision, undeclared, "),
        ("revision = 1\ntype = 7", "t0.toml: type is 7, not a text"),
        ("revision = 1\ntype = ''", "t0.toml: type is 0 bytes long, not from 1 to 256"),
        (f"revision = 1\ntype = '{'t' * 257}'", "t0.toml: type is 257 bytes long, not from 1 to 256"),
        ("revision = 1\nundeclared = 'drop'", "t0.toml: undeclared is 'drop', not one of columns, extra"),
        ("revision = 1\nunfit = 'drop'", "t0.toml: unfit is 'drop', not one of quarantine, extra"),
        ("revision = 1\nmeasures = 7", "t0.toml: measures is 7, not a table"),
        ("revision = 1\nmeasures.a = 7", "t0.toml: measures.a is 7, not a table"),
        (
            "revision = 1\nmeasures.a = 'INT'",
            "t0.toml: measures.a.type is 'INT', not one of VARCHAR, BIGINT, ",
        ),
        ("revision = 1\nmeasures.a = 'TIMESTAMP'", "t0.toml: measures.a.type is 'TIMESTAMP', not one of "),
        ("revision = 1\nmeasures.a.pii = 1", "t0.toml: measures.a.pii is 1, not true or false"),
        (
            "revision = 1\nmeasures.a.unit = 's'",
            "t0.toml: measures.a.unit is unknown; there is type, default, pii",
        ),
        (
            "revision = 1\nmeasures.a = {type = 'BIGINT', default = 0.5}",
            "t0.toml: measures.a.default is 0.5, no value of a BIGINT column",
        ),
        (
            "revision = 1\nmeasures.a = {type = 'DOUBLE', default = nan}",
            "t0.toml: measures.a.default is nan, no value of a DOUBLE column",
        ),
        (
            "revision = 1\nmeasures.a = {default = ''}",
            "t0.toml: measures.a.default is '', no value of a VARCHAR column",
        ),
        (
            "revision = 1\nmeasures.route = {}",
            "t0.toml: measures.route is a dimension of every type of record",
        ),
        (
            "revision = 1\nmeasures.source = {}",
            "t0.toml: measures.source is a dimension of every type of record",
        ),
        ("revision = 1\nmeasures.'' = {}", "t0.toml: measures has a column of 0 bytes, not from 1 to 256"),
        (f"revision = 1\nmeasures.{'m' * 257} = {{}}", "has a column of 257 bytes, not from 1 to 256"),
        (f"revision = 1\ndimensions.{'d' * 61} = {{}}", "has a column of 61 bytes, not from 1 to 60"),
        ("revision = 1\ndimensions.source = {}", "t0.toml: dimensions.source is every row's log group"),
        ("revision = 1\ndimensions.a = 'eu'", "t0.toml: dimensions.a is 'eu', not a table"),
        ("revision = 1\ndimensions.a.bytes = 31", "t0.toml: dimensions.a.bytes is 31, not from 32 to 300"),
        ("revision = 1\ndimensions.a.bytes = 301", "t0.toml: dimensions.a.bytes is 301, not from 32 to 300"),
        (
            "revision = 1\ndimensions.a.buckets = 10001",
            "t0.toml: dimensions.a.buckets is 10,001, not from 1 to 10,000",
        ),
        ("revision = 1\ndimensions.a.values = 'eu'", "t0.toml: dimensions.a.values is 'eu', not a list"),
        ("revision = 1\ndimensions.a.values = [['eu']]", "values has ['eu'], not a text with at most one *"),
        ("revision = 1\ndimensions.a.values = ['*a*']", "values has '*a*', not a text with at most one *"),
        (
            "revision = 1\ndimensions.a.values = ['other']",
            "values has 'other', which stands for the values that ",
        ),
        ("revision = 1\ndimensions.a.values = ['other-1']", "values has 'other-1', which stands for"),
        (f"revision = 1\ndimensions.a.values = ['{'é' * 33}']", "which is longer than its 64 bytes"),
        (
            "revision = 1\nmeasures.a = {}\ndimensions.a = {}",
            "t0.toml: measures.a is a dimension as well; a column is one of both",
        ),
        (
            "revision = 1\n" + "\n".join(f"dimensions.d{number} = {{}}" for number in range(4)),
            "t0.toml: dimensions with source, route, method, client take up to 1,487 bytes, more than 1,450",
        ),
        (
            "revision = 1\n" + "\n".join(f"measures.m{number} = {{}}" for number in range(248)),
            "t0.toml: measures are 248; a row has room for 247",
        ),
    ],
)
def test_a_problem_is_named_with_file_key_value_and_limit(text: str, problem: str) -> None:
    with pytest.raises(SchemaError) as raised:
        schemas(text)

    assert problem in str(raised.value)


def test_what_is_at_a_limit_is_valid() -> None:
    dimensions = "\n".join(f"dimensions.d{number} = {{}}" for number in range(3))
    measures = "\n".join(f"measures.m{number} = {{}}" for number in range(247))

    long = f"dimensions.{'d' * 59}.bytes = 32"

    schemas(f"revision = 1000000\n{dimensions}\n{long}\ndimensions.route.bytes = 200\n{measures}")


def test_all_problems_are_named_at_once() -> None:
    with pytest.raises(SchemaError) as raised:
        schemas("revision = 0\nmeasures.a = 'INT'", "type = 1\nrevision = 1", "]")

    assert len(str(raised.value).splitlines()) == 4


@pytest.mark.parametrize(
    ("one", "other", "problem"),
    [
        ("type = 't'", "type = 't'", "t1.toml: type is 't', as in t0.toml"),
        (
            "measures.a = 'BIGINT'",
            "measures.a = 'DOUBLE'",
            "t1.toml: measures.a is DOUBLE, and BIGINT in t0.toml; a column has one type",
        ),
        ("measures.a = 'BIGINT'", "dimensions.a = {}", "t0.toml: measures.a is a dimension in t1.toml"),
        ("dimensions.a = {}", "measures.a = 'BIGINT'", "t1.toml: measures.a is a dimension in t0.toml"),
    ],
)
def test_schemas_share_the_columns_of_one_table(one: str, other: str, problem: str) -> None:
    with pytest.raises(SchemaError) as raised:
        schemas(f"revision = 1\n{one}", f"revision = 1\n{other}")

    assert problem in str(raised.value)


def test_a_table_s_1024_measures_are_enough_for_what_is_declared_or_it_is_refused() -> None:
    def texts(count: int) -> list[str]:
        numbers = range(count)
        return [
            "revision = 1\n"
            + "\n".join(f"measures.m{number} = {{}}" for number in numbers[start : start + 240])
            for start in range(0, count, 240)
        ]

    schemas(*texts(1_024 - 9))
    with pytest.raises(
        SchemaError, match="declare 1,016 measures, with the table's own 1,025, more than the 1,024"
    ):
        schemas(*texts(1_024 - 8))


def test_a_table_has_at_most_128_dimensions() -> None:
    def texts(count: int) -> list[str]:
        return [f"revision = 1\ndimensions.d{number} = {{}}" for number in range(count)]

    schemas(*texts(128 - 4))
    with pytest.raises(SchemaError, match="have 129 dimensions, a table at most 128"):
        schemas(*texts(128 - 3))


@given(st.lists(st.text(min_size=1), max_size=300))
def test_a_table_never_gets_a_column_that_is_not_declared_where_all_else_is_extra(names: list[str]) -> None:
    text = 'type = "*"\nrevision = 1\nundeclared = "extra"\nmeasures.size = "DOUBLE"'
    made = mapped(text, type_="any", **dict.fromkeys(names, 1))

    assert set(made.measures) <= {"size", *table.OWN_MEASURES}
    assert set(made.dimensions) <= {"source", *table.DIMENSIONS}


def test_a_row_of_the_longest_dimensions_still_fits_with_what_it_cannot_be_without() -> None:
    text = "revision = 1\n" + "\n".join(f"dimensions.d{number} = {{}}" for number in range(3))
    type_ = "t" * 256
    fields = dict.fromkeys((*table.DIMENSIONS, "d0", "d1", "d2"), "v" * 999)
    record = Record(id="i" * 200, timestamp=TIME, type=type_, fields=fields)
    made = row(record, "g" * 512, plans(schemas(f"type = '{type_}'\n{text}")))
    fitted = mapping.fit(made, table.overflow_key(record, "g" * 512))

    assert fitted.dimensions == made.dimensions
    assert {"_id", "year", "month", "day", "_overflow"} <= set(fitted.measures)


@pytest.mark.parametrize("where", ["absent", "file"])
def test_a_folder_that_is_none_is_refused(tmp_path: Path, where: str) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(SchemaError, match="is not a folder"):
        schema.load_schemas(tmp_path / where)


def test_a_folder_without_schemas_declares_nothing(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("no schema")

    assert schema.load_schemas(tmp_path).version == table.REVISION


# --- Changes ------------------------------------------------------------------------------------------------

BASE = """
[dimensions]
region = {}
[measures]
size = "DOUBLE"
item_count = "BIGINT"
weight = "BIGINT"
note = {}
"""


def change(old: str, new: str, revision: int = 1) -> list[tuple[str, str]]:
    """Return the keys and verdicts of what differs."""
    before, after = schemas(f"revision = 1\n{old}"), schemas(f"revision = {revision}\n{new}")
    return [(each.key, each.verdict.value) for each in changes(before, after)]


@pytest.mark.parametrize(
    ("old", "new", "key", "verdict"),
    [
        ("", 'colour = "VARCHAR"', "measures.colour", "yes"),
        ("", "colour = { default = 'red' }", "measures.colour", "raise the revision"),
        ("", "pet_count = 'BIGINT'", "measures.pet_count", "raise the revision"),
        ('size = "DOUBLE"', 'size = "BIGINT"', "measures.size.type", "no"),
        ('weight = "BIGINT"', 'weight = "VARCHAR"', "measures.weight.type", "no"),
        ("note = {}", "note = { pii = true }", "measures.note.pii", "yes"),
        ("note = {}", "note = { default = 'none' }", "measures.note.default", "raise the revision"),
        (
            'item_count = "BIGINT"',
            'item_count = { type = "BIGINT", default = 0 }',
            "measures.item_count.default",
            "raise the revision",
        ),
        ("note = {}", "", "measures.note", "with care"),
        ('size = "DOUBLE"', "", "measures.size", "with care"),
        ('item_count = "BIGINT"', "", "measures.item_count", "raise the revision"),
        ('weight = "BIGINT"', "", "measures.weight", "no"),
        ("region = {}", "", "dimensions.region", "no"),
        ("region = {}", "region = {}\nplan = {}", "dimensions.plan", "with care"),
        ("region = {}", "region = { bytes = 32 }", "dimensions.region.bytes", "with care"),
        ("region = {}", "region = { values = ['eu'] }", "dimensions.region.values", "with care"),
        ("region = {}", "region = { buckets = 4 }", "dimensions.region.buckets", "with care"),
        ("region = {}", "region = { pii = true }", "dimensions.region.pii", "yes"),
        ("region = {}", "region = { description = 'Where.' }", "", ""),
    ],
)
def test_a_change_is_judged_by_what_it_does_to_stored_rows(
    old: str, new: str, key: str, verdict: str
) -> None:
    text = BASE.replace(old, new) if old else BASE + new

    assert change(BASE, text) == ([(key, verdict)] if key else [])
    raised = "yes" if verdict == "raise the revision" else verdict
    assert change(BASE, text, revision=2) == ([(key, raised)] if key else [])


def test_a_measure_never_becomes_a_dimension_nor_back() -> None:
    to_dimension = BASE.replace("region = {}", "region = {}\nnote = {}").replace("note = {}\n", "", 0)
    to_dimension = to_dimension.removesuffix("note = {}\n")

    assert change(BASE, to_dimension, revision=2) == [("note", "no")]
    assert change(to_dimension, BASE, revision=2) == [("note", "no")]


def test_what_a_type_gives_up_another_cannot_take_as_something_else() -> None:
    before = schemas("revision = 1\nmeasures.size = 'DOUBLE'\nmeasures.note = {}", "revision = 1")
    after = schemas("revision = 1", "revision = 2\nmeasures.size = 'BIGINT'\ndimensions.note = {}")
    refused = [(each.type, each.key) for each in changes(before, after) if each.verdict is Verdict.NO]

    assert refused == [("t1", "note"), ("t1", "measures.size.type")]


@pytest.mark.parametrize(
    ("old", "new", "verdict"),
    [
        ("undeclared = 'columns'", "undeclared = 'extra'", "raise the revision"),
        ("undeclared = 'extra'", "undeclared = 'columns'", "raise the revision"),
        ("unfit = 'quarantine'", "unfit = 'extra'", "yes"),
        ("unfit = 'extra'", "unfit = 'quarantine'", "yes"),
    ],
)
def test_where_fields_go_may_change(old: str, new: str, verdict: str) -> None:
    assert change(old, new) == [(old.split(maxsplit=1)[0], verdict)]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("measures.a = 'BIGINT'", "measures.a = { type = 'BIGINT', default = 7 }", "none to 7"),
        ("measures.a = {}", "measures.a = { default = 'x' }", "none to x"),
        ("dimensions.a = {}", "dimensions.a = { values = ['x', 'y'] }", "none to x, y"),
        ("dimensions.a = {}", "dimensions.a = { buckets = 4 }", "none to 4"),
        ("measures.a = { pii = true }", "measures.a = {}", "true to false"),
    ],
)
def test_a_change_names_what_was_and_what_is(old: str, new: str, words: str) -> None:
    before, after = schemas(f"revision = 1\n{old}"), schemas(f"revision = 2\n{new}")

    assert words in [each.change for each in changes(before, after)]


def test_a_measure_that_comes_out_of_the_extra_one_makes_another_row() -> None:
    assert change("undeclared = 'extra'", "undeclared = 'extra'\nmeasures.a = {}") == [
        ("measures.a", "raise the revision")
    ]


def test_a_revision_only_rises_and_a_file_stays() -> None:
    two, one = schemas("revision = 2"), schemas("revision = 1")

    assert [(each.key, each.allowed) for each in changes(two, one)] == [("revision", False)]
    assert [(each.key, each.change, each.allowed) for each in changes(one, ())] == [("", "removed", False)]
    assert changes(one, two) == []


def test_a_new_type_is_allowed_and_told_apart_from_one_that_had_the_schema_of_all_others() -> None:
    others = schemas(others="type = '*'\nrevision = 1\nmeasures.size = 'DOUBLE'")
    own = schemas(own="revision = 1\nmeasures.size = 'DOUBLE'")
    retyped = schemas(own="revision = 1\nmeasures.size = 'BIGINT'")

    assert [each.allowed for each in changes((), own)] == [True]
    assert [(each.type, each.key, each.allowed) for each in changes(others, others + own)] == [
        ("own", "", True)
    ]
    assert ("own", "measures.size.type", False) in [
        (each.type, each.key, each.allowed) for each in changes(others, retyped)
    ]


MEASURES = st.dictionaries(
    st.sampled_from(["size", "note", "ok", "item_count"]),
    st.sampled_from(["BIGINT", "BOOLEAN", "DOUBLE", "VARCHAR"]),
)
FIELDS = st.dictionaries(
    st.sampled_from(["size", "note", "ok", "item_count", "region"]),
    st.integers(0, 9) | st.booleans() | st.sampled_from(["", "a"]) | st.none(),
)


@given(*[st.tuples(MEASURES, st.booleans(), st.integers(1, 2))] * 2, FIELDS)
def test_what_is_allowed_makes_the_same_row_or_a_newer_one(
    old: tuple[dict[str, str], bool, int], new: tuple[dict[str, str], bool, int], fields: dict[str, Any]
) -> None:
    def declared(measures: dict[str, str], extra: bool, revision: int) -> tuple[Schema, ...]:
        lines = "\n".join(f"measures.{name} = '{type_}'" for name, type_ in measures.items())
        kept = "extra" if extra else "columns"
        return schemas(f"revision = {revision}\nundeclared = '{kept}'\nunfit = 'extra'\n{lines}")

    record = Record(id="r1", timestamp=TIME, type="t0", fields={**fields, "item_count": 1})
    before, after = declared(*old), declared(*new)
    if not all(each.allowed for each in changes(before, after)):
        return
    one, two = (row(record, SOURCE, plans(each)) for each in (before, after))

    assert one.dimensions == two.dimensions
    for name in old[0].keys() & new[0].keys():
        assert old[0][name] == new[0][name]
    if two.version == one.version:
        # What is newly declared, or no longer, may have had values of another type: the store refuses those.
        differs = {name for name, _ in one.measures.items() ^ two.measures.items()}
        assert differs <= {*(old[0].keys() ^ new[0].keys()), table.EXTRA}
    else:
        assert two.version > one.version


def test_a_default_of_a_count_is_minus_one_as_long_as_no_other_is_said() -> None:
    assert mapped("revision = 1\nmeasures.pet_count = 'BIGINT'").measures["pet_count"] == Measure(
        "BIGINT", -1
    )
    assert "weight" not in mapped("revision = 1\nmeasures.weight = 'BIGINT'").measures


# --- In the consumer ----------------------------------------------------------------------------------------


def test_the_consumer_follows_the_schemas_and_counts_what_has_no_place_of_its_own() -> None:
    client, ledgers = TimestreamWrite(), list[Ledger]()
    handler = make_handler(
        Timestream(client, "tagline", "records", sleep=lambda _: None, jitter=lambda: 0.0),
        Objects(),
        tag="usage_record",
        own_log_groups="/tagline/",
        report=ledgers.append,
        plans=plans(schemas('revision = 5\nundeclared = "extra"\ndimensions.client.values = ["acme"]')),
    )
    lines = [
        write(Record(id=client, timestamp=LOGGED, type="t0", fields={"client": client, "note": "n"}))
        for client in ("acme", "beta", "gamma")
    ]

    assert handler(kinesis_event(data(envelope(*lines))), Context()) == {"batchItemFailures": []}
    assert (ledgers[0].stored, ledgers[0].extra, ledgers[0].others) == (3, 3, 2)
    written = client.requests[0]
    assert [record["Dimensions"][-1]["Value"] for record in written] == ["acme", "other", "other"]
    assert {record["Version"] for record in written} == {table.REVISION + 5}
