"""What the consumer says of itself: a summary line, metrics, a trace, and nothing of the records."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from aws_lambda_powertools import Metrics
from aws_lambda_powertools.metrics import MetricUnit

from consumers.lines.extract import Rejected
from consumers.lines.ledger import Ledger
from consumers.lines.telemetry import STAGES, BestEffort, Timings
from consumers.rows.handler import report_rows
from consumers.rows.store import Traffic
from tests.builders import data, envelope, kinesis_record
from tests.twins import Objects

ROOT = Path(__file__).parents[3]
SAMPLED = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"


def some_ledger() -> Ledger:
    ledger = Ledger([kinesis_record(data(envelope("usage_record hush")), 0)], received=2, stored=1)
    ledger.reject(0, None, Rejected("unparseable", "hush"))
    ledger.keep(Objects())
    return ledger


def test_an_invocation_reports_counts_sizes_and_times_and_no_contents(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # A name of its own: the logger of a name writes to the stdout of its first use for ever.
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", f"tagline-{time.monotonic_ns()}")
    monkeypatch.setenv("POWERTOOLS_METRICS_NAMESPACE", "Tagline")
    timings = Timings()
    with timings.stage("decode"):
        pass

    ledger = some_ledger()
    ledger.write_seconds = 2.5

    report_rows(ledger, "timestream", timings, Traffic(requests=3, retries=2, throttled=1, bytes=4_000))

    printed = capsys.readouterr().out
    assert "hush" not in printed
    summary, metrics = (json.loads(text) for text in printed.splitlines())
    counts = {
        "records": 1,
        "received": 2,
        "stored": 1,
        "quarantined": 1,
        "quarantined_unparseable": 1,
        "requests": 3,
        "retries": 2,
        "throttled": 1,
    }
    assert {name: summary[name] for name in counts} == counts
    (directive,) = metrics["_aws"]["CloudWatchMetrics"]
    assert directive["Namespace"] == "Tagline"
    assert set(directive["Dimensions"][0]) == {"service", "stage", "store"}
    assert (metrics["stage"], metrics["store"]) == ("consumer", "timestream")
    units = {metric["Name"]: metric["Unit"] for metric in directive["Metrics"]}
    assert {units[name] for name in counts} == {"Count"}
    assert {units[name] for name in ("bytes", "bytes_out")} == {"Bytes"}
    milliseconds = {"write_ms", "decode_ms", "map_ms", "quarantine_ms", "iterator_age"}
    assert {name for name, unit in units.items() if unit == "Milliseconds"} == milliseconds
    assert {name: metrics[name] for name in counts} == {
        name: [float(count)] for name, count in counts.items()
    }
    assert metrics["bytes_out"] == [4_000.0]
    assert metrics["decode_ms"][0] >= 0.0
    assert metrics["write_ms"] == [2_500.0]


def test_the_stages_of_a_sampled_invocation_are_subsegments_of_its_trace() -> None:
    daemon = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    daemon.bind(("127.0.0.1", 0))
    daemon.settimeout(30)
    # In a process of its own: X-Ray's recorder is one for a whole process.
    script = (
        "import os\n"
        "from consumers.lines.telemetry import Timings, STAGES, trace_batch\n"
        "from tests.consumers.lines.test_telemetry import some_ledger\n"
        "timings = Timings()\n"
        "timings.log_groups = {'/g/2', '/g/1'}\n"
        "for stage in STAGES:\n"
        "    with timings.stage(stage): pass\n"
        "timings.seconds['write'] = 2.5\n"
        "trace_batch(some_ledger(), timings, os.environ)\n"
    )
    with daemon:
        subprocess.run(
            [sys.executable, "-c", script],
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": f"{ROOT}:{ROOT / 'emitter'}",
                "LAMBDA_TASK_ROOT": "/var/task",
                "POWERTOOLS_SERVICE_NAME": "tagline",
                "_X_AMZN_TRACE_ID": SAMPLED,
                "AWS_XRAY_DAEMON_ADDRESS": f"127.0.0.1:{daemon.getsockname()[1]}",
            },
            check=True,
        )
        sent = [json.loads(daemon.recv(65_536).split(b"\n", 1)[1]) for _ in STAGES]

    assert [segment["name"] for segment in sent] == [f"## {stage}" for stage in STAGES]
    for segment in sent:
        assert segment["trace_id"] == "1-5759e988-bd862e3fe1be46a994272793"
        assert segment["parent_id"] == "53995c3f42cd8ad8"
        assert segment["annotations"] == {"batch_size": 1, "log_groups": "/g/1,/g/2"}
    assert sent[2]["end_time"] - sent[2]["start_time"] == pytest.approx(2.5, abs=0.001)


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"_X_AMZN_TRACE_ID": SAMPLED},
        {
            "_X_AMZN_TRACE_ID": SAMPLED.replace("=1;", "=0;")[:-1] + "0",
            "AWS_XRAY_DAEMON_ADDRESS": "127.0.0.1:1",
        },
    ],
    ids=["no trace", "no daemon", "not sampled"],
)
def test_what_is_not_sampled_does_not_import_a_tracer(environ: dict[str, str]) -> None:
    script = (
        "import sys\n"
        "from consumers.lines.telemetry import Timings, trace_batch\n"
        "from consumers.lines.ledger import Ledger\n"
        "timings = Timings()\n"
        "with timings.stage('write'): pass\n"
        f"trace_batch(Ledger([]), timings, {environ!r})\n"
        "assert 'aws_xray_sdk' not in sys.modules\n"
    )
    subprocess.run(
        [sys.executable, "-c", script], env={"PYTHONPATH": f"{ROOT}:{ROOT / 'emitter'}"}, check=True
    )


def test_time_counts_to_the_stage_that_it_was_spent_in() -> None:
    timings = Timings()
    for _ in range(2):
        with timings.stage("map"):
            time.sleep(0.001)

    assert timings.seconds["map"] >= 0.002
    assert set(timings.began) == {"map"}
    timings.begin()
    assert timings.seconds["map"] == 0


def test_a_report_that_fails_is_shown_on_stderr_and_counted_in_the_next(
    capsys: pytest.CaptureFixture[str],
) -> None:
    failures = [OSError("no stdout"), OSError("still none")]
    unreported = []

    def report(ledger: Ledger) -> None:
        unreported.append(ledger.unreported)
        if failures:
            raise failures.pop(0)

    best_effort = BestEffort(report)
    for _ in range(4):
        best_effort(some_ledger())

    assert unreported == [0, 1, 2, 0]
    shown = capsys.readouterr().err
    assert "OSError: no stdout" in shown
    assert "OSError: still none" in shown


def test_a_report_that_fails_leaves_no_metric_for_the_next(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("POWERTOOLS_METRICS_NAMESPACE", "Tagline")

    def report(_ledger: Ledger) -> None:
        Metrics().add_metric(name="stored", unit=MetricUnit.Count, value=1)
        if failures:
            raise failures.pop()
        Metrics().flush_metrics()

    failures = [OSError("no stdout")]
    best_effort = BestEffort(report)
    for _ in range(2):
        best_effort(some_ledger())

    assert json.loads(capsys.readouterr().out)["stored"] == [1.0]
