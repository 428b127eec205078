"""`tagline cost`: its plan beside what a pipeline counted, its arithmetic, and its constants."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from benchmarks import cost as measured
from cli.cost import lake, plan, prices, timestream
from cli.cost.flow import Setup, Sizes, StoreCost, flow_of
from cli.cost.plan import on_demand_usd, plan_of, provisioned_usd
from cli.main import app
from monitoring.alarms import ALARMS

ROOT = Path(__file__).parents[2]
STORES = (lake.COST, timestream.COST)
# Of records and batches, and of their bytes: these depend on what a day's lines have in common.
EXACT, BYTES_TOLERANCE = 1e-9, 0.10


def ran(*arguments: str) -> list[dict[str, Any]]:
    done = CliRunner().invoke(app, ["cost", *arguments, "--json"], catch_exceptions=False)
    assert done.exit_code == 0
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("store", STORES, ids=lambda store: store.name)
def test_the_plan_is_what_a_pipeline_counts_at_three_rates(store: StoreCost) -> None:
    sizes, ratios = measured.counted(store, measured.RATES)

    assert len(ratios) == 3
    for found in ratios:
        assert {"lines", "stream_records", "stream_bytes", "batches", "exported_bytes"} <= found.keys()
        for name, ratio in found.items():
            tolerance = BYTES_TOLERANCE if name.endswith("bytes") else EXACT
            assert ratio == pytest.approx(1, abs=tolerance), name
    for field in fields(Sizes):
        if field.name not in {"lines_per_record", "envelope", "fragment"}:
            assert getattr(sizes, field.name) == pytest.approx(getattr(Sizes(), field.name), rel=0.1), (
                field.name
            )


def test_the_sizes_are_those_of_the_benchmark() -> None:
    found = measured.fitted()

    assert Sizes().line == pytest.approx(found["line_bytes"], rel=0.05)
    for name in ("envelope", "packed_line", "fragment", "fragment_row"):
        assert getattr(Sizes(), name) == pytest.approx(found[f"{name}_bytes"], rel=0.05), name


@pytest.mark.parametrize("store", STORES, ids=lambda store: store.name)
def test_a_plan_is_the_sum_of_its_hops_and_grows_with_the_rate(store: StoreCost) -> None:
    plans = [plan_of(rate, Sizes(), Setup(), store) for rate in (1, 10, 100, 1_000, 10_000, 100_000)]

    for each in plans:
        assert each.usd == pytest.approx(sum(hop.usd for hop in each.hops))
        assert each.flow.batches_per_s * each.flow.batch_records == pytest.approx(each.flow.records_per_s)
        assert each.flow.concurrency <= each.flow.lanes
        assert all(hop.usd >= 0 for hop in each.hops)
        assert all(bite.used * 1.25 > bite.limit for bite in each.bites)
    assert [each.usd for each in plans] == sorted(each.usd for each in plans)
    assert [each.flow.shards for each in plans] == [1, 1, 1, 2, 13, 125]


@pytest.mark.parametrize(
    ("rate", "batch_records", "why"),
    [(1, 60, "the window"), (0.001, 1, "one record"), (100, 4_451.5, "6 MB"), (1_000, 4_451.5, "6 MB")],
)
def test_a_batch_ends_by_what_comes_first(rate: float, batch_records: float, why: str) -> None:
    assert flow_of(rate, Sizes(), Setup(), lake.COST).batch_records == pytest.approx(
        batch_records, abs=0.1
    ), why
    small = flow_of(rate, Sizes(), Setup(batch_size=30), lake.COST).batch_records
    assert small == min(30, batch_records)


def test_prices_are_those_of_examples_by_hand() -> None:
    # 60 TB of logs a month: 12,500 dollars, as AWS announced (in thousands of GB).
    assert prices.logs_usd(60 * 1024) == pytest.approx(12_500 * 1.024, rel=0.001)
    assert prices.lambda_usd(1e6, 0, 512) == pytest.approx(0.20)
    assert prices.lambda_usd(0, 1_000, 512) == pytest.approx(prices.lambda_usd(0, 1_000, 1_769))
    flow = flow_of(100, Sizes(), Setup(retention_hours=24), lake.COST)
    # 100 records a second of less than 1 KiB: 250.6 GiB a month in and out, and an hour's price.
    assert on_demand_usd(flow) == pytest.approx(730 * 0.04 + 250.6 * 0.12, rel=0.001)
    assert provisioned_usd(flow) == pytest.approx(730 * 0.015 + 262.8 * 0.014, rel=0.001)
    assert all(each["page"].startswith("https://aws.amazon.com/") for each in prices.dated().values())


def test_limits_bite_where_they_do_and_name_what_to_set() -> None:
    bites = {
        (each["store"], each["rate"], bite["what"]): bite["fix"]
        for each in ran("--lines-per-record", "20")
        for bite in each["limits"]
    }

    assert ("lake", 10.0, "requests a minute before the alarm") not in bites
    assert "RequestsPerMinute" in bites["lake", 100.0, "requests a minute before the alarm"]
    assert "several stacks" in bites["lake", 100_000.0, "hours that the export of a day takes"]
    assert "DownloadMaxGB" in bites["timestream", 100_000.0, "bytes of a day's files in one download"]
    busy = plan_of(5_000, Sizes(), Setup(shards=1), timestream.COST).bites
    assert [bite.fix for bite in busy if "its shards'" in bite.what] == ["ConsumerMemoryMB 1769"]


def test_constants_are_those_of_the_template_and_of_the_pages() -> None:
    template = yaml.load((ROOT / "template.yml").read_text(), Loader=yaml.BaseLoader)
    parameters, resources = template["Parameters"], template["Resources"]
    given = Setup()
    assert {
        "ParallelizationFactor": given.parallelization,
        "ConsumerMemoryMB": given.memory_mb,
        "StreamRetentionHours": given.retention_hours,
        "LakeDays": given.lake_days,
        "MemoryStoreHours": timestream.MEMORY_HOURS,
        "MagneticStoreDays": timestream.MAGNETIC_DAYS,
        "DownloadMaxGB": plan.DOWNLOAD_BYTES / prices.GIB,
    } == {
        name: int(parameters[name]["Default"])
        for name in (
            *("ParallelizationFactor", "ConsumerMemoryMB", "StreamRetentionHours", "LakeDays"),
            *("MemoryStoreHours", "MagneticStoreDays", "DownloadMaxGB"),
        )
    }
    assert int(parameters["ShardCount"]["MaxValue"]) == plan.MOST_SHARDS
    assert memory_of(resources, "DailyExporter") == lake.EXPORTER_MB
    assert memory_of(resources, "UsageRoller") == plan.ROLLER_MB
    assert int(resources["RowConsumer"]["Properties"]["Timeout"]) == plan.CONSUMER_TIMEOUT_S
    (alarm,) = (each for each in ALARMS if each.name == "RequestsPerMinute")
    assert alarm.thresholds["critical"] == plan.REQUESTS_PER_MINUTE
    page = (ROOT / "docs/reference/cost.md").read_text()
    assert re.search(rf"{plan.ALARM_METRICS} and {plan.COMPOSITES} with meters", page)
    names = re.findall(r"^\| `", (ROOT / "docs/reference/metrics.md").read_text(), re.MULTILINE)
    assert len(names) <= plan.METRICS


def memory_of(resources: Mapping[str, Any], name: str) -> int:
    return int(resources[name]["Properties"]["MemorySize"])


def test_the_command_prints_each_plan_and_each_hop() -> None:
    done = CliRunner().invoke(
        app,
        ["cost", "--rate", "200", "--store", "lake", "--hops"],
        catch_exceptions=False,
        env={"COLUMNS": "160"},
    )

    assert done.exit_code == 0
    for text in ("requests/s", "CloudWatch Logs: taken in", "export: files read once", "2026-11-29"):
        assert text in done.output
    (found,) = ran("--rate", "200", "--store", "lake")
    assert found["usd_a_month"] == pytest.approx(sum(hop["usd"] for hop in found["hops"]), abs=0.01)
    assert found["prices"]["read"] == "2026-11-29"
