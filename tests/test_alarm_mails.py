"""A whole pipeline, and the mails of its alarms: traffic and faults go in, mails come out."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from onemachine.pipeline import App, Pipeline
from tagline import Record, write

from cli.apps import ROOT

GROUP = "/aws/lambda/shop"
SHOP = f"Resources: {{Lines: {{Type: AWS::Logs::LogGroup, Properties: {{LogGroupName: {GROUP}}}}}}}\n"


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    path = tmp_path_factory.mktemp("shop") / "template.yml"
    path.write_text(SHOP)
    parameters = {
        "Store": "lake",
        "LogGroups": GROUP,
        "BatchWindowSeconds": "0",
        "AlertEmail": "ops@example.com",
    }
    apps = [App("shop", path), App("tagline", ROOT / "template.yml", parameters)]
    with Pipeline(apps) as pipeline:
        pipeline.client("logs").create_log_stream(logGroupName=GROUP, logStreamName="one")
        pipeline.advance(timedelta(minutes=1))
        yield pipeline


def say(pipeline: Pipeline, *messages: str) -> None:
    """Write lines into the log group of the shop, now, and wait for what comes of them."""
    now_ms = int(pipeline.clock.now().timestamp() * 1000)
    pipeline.client("logs").put_log_events(
        logGroupName=GROUP,
        logStreamName="one",
        logEvents=[{"timestamp": now_ms, "message": message} for message in messages],
    )
    pipeline.settle()


def mails(pipeline: Pipeline, since: int) -> list[str]:
    """Return the subjects of the mails, without the region."""
    sent = pipeline.services.outbox.mails()[since:]
    assert {mail.to for mail in sent} <= {"ops@example.com"}
    return [mail.subject.partition('" in ')[0].replace('"', "") for mail in sent]


def request(pipeline: Pipeline, number: int, status: int) -> str:
    at_ms = int(pipeline.clock.now().timestamp() * 1000)
    fields = {"route": "/pets", "method": "GET", "client": "ada", "status": status, "duration_ms": 20.5}
    return write(Record(f"{number:032x}", at_ms, fields, type="api_request", src="shop", seq=number))


def test_a_bad_release_is_one_mail_and_its_end_another(pipeline: Pipeline) -> None:
    before = len(pipeline.services.outbox.mails())
    number = 0
    for failing in (14, 14, 0, 0):
        statuses = [503] * failing + [200] * (100 - failing)
        say(pipeline, *(request(pipeline, number + place, status) for place, status in enumerate(statuses)))
        number += 100
        pipeline.advance(timedelta(minutes=5))

    critical = [subject for subject in mails(pipeline, before) if "CRITICAL requests" in subject]
    assert critical == ["ALARM: tagline CRITICAL requests", "OK: tagline CRITICAL requests"]
    first = pipeline.services.outbox.mails()[before]
    assert first.subject.startswith('ALARM: "tagline CRITICAL requests"')
    assert "docs/runbook.md" in first.body
    assert "tagline-BurnFast" in first.body


def test_a_line_that_cannot_be_read_is_one_mail(pipeline: Pipeline) -> None:
    before = len(pipeline.services.outbox.mails())
    say(pipeline, '{"_tag": "usage_record", "status": ')
    pipeline.advance(timedelta(minutes=1))
    pipeline.advance(timedelta(minutes=30))
    collection = [subject for subject in mails(pipeline, before) if "collection" in subject]
    assert collection == ["ALARM: tagline WARNING collection", "OK: tagline WARNING collection"]


def test_a_function_that_fails_is_one_mail(pipeline: Pipeline) -> None:
    before = len(pipeline.services.outbox.mails())
    assert pipeline.functions.invoke("tagline-Upkeep", b"{}").error is None
    assert pipeline.functions.invoke("tagline-Upkeep", b'"nothing"').error
    pipeline.advance(timedelta(minutes=1))
    pipeline.advance(timedelta(minutes=30))
    export = [subject for subject in mails(pipeline, before) if "export" in subject]
    assert export == ["ALARM: tagline WARNING export", "OK: tagline WARNING export"]


def test_functions_that_run_and_write_no_record_are_one_mail(pipeline: Pipeline) -> None:
    before = len(pipeline.services.outbox.mails())
    for _ in range(3):
        say(pipeline, "START RequestId: 6f2b Version: $LATEST")
        pipeline.advance(timedelta(minutes=5))
    pipeline.advance(timedelta(minutes=30))
    collection = [subject for subject in mails(pipeline, before) if "collection" in subject]
    assert collection == ["ALARM: tagline CRITICAL collection", "OK: tagline CRITICAL collection"]


def test_the_stack_s_alarms_are_all_evaluated_here(pipeline: Pipeline) -> None:
    assert [each for each in pipeline.not_run if "CloudWatch" in each] == []
    assert Path(ROOT / "docs" / "runbook.md").is_file()
