"""The table of alarms -> what template.yml has of it: thresholds, alarms and a dashboard. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from monitoring.alarms import ALARMS, GROUPS, SEVERITIES, Alarm, Metric

RUNBOOK = "docs/runbook.md"
_CONSOLE = "https://${AWS::Region}.console.aws.amazon.com/cloudwatch/home?region=${AWS::Region}"
_LOG = _CONSOLE + "#logsV2:log-groups/log-group/$252Ftagline$252F${AWS::StackName}$252F"
_WIDTH, _HEIGHT, _COLUMNS = 8, 6, 3
_LINE = 118


@dataclass(frozen=True)
class Call:
    """An intrinsic function of CloudFormation.

    Attributes:
        name: Its name without `Fn::`.
        argument: Its argument.
    """

    name: str
    argument: Any


class OnOneLine(dict[str, Any]):
    """A mapping that is written on one line, if it fits."""


def thresholds() -> str:
    """Return the template's mapping of thresholds."""
    rows = {
        alarm.name: OnOneLine(
            {severity.title(): f"{value:g}" for severity, value in alarm.thresholds.items()}
        )
        for alarm in ALARMS
    }
    return _yaml({"Thresholds": rows})


def resources() -> str:
    """Return the template's alarms and its dashboard."""
    found: dict[str, Any] = {}
    for alarm in ALARMS:
        for severity in alarm.thresholds:
            found.update(_metric_alarms(alarm, severity))
    for group in GROUPS:
        for severity in SEVERITIES:
            if members := members_of(group, severity):
                found[composite_id(group, severity)] = _composite(group, severity, members)
    found["Dashboard"] = _dashboard()
    return "\n".join(_yaml({name: resource}) for name, resource in found.items())


def members_of(group: str, severity: str) -> list[Alarm]:
    """Return the rows of a group that have a threshold of a severity."""
    return [alarm for alarm in ALARMS if alarm.group == group and severity in alarm.thresholds]


def composite_id(group: str, severity: str) -> str:
    """Return the logical id of a group's composite alarm."""
    return f"{group.title()}{severity.title()}Alarm"


def _metric_alarms(alarm: Alarm, severity: str) -> Iterator[tuple[str, Any]]:
    lengths = [alarm.period_s, *([alarm.also_over_s] if alarm.also_over_s else [])]
    for name, period_s in zip(alarm.logical_ids(severity), lengths, strict=True):
        is_long = period_s != alarm.period_s
        properties: dict[str, Any] = {
            "AlarmDescription": Call("Sub", _description(alarm, severity)),
            **_watched(alarm, period_s),
            "EvaluationPeriods": 1 if is_long else alarm.periods,
            "DatapointsToAlarm": 1 if is_long else alarm.to_alarm,
            "Threshold": Call("FindInMap", ["Thresholds", alarm.name, severity.title()]),
            "ComparisonOperator": "GreaterThanOrEqualToThreshold",
            "TreatMissingData": alarm.missing,
        }
        condition = {"Condition": alarm.condition} if alarm.condition else {}
        yield name, {"Type": "AWS::CloudWatch::Alarm", **condition, "Properties": properties}


def _description(alarm: Alarm, severity: str) -> str:
    text = f"{severity.upper()}. {alarm.means} What to do: {RUNBOOK}#{alarm.name.lower()}"
    return f"{text} {_LOG}{alarm.log}" if alarm.log else text


def _watched(alarm: Alarm, period_s: int) -> dict[str, Any]:
    if not alarm.expression:
        (metric,) = alarm.metrics.values()
        percentile = metric.statistic.startswith("p")
        return {
            **_metric(metric),
            "ExtendedStatistic" if percentile else "Statistic": metric.statistic,
            **({"EvaluateLowSampleCountPercentile": "ignore"} if percentile else {}),
            "Period": period_s,
        }
    queries: list[dict[str, Any]] = [{"Id": "result", "Expression": alarm.expression, "ReturnData": True}]
    for name, metric in alarm.metrics.items():
        stat = OnOneLine({"Metric": _metric(metric), "Period": period_s, "Stat": metric.statistic})
        queries.append({"Id": name, "MetricStat": stat, "ReturnData": False})
    return {"Metrics": queries}


def _metric(metric: Metric) -> dict[str, Any]:
    namespace = Call("Sub", metric.namespace) if "${" in metric.namespace else metric.namespace
    dimensions = [
        OnOneLine({"Name": name, "Value": _value(value)}) for name, value in metric.dimensions.items()
    ]
    named = {"Dimensions": dimensions} if dimensions else {}
    return {"Namespace": namespace, "MetricName": metric.name, **named}


def _value(value: str) -> Any:
    if first := re.fullmatch(r"(\w+)\[0\]", value):
        return Call("Select", [0, Call("Split", [",", Call("Ref", first[1])])])
    if "." in value:
        return Call("GetAtt", value)
    if value.startswith("${"):
        return Call("Ref", value[2:-1])
    # A stage is a word, a resource begins with a capital letter.
    return Call("Ref", value) if value[0].isupper() else value


