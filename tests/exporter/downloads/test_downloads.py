"""The download API answers at once; the worker makes the zip."""

import gzip
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from consumers.bucket import Upload
from consumers.documents import NewerDocumentError
from exporter.downloads import handler as downloads
from exporter.downloads import openapi
from exporter.downloads.jobs import (
    Cells,
    Job,
    Request,
    State,
    ZipPlan,
    cursor_key,
    deleted_key,
    job_id,
    plan_key,
    tail_key,
    zip_key,
)
from exporter.downloads.limits import DownloadLimits, ranges
from exporter.downloads.service import DownloadService
from exporter.downloads.stored_jobs import delete_jobs_of, find_manifests, read_job
from exporter.lake import manifest as archive
from exporter.lake.days import Day
from exporter.lake.formats import Format, ZipFormat
from exporter.lake.manifest import Manifest
from exporter.store import FIRST_COLUMNS, Column, Days
from exporter.zips import handler as zipper
from exporter.zips.making import Budget, Cursor, begin
from tests.builders import Context, http_event, sqs_event
from tests.exporter.export.test_export import exported, made, store
from tests.exporter.zips.test_zipper import put_day, read
from tests.twins import Bucket, Links, write_job

NOW = datetime(2025, 11, 22, 12, tzinfo=UTC)
ID = "0123456789abcdef0123456789abcdef"
LIMITS = DownloadLimits(10**12, 20)
DAY = date(2025, 11, 20)
DATES = {"start_date": "2025-11-20", "end_date": "2025-11-21"}


class Api:
    """The download API and its worker among twins."""

    def __init__(
        self,
        *,
        tenant_claim: str = "",
        claims: dict[str, Any] | None = None,
        limits: DownloadLimits = LIMITS,
        tenant_columns: tuple[str, ...] = (),
    ) -> None:
        self.bucket = Bucket()
        self.sent: list[str] = []
        self.jobs: list[Job] = []
        self.now = NOW
        self.claims = claims
        self.tenant_claim = tenant_claim
        self.tenant_columns = tenant_columns
        self.limits = limits
        self.audited: list[Mapping[str, Any]] = []
        self.make()

    def make(self) -> None:
        """Make the functions."""
        service = DownloadService(
            self.bucket, Links(lambda: self.now), self.sent.append, 600, lambda: self.now, self.limits
        )
        self.handler = downloads.make_handler(
            service,
            self.audited.append,
            max_days=31,
            tenant_claim=self.tenant_claim,
            tenant_columns=self.tenant_columns,
        )
        self.worker = zipper.make_handler(
            self.bucket,
            send=lambda message, _delay_s: self.sent.append(message),
            report=lambda job, _error: self.jobs.append(job),
            budget=lambda left_s: Budget(left_s, now=self.timestamp),
        )

    def timestamp(self) -> float:
        return self.now.timestamp()

    def call(
        self,
        route: str,
        path: str,
        query: dict[str, str] | None = None,
        body: object = None,
        **parameters: str,
    ) -> dict[str, Any]:
        event = http_event(route, path, query, **parameters)
        if self.claims is not None:
            event["requestContext"]["authorizer"] = {
                "jwt": {"claims": self.claims, "scopes": ["tagline/downloads"]}
            }
        if body is not None:
            event["body"] = body if isinstance(body, str) else json.dumps(body)
        response = self.handler(event, Context())
        return {**response, "body": json.loads(response["body"] or "null")}

    def ask(self, **query: str) -> dict[str, Any]:
        return self.call("GET /download/usage", "/download/usage", query)

    def post(self, body: object) -> dict[str, Any]:
        return self.call("POST /downloads", "/downloads", body=body)

    def status(self, job_id: str) -> dict[str, Any]:
        return self.call("GET /downloads/{id}", f"/downloads/{job_id}", id=job_id)

    def delete(self, job_id: str) -> dict[str, Any]:
        return self.call("DELETE /downloads/{id}", f"/downloads/{job_id}", id=job_id)

    def export(self, day: date = DAY, rows: int = 7, kind: Format = Format.CSV_GZ) -> None:
        exported(day, store(*(made(number, day) for number in range(rows))), self.bucket, kind=kind)

    def work(self) -> dict[str, Any]:
        messages, self.sent[:] = list(self.sent), []
        return self.worker(sqs_event(*messages), Context())


def test_the_answer_comes_at_once_and_names_the_link_its_expiry_and_the_status_address() -> None:
    api = Api()

    response = api.ask(**DATES)

    identity = job_id(Request(Days(DAY, date(2025, 11, 21))), [])
    assert response["statusCode"] == 202
    assert response["body"] == {
        "result": "ok",
        "message": "Your file is being prepared, use the link to download the file after a couple of minutes",
        "download_link": f"https://bucket/tmp/{identity}.zip?seconds=600&filename=usage_2025-11-20_2025-11-21.zip",
        "id": identity,
        "status": "queued",
        "start_date": "2025-11-20",
        "end_date": "2025-11-21",
        "format": "csv",
        "cells": "safe",
        "expires_at": "2025-11-22T12:10:00Z",
        "status_url": f"https://api.example.com/downloads/{identity}",
    }
    (message,) = api.sent
    assert json.loads(message) == {"id": identity}
    assert read_job(api.bucket, identity) == Job(
        identity, Request(Days(DAY, date(2025, 11, 21))), changed_at=int(NOW.timestamp())
    )


