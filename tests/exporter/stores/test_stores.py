"""Which store a setting names, and where its parts are read from."""

from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from consumers.rows.registry import STORES
from consumers.settings import SettingsError
from exporter.stores import store_of_function, store_of_stack

ENVIRONMENT = {
    "TIMESTREAM_DATABASE": "db",
    "TIMESTREAM_TABLE": "records",
    "MEMORY_STORE_HOURS": "12",
    "MAGNETIC_STORE_DAYS": "3",
}


class Client:
    """A client of timestream-query or timestream-write over one table."""

    meta = SimpleNamespace()

    def __init__(self) -> None:
        self.asked: list[str] = []

    def query(self, **arguments: str) -> dict[str, Any]:
        self.asked.append(arguments["QueryString"])
        info = {"Name": "_col0", "Type": {"ScalarType": "BIGINT"}}
        return {"Rows": [{"Data": [{"ScalarValue": "7"}]}], "ColumnInfo": [info]}

    def describe_table(self, **arguments: str) -> dict[str, Any]:
        assert arguments == {"DatabaseName": "db", "TableName": "records"}
        retention = {"MagneticStoreRetentionPeriodInDays": 3, "MemoryStoreRetentionPeriodInHours": 12}
        return {"Table": {"RetentionProperties": retention}}


def test_a_functions_store_is_that_of_its_environment() -> None:
    client = Client()

    store = store_of_function("timestream", ENVIRONMENT, lambda _service, **_options: client)

    assert store.count() == 7
    assert client.asked == ['SELECT count(*) FROM "db"."records"']
    assert store.keeps_for == timedelta(days=3, hours=12)


def test_a_stacks_store_is_that_of_its_outputs() -> None:
    client = Client()
    outputs = {"TimestreamDatabase": "db", "TimestreamTable": "records"}

    store = store_of_stack("timestream", outputs, lambda _service: client)

    assert store.count() == 7
    assert client.asked == ['SELECT count(*) FROM "db"."records"']
    assert store.keeps_for == timedelta(days=3, hours=12)


def test_an_unknown_store_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(SettingsError, match=f"STORE is 'paper'; the stores are {', '.join(STORES)}"):
        store_of_function("paper", ENVIRONMENT, lambda _service, **_options: Client())


def test_a_setting_of_the_store_that_is_missing_is_named() -> None:
    with pytest.raises(SettingsError, match="TIMESTREAM_TABLE is not set"):
        store_of_function(
            "timestream", ENVIRONMENT | {"TIMESTREAM_TABLE": ""}, lambda _service, **_options: Client()
        )
