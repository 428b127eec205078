"""The alarms of templates, evaluated for every minute of the clock, and the e-mails that they send.

moto keeps alarms and their states, so that DescribeAlarms answers; it never evaluates them.
"""

from __future__ import annotations

import json
import logging
import threading
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from moto.cloudwatch.models import Alarm, CloudWatchBackend
from moto.sqs.models import sqs_backends

from onemachine.alarms.composite import Rule, parse_rule
from onemachine.alarms.evaluation import COMPARISONS, Condition, State, evaluate, has_few_samples
from onemachine.alarms.metric_math import Expression, parse
from onemachine.metrics import MINUTE_S, Metrics, Point, Summary, epoch_s

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 0.5
# A queue has a data point for each of these minutes while the clock is put forward, for a day at most.
QUEUE_EVERY_MINUTES, QUEUE_GAP_MINUTES = 5, 24 * 60
REGION_NAME = "US East (N. Virginia)"

Publish = Callable[[str, str, str], None]
"""Takes a topic's ARN, a subject and a message with one form for each protocol, as JSON."""

_Series = tuple[str, str, tuple[tuple[str, str], ...]]
_Data = Mapping[_Series, list[tuple[int, Summary]]]


@dataclass(frozen=True)
class _Input:
    """A metric that an alarm looks at."""

    id: str
    series: _Series
    statistic: str


@dataclass(frozen=True)
class _Watch:
    """A metric alarm: what it looks at, and what makes it one."""

    alarm: Alarm
    condition: Condition
    period_s: int
    inputs: tuple[_Input, ...]
    expressions: tuple[tuple[str, Expression], ...]
    result: str
    waits_for_samples: bool

    def changing_minutes(self, data: _Data) -> Iterator[int]:
        """Yield the minutes since 1970 at which a data point enters or leaves one of the alarm's periods."""
        for each in self.inputs:
            for start_s, _ in data.get(each.series, ()):
                for period in range(self.condition.range + 1):
                    yield (start_s + MINUTE_S + period * self.period_s) // MINUTE_S

    def periods(self, data: _Data, end_s: int) -> Iterator[dict[str, Summary]]:
        """Yield what is known of each metric in each period of the range, the newest period last."""
        for back in range(self.condition.range, 0, -1):
            start_s = end_s - back * self.period_s
            yield {
                each.id: _summed(data.get(each.series, ()), start_s, start_s + self.period_s)
                for each in self.inputs
            }

    def value(self, known: Mapping[str, Summary]) -> float | None:
        """Return a period's data point; None if it is missing."""
        values = {
            each.id: known[each.id].statistic(each.statistic) if known[each.id].count else None
            for each in self.inputs
        }
        for name, expression in self.expressions:
            values[name] = expression.compute(values)
        return values[self.result]

    def has_too_few_samples(self, periods: Sequence[Mapping[str, Summary]]) -> bool:
        (only, *others) = self.inputs
        if others or not only.statistic.startswith("p") or not self.waits_for_samples:
            return False
        count = sum(known[only.id].count for known in periods[-self.condition.periods :])
        return has_few_samples(float(only.statistic[1:]), count)