@pytest.mark.parametrize("mapping", ["/v1", "/billing/reports", "/download", "/downloads"])
def test_the_status_address_has_the_path_to_which_a_custom_domain_maps_the_api(mapping: str) -> None:
    api = Api()

    made = api.call("GET /download/usage", f"{mapping}/download/usage", DATES)["body"]
    looked = api.call("GET /downloads/{id}", f"{mapping}/downloads/{made['id']}", id=made["id"])
    posted = api.call("POST /downloads", f"{mapping}/downloads", body=DATES)

    assert made["status_url"] == f"https://api.example.com{mapping}/downloads/{made['id']}"
    assert (looked["statusCode"], looked["body"]["status_url"]) == (200, made["status_url"])
    assert posted["body"]["status_url"] == made["status_url"]
    assert api.call("GET /openapi.json", f"{mapping}/openapi.json")["statusCode"] == 200


def test_a_message_is_short_whatever_is_asked_for() -> None:
    api = Api()
    columns = [f"{number:03}" + "😀" * (openapi.MAX_VALUE - 3) for number in range(openapi.MAX_COLUMNS)]

    response = api.post({**DATES, "columns": columns})

    # SQS refuses one of more than 256 KiB, or 1 MiB since 2025:
    # https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html
    assert (response["statusCode"], len(api.sent[0])) == (202, len(ID) + len('{"id": ""}'))
    assert api.work() == {"batchItemFailures": []}
    assert api.status(response["body"]["id"])["body"]["status"] == "empty"


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


@pytest.mark.parametrize(
    ("wanted", "field", "detail"),
    [
        ("no JSON", "body", "the body is not JSON"),
        ("[" * 100_000, "body", "the body is not JSON"),
        ([], "body", "the body is not a JSON object"),
        ({}, "start_date", "start_date is missing"),
        ('{"client": "acme", "client": "zeta"}', "client", "the body has 'client' twice"),
        ({**DATES, "start_date": 20251120}, "start_date", "start_date is '20251120', not a date"),
        ({**DATES, "format": "xml"}, "format", f"format is 'xml', not one of {', '.join(ZipFormat)}"),
        ({**DATES, "cells": "loose"}, "cells", "cells is 'loose', not one of safe, exact"),
        ({**DATES, "format": []}, "format", "format is '[]', not one of"),
        ({**DATES, "client": ""}, "client", "client is '', not a text of 1 to 2000 characters"),
        ({**DATES, "client": None}, "client", "client is 'None', not a text"),
        ({**DATES, "route": "x" * 2001}, "route", "not a text of 1 to 2000 characters"),
        ({**DATES, "route": "\ud800"}, "route", "not a text of 1 to 2000 characters"),
        ({**DATES, "columns": "time"}, "columns", "columns is not a list of 1 to 200 names"),
        ({**DATES, "columns": []}, "columns", "columns is not a list of 1 to 200 names"),
        ({**DATES, "columns": ["x"] * 201}, "columns", "columns is not a list of 1 to 200 names"),
        ({**DATES, "columns": [1]}, "columns", "columns has '1', not a name of 1 to 2000 characters"),
        ({**DATES, "columns": ["a", "a"]}, "columns", "columns has 'a' twice"),
        (
            {**DATES, "colour": "red"},
            "colour",
            "'colour' is not a parameter; the parameters are start_date, end_date, format, cells,",
        ),
    ],
)
def test_a_request_that_cannot_be_used_is_a_problem_that_names_the_field_and_the_limit(
    wanted: object, field: str, detail: str
) -> None:
    api = Api()

    response = api.post(wanted)

    assert (response["statusCode"], response["body"]["field"]) == (400, field)
    assert detail in response["body"]["detail"]
    assert (api.sent, dict(api.bucket)) == ([], {})


def test_a_filter_in_the_query_is_refused_instead_of_being_overlooked() -> None:
    problem = Api().ask(**DATES, client="acme")["body"]

    assert (problem["status"], problem["field"]) == (400, "client")
    assert "POST /downloads" in problem["detail"]


@pytest.mark.parametrize("identity", [ID, "x", "..%2Frecords", "A" * 32])
@pytest.mark.parametrize("method", ["status", "delete"])
def test_an_unknown_download_is_a_404(method: str, identity: str) -> None:
    response = getattr(Api(), method)(identity)

    assert (response["statusCode"], response["body"]["title"]) == (404, "Not Found")


def test_an_unknown_path_is_a_404_that_names_it() -> None:
    response = Api().call("GET /nothing", "/nothing")

    assert response["statusCode"] == 404
    assert "/nothing" in response["body"]["detail"]


