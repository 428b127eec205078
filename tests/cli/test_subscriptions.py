"""`tagline subscribe` and `unsubscribe`: log groups by name, prefix or tag, and what is not replaced."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from onemachine.services import Services
from typer.testing import CliRunner

from cli import target as targets
from cli.main import app
from cli.subscriptions import subscribe
from cli.target import Target

ROLE = "arn:aws:iam::123456789012:role/subscriptions"
GROUPS = (
    "/aws/lambda/shop-api",
    "/aws/lambda/shop-jobs",
    "/aws/lambda/other",
    "/tagline/tagline/RowConsumer",
)


@pytest.fixture
def target(monkeypatch: pytest.MonkeyPatch) -> Iterator[Target]:
    services = Services()
    try:
        kinesis, logs = services.client("kinesis"), services.client("logs")
        for name in ("lines", "others"):
            kinesis.create_stream(StreamName=name, ShardCount=1)
        for group in GROUPS:
            logs.create_log_group(logGroupName=group)
        logs.tag_log_group(logGroupName="/aws/lambda/other", tags={"team": "shop", "stage": "prod"})
        logs.tag_log_group(logGroupName="/aws/lambda/shop-api", tags={"team": "shop"})
        arn = "arn:aws:kinesis:us-east-1:123456789012:stream/lines"
        found = Target(services.endpoint, {"StreamArn": arn, "SubscriptionRoleArn": ROLE}, {}, tag="my_tag")
        monkeypatch.setattr(targets, "running_target", lambda: found)
        yield found
    finally:
        services.stop()


def ran(*arguments: str) -> tuple[int, list[dict[str, Any]]]:
    done = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False)
    return done.exit_code, [json.loads(line) for line in done.stdout.splitlines()]


def listed() -> dict[str, str]:
    return {each["group"]: each["pattern"] for each in ran("subscribe", "--list")[1]}


def put(target: Target, group: str, stream: str, pattern: str, name: str) -> None:
    target.client("logs").put_subscription_filter(
        logGroupName=group,
        filterName=name,
        filterPattern=pattern,
        destinationArn=f"arn:aws:kinesis:us-east-1:123456789012:stream/{stream}",
        roleArn=ROLE,
    )


@pytest.mark.parametrize(
    ("chosen", "groups"),
    [
        (["/aws/lambda/other"], ["/aws/lambda/other"]),
        (["--prefix", "/aws/lambda/shop-"], ["/aws/lambda/shop-api", "/aws/lambda/shop-jobs"]),
        (["--tag", "team=shop"], ["/aws/lambda/other", "/aws/lambda/shop-api"]),
        (["--tag", "team=shop", "--tag", "stage=prod"], ["/aws/lambda/other"]),
        (["--prefix", "/"], sorted(GROUPS[:3])),
    ],
)
def test_groups_are_chosen_subscribed_and_unsubscribed(
    chosen: list[str], groups: list[str], target: Target
) -> None:
    code, outcomes = ran("subscribe", *chosen, "--dry-run")
    assert (code, sorted(each["group"] for each in outcomes)) == (0, groups)
    assert listed() == {}

    assert ran("subscribe", *chosen)[0] == 0
    assert listed() == dict.fromkeys(groups, '"my_tag"')
    (found,) = target.client("logs").describe_subscription_filters(logGroupName=groups[0])[
        "subscriptionFilters"
    ]
    assert (found["distribution"], found["roleArn"]) == ("Random", ROLE)
    code, outcomes = ran("subscribe", *chosen)
    assert (code, {each["text"] for each in outcomes}) == (0, {"is subscribed already, by tagline-subscribe"})

    assert ran("unsubscribe", *chosen, "--dry-run")[0] == 0
    assert sorted(listed()) == groups
    assert ran("unsubscribe", *chosen)[0] == 0
    assert listed() == {}
    assert ran("unsubscribe", *chosen)[1][0]["text"] == "is not subscribed"


def test_a_filter_of_the_stack_gives_the_pattern_and_is_not_taken_away(target: Target) -> None:
    put(target, "/aws/lambda/other", "lines", '?"my_tag" ?"meter"', "tagline-Subscription-1")
    assert ran("subscribe", "/aws/lambda/shop-api")[0] == 0
    assert listed()["/aws/lambda/shop-api"] == '?"my_tag" ?"meter"'

    code, (outcome,) = ran("unsubscribe", "/aws/lambda/other")
    assert (code, "LogGroups" in outcome["text"]) == (1, True)
    assert "/aws/lambda/other" in listed()


def test_conflicts_are_shown_and_nothing_is_replaced(target: Target) -> None:
    put(target, "/aws/lambda/other", "lines", '"old"', "mine")
    put(target, "/aws/lambda/shop-api", "lines", '"my_tag"', "a")
    put(target, "/aws/lambda/shop-jobs", "lines", '"my_tag"', "b")
    code, (outcome,) = ran("subscribe", "/aws/lambda/other")
    assert (code, outcome["text"]) == (
        1,
        'refused: mine is there with the pattern "old": unsubscribe it first',
    )
    assert listed()["/aws/lambda/other"] == '"old"'

    code, (outcome,) = ran("subscribe", "/tagline/tagline/RowConsumer")
    assert (code, "would feed the pipeline" in outcome["text"]) == (1, True)


def test_a_group_with_as_many_filters_as_it_may_have_is_refused_with_their_names(target: Target) -> None:
    for name in ("first", "second", "third", "fourth", "fifth"):
        put(target, "/aws/lambda/other", "others", "", name)
    code, (outcome,) = ran("subscribe", "/aws/lambda/other")
    assert code == 1
    assert "first into arn:aws:kinesis" in outcome["text"]
    assert "fifth into" in outcome["text"]


class Classed:
    """A client of CloudWatch Logs that tells each log group's class, as AWS's does and moto does not."""

    def __init__(self, logs: Any) -> None:
        self._logs = logs

    def __getattr__(self, name: str) -> Any:
        return getattr(self._logs, name)

    def get_paginator(self, name: str) -> Any:
        pages = self._logs.get_paginator(name)

        class Paginator:
            def paginate(self, **asked: Any) -> Iterator[Any]:
                for page in pages.paginate(**asked):
                    groups = [{**group, "logGroupClass": "INFREQUENT_ACCESS"} for group in page["logGroups"]]
                    yield {**page, "logGroups": groups}

        return Paginator()


class OfClass(Target):
    """A pipeline in an account whose log groups are all for infrequent access."""

    def client(self, service: str) -> Any:
        client = Target.client(self, service)
        return Classed(client) if service == "logs" else client


def test_a_group_of_another_class_is_refused(target: Target) -> None:
    infrequent = OfClass(target.endpoint, target.outputs, {}, tag=target.tag)
    (outcome,) = subscribe(infrequent, ["/aws/lambda/other"], pretend=False)
    assert (outcome.done, "INFREQUENT_ACCESS cannot be subscribed" in outcome.text) == (False, True)
    assert listed() == {}


@pytest.mark.parametrize(
    ("chosen", "problem"),
    [
        (["/aws/lambda/nothing"], "these log groups do not exist: /aws/lambda/nothing"),
        ([], "no log group is chosen"),
        (["--prefix", "/nowhere"], "no log group is chosen"),
        (["--tag", "team"], "--tag team has no ="),
    ],
)
def test_a_choice_of_nothing_is_said(chosen: list[str], problem: str, target: Target) -> None:
    assert target.tag == "my_tag"
    with pytest.raises(Exception, match=problem):
        ran("subscribe", *chosen)
