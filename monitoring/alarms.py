"""The table of alarms: what each one watches, from which value on, and how bad that is. Pure.

`make monitoring` writes everything else from it: the template's alarms and dashboard, Prometheus' rules, and
the lines under the headings of docs/runbook.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

MINUTE_S, HOUR_S = 60, 3600
# What each group of alarms is about: a composite alarm of a group sends one mail, whichever of them are on.
GROUPS = {
    "requests": "the API whose requests are collected",
    "collection": "the way of the lines into the store",
    "export": "the daily export into the lake",
    "downloads": "the download API and its zips",
    "usage": "the numbers of usage, their page and API",
}
SEVERITIES = ("warning", "critical")


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric that an alarm watches.

    Attributes:
        name: The metric's name.
        statistic: `Sum`, `Maximum`, `SampleCount` or a percentile, as in `p95`.
        namespace: The metric's namespace, in which `${...}` stands for a parameter of the template.
        dimensions: Its dimensions. A value is a resource's logical id, `Queue.QueueName` with an attribute,
            or has `${...}`, or is the first item of a list, as in `Formats[0]`.
    """

    name: str
    statistic: str
    namespace: str
    dimensions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Alarm:
    """A row of the table: an alarm for each of its thresholds.

    Attributes:
        name: The alarm's name; its heading in the runbook.
        group: One of `GROUPS`.
        means: What is the matter while it is on: a sentence.
        thresholds: The values from which on it is on, by severity.
        metrics: The metrics, by the ids that `expression` has.
        unit: The unit of the thresholds; empty for a count.
        expression: Metric math over the metrics; empty with one metric.
        period_s: Seconds of a data point.
        to_alarm: How many data points have to reach the threshold,
        periods: of how many.
        missing: What missing data points are.
        also_over_s: A second, longer period, over which the threshold has to be reached, too; 0 for none.
        condition: The template's condition under which there is something to watch.
        log: The function whose log has the reason; empty if none has.
        prometheus: The same value in PromQL, from what `/metrics` has; empty if it has nothing of it.
        traffic: In PromQL, how much traffic makes the value count; empty if any does.
    """

    name: str
    group: str
    means: str
    thresholds: Mapping[str, float]
    metrics: Mapping[str, Metric]
    unit: str = ""
    expression: str = ""
    period_s: int = 5 * MINUTE_S
    to_alarm: int = 1
    periods: int = 1
    missing: str = "notBreaching"
    also_over_s: int = 0
    condition: str = ""
    log: str = ""
    prometheus: str = ""
    traffic: str = ""

    def logical_ids(self, severity: str) -> list[str]:
        """Return the names of its alarms of one severity in the template: those that are on together."""
        lengths = ["Short", "Long"] if self.also_over_s else [""]
        return [f"{self.name}{length}{severity.title()}Alarm" for length in lengths]


def _of_lambda(name: str, statistic: str, function: str) -> dict[str, Metric]:
    return {"value": Metric(name, statistic, "AWS/Lambda", {"FunctionName": function})}


def _of_mapping(name: str, mapping: str) -> dict[str, Metric]:
    return {"value": Metric(name, "Sum", "AWS/Lambda", {"EventSourceMappingUUID": mapping})}


def _of_queue(queue: str) -> dict[str, Metric]:
    dimensions = {"QueueName": f"{queue}.QueueName"}
    return {"value": Metric("ApproximateNumberOfMessagesVisible", "Maximum", "AWS/SQS", dimensions)}


def _ours(name: str, statistic: str, **dimensions: str) -> Metric:
    return Metric(name, statistic, "Tagline", {"service": "${AWS::StackName}", **dimensions})


def _counted(name: str, statistic: str = "Sum") -> Metric:
    """Return a metric that metric filters of the collected log groups make."""
    return Metric(name, statistic, "Tagline/${AWS::StackName}")


_CONSUMER = {"stage": "consumer", "store": "${Store}"}
_RECEIVED = _ours("received", "Sum", **_CONSUMER)
_BAD = {"requests": _counted("requests"), "bad": _counted("bad")}
# One request in a thousand may fail: the error budget. Its burn rate is how many times as many do.
_BURN_RATE = "IF(requests >= 50, 1000 * bad / requests, 0)"
_FAILED_SHARE = 'sum(increase(api_requests_total{status=~"5.."}[%s])) / sum(increase(api_requests_total[%s]))'
_ENOUGH = "sum(increase(api_requests_total[3h])) >= 50"
_ONE = {"critical": 1}
_ONE_WARNING = {"warning": 1}

