"""Documents of the lake that another version of Tagline wrote."""

import json
from collections.abc import Callable

import pytest

from consumers.documents import NewerDocumentError
from exporter.export.day import DayJob, OutOfTimeError, export_day
from exporter.lake.columns import lake_columns
from exporter.lake.days import Day
from exporter.lake.forgotten_list import ForgottenList
from exporter.lake.formats import Format
from tests.exporter.export.test_export import DAY, NOW, made, store
from tests.twins import Bucket, forget_client, read_key

FOLDER = "records/year=2025/month=11/day=20/"


@pytest.fixture
def bucket() -> Bucket:
    """Return a bucket with each kind of document: a day was replaced, and its next export interrupted."""
    bucket = Bucket()
    day = Day(bucket, DAY, Format.CSV_GZ)
    for count in (1, 2):
        export_day(day, store(*map(made, range(count))), DayJob(now=lambda: NOW))
    assert day.lock.take("run", NOW)
    forget_client("somebody", bucket, NOW)
    job = DayJob(size=1_000, read_key=read_key, now=lambda: NOW, seconds_left=iter([900.0, 1.0]).__next__)
    with pytest.raises(OutOfTimeError):
        export_day(day, store(*map(made, range(3_000))), job)
    return bucket


READERS: dict[str, Callable[[Day], object]] = {
    FOLDER + "_manifest.json": Day.manifest,
    FOLDER + "_progress.json": lambda day: day.progress()[0],
    "lake/columns.json": lambda day: lake_columns(day.objects),
    "lake/locks/csv.gz/2025-11-20.json": lambda day: day.lock.take("other", NOW),
    "lake/replaced/csv.gz/2025-11-20.json": Day.unnamed,
    "lake/forgotten.json": lambda day: ForgottenList(day.objects, read_key).read(),
}


def test_every_document_of_the_lake_is_among_these(bucket: Bucket) -> None:
    assert {key for key in bucket if key.endswith(".json")} == set(READERS)


@pytest.mark.parametrize("key", READERS)
def test_a_newer_version_is_refused_and_nothing_is_written(bucket: Bucket, key: str) -> None:
    document = json.loads(bucket[key])
    newest = document["format_version"]
    bucket[key] = json.dumps(document | {"format_version": newest + 1}).encode()
    before = dict(bucket)

    message = (
        f"has format_version {newest + 1}, and this Tagline reads versions up to {newest}: deploy the "
        "Tagline that wrote it"
    )
    with pytest.raises(NewerDocumentError, match=message):
        READERS[key](Day(bucket, DAY, Format.CSV_GZ))

    assert dict(bucket) == before


@pytest.mark.parametrize("key", READERS)
def test_keys_that_are_unknown_here_are_ignored(bucket: Bucket, key: str) -> None:
    read = READERS[key]
    expected = read(Day(Bucket(bucket), DAY, Format.CSV_GZ))

    def with_more(value: object) -> object:
        """Add a key to every object that is not a table of counts."""
        if isinstance(value, list):
            return [with_more(each) for each in value]
        if isinstance(value, dict) and not all(isinstance(each, int) for each in value.values()):
            return {name: with_more(each) for name, each in value.items()} | {"new": {"nested": [1]}}
        return value

    bucket[key] = json.dumps(with_more(json.loads(bucket[key]))).encode()

    assert read(Day(bucket, DAY, Format.CSV_GZ)) == expected


def test_progress_of_an_older_version_is_not_resumed(bucket: Bucket) -> None:
    # Its position within a minute is counted in another way.
    document = json.loads(bucket[FOLDER + "_progress.json"])
    bucket[FOLDER + "_progress.json"] = json.dumps(document | {"format_version": 1}).encode()

    assert Day(bucket, DAY, Format.CSV_GZ).progress()[0] is None


LATER_VERSIONS = ("lake/columns.json", "lake/forgotten.json", FOLDER + "_progress.json")


@pytest.mark.parametrize("key", [key for key in READERS if key not in LATER_VERSIONS])
def test_documents_from_before_versions_are_read(bucket: Bucket, key: str) -> None:
    read = READERS[key]
    expected = read(Day(Bucket(bucket), DAY, Format.CSV_GZ))
    document = json.loads(bucket[key])
    del document["format_version"]
    bucket[key] = json.dumps(document).encode()

    assert read(Day(bucket, DAY, Format.CSV_GZ)) == expected