def test_a_download_goes_from_queued_over_running_to_ready_and_then_has_a_link() -> None:
    api = Api()
    api.export()
    identity = api.ask(**DATES)["body"]["id"]

    queued = api.status(identity)["body"]
    assert (queued["status"], "download_link" in queued, "progress" in queued) == ("queued", False, False)
    job = read_job(api.bucket, identity)
    assert job is not None
    write_job(api.bucket, job.becoming(State.RUNNING, done_bytes=5, total_bytes=9))
    running = api.status(identity)["body"]
    assert (running["status"], running["progress"]) == ("running", 0.56)
    assert api.work() == {"batchItemFailures": []}

    ready = api.status(identity)["body"]
    assert (ready["status"], ready["rows"]) == ("ready", 7)
    assert ready["download_link"].startswith(f"https://bucket/tmp/{identity}.zip")


@pytest.mark.parametrize(
    ("wanted", "kind"), [(wanted, kind) for wanted in ZipFormat for kind in wanted.made_of]
)
def test_what_is_exported_in_one_format_only_can_be_had(wanted: ZipFormat, kind: str) -> None:
    api = Api()
    rows = store(*(made(number, DAY) for number in range(7)))
    exported(DAY, rows, api.bucket, kind=Format(kind))
    before = api.post({**DATES, "format": wanted})["body"]["id"]
    api.work()

    files, _ = read(api.bucket[zip_key(before)])
    (part,) = (key for key in api.bucket.keys(archive.folder(DAY, kind)) if "part-" in key)
    kept = gzip.decompress(api.bucket[part]) if kind.endswith(".gz") else api.bucket[part]
    assert api.status(before)["body"]["rows"] == 7
    ending = Request(Days(DAY, DAY), wanted).ending(Format(kind))
    assert list(files) == [f"{DAY}-part-00000.{ending}"]
    assert (files[f"{DAY}-part-00000.{ending}"] == kept) is kind.startswith(ending)

    # Another revision in that format alone is seen, too.
    exported(
        DAY,
        store(*(made(number, DAY) for number in range(9))),
        api.bucket,
        kind=Format(kind),
    )
    assert api.post({**DATES, "format": wanted})["body"]["id"] != before


def test_an_empty_range_is_empty_and_has_a_link() -> None:
    api = Api()
    identity = api.ask(**DATES)["body"]["id"]
    api.work()

    empty = api.status(identity)["body"]

    assert (empty["status"], empty["rows"]) == ("empty", 0)
    assert "download_link" in empty


def test_a_failed_download_says_why_and_is_made_when_it_is_asked_for_again() -> None:
    api = Api()
    identity = api.post({**DATES, "format": "parquet"})["body"]["id"]
    job = read_job(api.bucket, identity)
    assert job is not None
    write_job(api.bucket, job.becoming(State.FAILED, reason="why"))

    failed = api.status(identity)["body"]
    again = api.post({**DATES, "format": "parquet"})["body"]

    assert (failed["status"], failed["reason"], "download_link" in failed) == ("failed", "why", False)
    assert (again["id"], again["status"], len(api.sent)) == (identity, "queued", 2)


# --- one zip for the same ---------------------------------------------------------------------------------


def test_the_same_request_has_the_same_zip_while_the_lake_is_the_same() -> None:
    api = Api()
    api.export()
    first = api.ask(**DATES)["body"]
    second = api.ask(**DATES)["body"]
    posted = api.post(DATES)["body"]
    assert {each["id"] for each in (first, second, posted)} == {first["id"]}
    assert len(api.sent) == 1
    api.work()

    response = api.ask(**DATES)
    assert (response["statusCode"], response["body"]["status"], api.sent) == (200, "ready", [])
    assert response["body"]["message"] == "Your file is ready, use the link to download the file"
    assert response["body"]["rows"] == 7

    api.export(rows=9)
    changed = api.ask(**DATES)["body"]
    assert (changed["id"] != first["id"], changed["status"]) == (True, "queued")
    api.work()
    assert api.status(changed["id"])["body"]["rows"] == 9


def test_a_day_beside_the_range_changes_nothing() -> None:
    api = Api()
    api.export()
    before = api.ask(**DATES)["body"]["id"]

    api.export(date(2025, 11, 22))

    assert api.ask(**DATES)["body"]["id"] == before


@pytest.mark.parametrize("days", [7, 8, 31])
def test_the_find_manifests_a_range_are_found_in_all_formats_and_no_others(days: int) -> None:
    bucket = Bucket()
    asked = Days(date(2025, 12, 31) - timedelta(days=days - 1), date(2025, 12, 31))
    for kind in Format:
        for day in (*asked, asked.first - timedelta(days=1), date(2026, 1, 1)):
            bucket[archive.folder(day, kind) + archive.MANIFEST] = str(day).encode()
            bucket[f"{archive.folder(day, kind)}part-00000.{kind}"] = b""

    found = find_manifests(asked, bucket)

    assert sorted(item.key for item in found) == sorted(
        archive.folder(day, kind) + archive.MANIFEST for day in asked for kind in Format
    )


OTHERS: list[dict[str, Any]] = [
    {"format": "jsonl"},
    {"cells": "exact"},
    {"columns": ["time"]},
    {"columns": ["time", "route"]},
    {"columns": ["route", "time"]},
    {"client": "a"},
    {"route": "a"},
    {"client": "a", "route": "a"},
    {"end_date": "2025-11-20"},
]