ALARMS = (
    # ---- The API -----------------------------------------------------------------------------------------
    Alarm(
        "ErrorRate",
        "requests",
        "Of the last requests, at least so many percent were answered with a server error.",
        {"warning": 5, "critical": 10},
        _BAD,
        "%",
        "IF(requests >= 50 AND bad >= 4, 100 * bad / requests, 0)",
        to_alarm=2,
        periods=3,
        condition="CollectsLogGroups",
        prometheus="100 * " + _FAILED_SHARE % ("3h", "3h"),
        traffic=_ENOUGH,
    ),
    Alarm(
        "ResponseTime",
        "requests",
        "One request in twenty takes at least so long.",
        {"warning": 1000, "critical": 5000},
        {"value": _counted("duration_ms", "p95")},
        "ms",
        to_alarm=3,
        periods=5,
        condition="CollectsLogGroups",
        prometheus="1000 * histogram_quantile(0.95,"
        " sum by (le) (increase(api_request_duration_seconds_bucket[3h])))",
        traffic=_ENOUGH,
    ),
    Alarm(
        "RequestsPerMinute",
        "requests",
        "At least so many requests come in a minute.",
        {"warning": 1000, "critical": 2000},
        {"value": _counted("requests")},
        period_s=MINUTE_S,
        to_alarm=3,
        periods=5,
        condition="CollectsLogGroups",
        prometheus="60 * sum(rate(api_requests_total[3h]))",
    ),
    Alarm(
        "BurnFast",
        "requests",
        "Server errors use up a month's error budget (one request in a thousand) in two days.",
        {"critical": 14.4},
        _BAD,
        "times the budget",
        _BURN_RATE,
        also_over_s=HOUR_S,
        condition="CollectsLogGroups",
    ),
    Alarm(
        "BurnSlow",
        "requests",
        "Server errors use up a month's error budget in five days.",
        {"warning": 6},
        _BAD,
        "times the budget",
        _BURN_RATE,
        period_s=30 * MINUTE_S,
        also_over_s=6 * HOUR_S,
        condition="CollectsLogGroups",
    ),
    Alarm(
        "RateLimited",
        "requests",
        "So many requests were answered with 429 in five minutes.",
        {"warning": 100, "critical": 1000},
        {"value": _counted("rate_limited")},
        to_alarm=2,
        periods=3,
        condition="CollectsLogGroups",
        prometheus='sum(increase(api_requests_total{status="429"}[3h])) / 36',
    ),
    Alarm(
        "AuthFailures",
        "requests",
        "So many requests were answered with 401 or 403 in five minutes.",
        {"warning": 100, "critical": 1000},
        {"value": _counted("auth_failures")},
        to_alarm=2,
        periods=3,
        condition="CollectsLogGroups",
        prometheus='sum(increase(api_requests_total{status=~"401|403"}[3h])) / 36',
    ),
    Alarm(
        "TimeOuts",
        "requests",
        "Functions whose log groups are collected ran out of time.",
        {"warning": 5},
        {"value": _counted("timeouts")},
        to_alarm=2,
        periods=3,
        condition="CollectsLogGroups",
    ),
    # ---- Collection --------------------------------------------------------------------------------------
    Alarm(
        "NoRecords",
        "collection",
        "Functions run whose log groups are collected, and no record has come for fifteen minutes.",
        _ONE,
        {"invocations": _counted("invocations"), "received": _RECEIVED},
        # A missing number counts as 0 beside another one.
        expression="IF(invocations > 0 AND invocations + received == invocations, 1, 0)",
        to_alarm=3,
        periods=3,
        condition="CollectsLogGroups",
        log="RowConsumer",
    ),
    Alarm(
        "ConsumerLag",
        "collection",
        "Records wait so long for the consumer.",
        {"warning": 300_000, "critical": 600_000},
        _of_lambda("IteratorAge", "Maximum", "RowConsumer"),
        "ms",
        period_s=MINUTE_S,
        to_alarm=3,
        periods=5,
        log="RowConsumer",
    ),
    Alarm(
        "MeterLag",
        "collection",
        "Records wait so long for the consumer of meters.",
        {"warning": 300_000, "critical": 600_000},
        _of_lambda("IteratorAge", "Maximum", "MeterConsumer"),
        "ms",
        period_s=MINUTE_S,
        to_alarm=3,
        periods=5,
        condition="CollectsMeters",
        log="MeterConsumer",
    ),
    Alarm(
        "FailedBatches",
        "collection",
        "Batches that the consumer gave up are kept in the bucket.",
        _ONE,
        _of_mapping("OnFailureDestinationDeliveredEventCount", "RowConsumerLines"),
        log="RowConsumer",
    ),
    Alarm(
        "FailedMeterBatches",
        "collection",
        "Batches that the consumer of meters gave up are kept in the bucket.",
        _ONE,
        _of_mapping("OnFailureDestinationDeliveredEventCount", "MeterConsumerLines"),
        condition="CollectsMeters",
        log="MeterConsumer",
    ),
    Alarm(
        "DroppedBatches",
        "collection",
        "Batches that the consumer gave up could not be kept in the bucket.",
        _ONE,
        _of_mapping("DroppedEventCount", "RowConsumerLines"),
        log="RowConsumer",
    ),
    Alarm(
        "DroppedMeterBatches",
        "collection",
        "Batches that the consumer of meters gave up could not be kept in the bucket.",
        _ONE,
        _of_mapping("DroppedEventCount", "MeterConsumerLines"),
        condition="CollectsMeters",
        log="MeterConsumer",
    ),
    Alarm(
        "Quarantined",
        "collection",
        "So many lines could not be read or stored, and are in quarantine.",
        {"warning": 1, "critical": 100},
        {"value": _ours("quarantined", "Sum", **_CONSUMER)},
        log="RowConsumer",
        prometheus="increase(tagline_quarantined_total[3h])",
    ),
    Alarm(
        "ConsumerStopped",
        "collection",
        "Records come into the stream, and for fifteen minutes the consumer has read none.",
        _ONE,
        {
            "arrived": Metric("IncomingRecords", "Sum", "AWS/Kinesis", {"StreamName": "Stream"}),
            "read": Metric("IteratorAge", "SampleCount", "AWS/Lambda", {"FunctionName": "RowConsumer"}),
        },
        # A missing number counts as 0 beside another one.
        expression="IF(arrived > 0 AND arrived + read == arrived, 1, 0)",
        to_alarm=3,
        periods=3,
        log="RowConsumer",
    ),
    # A gauge, one data point for each reconciled day: Maximum, so that reconciling a day again adds nothing.
    # It ends with the next day without loss.
    Alarm(
        "Lost",
        "collection",
        "Lines of the last reconciled day were emitted and did not reach the consumer.",
        _ONE,
        {"value": _ours("lost", "Maximum", stage="reconcile")},
        missing="ignore",
        log="Reconciler",
        prometheus="increase(tagline_lost_total[3h])",
    ),
    Alarm(
        "Recursion",
        "collection",
        "One of the pipeline's own log groups is subscribed; its lines are dropped.",
        _ONE_WARNING,
        {"value": _ours("recursion", "Sum", **_CONSUMER)},
        log="RowConsumer",
    ),
    Alarm(
        "ReconcilerError",
        "collection",
        "Accounts could not be merged or reconciled.",
        _ONE_WARNING,
        _of_lambda("Errors", "Sum", "Reconciler"),
        log="Reconciler",
    ),
    Alarm(
        "ReconcileMissing",
        "collection",
        "Records come in, and for 36 hours no day was reconciled.",
        _ONE,
        {"received": _RECEIVED, "reconciled": _ours("lost", "SampleCount", stage="reconcile")},
        expression="IF(received > 0 AND received + reconciled == received, 1, 0)",
        period_s=12 * HOUR_S,
        to_alarm=3,
        periods=3,
        log="Reconciler",
    ),
    Alarm(
        "Throttled",
        "collection",
        "Lambda refuses to run the pipeline's functions, because too many run in the account.",
        _ONE_WARNING,
        {
            name.lower(): Metric("Throttles", "Sum", "AWS/Lambda", {"FunctionName": name})
            for name in ("RowConsumer", "DailyExporter", "DownloadApi", "DownloadWorker", "UsageApi")
        },
        expression="rowconsumer + dailyexporter + downloadapi + downloadworker + usageapi",
        to_alarm=2,
        periods=3,
    ),
    # ---- Export ------------------------------------------------------------------------------------------
    Alarm(
        "ExportMissing",
        "export",
        "Records come in, and for 36 hours no day was exported.",
        _ONE,
        {
            "received": _RECEIVED,
            "exported": _ours("exported_rows", "SampleCount", format="ExportFormats[0]"),
        },
        expression="IF(received > 0 AND received + exported == received, 1, 0)",
        period_s=12 * HOUR_S,
        to_alarm=3,
        periods=3,
        log="DailyExporter",
    ),
    Alarm(
        "ExportFailed",
        "export",
        "The nightly export could not write a day.",
        _ONE,
        {"value": _ours("exported_failed", "Sum")},
        log="DailyExporter",
    ),
    Alarm(
        "RowsForgotten",
        "export",
        "An export left out rows because their client is to be forgotten.",
        _ONE_WARNING,
        {"value": _ours("exported_forgotten", "Maximum", format="ExportFormats[0]")},
        log="DailyExporter",
    ),
    Alarm(
        "ExporterError",
        "export",
        "The daily export ended with an error.",
        _ONE_WARNING,
        _of_lambda("Errors", "Sum", "DailyExporter"),
        log="DailyExporter",
    ),
    Alarm(
        "ScheduleDeadLetters",
        "export",
        "A function could not be started on its schedule: export, reconciliation, upkeep or roll-up.",
        _ONE,
        _of_queue("ScheduleDeadLetters"),
    ),
    Alarm(
        "UpkeepError",
        "export",
        "Rows that the store did not keep could not be written again.",
        _ONE_WARNING,
        _of_lambda("Errors", "Sum", "Upkeep"),
        log="Upkeep",
    ),
    # ---- Downloads ---------------------------------------------------------------------------------------
    Alarm(
        "DownloadApiError",
        "downloads",
        "The download API ended without an answer: its callers get 500.",
        _ONE,
        _of_lambda("Errors", "Sum", "DownloadApi"),
        log="DownloadApi",
    ),
    # A zip that fails because of its request is not an error of the function.
    Alarm(
        "DownloadWorkerError",
        "downloads",
        "The download worker failed, or ran out of memory or time; the zip is tried again.",
        _ONE_WARNING,
        _of_lambda("Errors", "Sum", "DownloadWorker"),
        log="DownloadWorker",
    ),
    Alarm(
        "DownloadIncident",
        "downloads",
        "A zip failed for a reason that its caller cannot change.",
        _ONE,
        {"value": _ours("zip_incidents", "Sum")},
        log="DownloadWorker",
    ),
    Alarm(
        "DownloadDeadLetters",
        "downloads",
        "A zip could not be made in three tries.",
        _ONE,
        _of_queue("DownloadDeadLetters"),
    ),
    # ---- Usage -------------------------------------------------------------------------------------------
    Alarm(
        "Freshness",
        "usage",
        "The numbers of usage are so old.",
        {"warning": 7_200, "critical": 14_400},
        {"value": _ours("usage_age_s", "Maximum", stage="usage")},
        "s",
        period_s=HOUR_S,
        to_alarm=1,
        periods=2,
        log="UsageRoller",
        prometheus="time() - tagline_usage_data_through_timestamp_seconds",
    ),
    Alarm(
        "UsageMissing",
        "usage",
        "Records come in, and for three hours no numbers were made of them.",
        _ONE,
        {"received": _RECEIVED, "rolled": _ours("usage_days", "SampleCount", stage="usage")},
        expression="IF(received > 0 AND received + rolled == received, 1, 0)",
        period_s=HOUR_S,
        to_alarm=3,
        periods=3,
        log="UsageRoller",
    ),
    Alarm(
        "UsageRollerError",
        "usage",
        "Numbers of usage could not be written, or differ from the lake's.",
        _ONE_WARNING,
        _of_lambda("Errors", "Sum", "UsageRoller"),
        log="UsageRoller",
    ),
    Alarm(
        "UsageApiError",
        "usage",
        "The usage page and API ended without an answer: their callers get 500.",
        _ONE_WARNING,
        _of_lambda("Errors", "Sum", "UsageApi"),
        log="UsageApi",
    ),
)
