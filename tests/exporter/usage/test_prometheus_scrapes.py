"""Prometheus scrapes while roll-ups change: no counter is reset, all add up, and all panels have data."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from math import inf
from pathlib import Path
from typing import Any

import pytest

from exporter.usage.prometheus import Counters, exposition
from exporter.usage.questions import DAY
from exporter.usage.rollup import Completeness
from monitoring.__main__ import DASHBOARD
from tests.exporter.usage.usage_rows import START, rolled, row, traffic

PROMETHEUS, PROMTOOL = shutil.which("prometheus"), shutil.which("promtool")
pytestmark = pytest.mark.skipif(PROMETHEUS is None, reason="Debian's prometheus is not installed")
PATIENCE_S = 60.0
Ask = Callable[[str], float | None]


class Exporter:
    """Counters behind an address, for a scrape."""

    def __init__(self) -> None:
        self.counters = Counters(datetime(2026, 11, 1, tzinfo=UTC))
        self._lock = threading.Lock()

    def add(self, *rollups: Any) -> None:
        """Count roll-ups."""
        with self._lock:
            self.counters.add(rollups)

    def scrape(self, accept: str) -> tuple[bytes, str]:
        """Return what a scrape reads."""
        with self._lock:
            return exposition(self.counters, accept)


@pytest.fixture
def exporter() -> Iterator[tuple[Exporter, int]]:
    """An exporter, and the port where it is scraped."""
    made = Exporter()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body, content_type = made.scrape(self.headers.get("Accept", ""))
            self.send_response(200)
            self.send_header("Content-Type", content_type)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Keep the test's output short."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield made, server.server_port
    server.shutdown()
    server.server_close()


@contextmanager
def scraping(host: str, folder: Path) -> Iterator[Ask]:
    """Run a Prometheus that scrapes a host each second: gives an expression's value, None without one."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    target = {"static_configs": [{"targets": [host]}], "job_name": "tagline"}
    config = folder / "prometheus.yml"
    config.write_text(
        json.dumps({"global": {"scrape_interval": "1s"}, "scrape_configs": [target]})
    )  # JSON is YAML
    command = [str(PROMETHEUS), f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"]
    command.append(f"--web.listen-address=127.0.0.1:{port}")

    def value(expression: str) -> float | None:
        query = urllib.parse.urlencode({"query": expression})
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{port}/api/v1/query?{query}", timeout=10
            ) as answer:
                found = json.load(answer)["data"]["result"]
        except OSError:
            return None
        return float(found[0]["value"][1]) if found else None

    with (folder / "log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as running:
        yield value
        running.terminate()


@pytest.fixture
def ask(exporter: tuple[Exporter, int], tmp_path: Path) -> Iterator[Ask]:
    """Ask a Prometheus that scrapes the exporter."""
    with scraping(f"127.0.0.1:{exporter[1]}", tmp_path) as value:
        yield value


def wait_for(ask: Ask, expression: str, expected: float) -> None:
    """Wait until an expression has a value."""
    began = time.monotonic()
    while (found := ask(expression)) != expected:
        assert time.monotonic() - began < PATIENCE_S, f"{expression} is {found}, not {expected}"
        time.sleep(0.2)


def test_no_counter_is_reset_and_all_requests_are_counted(exporter: tuple[Exporter, int], ask: Ask) -> None:
    source, _ = exporter
    days = traffic(3, routes=20, clients=5, requests=400)
    highest = 0
    for number, rows in enumerate(days):
        start = START + number * DAY
        for part in (
            rows[: len(rows) // 2],
            rows,
            rows[: len(rows) // 3],
            rows,
        ):  # erased, and rolled up again
            source.add(rolled(part, start))
            highest = max(highest, sum(map(len, days[:number])) + len(part))
            wait_for(ask, "sum(api_requests_total)", highest)
    requests = sum(map(len, days))

    wait_for(ask, "sum(api_request_duration_seconds_count)", requests)
    for metric in ("api_requests_total", "api_errors_total", "api_request_duration_seconds_bucket"):
        assert ask(f"sum(resets({metric}[5m]))") == 0
    limit = "histogram_quantile(0.5, sum by (le) (api_request_duration_seconds_bucket)) > 0"
    assert ask(limit) is not None
    through = START + len(days) * DAY
    assert ask("tagline_usage_data_through_timestamp_seconds") == through.timestamp()


def test_every_query_of_the_dashboard_returns_something(exporter: tuple[Exporter, int], ask: Ask) -> None:
    source, _ = exporter
    failing = [row(START, route=f"/{status}", status=status) for status in (200, 401, 429, 500)]
    failing.append(row(START, status=500, error_type="KeyError"))
    model = json.loads(DASHBOARD.read_text())
    queries = [target["expr"] for panel in model["panels"] for target in panel["targets"]]
    (values,) = (each["definition"] for each in model["templating"]["list"] if each["type"] == "query")
    (metric, label), *_ = re.findall(r"label_values\((\w+), (\w+)\)", values)
    queries.append(f"count by ({label}) ({metric})")

    for times in (1, 2):  # an increase needs two scrapes
        usage = rolled(failing * times, START)
        source.add(replace(usage, completeness=Completeness(lost=times, quarantined=times)))
        wait_for(ask, "sum(api_requests_total)", times * len(failing))

    for query in queries:
        found = ask(query.replace("$endpoint", ".*"))
        assert found is not None, query
        assert 0 < found < inf, query
    assert ask(queries[0].replace("$endpoint", "/nowhere")) is None


@pytest.mark.skipif(PROMTOOL is None, reason="Debian's promtool is not installed")
def test_promtool_finds_nothing_to_complain_of() -> None:
    counters = Counters(datetime(2026, 11, 1, tzinfo=UTC))
    counters.add([rolled(traffic(1, routes=5, clients=5, requests=100)[0], START)])
    body, _ = exposition(counters, "text/plain")

    checked = subprocess.run(
        [str(PROMTOOL), "check", "metrics"], input=body, capture_output=True, check=False
    )

    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