def test_other_requests_have_other_zips() -> None:
    api = Api()

    identities = {api.post({**DATES, **other})["body"]["id"] for other in [{}, *OTHERS]}

    assert len(identities) == len(OTHERS) + 1


@pytest.mark.parametrize(
    ("state", "age", "sent"),
    [
        (State.QUEUED, timedelta(seconds=59), 0),
        (State.QUEUED, timedelta(seconds=60), 1),
        (State.RUNNING, timedelta(seconds=299), 0),
        (State.RUNNING, timedelta(seconds=300), 1),
    ],
)
def test_a_download_that_does_not_get_on_is_sent_again_and_goes_on_where_it_is(
    state: State, age: timedelta, sent: int
) -> None:
    api = Api()
    identity = api.ask(**DATES)["body"]["id"]
    api.sent.clear()
    job = read_job(api.bucket, identity)
    assert job is not None
    write_job(api.bucket, job.becoming(state, done_bytes=3, total_bytes=9))
    api.now += age

    answer = api.ask(**DATES)["body"]

    assert (answer["id"], answer["status"], len(api.sent)) == (identity, state, sent)
    assert answer["progress"] == 0.33


@pytest.mark.parametrize("state", [State.QUEUED, State.RUNNING])
def test_who_waits_at_the_status_address_need_not_ask_again_for_what_does_not_get_on(state: State) -> None:
    api = Api()
    api.export()
    identity = api.ask(**DATES)["body"]["id"]
    api.sent.clear()  # and the worker was killed
    job = read_job(api.bucket, identity)
    assert job is not None
    write_job(api.bucket, job.becoming(state))

    for _ in range(7):
        assert api.status(identity)["body"]["status"] == state
        api.now += timedelta(minutes=1)
    assert 0 < len(api.sent) < 7
    api.work()

    assert api.status(identity)["body"]["status"] == "ready"
    assert api.sent == []


def test_a_zip_that_is_gone_or_nearly_so_is_made_again() -> None:
    api = Api()
    identity = api.ask(**DATES)["body"]["id"]
    api.work()
    del api.bucket[zip_key(identity)]
    assert api.ask(**DATES)["body"]["status"] == "queued"
    api.work()
    api.now += timedelta(hours=21)
    assert api.ask(**DATES)["body"]["status"] == "empty"
    api.now += timedelta(hours=2)
    assert api.ask(**DATES)["body"]["status"] == "queued"


def test_a_link_says_how_long_it_is_good_and_is_not_longer_than_the_zip_is_there() -> None:
    api = Api()
    asked = api.ask(**DATES)["body"]
    assert datetime.fromisoformat(asked["expires_at"]) - NOW == timedelta(seconds=600)
    assert "seconds=600" in asked["download_link"]
    api.work()

    api.now += timedelta(hours=23, minutes=55)

    late = api.status(asked["id"])["body"]
    assert datetime.fromisoformat(late["expires_at"]) - NOW == timedelta(days=1)
    assert "seconds=300" in late["download_link"]


def test_a_zip_that_took_hours_is_there_a_day_from_its_beginning() -> None:
    api = Api()
    asked = api.ask(**DATES)["body"]
    job = read_job(api.bucket, asked["id"])
    assert job is not None
    begin(job, api.bucket, Budget(lambda: 900, now=api.timestamp))
    api.now += timedelta(hours=3)
    api.work()

    api.now = NOW + timedelta(hours=23, minutes=55)

    # https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingMetadata.html: an object that was uploaded in
    # parts is as old as its upload.
    assert "seconds=300" in api.status(asked["id"])["body"]["download_link"]
    assert api.ask(**DATES)["body"]["status"] == "queued"


class Between(Bucket):
    """A bucket in which something is done between a read of a job and what follows."""

    def __init__(self, content: Bucket, done: Callable[[], object]) -> None:
        super().__init__(content)
        self.done: Callable[[], object] | None = done

    def read(self, key: str) -> tuple[bytes, str] | None:
        found = super().read(key)
        if key.startswith("tmp/") and found is not None and self.done:
            done, self.done = self.done, None
            done()
        return found


@pytest.mark.parametrize("method", ["ask", "status"])
def test_a_job_that_ends_while_the_api_looks_stays_ended(method: str) -> None:
    api = Api()
    api.export()
    identity = api.ask(**DATES)["body"]["id"]
    api.now += timedelta(minutes=1)  # the API would send it again
    api.bucket = Between(api.bucket, api.work)
    api.make()

    body = api.ask(**DATES)["body"] if method == "ask" else api.status(identity)["body"]

    assert (body["status"], body["rows"], api.sent) == ("ready", 7, [])
    assert api.status(identity)["body"]["status"] == "ready"


def test_a_job_that_is_deleted_while_the_api_looks_stays_deleted() -> None:
    api = Api()
    identity = api.ask(**DATES)["body"]["id"]
    api.now += timedelta(minutes=1)
    api.sent.clear()
    api.bucket = Between(api.bucket, lambda: api.delete(identity))
    api.make()

    assert api.status(identity)["statusCode"] == 404
    assert (list(api.bucket.keys("tmp/")), api.sent) == ([deleted_key(identity)], [])


