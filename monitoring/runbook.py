"""The table of alarms -> what stands under each heading of the runbook. Pure."""

from __future__ import annotations

import re

from monitoring.alarms import ALARMS, MINUTE_S, Alarm

_HEADING = re.compile(r"^### (\w+)\n\n(?:> .*\n)*", re.MULTILINE)


class MissingHeadingError(ValueError):
    """The runbook's headings are not the alarms of the table."""


def filled(page: str) -> str:
    """Return the runbook with the lines of the table under its headings.

    Args:
        page: The runbook, whose third-level headings are names of alarms, in the table's order.

    Raises:
        MissingHeadingError: If they are not.
    """
    headings = [match[1] for match in _HEADING.finditer(page)]
    names = [alarm.name for alarm in ALARMS]
    if headings != names:
        unlike = sorted(set(headings) ^ set(names)) or "the order"
        raise MissingHeadingError(f"the runbook has other headings of alarms than the table: {unlike}")
    rows = {alarm.name: alarm for alarm in ALARMS}
    return _HEADING.sub(lambda match: f"### {match[1]}\n\n> {_line(rows[match[1]])}\n", page)


def _line(alarm: Alarm) -> str:
    unit = f" {alarm.unit}" if alarm.unit else ""
    if alarm.periods == 1 and set(alarm.thresholds.values()) == {1}:
        return f"{alarm.means} {next(iter(alarm.thresholds)).capitalize()}."
    marks = ", ".join(f"{severity} {value:,g}{unit}" for severity, value in alarm.thresholds.items())
    period = f"{alarm.period_s // MINUTE_S} min"
    over = period if alarm.periods == 1 else f"{alarm.to_alarm} of {alarm.periods} periods of {period}"
    more = f" and {alarm.also_over_s // MINUTE_S} min" if alarm.also_over_s else ""
    return f"{alarm.means} {marks[0].upper()}{marks[1:]}; {over}{more}."
