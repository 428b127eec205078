"""When a metric alarm changes its state: M of N data points, and those that are missing. Pure.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarm-evaluation.html
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarms-and-missing-data.html
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

State = Literal["OK", "ALARM", "INSUFFICIENT_DATA"]

COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "GreaterThanThreshold": operator.gt,
    "GreaterThanOrEqualToThreshold": operator.ge,
    "LessThanThreshold": operator.lt,
    "LessThanOrEqualToThreshold": operator.le,
}
TREATMENTS = ("breaching", "notBreaching", "ignore", "missing")

# AWS looks further back than the periods to evaluate, and publishes how far for three only: five.
EXTRA_PERIODS = 2

# Fewer values than this, divided by the smaller share on either side of a percentile, are too few.
FEW_SAMPLES = 10
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class Condition:
    """What makes an alarm.

    Attributes:
        comparison: One of `COMPARISONS`.
        threshold: What a data point is compared with, in the metric's unit.
        periods: The number of data points that are evaluated (N).
        to_alarm: How many of them must breach the threshold (M).
        missing: How missing data points are treated: one of `TREATMENTS`.
    """

    comparison: str
    threshold: float
    periods: int
    to_alarm: int
    missing: str = "missing"

    @property
    def range(self) -> int:
        """How many periods AWS looks back for data points."""
        return self.periods + EXTRA_PERIODS

    def breached(self, value: float) -> bool:
        """Tell whether a data point breaches the threshold."""
        return COMPARISONS[self.comparison](value, self.threshold)


def evaluate(condition: Condition, points: Sequence[float | None], before: State) -> State:
    """Return an alarm's state.

    Args:
        condition: What makes the alarm.
        points: The data points of its range, the newest one last; None where one is missing.
        before: The state until now.
    """
    newest_first = [
        (age, condition.breached(value))
        for age, value in enumerate(reversed(points[-condition.range :]), start=1)
        if value is not None
    ]
    real = newest_first[: condition.periods]
    breaching = sum(breached for _, breached in real)
    absent = condition.periods - len(real)
    if breaching >= condition.to_alarm:
        return "ALARM"
    if not absent or condition.missing == "notBreaching":
        return "OK"
    if condition.missing == "breaching":
        return "ALARM" if breaching + absent >= condition.to_alarm else "OK"
    if breaching < len(real):
        return "OK"
    if condition.missing == "ignore":
        return before
    # All data points breach, but they are too few. AWS waits for others until the oldest is M periods old:
    # "avoiding premature transitions to alarm state".
    return "ALARM" if real and real[-1][0] >= condition.to_alarm else "INSUFFICIENT_DATA"


def has_few_samples(percentile: float, count: float) -> bool:
    """Tell whether values are too few for a percentile to mean something.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/percentiles-with-low-samples.html

    Args:
        percentile: The percentile, from 0 to 100.
        count: The number of values in the periods that are evaluated.
    """
    smaller_percent = min(percentile, 100 - percentile)
    return smaller_percent > 0 and count * smaller_percent < FEW_SAMPLES * 100 - _ROUNDING