# --- deleted, and whose -----------------------------------------------------------------------------------


@pytest.mark.parametrize("made_first", [False, True])
def test_a_download_that_is_deleted_is_gone_finished_or_not(made_first: bool) -> None:
    api = Api()
    api.export()
    before = dict(api.bucket)
    identity = api.ask(**DATES)["body"]["id"]
    if made_first:
        api.work()

    assert api.delete(identity)["statusCode"] == 204

    before[deleted_key(identity)] = b"{}"
    assert dict(api.bucket) == before
    assert (api.status(identity)["statusCode"], api.delete(identity)["statusCode"]) == (404, 404)
    assert api.work() == {"batchItemFailures": []}
    assert (dict(api.bucket), api.bucket.uploads) == (before, {})


def test_links_to_what_was_deleted_stay_without_a_zip_when_the_same_is_requested_again() -> None:
    api = Api()
    api.export()
    seen: list[str] = []
    for _ in range(3):
        made = api.ask(**DATES)["body"]
        assert api.ask(**DATES)["body"]["id"] == made["id"], "as long as it is not deleted"
        api.work()
        assert [f"tmp/{identity}.zip" in api.bucket for identity in [*seen, made["id"]]] == [
            *[False] * len(seen),
            True,
        ]
        assert api.delete(made["id"])["statusCode"] == 204
        seen.append(made["id"])
    assert len(set(seen)) == 3


def test_deleting_gives_up_what_a_worker_has_begun() -> None:
    api = Api()
    api.export()
    identity = api.ask(**DATES)["body"]["id"]
    job = read_job(api.bucket, identity)
    assert job is not None
    begin(job, api.bucket, Budget(lambda: 900))

    api.delete(identity)

    assert api.bucket.uploads == {}
    assert [key for key in api.bucket if key.startswith("tmp/")] == [deleted_key(identity)]


def tenant(api: Api, name: str | None) -> Api:
    """Return the same API as somebody else sees it."""
    other = Api(tenant_claim="client_id", claims={} if name is None else {"client_id": name})
    other.bucket.update(api.bucket)
    return other


def test_a_tenant_gets_their_own_rows_whatever_they_ask_for() -> None:
    api = Api(tenant_claim="client_id", claims={"client_id": "acme"})
    rows = b"time,client,note\n1,acme,a\n2,zeta,b\n3,acme,c\n"

    put_day(api.bucket, DAY, rows)
    identities = [api.post(body)["body"]["id"] for body in (DATES, {**DATES, "client": "acme"})]
    api.work()

    files, manifest = read(api.bucket[zip_key(identities[0])])
    assert files == {"2025-11-20-part-00000.csv": b"time,client,note\n1,acme,a\n3,acme,c\n"}
    # Nor does the manifest tell how many rows others have.
    assert (manifest["rows"], manifest["days"][0]["rows"], manifest["files"][0]["rows"]) == (2, 2, 2)
    assert identities[0] == identities[1]
    assert api.status(identities[0])["body"]["client"] == "acme"


def test_a_tenant_may_not_ask_for_anothers_rows() -> None:
    response = Api(tenant_claim="client_id", claims={"client_id": "acme"}).post({**DATES, "client": "zeta"})

    assert (response["statusCode"], response["body"]["title"]) == (403, "Forbidden")
    assert "'zeta'" in response["body"]["detail"]


@pytest.mark.parametrize(
    "claims",
    [
        None,
        {},
        {"client_id": ""},
        {"client": "acme"},
        {"client_id": "x" * (openapi.MAX_VALUE + 1)},
        {"client_id": "\ud800"},
        {"client_id": ["acme"]},
        {"client_id": True},
    ],
)
@pytest.mark.parametrize("method", ["ask", "status", "delete"])
def test_who_has_no_claim_that_names_a_client_gets_nothing(
    method: str, claims: dict[str, Any] | None
) -> None:
    api = Api(tenant_claim="client_id", claims=claims)

    response = api.ask(**DATES) if method == "ask" else getattr(api, method)(ID)

    assert response["statusCode"] == 403
    assert "'client_id'" in response["body"]["detail"]
    assert api.sent == []


@pytest.mark.parametrize("method", ["status", "delete"])
def test_a_download_is_there_for_its_tenant_only(method: str) -> None:
    acme = Api(tenant_claim="client_id", claims={"client_id": "acme"})
    identity = acme.ask(**DATES)["body"]["id"]

    assert getattr(tenant(acme, "zeta"), method)(identity)["statusCode"] == 404
    assert getattr(tenant(acme, "acme"), method)(identity)["statusCode"] in (200, 204)
    assert tenant(acme, "zeta").ask(**DATES)["body"]["id"] != identity


def test_tokens_that_name_no_client_give_nothing_unless_all_may_have_all() -> None:
    claims = {"sub": "someone"}

    closed = Api(claims=claims).ask(**DATES)
    everyone = Api(tenant_claim="*", claims=claims).ask(**DATES)

    assert (closed["statusCode"], everyone["statusCode"]) == (403, 202)
    assert "TenantClaim" in closed["body"]["detail"]


