"""Log groups whose lines go into the stream: which there are, more of them, fewer of them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from cli.errors import CommandError
from cli.target import Target

OWN_GROUPS = "/tagline/"
# What this command makes has this name; the stack's filters have names of CloudFormation.
FILTER_NAME = "tagline-subscribe"


@dataclass(frozen=True, slots=True)
class Subscription:
    """A filter of a log group.

    Attributes:
        group: The log group.
        name: The filter's name.
        pattern: Which lines it selects.
        destination: Where they go: an ARN.
    """

    group: str
    name: str
    pattern: str
    destination: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a log group.

    Attributes:
        group: The log group.
        done: Whether it is now as it was asked for.
        text: What was done, or why nothing was.
    """

    group: str
    done: bool
    text: str


def subscriptions(target: Target) -> Iterator[Subscription]:
    """Yield all filters of all log groups that send lines into the stream."""
    for group in _described(target, ""):
        for found in _filters(target, group):
            if found.destination == target.outputs["StreamArn"]:
                yield found


def account_policies(target: Target) -> Iterator[Subscription]:
    """Yield the account-level policies that send lines into the stream: NewLogGroups makes one."""
    if target.endpoint is not None:  # the services on one machine have none
        return
    answer = target.client("logs").describe_account_policies(policyType="SUBSCRIPTION_FILTER_POLICY")
    for each in answer["accountPolicies"]:
        document = json.loads(each["policyDocument"])
        if document["DestinationArn"] == target.outputs["StreamArn"]:
            group = f"all, {each['selectionCriteria']}" if each.get("selectionCriteria") else "all"
            pattern = document.get("FilterPattern", "")
            yield Subscription(group, each["policyName"], pattern, document["DestinationArn"])


def chosen_groups(target: Target, names: Collection[str], prefix: str, tags: Mapping[str, str]) -> list[str]:
    """Return the log groups that are named, and those that begin with a prefix and have all of some tags.

    Raises:
        CommandError: If a named one does not exist, or none is chosen.
    """
    known = _described(target, "") if names else {}
    unknown = sorted(set(names) - known.keys())
    if unknown:
        raise CommandError(
            f"these log groups do not exist: {', '.join(unknown)}",
            "check the names; Lambda creates a function's log group when the function first runs",
        )
    found = [*names]
    if prefix or tags:
        found += [
            name for name, group in _described(target, prefix).items() if _has_tags(target, group, tags)
        ]
    # The pipeline's own would feed the pipeline; by its name one is refused, so that it is seen.
    chosen = [group for group in dict.fromkeys(found) if group in names or not group.startswith(OWN_GROUPS)]
    if not chosen:
        raise CommandError("no log group is chosen", "give names, --prefix or --tag")
    return chosen


def subscribe(target: Target, groups: Collection[str], *, pretend: bool) -> Iterator[Outcome]:
    """Let the lines of log groups go into the stream; nothing that is there is replaced.

    Args:
        target: The pipeline.
        groups: The log groups.
        pretend: Only return what would be done.
    """
    known = _described(target, "")
    patterns = Counter(each.pattern for each in subscriptions(target))
    # With meters, the stack's filters select a second tag as well.
    pattern = patterns.most_common(1)[0][0] if patterns else f'"{target.tag}"'
    for group in groups:
        found = _filters(target, group)
        ours = [each for each in found if each.destination == target.outputs["StreamArn"]]
        if group.startswith(OWN_GROUPS):
            yield Outcome(
                group, done=False, text="refused: the pipeline's own log group would feed the pipeline"
            )
        elif (group_class := known[group].get("logGroupClass", "STANDARD")) != "STANDARD":
            yield Outcome(group, done=False, text=f"refused: its class {group_class} cannot be subscribed")
        elif [each.pattern for each in ours] == [pattern]:
            yield Outcome(group, done=True, text=f"is subscribed already, by {ours[0].name}")
        elif ours:
            text = (
                f"refused: {ours[0].name} is there with the pattern {ours[0].pattern}: unsubscribe it first"
            )
            yield Outcome(group, done=False, text=text)
        elif pretend:
            yield Outcome(group, done=True, text=f"would be subscribed, with the pattern {pattern}")
        else:
            yield _put(target, group, pattern, found)


def unsubscribe(target: Target, groups: Collection[str], *, pretend: bool) -> Iterator[Outcome]:
    """Remove the filters that `subscribe` made."""
    for group in groups:
        ours = [each for each in _filters(target, group) if each.destination == target.outputs["StreamArn"]]
        if not ours:
            yield Outcome(group, done=True, text="is not subscribed")
        for each in ours:
            if each.name != FILTER_NAME:
                text = f"refused: {each.name} belongs to the stack: take the group out of LogGroups"
                yield Outcome(group, done=False, text=text)
            elif pretend:
                yield Outcome(group, done=True, text="would be unsubscribed")
            else:
                target.client("logs").delete_subscription_filter(logGroupName=group, filterName=each.name)
                yield Outcome(group, done=True, text="unsubscribed")


def _put(target: Target, group: str, pattern: str, others: Collection[Subscription]) -> Outcome:
    try:
        target.client("logs").put_subscription_filter(
            logGroupName=group,
            filterName=FILTER_NAME,
            filterPattern=pattern,
            destinationArn=target.outputs["StreamArn"],
            roleArn=target.outputs["SubscriptionRoleArn"],
            distribution="Random",
        )
    except ClientError as error:
        there = ", ".join(f"{each.name} into {each.destination}" for each in others) or "none"
        message = error.response["Error"]["Message"]
        return Outcome(group, done=False, text=f"refused: {message} (other filters: {there})")
    return Outcome(group, done=True, text=f"subscribed, with the pattern {pattern}")


def _described(target: Target, prefix: str) -> dict[str, dict[str, Any]]:
    """Return what is known of each log group whose name begins so."""
    asked = {"logGroupNamePrefix": prefix} if prefix else {}
    pages = target.client("logs").get_paginator("describe_log_groups").paginate(**asked)
    return {group["logGroupName"]: group for page in pages for group in page["logGroups"]}


def _has_tags(target: Target, group: Mapping[str, Any], wanted: Mapping[str, str]) -> bool:
    """Tell whether a log group has all of some tags; if some are wanted, CloudWatch Logs is asked."""
    if not wanted:
        return True
    arn = group["arn"].removesuffix(":*")
    tags = target.client("logs").list_tags_for_resource(resourceArn=arn)["tags"]
    return bool(wanted.items() <= tags.items())


def _filters(target: Target, group: str) -> list[Subscription]:
    answer: Mapping[str, Any] = target.client("logs").describe_subscription_filters(logGroupName=group)
    return [
        Subscription(group, each["filterName"], each["filterPattern"], each["destinationArn"])
        for each in answer["subscriptionFilters"]
    ]
