"""What calls the functions of a stack at certain times."""

from collections.abc import Mapping
from typing import Any

from onemachine.schedules import Schedule
from onemachine.template.stack import Resource, Stack, TemplateError, function_name, refuse


def schedules(stack: Stack) -> list[Schedule]:
    """Return what calls a stack's functions at certain times: EventBridge Scheduler and EventBridge rules.

    Args:
        stack: The stack.

    Returns:
        One schedule for each function that is called.

    Raises:
        TemplateError: A schedule has a target or an event that cannot be followed on one machine.
    """
    found = [_schedule(each, each.properties["Target"]) for each in stack.of_type("AWS::Scheduler::Schedule")]
    for rule in stack.of_type("AWS::Events::Rule"):
        refuse(rule, rule.properties, {"EventPattern"}, "no events come here but those of schedules")
        for target in rule.properties["Targets"]:
            refuse(rule, target, {"InputPath", "InputTransformer"}, "use Input")
            found.append(_schedule(rule, target))
    return found


def _schedule(resource: Resource, target: Mapping[str, Any]) -> Schedule:
    properties, arn = resource.properties, target["Arn"]
    if ":lambda:" not in arn:
        raise TemplateError(
            f"{resource.logical_id}: target {arn} is not a function; only functions are called here"
        )
    return Schedule(
        properties["ScheduleExpression"],
        function_name(arn),
        target.get("Input", "").encode(),
        resource.name,
        properties.get("ScheduleExpressionTimezone", "UTC"),
        properties.get("State", "ENABLED") == "ENABLED",
        resource.logical_id,
    )


def running_schedules(stack: Stack) -> list[Schedule]:
    """Return the schedules that fire, and those of EventBridge Scheduler that can be enabled later.

    Args:
        stack: The stack.

    Raises:
        TemplateError: As of `schedules`, or one fires by another time than UTC.
    """
    found = []
    for schedule in schedules(stack):
        follows = schedule.timezone in {"UTC", "Etc/UTC"}
        is_rule = stack.resources[schedule.logical_id].type == "AWS::Events::Rule"
        if schedule.enabled and not follows:
            raise TemplateError(
                f"{schedule.logical_id}: time zone {schedule.timezone} is not followed here, only UTC"
            )
        if schedule.enabled or (follows and not is_rule):
            found.append(schedule)
    return found