def acme(**more: Any) -> Api:
    api = Api(tenant_claim="client_id", claims={"client_id": "acme", "sub": "user-1"}, **more)
    put_day(
        api.bucket, DAY, b"time,client,note,source\n1,acme,a,/aws/lambda/x\n2,zeta,b,/aws/lambda/x\n" * 500
    )
    return api


def test_a_tenant_gets_the_columns_that_are_allowed_and_no_others() -> None:
    api = acme(tenant_columns=("time", "client", "other"))
    identity = api.ask(**DATES)["body"]["id"]
    api.work()

    files, _ = read(api.bucket[zip_key(identity)])
    assert next(iter(files.values())).startswith(b"time,client\n1,acme\n1,acme\n")
    refused = api.post({**DATES, "columns": ["time", "source"]})
    assert (refused["statusCode"], refused["body"]["detail"]) == (
        403,
        "columns has 'source', and you may have time, client, other only",
    )
    missing = api.post({**DATES, "columns": ["other"]})["body"]["id"]
    api.work()
    assert api.status(missing)["body"]["reason"] == "no day has a column 'other'"


def test_a_tenant_learns_a_share_of_the_work_and_not_how_much_others_have() -> None:
    api = acme(limits=DownloadLimits(10, 20))
    identity = "f" * 32
    request = Request(Days(DAY, DAY), tenant="acme")
    write_job(api.bucket, Job(identity, request, State.RUNNING, int(NOW.timestamp()), 700, 1_000))

    assert api.status(identity)["body"]["progress"] == 0.7
    refused = api.ask(**DATES)
    assert (refused["statusCode"], refused["body"]["detail"]) == (
        413,
        "a request may be for at most 10 bytes of the lake; ask for fewer days",
    )


def test_no_answer_is_kept_by_a_cache_and_those_about_unfinished_work_say_when_to_look() -> None:
    api = Api()
    asked = api.ask(**DATES)
    identity = asked["body"]["id"]
    waiting = api.status(identity)
    api.work()
    answers = [asked, waiting, api.status(identity), api.ask(), api.delete(identity), api.status(identity)]

    assert {answer["headers"]["Cache-Control"] for answer in answers} == {"no-store"}
    assert [answer["headers"].get("Retry-After") for answer in answers] == ["1", "1", *[None] * 4]


# --- limits ---------------------------------------------------------------------------------------------


def test_a_tenant_has_so_many_downloads_in_progress_and_then_has_to_wait() -> None:
    api = acme(limits=DownloadLimits(10**12, 3))
    made = [api.post({**DATES, "route": f"/{number}"}) for number in range(200)]

    assert [answer["statusCode"] for answer in made] == [202] * 3 + [429] * 197
    assert (len(api.sent), made[-1]["headers"]["Retry-After"]) == (3, "30")
    assert "3 downloads are in progress, and at most 3 may be" in made[-1]["body"]["detail"]
    # The same again is not one more, and others are not affected.
    assert api.post({**DATES, "route": "/1"})["statusCode"] == 202
    api.claims = {"client_id": "zeta"}
    assert api.post(DATES)["statusCode"] == 202
    api.claims = {"client_id": "acme"}
    api.delete(made[0]["body"]["id"])
    assert api.post({**DATES, "route": "/new"})["statusCode"] == 202
    api.work()
    assert [api.post({**DATES, "route": f"/{number}"})["statusCode"] for number in range(10, 14)] == [
        202
    ] * 3 + [429]


def test_a_marker_that_was_left_behind_does_not_count() -> None:
    api = Api(limits=DownloadLimits(10**12, 1))
    api.ask(**DATES)
    (marker,) = api.bucket.keys("tmp/active/")
    api.work()
    api.bucket[marker] = b"{}"

    assert api.ask(start_date="2025-11-20", end_date="2025-11-20")["statusCode"] == 202
    assert marker not in api.bucket


def test_a_request_for_more_than_a_download_may_have_is_refused_with_the_limit() -> None:
    api = Api()
    api.export()
    manifest = Manifest.from_json(api.bucket[archive.folder(DAY) + archive.MANIFEST])
    (part,) = manifest.parts
    replaced = f"{archive.folder(DAY)}part-00000-r0.csv.gz"
    api.bucket[replaced] = b""
    api.bucket.sizes[replaced] = 10**9

    api.limits = DownloadLimits(part.bytes, 20)
    api.make()
    assert api.ask(**DATES)["statusCode"] == 202, "a file that no manifest names is not counted"
    api.limits = DownloadLimits(part.bytes - 1, 20)
    api.make()
    refused = api.post({**DATES, "route": "/"})

    assert refused["statusCode"] == 413
    assert refused["body"]["detail"] == (
        f"the lake's files of these days have {part.bytes} bytes: a request may be for at most"
        f" {part.bytes - 1} bytes of the lake; ask for fewer days"
    )