class Alarms:
    """The alarms of this machine.

    Args:
        backend: moto's CloudWatch, which keeps the alarms.
        metrics: What records metrics.
        clock: Tells the time, with a time zone. It may be put forward by days.
        publish: Publishes what an alarm sends.
    """

    def __init__(
        self, backend: CloudWatchBackend, metrics: Metrics, clock: Callable[[], datetime], publish: Publish
    ) -> None:
        self._backend = backend
        self._metrics = metrics
        self._clock = clock
        self._publish = publish
        self._watches: dict[str, _Watch] = {}
        self._rules: dict[str, tuple[Alarm, Rule]] = {}
        self._minute = 0
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="alarms", daemon=True)

    def add(self, name: str, properties: Mapping[str, Any]) -> None:
        """Make an alarm.

        Args:
            name: Its name.
            properties: The resource's, of `AWS::CloudWatch::Alarm` or `AWS::CloudWatch::CompositeAlarm`.

        Raises:
            ValueError: If it has an expression or a rule that is not understood here.
        """
        rule = properties.get("AlarmRule")
        parsed = None if rule is None else parse_rule(rule)
        watched = None if parsed else _watched(properties)
        dimensions = properties.get("Dimensions", [])
        alarm = self._backend.put_metric_alarm(
            name=name,
            namespace=properties.get("Namespace", ""),
            metric_name=properties.get("MetricName", ""),
            comparison_operator=properties.get("ComparisonOperator", ""),
            evaluation_periods=int(properties.get("EvaluationPeriods", 1)),
            datapoints_to_alarm=properties.get("DatapointsToAlarm"),
            period=int(properties.get("Period", MINUTE_S)),
            threshold=float(properties.get("Threshold", 0)),
            statistic=properties.get("Statistic", ""),
            extended_statistic=properties.get("ExtendedStatistic"),
            description=properties.get("AlarmDescription", ""),
            dimensions=dimensions,
            alarm_actions=properties.get("AlarmActions", []),
            ok_actions=properties.get("OKActions", []),
            insufficient_data_actions=properties.get("InsufficientDataActions", []),
            actions_enabled=properties.get("ActionsEnabled", True) in (True, "true"),
            treat_missing_data=properties.get("TreatMissingData"),
            rule=rule,
        )
        alarm.update_state("Unchecked: Initial alarm creation", "{}", "INSUFFICIENT_DATA")
        alarm.history.clear()
        with self._lock:
            if parsed is not None:
                self._rules[name] = alarm, parsed
            else:
                assert watched is not None
                self._watches[name] = _Watch(alarm, *watched)

    def start(self) -> None:
        """Evaluate all alarms, and begin to do so every minute."""
        self.evaluate()
        self._thread.start()

    def stop(self) -> None:
        """End the evaluation."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def evaluate(self) -> None:
        """Evaluate all alarms for each minute until now in which one of them could change."""
        with self._lock:
            now = int(self._clock().timestamp()) // MINUTE_S
            if not self._minute:
                self._minute = now - 1
            if now <= self._minute:
                return
            self._record_queues(now)
            data = self._data()
            due: dict[int, set[str]] = defaultdict(set)
            due[now] = set(self._watches)
            for name, watch in self._watches.items():
                for minute in watch.changing_minutes(data):
                    if self._minute < minute < now:
                        due[minute].add(name)
            for minute in sorted(due):
                self._evaluate_at(minute, sorted(due[minute]), data)
            self._minute = now

    def _run(self) -> None:
        while not self._stopped.wait(LOOK_EVERY_S):
            try:
                self.evaluate()
            # One e-mail that cannot be sent must not end all alarms.
            except Exception:
                logger.exception("alarms")

    def _evaluate_at(self, minute: int, names: Iterable[str], data: _Data) -> None:
        for name in names:
            watch = self._watches[name]
            periods = list(watch.periods(data, minute * MINUTE_S))
            if watch.has_too_few_samples(periods):
                continue
            points = [watch.value(known) for known in periods]
            state = evaluate(watch.condition, points, _state(watch.alarm))
            self._set(watch.alarm, state, _reason(watch.condition, points), minute)
        # A composite alarm may be about others: as often as there are some, at most.
        for _ in self._rules:
            states = {name: str(alarm.state_value) for name, alarm in self._backend.alarms.items()}
            for alarm, rule in self._rules.values():
                now = {name: states.get(name, "INSUFFICIENT_DATA") for name in rule.names}
                on = [name for name in rule.names if now[name] == "ALARM"]
                self._set(alarm, "ALARM" if rule.holds(now) else "OK", "In ALARM: " + ", ".join(on), minute)
            if states == {name: str(alarm.state_value) for name, alarm in self._backend.alarms.items()}:
                break

    def _set(self, alarm: Alarm, state: State, reason: str, minute: int) -> None:
        before = _state(alarm)
        if state == before:
            return
        alarm.update_state(reason, "{}", state)
        changed = datetime.fromtimestamp(minute * MINUTE_S, UTC)
        alarm.state_updated_timestamp = changed.replace(tzinfo=None)
        actions = {
            "OK": alarm.ok_actions,
            "ALARM": alarm.alarm_actions,
            "INSUFFICIENT_DATA": alarm.insufficient_data_actions,
        }[state]
        if alarm.actions_enabled:
            for topic in actions:
                self._publish(
                    topic, f'{state}: "{alarm.name}" in {REGION_NAME}', _message(alarm, before, changed)
                )

    def _record_queues(self, minute: int) -> None:
        """Record how many messages each queue has had since the last time."""
        queues = sqs_backends[self._backend.account_id][self._backend.region_name].queues
        since = max(self._minute, minute - QUEUE_GAP_MINUTES)
        self._metrics.record(
            self._backend,
            [
                Point(
                    "AWS/SQS",
                    "ApproximateNumberOfMessagesVisible",
                    (("QueueName", queue.name),),
                    at * MINUTE_S * 1000,
                    (float(queue.approximate_number_of_messages),),
                    "Count",
                )
                for queue in list(queues.values())
                for at in range(minute - 1, since - 1, -QUEUE_EVERY_MINUTES)
            ],
        )

    def _data(self) -> _Data:
        """Return what is known of the metrics that alarms look at, by minute."""
        wanted = {each.series for watch in self._watches.values() for each in watch.inputs}
        names = {(namespace, name) for namespace, name, _ in wanted}
        found: dict[_Series, dict[int, Summary]] = defaultdict(lambda: defaultdict(Summary))
        for datum in list(self._backend.metric_data):
            if (datum.namespace, datum.name) not in names:
                continue
            dimensions = tuple(sorted((str(each.name), str(each.value)) for each in datum.dimensions))
            series = (datum.namespace, datum.name, dimensions)
            if series in wanted:
                found[series][int(epoch_s(datum.timestamp)) // MINUTE_S * MINUTE_S].add(datum)
        return {series: sorted(by_minute.items()) for series, by_minute in found.items()}


def _watched(
    properties: Mapping[str, Any],
) -> tuple[Condition, int, tuple[_Input, ...], tuple[tuple[str, Expression], ...], str, bool]:
    if properties["ComparisonOperator"] not in COMPARISONS:
        raise ValueError(
            f"alarms compare by {', '.join(COMPARISONS)}, not by {properties['ComparisonOperator']}"
        )
    periods = int(properties["EvaluationPeriods"])
    condition = Condition(
        properties["ComparisonOperator"],
        float(properties["Threshold"]),
        periods,
        int(properties.get("DatapointsToAlarm", periods)),
        properties.get("TreatMissingData", "missing"),
    )
    waits = properties.get("EvaluateLowSampleCountPercentile") == "ignore"
    if "Metrics" not in properties:
        statistic = properties.get("Statistic") or properties["ExtendedStatistic"]
        only = _Input("m", _series(properties), statistic)
        _check_period(int(properties["Period"]))
        return condition, int(properties["Period"]), (only,), (), "m", waits
    inputs, expressions, results, lengths = [], [], [], set()
    for query in properties["Metrics"]:
        if query.get("ReturnData", True) in (True, "true"):
            results.append(query["Id"])
        if "Expression" in query:
            expressions.append((query["Id"], parse(query["Expression"])))
        else:
            stat = query["MetricStat"]
            inputs.append(_Input(query["Id"], _series(stat["Metric"]), stat["Stat"]))
            lengths.add(int(stat["Period"]))
    if len(lengths) != 1 or len(results) != 1:
        raise ValueError(f"an alarm has one result and one period, not {results} and {sorted(lengths)}")
    _check_period(*lengths)
    return condition, lengths.pop(), tuple(inputs), tuple(_in_order(inputs, expressions)), results[0], waits


def _check_period(period_s: int) -> None:
    if period_s % MINUTE_S:
        raise ValueError(f"a period of {period_s} s: alarms are evaluated every minute here")


def _in_order(
    inputs: Iterable[_Input], expressions: Iterable[tuple[str, Expression]]
) -> Iterator[tuple[str, Expression]]:
    """Yield expressions, each after those that it uses."""
    known = {each.id for each in inputs}
    left = dict(expressions)
    while left:
        ready = [name for name, expression in left.items() if expression.names <= known]
        if not ready:
            raise ValueError(f"the expressions {sorted(left)} use ids that do not exist, or each other")
        for name in ready:
            known.add(name)
            yield name, left.pop(name)


def _series(metric: Mapping[str, Any]) -> _Series:
    dimensions = tuple(sorted((each["Name"], str(each["Value"])) for each in metric.get("Dimensions", ())))
    return metric["Namespace"], metric["MetricName"], dimensions


def _summed(minutes: Sequence[tuple[int, Summary]], start_s: int, end_s: int) -> Summary:
    total = Summary()
    for start, summary in minutes[bisect_left(minutes, start_s, key=lambda each: each[0]) :]:
        if start >= end_s:
            break
        total.merge(summary)
    return total


def _state(alarm: Alarm) -> State:
    state: State = alarm.state_value  # type: ignore[assignment]  # moto's are plain texts
    return state


def _reason(condition: Condition, points: Sequence[float | None]) -> str:
    shown = ", ".join("-" if value is None else f"{value:g}" for value in points)
    needed = f"{condition.to_alarm} of {condition.periods}"
    return (
        f"Data points of the last {len(points)} periods: [{shown}]; ALARM is {needed}"
        f" {condition.comparison} {condition.threshold:g}"
    )


def _message(alarm: Alarm, before: str, changed: datetime) -> str:
    """Return what an alarm publishes: a text for people, and JSON for programs.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/Notify_Users_Alarm_Changes.html
    """
    document = {
        "AlarmName": alarm.name,
        "AlarmDescription": alarm.description,
        "AWSAccountId": alarm.alarm_arn.split(":")[4],
        "NewStateValue": alarm.state_value,
        "NewStateReason": alarm.state_reason,
        "StateChangeTime": f"{changed:%Y-%m-%dT%H:%M:%S}.000+0000",
        "Region": REGION_NAME,
        "AlarmArn": alarm.alarm_arn,
        "OldStateValue": before,
    }
    text = (
        f'The alarm "{alarm.name}" in {REGION_NAME} was {before} and is {alarm.state_value}'
        f" since {changed:%Y-%m-%d %H:%M} UTC.\n\n{alarm.description}\n\n{alarm.state_reason}\n"
    )
    return json.dumps({"default": json.dumps(document), "email": text})
