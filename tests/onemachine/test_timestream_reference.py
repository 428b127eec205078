"""The page that says what of Timestream's SQL is answered says the truth."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from onemachine.presto.errors import ServiceError
from onemachine.presto.reference import is_answered
from onemachine.timestream import Timestream
from onemachine.timestream.reference import BESIDE, CONSTRUCTS, PAGES, Construct, page
from onemachine.timestream.tables import TableSettings

HERE = Path(__file__).parent
NAMES = sorted({name for names in (*PAGES.values(), BESIDE) for name in names.split()})


@pytest.fixture(scope="module")
def engine() -> Iterator[Timestream]:
    engine = Timestream(lambda: 1_795_046_820_000_000_000)
    engine.create_database("app", "key")
    engine.create_table("app", "usage", TableSettings())
    yield engine
    engine.close()


def test_the_page_is_what_the_command_writes() -> None:
    assert (HERE.parents[1] / "docs" / "reference" / "timestream-sql.md").read_text() == page()


@pytest.mark.parametrize("name", [name for name in NAMES if is_answered(name)])
def test_a_function_that_is_answered_has_a_value_in_a_test(name: str) -> None:
    # Whatever calls it in the tables of values: name(, or the word, for what is no call.
    tables = (HERE / f"test_timestream_{part}.py" for part in ("functions", "queries"))
    texts = "\n".join(path.read_text() for path in tables).split("REFUSED: dict")
    assert re.search(rf"(?i)\b{name}\b(?:\(|'?\s|`|,|\")", "\n".join((texts[0], texts[-1])))


@pytest.mark.parametrize("name", [name for name in NAMES if not is_answered(name)])
def test_a_function_that_is_not_answered_is_refused_by_its_name(engine: Timestream, name: str) -> None:
    with pytest.raises(ServiceError) as raised:
        engine.query(f"SELECT {name}(1)")

    assert raised.value.code == "ValidationException"
    assert f"Function '{name}' is not registered or not supported here." in raised.value.message


@pytest.mark.parametrize("construct", CONSTRUCTS, ids=[construct.name for construct in CONSTRUCTS])
def test_a_construct_is_answered_or_refused_as_the_page_says(
    engine: Timestream, construct: Construct
) -> None:
    if construct.answered:
        engine.query(construct.example)
    else:
        with pytest.raises(ServiceError) as raised:
            engine.query(construct.example)
        assert raised.value.code == "ValidationException"