def test_days_in_the_archive_are_named_at_once() -> None:
    api = Api()
    for number in (0, 1, 2, 4):
        api.export(date(2025, 11, 17) + timedelta(days=number))
    first, second, other = (
        Manifest.from_json(api.bucket[archive.folder(date(2025, 11, day)) + archive.MANIFEST]).parts[0].key
        for day in (17, 18, 21)
    )
    replaced = f"{archive.folder(date(2025, 11, 19))}part-00000-r0.csv.gz"
    api.bucket[replaced] = b""
    api.bucket.archived |= {first, second, other, replaced}

    refused = api.ask(start_date="2025-11-17", end_date="2025-11-21")

    assert (refused["statusCode"], refused["body"]["detail"]) == (
        409,
        "in the archive are 2025-11-17 to 2025-11-18, 2025-11-21: restore these days, or ask for others",
    )
    assert refused["body"]["days"] == ["2025-11-17", "2025-11-18", "2025-11-21"]
    assert api.sent == []
    # A file that was replaced is in nobody's way, and a restored one neither.
    assert api.ask(start_date="2025-11-19", end_date="2025-11-20")["statusCode"] == 202
    api.bucket.archived.clear()
    assert api.ask(start_date="2025-11-17", end_date="2025-11-21")["statusCode"] == 202


@pytest.mark.parametrize(
    ("asked", "had_as"),
    [
        ({}, "csv"),
        ({"format": "jsonl"}, "jsonl"),
        ({"format": "any", "route": "/pets"}, "any with a selection"),
        ({"format": "parquet", "columns": ["time"]}, "parquet with a selection"),
    ],
)
def test_days_in_formats_that_do_not_serve_are_named_at_once(asked: dict[str, Any], had_as: str) -> None:
    api = Api()
    api.export(date(2025, 11, 17))
    for number in (18, 19):
        api.export(date(2025, 11, number), kind=Format.PARQUET)
    empty = Day(api.bucket, date(2025, 11, 20), Format.PARQUET)
    empty.commit(Manifest(empty.date, 1, FIRST_COLUMNS, (), Format.PARQUET), None, NOW)
    if asked.get("format") == "parquet":
        del api.bucket[archive.folder(date(2025, 11, 17)) + archive.MANIFEST]

    days = {"start_date": "2025-11-17", "end_date": "2025-11-20"}

    refused = api.post(days | asked)

    assert refused["statusCode"] == 409
    assert refused["body"]["detail"] == (
        f"2025-11-18 to 2025-11-19 cannot be downloaded as {had_as}: the lake has these days in other"
        " formats; ask for others, or for format any without columns, client and route"
    )
    assert refused["body"]["days"] == ["2025-11-18", "2025-11-19"]
    assert api.sent == []
    assert api.post(days | {"format": "any"})["statusCode"] == 202


def test_many_days_in_a_message_are_cut_after_some_ranges() -> None:
    days = [date(2025, 1, 1) + timedelta(days=2 * number) for number in range(9)]

    assert ranges(days) == "2025-01-01, 2025-01-03, 2025-01-05, 2025-01-07, 2025-01-09, and 4 more days"


# --- audited ----------------------------------------------------------------------------------------------


def test_each_request_link_and_delete_leaves_a_line_that_says_who_and_what() -> None:
    api = acme(tenant_columns=("time", "client"))
    body = api.post({**DATES, "route": "/pets", "columns": ["time"]})["body"]
    api.status(body["id"])
    api.work()
    linked = api.status(body["id"])["body"]
    api.delete(body["id"])
    api.delete(body["id"])
    api.ask()

    assert [line["action"] for line in api.audited] == ["request", "link", "delete"]
    assert api.audited[0] == {
        "time": NOW.isoformat(),
        "action": "request",
        "caller": "user-1",
        "tenant": "acme",
        "source_ip": "192.0.2.1",
        "request_id": api.audited[0]["request_id"],
        "job": body["id"],
        "start_date": "2025-11-20",
        "end_date": "2025-11-21",
        "format": "csv",
        "cells": "safe",
        "columns": ["time"],
        "filters": {"client": "acme", "route": "/pets"},
        "expires_at": "2025-11-22T12:10:00+00:00",
    }
    assert api.audited[0]["request_id"]
    assert api.audited[2]["expires_at"] is None
    # No line has a secret.
    assert linked["download_link"] not in json.dumps(api.audited)


def test_a_request_whose_line_cannot_be_written_gets_no_link() -> None:
    class Full(list[Any]):
        def append(self, line: Any) -> None:  # noqa: ARG002 - a list's signature
            raise OSError("the audit line was refused")

    api = Api()
    api.audited = Full()
    api.make()

    with pytest.raises(OSError, match="refused"):
        api.ask(**DATES)


# --- erased -----------------------------------------------------------------------------------------------


def test_no_zip_and_no_beginning_of_one_that_may_have_a_forgotten_clients_rows_stays() -> None:
    api = Api()
    put_day(api.bucket, DAY, b"time,client\n1,acme\n2,zeta\n")
    asked = {**DATES, "end_date": DATES["start_date"]}
    requests: dict[str, dict[str, Any]] = {
        "all": {},
        "theirs": {"client": "acme"},
        "others": {"client": "zeta"},
        "begun": {"columns": ["client"]},
    }
    made = {name: api.post({**asked, **wanted})["body"]["id"] for name, wanted in requests.items()}
    begun = made.pop("begun")
    api.sent.pop()
    api.work()
    job = read_job(api.bucket, begun)
    assert job is not None
    begin(job, api.bucket, Budget(lambda: 900))
    api.bucket[tail_key(begun)] = b"1,acme"

    assert delete_jobs_of("acme", api.bucket) == 3

    assert sorted(api.bucket.keys("tmp/")) == [f"tmp/{made['others']}{end}" for end in (".json", ".zip")]
    assert api.bucket.uploads == {}
    assert api.status(made["all"])["statusCode"] == 404


