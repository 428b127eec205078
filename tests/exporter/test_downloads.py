"""The download API answers at once; the worker makes the zip."""

import csv
import hashlib
import io
import json
import zipfile
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from exporter import downloads, zipper
from exporter.export import export_day
from exporter.jobs import Job, State, read_job, write_job
from exporter.query import Days
from tests.builders import Context, http_event, sqs_event
from tests.exporter.test_export import made, store
from tests.twins import Bucket, client_error

NOW = datetime(2025, 11, 22, 12, tzinfo=UTC)
ID = "0123456789abcdef0123456789abcdef"


class Api:
    """The download API and its worker among twins."""

    def __init__(self) -> None:
        self.bucket = Bucket()
        self.sent: list[str] = []
        self.jobs: list[Job] = []
        self.handler = downloads.make_handler(
            self.bucket,
            self.sent.append,
            link_seconds=600,
            max_days=31,
            now=lambda: NOW,
            new_id=lambda: ID,
        )
        self.worker = zipper.make_handler(self.bucket, report=self.jobs.append)

    def get(
        self, route: str, path: str, query: dict[str, str] | None = None, **parameters: str
    ) -> dict[str, Any]:
        response = self.handler(http_event(f"GET {route}", path, query, **parameters), Context())
        return {**response, "body": json.loads(response["body"])}

    def ask(self, **query: str) -> dict[str, Any]:
        return self.get("/download/usage", "/download/usage", query)

    def status(self, job_id: str = ID) -> dict[str, Any]:
        return self.get("/downloads/{id}", f"/downloads/{job_id}", id=job_id)

    def work(self) -> dict[str, Any]:
        return self.worker(sqs_event(*self.sent), Context())

    def zip(self) -> zipfile.ZipFile:
        return zipfile.ZipFile(io.BytesIO(self.bucket[f"tmp/{ID}.zip"]))


def test_the_answer_comes_at_once_and_names_the_link_its_expiry_and_the_status_address() -> None:
    api = Api()

    response = api.ask(start_date="2025-11-20", end_date="2025-11-21")

    assert response["statusCode"] == 202
    assert response["body"] == {
        "result": "ok",
        "message": "Your file is being prepared, use the link to download the file after a couple of minutes",
        "download_link": f"https://bucket/tmp/{ID}.zip?seconds=600&filename=usage_2025-11-20_2025-11-21.zip",
        "id": ID,
        "status": "queued",
        "start_date": "2025-11-20",
        "end_date": "2025-11-21",
        "expires_at": "2025-11-22T12:10:00Z",
        "status_url": f"https://api.example.com/downloads/{ID}",
    }
    assert [Job.from_json(message) for message in api.sent] == [
        Job(ID, Days(date(2025, 11, 20), date(2025, 11, 21)))
    ]


@pytest.mark.parametrize(
    ("query", "field", "detail"),
    [
        ({}, "start_date", "start_date is missing"),
        ({"start_date": "2025-11-20"}, "end_date", "end_date is missing"),
        (
            {"start_date": "20.11.2025", "end_date": "2025-11-20"},
            "start_date",
            "start_date is '20.11.2025', not a",
        ),
        (
            {"start_date": "2025-11-31", "end_date": "2025-11-20"},
            "start_date",
            "start_date is '2025-11-31', not a",
        ),
        (
            {"start_date": "20251120", "end_date": "2025-11-20"},
            "start_date",
            "start_date is '20251120', not a",
        ),
        (
            {"start_date": "2025-11-21", "end_date": "2025-11-20"},
            "end_date",
            "is before start_date 2025-11-21",
        ),
        ({"start_date": "2025-11-21", "end_date": "2025-11-23"}, "end_date", "is in the future"),
        ({"start_date": "2025-10-22", "end_date": "2025-11-22"}, "end_date", "are 32 days; at most 31"),
    ],
)
def test_a_range_that_cannot_be_used_is_a_problem_that_names_the_field_and_the_limit(
    query: dict[str, str], field: str, detail: str
) -> None:
    api = Api()

    response = api.ask(**query)

    assert response["statusCode"] == 400
    assert response["headers"]["Content-Type"] == "application/problem+json"
    problem = response["body"]
    assert (problem["status"], problem["title"], problem["field"]) == (400, "Bad Request", field)
    assert detail in problem["detail"]
    assert (problem["result"], problem["message"]) == ("error", problem["detail"])
    assert api.sent == []


def test_the_longest_range_is_allowed() -> None:
    assert Api().ask(start_date="2025-10-23", end_date="2025-11-22")["statusCode"] == 202


