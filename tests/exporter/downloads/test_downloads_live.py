"""The download API as it is deployed, on one machine: over HTTP, with its queue, its worker and its links."""

import io
import json
import zipfile
from datetime import UTC, date, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit, urlunsplit

import boto3
import requests
from onemachine.pipeline import Pipeline

from consumers.bucket import Bucket, client_config
from exporter.lake import manifest as archive
from tests.exporter.zips.test_zipper import lines, put_day
from tests.twins import Bucket as Twin

TIMEOUT_S = 60


# When the tests began: midnight may pass while they run, and what is past stays past.
YESTERDAY = datetime.now(UTC).date() - timedelta(days=1)


def put_lake(pipeline: Pipeline, day: date) -> None:
    made = Twin()
    put_day(made, day, lines(0, 30))
    client = pipeline.client("s3")
    for key, body in made.items():
        client.put_object(Bucket=pipeline.outputs["tagline"]["Bucket"], Key=key, Body=body)


def ask(pipeline: Pipeline, **wanted: Any) -> dict[str, Any]:
    day = YESTERDAY.isoformat()
    url = f"{pipeline.outputs['tagline']['DownloadUrl']}/downloads"
    response = requests.post(url, json={"start_date": day, "end_date": day, **wanted}, timeout=TIMEOUT_S)
    answer: dict[str, Any] = response.json()
    assert response.ok, answer
    return answer


def ready(pipeline: Pipeline, **wanted: Any) -> dict[str, Any]:
    put_lake(pipeline, YESTERDAY)
    asked = ask(pipeline, **wanted)
    pipeline.settle()
    answer: dict[str, Any] = requests.get(asked["status_url"], timeout=TIMEOUT_S).json()
    assert answer["status"] == "ready", answer
    return answer


def test_a_part_of_the_records_is_asked_for_waited_for_and_fetched(tagline: Pipeline) -> None:
    answer = ready(tagline, client="zeta", columns=["client", "time"])

    fetched = requests.get(answer["download_link"], timeout=TIMEOUT_S)

    day = YESTERDAY.isoformat()
    assert fetched.headers["content-disposition"] == f'attachment; filename="usage_{day}_{day}.zip"'
    with zipfile.ZipFile(io.BytesIO(fetched.content)) as made:
        assert made.testzip() is None
        rows = made.read(f"{day}-part-00000.csv").decode().splitlines()
    assert (rows[0], len(rows) - 1, answer["rows"]) == ("client,time", 10, 10)
    assert {row.partition(",")[0] for row in rows[1:]} == {"zeta"}


def test_a_link_is_there_before_its_zip_and_works_once_it_is_there(tagline: Pipeline) -> None:
    put_lake(tagline, YESTERDAY)
    link = ask(tagline)["download_link"]
    tagline.settle()

    assert requests.get(link, timeout=TIMEOUT_S).ok


def test_a_link_that_is_tampered_with_is_refused(tagline: Pipeline) -> None:
    answer = ready(tagline)
    link = urlsplit(answer["download_link"])
    query = {name: values[0] for name, values in parse_qs(link.query).items()}
    lake = f"/{tagline.outputs['tagline']['Bucket']}/{archive.folder(YESTERDAY)}{archive.MANIFEST}"
    tampered = {
        "another object": link._replace(path=lake),
        "a longer time": link._replace(query=urlencode({**query, "X-Amz-Expires": "604800"})),
        "another token": link._replace(query=urlencode({**query, "X-Amz-Security-Token": "x"})),
        "another name": link._replace(query=urlencode({**query, "response-content-disposition": "inline"})),
    }

    for what, each in tampered.items():
        response = requests.get(urlunsplit(each), timeout=TIMEOUT_S)
        assert response.status_code == 403, what
        assert "<Code>SignatureDoesNotMatch</Code>" in response.text, what


def test_a_link_of_a_stranger_is_refused(tagline: Pipeline) -> None:
    answer = ready(tagline)
    stranger = boto3.client(
        "s3",
        endpoint_url=tagline.services.endpoint,
        aws_access_key_id="AKIASTRANGER",
        aws_secret_access_key="of their own",
        config=client_config(),
    )
    target = {"Bucket": tagline.outputs["tagline"]["Bucket"], "Key": f"tmp/{answer['id']}.zip"}

    response = requests.get(stranger.generate_presigned_url("get_object", Params=target), timeout=TIMEOUT_S)

    assert response.status_code == 403
    assert "<Code>InvalidAccessKeyId</Code>" in response.text


def test_a_link_ends_when_its_answer_says_and_the_status_gives_a_new_one(tagline: Pipeline) -> None:
    answer = ready(tagline)
    until = datetime.fromisoformat(answer["expires_at"])
    left = until - datetime.now(UTC)
    assert timedelta(minutes=29) < left <= timedelta(hours=1)

    tagline.advance(left - timedelta(minutes=5))
    assert requests.get(answer["download_link"], timeout=TIMEOUT_S).ok
    tagline.advance(timedelta(minutes=10))

    old = requests.get(answer["download_link"], timeout=TIMEOUT_S)
    assert (old.status_code, "expired" in old.text) in ((403, True), (400, True))
    again = requests.get(answer["status_url"], timeout=TIMEOUT_S).json()
    assert requests.get(again["download_link"], timeout=TIMEOUT_S).ok


def test_what_is_deleted_is_gone(tagline: Pipeline) -> None:
    answer = ready(tagline)

    assert requests.delete(answer["status_url"], timeout=TIMEOUT_S).status_code == 204

    assert requests.get(answer["status_url"], timeout=TIMEOUT_S).status_code == 404
    # S3 answers 404 to who may list the bucket, as the signer may; moto sometimes 403.
    assert requests.get(answer["download_link"], timeout=TIMEOUT_S).status_code in (403, 404)


def test_a_message_that_is_delivered_twice_makes_one_zip(tagline: Pipeline) -> None:
    for mapping in tagline.mappings:
        mapping.redeliver(1)

    answer = ready(tagline)

    assert requests.get(answer["download_link"], timeout=TIMEOUT_S).ok
    bucket = Bucket(tagline.client("s3"), tagline.outputs["tagline"]["Bucket"])
    assert sorted(bucket.keys("tmp/")) == [f"tmp/{answer['id']}.json", f"tmp/{answer['id']}.zip"]


def test_the_audit_log_has_who_asked_got_a_link_and_deleted(tagline: Pipeline) -> None:
    answer = ready(tagline, client="zeta")
    requests.delete(answer["status_url"], timeout=TIMEOUT_S)

    group = tagline.outputs["tagline"]["DownloadAuditLogGroup"]
    events = tagline.client("logs").filter_log_events(logGroupName=group)["events"]
    lines = [json.loads(event["message"]) for event in events]
    of_job = [line for line in lines if line["job"] == answer["id"]]
    assert [line["action"] for line in of_job] == ["request", "link", "delete"]
    assert of_job[1]["filters"] == {"client": "zeta"}
    assert of_job[1]["source_ip"] == "127.0.0.1"
    assert "X-Amz-Signature" not in json.dumps(lines)
