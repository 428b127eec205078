"""A Grafana dashboard over what `/metrics` has, with the thresholds of the table of alarms. Pure.

https://grafana.com/docs/grafana/latest/visualizations/dashboards/build-dashboards/view-dashboard-json-model/
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from monitoring.alarms import ALARMS

# The numbers change every hour: a shorter window would often have one of them only.
_WINDOW: Final = "3h"
_SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
_COLORS: Final = {"warning": "yellow", "critical": "red"}
_WIDTH, _HEIGHT, _COLUMNS = 12, 8, 2
_OF_ENDPOINT: Final = 'endpoint=~"$endpoint"'


@dataclass(frozen=True, slots=True)
class Panel:
    """A panel of the dashboard.

    Attributes:
        title: Its title.
        unit: Grafana's name of the unit.
        queries: The legends, each with its PromQL.
        alarm: The alarm whose thresholds it shows; empty for none.
        kind: Grafana's name of its type.
    """

    title: str
    unit: str
    queries: Mapping[str, str]
    alarm: str = ""
    kind: str = "timeseries"


def _increase(metric: str, labels: str = "") -> str:
    return f"increase({metric}{{{labels}}}[{_WINDOW}])"


def _share(statuses: str) -> str:
    some = _increase("api_requests_total", f'{_OF_ENDPOINT},status=~"{statuses}"')
    return f"100 * sum({some}) / sum({_increase('api_requests_total', _OF_ENDPOINT)})"


def _quantile(share: float, by: str = "") -> str:
    buckets = _increase("api_request_duration_seconds_bucket", _OF_ENDPOINT)
    return f"1000 * histogram_quantile({share}, sum by (le{by}) ({buckets}))"


_REQUESTS: Final = _increase("api_requests_total", _OF_ENDPOINT)
_ERRORS: Final = _increase("api_errors_total", _OF_ENDPOINT)
_OF_STATUS: Final = "sum({}) / 36"  # three hours have so many periods of five minutes

PANELS: Final[Sequence[Panel]] = (
    Panel(
        "Requests per minute",
        "reqpm",
        {"{{status}}": f"60 * sum by (status) (rate(api_requests_total{{{_OF_ENDPOINT}}}[{_WINDOW}]))"},
        "RequestsPerMinute",
    ),
    Panel("Server errors", "percent", {"5xx": _share("5..")}, "ErrorRate"),
    Panel(
        "Response time",
        "ms",
        {f"p{share:g}": _quantile(share / 100) for share in (50, 95, 99)},
        "ResponseTime",
    ),
    Panel(
        "Slowest endpoints, p95",
        "ms",
        {"{{method}} {{endpoint}}": f"topk(10, {_quantile(0.95, ', method, endpoint')})"},
    ),
    Panel(
        "Busiest endpoints",
        "short",
        {"{{method}} {{endpoint}}": f"topk(10, sum by (method, endpoint) ({_REQUESTS}))"},
    ),
    Panel("Errors by type", "short", {"{{error_type}}": f"topk(10, sum by (error_type) ({_ERRORS}))"}),
    Panel(
        "Rate limited, in five minutes",
        "short",
        {"429": _OF_STATUS.format(_increase("api_requests_total", f'{_OF_ENDPOINT},status="429"'))},
        "RateLimited",
    ),
    Panel(
        "Failed authentication, in five minutes",
        "short",
        {"401, 403": _OF_STATUS.format(_increase("api_requests_total", f'{_OF_ENDPOINT},status=~"401|403"'))},
        "AuthFailures",
    ),
    Panel(
        "Lost and quarantined lines",
        "short",
        {"lost": _increase("tagline_lost_total"), "quarantined": _increase("tagline_quarantined_total")},
        "Quarantined",
    ),
    Panel(
        "Age of the numbers",
        "s",
        {"age": "time() - tagline_usage_data_through_timestamp_seconds"},
        kind="stat",
    ),
)


def dashboard() -> str:
    """Return the dashboard as Grafana imports it."""
    model = {
        "uid": "tagline",
        "title": "Tagline",
        "description": "Written by `make monitoring` from monitoring/grafana.py.",
        "schemaVersion": 39,
        "refresh": "5m",
        "time": {"from": "now-7d", "to": "now"},
        "timezone": "utc",
        "templating": {"list": _variables()},
        "panels": [_panel(number, panel) for number, panel in enumerate(PANELS)],
    }
    return json.dumps(model, indent=1) + "\n"


def _variables() -> list[dict[str, Any]]:
    values = "label_values(api_requests_total, endpoint)"
    return [
        {"name": "datasource", "type": "datasource", "query": "prometheus"},
        {
            "name": "endpoint",
            "type": "query",
            "datasource": _SOURCE,
            "definition": values,
            "query": {"query": values, "refId": "endpoint"},
            "refresh": 2,
            "sort": 1,
            "multi": True,
            "includeAll": True,
            "allValue": ".*",
        },
    ]


def _panel(number: int, panel: Panel) -> dict[str, Any]:
    row, column = divmod(number, _COLUMNS)
    thresholds = next((alarm.thresholds for alarm in ALARMS if alarm.name == panel.alarm), {})
    steps = [{"color": _COLORS[severity], "value": value} for severity, value in thresholds.items()]
    return {
        "id": number + 1,
        "type": panel.kind,
        "title": panel.title,
        "datasource": _SOURCE,
        "gridPos": {"h": _HEIGHT, "w": _WIDTH, "x": column * _WIDTH, "y": row * _HEIGHT},
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit,
                "min": 0,
                "custom": {"thresholdsStyle": {"mode": "line"}} if steps else {},
                "thresholds": {"mode": "absolute", "steps": [{"color": "green", "value": None}, *steps]},
            },
            "overrides": [],
        },
        "targets": [
            {"refId": chr(ord("A") + place), "datasource": _SOURCE, "expr": query, "legendFormat": legend}
            for place, (legend, query) in enumerate(panel.queries.items())
        ],
    }
