"""What calls the functions of a stack at certain times."""

from dataclasses import dataclass

from onemachine.template.stack import Resource, Stack, TemplateError, function_name, refuse


@dataclass(frozen=True)
class ScheduleSpec:
    """What calls a function at certain times.

    Attributes:
        logical_id: Its name in the template.
        function: The function's name.
        expression: ``cron(...)`` or ``rate(...)``, as AWS writes them.
        timezone: The IANA time zone of a cron expression.
        payload: The event's JSON text; None for the service's own event.
        enabled: Whether it runs.
    """

    logical_id: str
    function: str
    expression: str
    timezone: str
    payload: str | None
    enabled: bool


def schedules(stack: Stack) -> list[ScheduleSpec]:
    """Lists what calls a stack's functions at certain times: EventBridge Scheduler and EventBridge rules.

    Args:
        stack: The stack.

    Returns:
        One schedule for each function that is called.

    Raises:
        TemplateError: A schedule has a target or an event that cannot be followed on one machine.
    """
    for schedule in stack.of_type("AWS::Scheduler::Schedule"):
        _expect_function(schedule, schedule.properties["Target"]["Arn"])
    for rule in stack.of_type("AWS::Events::Rule"):
        refuse(rule, rule.properties, {"EventPattern"}, "no events come here but those of schedules")
        for target in rule.properties["Targets"]:
            refuse(rule, target, {"InputPath", "InputTransformer"}, "use Input")
            _expect_function(rule, target["Arn"])
    by_scheduler = [
        ScheduleSpec(
            logical_id=schedule.logical_id,
            function=function_name(schedule.properties["Target"]["Arn"]),
            expression=schedule.properties["ScheduleExpression"],
            timezone=schedule.properties.get("ScheduleExpressionTimezone", "UTC"),
            payload=schedule.properties["Target"].get("Input"),
            enabled=schedule.properties.get("State", "ENABLED") == "ENABLED",
        )
        for schedule in stack.of_type("AWS::Scheduler::Schedule")
    ]
    by_rule = [
        ScheduleSpec(
            logical_id=rule.logical_id,
            function=function_name(target["Arn"]),
            expression=rule.properties["ScheduleExpression"],
            timezone="UTC",
            payload=target.get("Input"),
            enabled=rule.properties.get("State", "ENABLED") == "ENABLED",
        )
        for rule in stack.of_type("AWS::Events::Rule")
        if "ScheduleExpression" in rule.properties
        for target in rule.properties["Targets"]
    ]
    return by_scheduler + by_rule


def _expect_function(resource: Resource, arn: str) -> None:
    if ":lambda:" not in arn:
        raise TemplateError(
            f"{resource.logical_id}: target {arn} is no function, and only those are called here"
        )
