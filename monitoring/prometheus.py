"""The table of alarms -> alert rules for Prometheus, over what `/metrics` has. Pure.

https://prometheus.io/docs/prometheus/latest/configuration/alerting_rules/
"""

from __future__ import annotations

from typing import Any

import yaml

from monitoring.alarms import ALARMS, SEVERITIES, Alarm
from monitoring.cloudwatch import RUNBOOK

# The numbers change every hour, so nothing is decided by less than a few of them.
FOR = "10m"


def rules() -> str:
    """Return the rules as Prometheus reads them."""
    found = [_rule(alarm, severity) for alarm in ALARMS if alarm.prometheus for severity in alarm.thresholds]
    text = yaml.safe_dump({"groups": [{"name": "tagline", "rules": found}]}, sort_keys=False, width=200)
    return "# Written by `make monitoring` from the table in monitoring/alarms.py.\n" + text


def _rule(alarm: Alarm, severity: str) -> dict[str, Any]:
    condition = f"{alarm.prometheus} >= {alarm.thresholds[severity]:g}"
    for worse in SEVERITIES[SEVERITIES.index(severity) + 1 :]:
        if worse in alarm.thresholds:
            # The alert of the worse one is enough.
            condition += f" < {alarm.thresholds[worse]:g}"
    if alarm.traffic:
        condition += f" and {alarm.traffic}"
    return {
        "alert": f"Tagline{alarm.name}",
        "expr": condition,
        "for": FOR,
        "labels": {"severity": severity},
        "annotations": {
            "summary": alarm.means,
            "description": f"{alarm.name} is {{{{ $value | humanize }}}} {alarm.unit}".rstrip(),
            "runbook": f"{RUNBOOK}#{alarm.name.lower()}",
        },
    }