@pytest.mark.parametrize("job_id", [ID, "x", "..%2Frecords", "A" * 32])
def test_an_unknown_download_is_a_404(job_id: str) -> None:
    response = Api().status(job_id)

    assert (response["statusCode"], response["body"]["title"]) == (404, "Not Found")


def test_an_unknown_path_is_a_404_that_names_it() -> None:
    response = Api().get("/nothing", "/nothing")

    assert response["statusCode"] == 404
    assert "/nothing" in response["body"]["detail"]


def test_a_download_goes_from_queued_to_ready_and_then_has_a_link() -> None:
    api = Api()
    export_day(date(2025, 11, 20), store(*map(made, range(7))), api.bucket)
    api.ask(start_date="2025-11-20", end_date="2025-11-21")

    queued = api.status()["body"]
    assert queued["status"] == "queued"
    assert "download_link" not in queued
    assert api.work() == {"batchItemFailures": []}

    ready = api.status()["body"]
    assert (ready["status"], ready["rows"]) == ("ready", 7)
    assert ready["download_link"].startswith(f"https://bucket/tmp/{ID}.zip")


def test_the_zip_holds_each_days_rows_by_date_and_a_manifest_with_checksums() -> None:
    api = Api()
    days = (date(2025, 11, 20), date(2025, 11, 21))
    for day in days:
        export_day(day, store(*(made(number, day) for number in range(9))), api.bucket)
    api.ask(start_date="2025-11-19", end_date="2025-11-21")
    api.work()

    with api.zip() as zipped:
        assert zipped.testzip() is None
        assert zipped.namelist() == [
            "2025-11-20-part-00000.csv",
            "2025-11-21-part-00000.csv",
            "manifest.json",
        ]
        manifest = json.loads(zipped.read("manifest.json"))
        for file in manifest["files"]:
            body = zipped.read(file["name"])
            assert hashlib.sha256(body).hexdigest() == file["sha256"]
            assert len(list(csv.DictReader(io.StringIO(body.decode())))) == file["rows"] == 9
    assert (manifest["rows"], manifest["days_not_exported"]) == (18, ["2025-11-19"])


def test_an_empty_range_gives_a_valid_zip_that_holds_only_a_manifest() -> None:
    api = Api()
    api.ask(start_date="2025-11-20", end_date="2025-11-20")

    api.work()

    with api.zip() as zipped:
        assert zipped.namelist() == ["manifest.json"]
        assert json.loads(zipped.read("manifest.json"))["rows"] == 0
    assert api.status()["body"]["rows"] == 0


def test_a_message_that_comes_twice_makes_one_zip() -> None:
    api = Api()
    export_day(date(2025, 11, 20), store(made(1)), api.bucket)
    api.ask(start_date="2025-11-20", end_date="2025-11-20")
    api.work()
    first = dict(api.bucket)

    assert api.work() == {"batchItemFailures": []}
    assert dict(api.bucket) == first
    assert len(api.jobs) == 1


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (client_error("InvalidObjectState", 403), "some of these days are in the archive"),
        (client_error("SlowDown", 503), "ClientError: "),
        (ValueError("the gzip ends early"), "ValueError: the gzip ends early"),
    ],
)
def test_a_zip_that_cannot_be_made_is_tried_again_and_its_neighbours_are_made(
    error: Exception, reason: str
) -> None:
    class Archived(Bucket):
        def stream(self, key: str) -> Any:  # noqa: ARG002 - a bucket's signature
            raise error

    api = Api()
    export_day(date(2025, 11, 20), store(made(1)), api.bucket)
    bucket = Archived(api.bucket)
    jobs: list[Job] = []
    worker = zipper.make_handler(bucket, report=jobs.append)
    bad = Job(ID, Days(date(2025, 11, 20), date(2025, 11, 20)))
    good = Job("f" * 32, Days(date(2025, 11, 1), date(2025, 11, 1)))
    event = sqs_event(bad.to_json(), good.to_json())

    response = worker(event, Context())

    assert response == {"batchItemFailures": [{"itemIdentifier": event["Records"][0]["messageId"]}]}
    assert [job.state for job in jobs] == [State.FAILED, State.READY]
    assert str(jobs[0].reason).startswith(reason)
    write_job(bucket, jobs[0])
    assert read_job(bucket, ID) == jobs[0]


def test_links_are_as_long_as_they_say() -> None:
    body = Api().ask(start_date="2025-11-20", end_date="2025-11-20")["body"]

    expires = datetime.fromisoformat(body["expires_at"])
    assert expires - NOW == timedelta(seconds=600)
    assert "seconds=600" in body["download_link"]
