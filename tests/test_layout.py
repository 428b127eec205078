"""The tree reads as the pipeline: imports point upstream, and pure modules stay pure."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

PURE = [
    "consumers/accounts/accounting.py",
    "consumers/asked_days.py",
    "consumers/documents.py",
    "consumers/lines/batch.py",
    "consumers/lines/extract.py",
    "consumers/lines/ledger.py",
    "consumers/meters/javascript.py",
    "consumers/meters/meter.py",
    "consumers/replay.py",
    "consumers/lines/subscription.py",
    "consumers/rows/table.py",
    "consumers/rows/timestream/mapping.py",
    "exporter/lake/manifest.py",
    "exporter/lake/forgotten.py",
    "exporter/downloads/jobs.py",
    "exporter/downloads/openapi.py",
    "exporter/downloads/parameters.py",
    "exporter/lake/parquet.py",
    "exporter/lake/batch.py",
    "exporter/lake/csv_files.py",
    "exporter/lake/files.py",
    "exporter/lake/formats.py",
    "exporter/lake/jsonl_files.py",
    "exporter/lake/text.py",
    "exporter/lake/overflow.py",
    "exporter/lake/progress.py",
    "exporter/store.py",
    "exporter/zips/packing.py",
    "exporter/zips/selection.py",
    "exporter/export/whole_rows.py",
    "exporter/zips/zip_file.py",
    "cli/access_log.py",
    "local/filter_pattern.py",
]
IMPURE = {"boto3", "botocore", "os", "time", "random", "secrets", "uuid", "aws_lambda_powertools", "requests"}
# What clocks and chance are called in modules that are otherwise pure.
READING_THE_CLOCK = {"now", "today", "utcnow", "urandom"}

# What each stage may import of ours: itself, and what its neighbour upstream publishes.
UPSTREAM = {
    "emitter/tagline": ("tagline",),
    "consumers": ("tagline", "consumers"),
    "exporter": (
        "consumers.asked_days",
        "consumers.bucket",
        "consumers.documents",
        "consumers.errors",
        "consumers.rows.late_days",
        "consumers.rows.schema",
        "consumers.settings",
        "consumers.rows.table",
        "exporter",
    ),
}
OURS = ("tagline", "consumers", "exporter", "local", "cli", "tests", "benchmarks", "examples")


def imports(path: Path) -> set[str]:
    """Return the modules that a file imports, with the names it takes of them."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("name", PURE)
def test_a_pure_module_reaches_for_no_service_clock_or_chance(name: str) -> None:
    tree = ast.parse((ROOT / name).read_text(encoding="utf-8"))

    assert {module.split(".")[0] for module in imports(ROOT / name)} & IMPURE == set()
    called = {
        node.func.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    }
    assert called & READING_THE_CLOCK == set()


@pytest.mark.parametrize("stage", UPSTREAM)
def test_imports_point_upstream_one_hop_at_what_is_published(stage: str) -> None:
    for path in (ROOT / stage).rglob("*.py"):
        for module in imports(path):
            if module.split(".")[0] in OURS:
                allowed = UPSTREAM[stage]
                assert module.startswith(allowed), f"{path.relative_to(ROOT)} imports {module}"


def test_nothing_is_called_utils_or_helpers() -> None:
    names = {path.stem for path in ROOT.rglob("*.py") if ".venv" not in path.parts}

    assert names & {"utils", "helpers", "common", "misc", "manager", "base", "shared"} == set()