def _composite(group: str, severity: str, members: Iterable[Alarm]) -> dict[str, Any]:
    rule = Call("Join", [" OR ", [_part(alarm, severity) for alarm in members]])
    if severity == "warning" and (worse := members_of(group, "critical")):
        # The mail of what is critical is enough.
        others = Call("Join", [" OR ", [_part(alarm, "critical") for alarm in worse]])
        rule = Call("Join", ["", ["(", rule, ") AND NOT (", others, ")"]])
    return {
        "Type": "AWS::CloudWatch::CompositeAlarm",
        "Properties": {
            "AlarmName": Call("Sub", f"${{AWS::StackName}} {severity.upper()} {group}"),
            "AlarmDescription": (
                f"Something is {'wrong' if severity == 'critical' else 'worth a look'} with {GROUPS[group]}."
                f" The reason names the alarm; {RUNBOOK} has what to do."
            ),
            "AlarmRule": rule,
            "AlarmActions": [Call("Ref", "Alerts")],
            "OKActions": [Call("Ref", "Alerts")],
        },
    }


def _part(alarm: Alarm, severity: str) -> Any:
    text = " AND ".join(f'ALARM("${{{name}}}")' for name in alarm.logical_ids(severity))
    part = Call("Sub", f"({text})" if " AND " in text else text)
    return Call("If", [alarm.condition, part, "FALSE"]) if alarm.condition else part


# ---- The dashboard -----------------------------------------------------------------------------------------


def _dashboard() -> dict[str, Any]:
    shown = [alarm for alarm in ALARMS if alarm.condition != "CollectsMeters"]
    composites = [
        f"${{{composite_id(group, severity)}.Arn}}"
        for group in GROUPS
        for severity in SEVERITIES
        if members_of(group, severity)
    ]
    widgets: list[dict[str, Any]] = [
        {
            "type": "alarm",
            "x": 0,
            "y": 0,
            "width": _WIDTH * _COLUMNS,
            "height": _HEIGHT // 2,
            "properties": {"title": f"Alarms ({RUNBOOK})", "alarms": composites},
        }
    ]
    for number, alarm in enumerate(shown):
        place = {
            "x": number % _COLUMNS * _WIDTH,
            "y": _HEIGHT // 2 + number // _COLUMNS * _HEIGHT,
            "width": _WIDTH,
            "height": _HEIGHT,
        }
        widgets.append({"type": "metric", **place, "properties": _graph(alarm)})
    lines = ",\n".join(json.dumps(widget) for widget in widgets)
    body = '{"widgets": [\n' + lines + "\n]}\n"
    first = {"ExportFormats": _value("ExportFormats[0]")}
    return {
        "Type": "AWS::CloudWatch::Dashboard",
        "Properties": {
            "DashboardName": Call("Sub", "${AWS::StackName}-${AWS::Region}"),
            "DashboardBody": Call("Sub", [body, first]),
        },
    }


def _graph(alarm: Alarm) -> dict[str, Any]:
    metrics: list[list[Any]] = []
    for name, metric in alarm.metrics.items():
        dimensions = [part for each in metric.dimensions.items() for part in (each[0], _text(each[1]))]
        options = {"id": name, "stat": metric.statistic}
        if alarm.expression:
            options["visible"] = False  # type: ignore[assignment]
        metrics.append([metric.namespace, metric.name, *dimensions, options])
    if alarm.expression:
        metrics.append([{"id": "result", "expression": alarm.expression, "label": alarm.name}])
    marks = [{"label": severity, "value": value} for severity, value in alarm.thresholds.items()]
    return {
        "title": alarm.name + (f" ({alarm.unit})" if alarm.unit else ""),
        "region": "${AWS::Region}",
        "period": alarm.period_s,
        "metrics": metrics,
        "annotations": {"horizontal": marks},
    }


def _text(value: str) -> str:
    """Return a dimension's value as it is inside of a text."""
    found = _value(value)
    if isinstance(found, str):
        return found
    return "${" + value.removesuffix("[0]").removeprefix("${").removesuffix("}") + "}"


# ---- YAML --------------------------------------------------------------------------------------------------


class _Dumper(yaml.SafeDumper):
    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002 - yaml's
        """Indent the items of a list, too."""
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - yaml's
        """Write everything where it is."""
        return True


def _represent(dumper: _Dumper, call: Call) -> yaml.Node:
    tag = f"!{call.name}"
    if isinstance(call.argument, str):
        style = "|" if "\n" in call.argument else ">" if len(call.argument) > _LINE else None
        return dumper.represent_scalar(tag, call.argument, style=style)
    has_lines = any(isinstance(each, str) and "\n" in each for each in call.argument)
    return dumper.represent_sequence(tag, call.argument, flow_style=not has_lines)


def _text_node(dumper: _Dumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


def _on_one_line(dumper: _Dumper, mapping: OnOneLine) -> yaml.Node:
    return dumper.represent_mapping("tag:yaml.org,2002:map", mapping, flow_style=True)


_Dumper.add_representer(Call, _represent)
_Dumper.add_representer(OnOneLine, _on_one_line)
_Dumper.add_representer(str, _text_node)


def _yaml(document: Any) -> str:
    text = yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=_LINE, allow_unicode=True)
    return "".join(f"  {line}" if line.strip() else line for line in text.splitlines(keepends=True))
