"""The order of the lake's columns."""

import json

from exporter.lake.columns import KEY, extend_lake_columns, lake_columns
from exporter.store import FIRST, FIRST_COLUMNS, Column
from tests.twins import Bucket


def test_two_runs_that_bring_columns_at_the_same_time_lose_none() -> None:
    class Racing(Bucket):
        def replace(self, key: str, body: bytes, tag: str | None) -> bool:
            if key == KEY and not self.raced:
                self.raced = True
                extend_lake_columns(self, [Column("theirs", "text")])
            return super().replace(key, body, tag)

        raced = False

    columns = extend_lake_columns(Racing(), [Column("ours", "text")])

    assert [column.name for column in columns] == [*FIRST, "theirs", "ours"]


def test_columns_that_an_older_version_wrote_are_read_and_keep_their_order() -> None:
    first = [{"name": column.name, "type": "VARCHAR"} for column in FIRST_COLUMNS]
    bucket = Bucket({KEY: json.dumps([*first, {"name": "zebra", "type": "DOUBLE"}]).encode()})

    assert lake_columns(bucket)[-1] == Column("zebra", "number")
    assert [column.name for column in extend_lake_columns(bucket, [Column("ant", "text")])] == [
        *FIRST,
        "zebra",
        "ant",
    ]
    assert json.loads(bucket[KEY])["format_version"] == 2
    assert lake_columns(bucket)[-2:] == (Column("zebra", "number"), Column("ant", "text"))