# --- documents --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "request_",
    [
        Request(Days(DAY, DAY)),
        Request(Days(DAY, DAY), ZipFormat.JSONL, ("a", "é"), "c", "/r", "t", Cells.EXACT, ("a", "b")),
    ],
)
def test_a_job_is_read_back(request_: Request) -> None:
    job = Job(ID, request_, State.READY, 7, 3, 9, 4, 6, "why", "an incident", "a worker", 2)

    assert Job.from_json(job.to_json()) == job
    assert Job.from_json(replace(job, total_bytes=None).to_json()).total_bytes is None


def changed(document: str | bytes, **keys: Any) -> str:
    """Return a document as another version of Tagline would write it."""
    return json.dumps({**json.loads(document), **keys})


def test_a_reader_ignores_keys_that_a_newer_writer_added() -> None:
    job = Job(ID, Request(Days(DAY, DAY)), State.RUNNING, 7)
    plan = ZipPlan(Upload("k", "u"), 5, "maker", 9, ())
    request = {**job.request.to_dict(), "compression": "zstd"}
    upload = {"key": "k", "id": "u", "class": "IA"}

    assert Job.from_json(changed(job.to_json(), priority=3, request=request)) == job
    assert ZipPlan.from_json(changed(plan.to_json(), encryption="none", upload=upload).encode()) == plan


def test_a_plan_of_many_days_has_their_columns_once_and_an_older_one_is_read() -> None:
    columns = tuple(Column(f"column_{number:04}", "text") for number in range(1_000))
    days = [DAY + timedelta(days=number) for number in range(366)]
    manifests = tuple(Manifest(day, 1, columns[: 999 + (day > DAY)], ()) for day in days)
    plan = ZipPlan(Upload("k", "u"), 5, "maker", 9, manifests)

    document = plan.to_json()
    read = ZipPlan.from_json(document)

    # It was 24 MB.
    assert len(document) < 1_000_000
    assert read == plan
    assert len({id(manifest.columns) for manifest in read.manifests}) == 2
    older = [json.loads(manifest.to_json()) for manifest in manifests]
    assert ZipPlan.from_json(changed(document, format_version=1, manifests=older).encode()) == plan


def test_a_document_from_before_versions_is_read() -> None:
    job = Job(ID, Request(Days(DAY, DAY)))
    document = json.loads(job.to_json())

    assert document.pop("format_version") == 1
    assert Job.from_json(json.dumps(document)) == job


NEWER = (
    "download's job has format_version 2, and this Tagline reads versions up to 1: deploy the Tagline that"
)


def test_a_job_of_a_newer_format_is_refused_by_the_api_and_left_as_it_is() -> None:
    api = Api()
    api.export()
    identity = api.ask(**DATES)["body"]["id"]
    job = read_job(api.bucket, identity)
    assert job is not None
    newer = changed(job.to_json(), format_version=2).encode()
    api.bucket[f"tmp/{identity}.json"] = newer

    for answer in (api.ask(**DATES), api.status(identity), api.delete(identity)):
        assert answer["statusCode"] == 500
        assert NEWER in answer["body"]["detail"]
    assert api.bucket[f"tmp/{identity}.json"] == newer
    # Its zip may have anyone's rows.
    assert delete_jobs_of("acme", api.bucket) == 1


def test_a_job_of_a_newer_format_is_refused_by_the_worker_so_that_its_message_comes_again() -> None:
    api = Api()
    identity = api.ask(**DATES)["body"]["id"]
    job = read_job(api.bucket, identity)
    assert job is not None
    api.bucket[f"tmp/{identity}.json"] = changed(job.to_json(), format_version=2).encode()

    with pytest.raises(NewerDocumentError, match=NEWER):
        api.work()


@pytest.mark.parametrize(("key", "what"), [(plan_key, "the zip's plan"), (cursor_key, "the zip's cursor")])
def test_a_zip_that_a_newer_tagline_has_begun_fails_with_the_reason(
    key: Callable[[str], str], what: str
) -> None:
    api = Api()
    api.export()
    identity = api.ask(**DATES)["body"]["id"]
    job = read_job(api.bucket, identity)
    assert job is not None
    plan = begin(job, api.bucket, Budget(lambda: 900))
    document = plan.to_json() if key is plan_key else Cursor(plan.upload.id).to_json()
    api.bucket[key(identity)] = changed(document, format_version=99).encode()

    api.work()

    failed = api.status(identity)["body"]
    assert failed["status"] == "failed"
    assert f"{what} has format_version 99" in failed["reason"]


def test_the_api_describes_itself() -> None:
    response = Api().call("GET /openapi.json", "/openapi.json")

    assert response["statusCode"] == 200
    assert response["body"] == json.loads(json.dumps(openapi.document(31)))
