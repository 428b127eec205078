"""The tree reads as the pipeline: imports point upstream, and pure modules stay pure."""

import ast
import io
import re
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
import yaml

from consumers.rows.registry import STORES

ROOT = Path(__file__).resolve().parent.parent
REGISTRY = "consumers/rows/registry.py"

PURE = [
    "consumers/accounts/accounting.py",
    "consumers/accounts/minutes.py",
    "consumers/accounts/sources.py",
    "consumers/deadlines.py",
    "consumers/documents.py",
    "consumers/errors.py",
    "consumers/asked_days.py",
    "consumers/lines/batch.py",
    "consumers/lines/extract.py",
    "consumers/lines/ledger.py",
    "consumers/lines/places.py",
    "consumers/lines/prefix.py",
    "consumers/lines/quarantine.py",
    "consumers/lines/times.py",
    "consumers/meters/ecs.py",
    "consumers/meters/javascript.py",
    "consumers/meters/meter.py",
    "consumers/outcomes.py",
    "consumers/replay.py",
    "consumers/lines/subscription.py",
    "consumers/rows/lake/content.py",
    "consumers/rows/lake/digest.py",
    "consumers/rows/lake/fragments.py",
    "consumers/rows/clashes.py",
    "consumers/rows/lake/limits.py",
    "consumers/rows/lake/mapping.py",
    "consumers/rows/lake/parquet.py",
    "consumers/rows/late_days.py",
    "consumers/rows/limits.py",
    "consumers/rows/ordinary.py",
    "consumers/rows/store.py",
    "consumers/rows/registry.py",
    "consumers/rows/table.py",
    "consumers/rows/timestream/limits.py",
    "consumers/rows/timestream/mapping.py",
    "consumers/rows/timestream/reports.py",
    "consumers/workers.py",
    "exporter/lake/manifest.py",
    "exporter/lake/forgotten.py",
    "exporter/downloads/jobs.py",
    "exporter/downloads/openapi.py",
    "exporter/downloads/parameters.py",
    "exporter/lake/parquet.py",
    "exporter/lake/athena_view.py",
    "exporter/lake/batch.py",
    "exporter/lake/cells.py",
    "exporter/lake/csv_files.py",
    "exporter/lake/files.py",
    "exporter/lake/formats.py",
    "exporter/lake/jsonl_files.py",
    "exporter/lake/text.py",
    "exporter/lake/overflow.py",
    "exporter/lake/progress.py",
    "exporter/store.py",
    "exporter/stores/lake/copies.py",
    "exporter/stores/lake/texts.py",
    "exporter/zips/packing.py",
    "exporter/zips/selection.py",
    "exporter/export/fan_out.py",
    "exporter/export/whole_rows.py",
    "exporter/zips/zip_file.py",
    "emitter/tagline/metrics.py",
    "emitter/tagline/privacy.py",
    "emitter/tagline/record.py",
    "emitter/tagline/values.py",
    "exporter/usage/buckets.py",
    "exporter/usage/charts.py",
    "exporter/usage/counting.py",
    "exporter/usage/groups.py",
    "exporter/usage/health.py",
    "exporter/usage/live.py",
    "exporter/usage/position.py",
    "exporter/usage/names.py",
    "exporter/usage/narrowing.py",
    "exporter/usage/page.py",
    "exporter/usage/prometheus.py",
    "exporter/usage/questions.py",
    "exporter/usage/rollup.py",
    "exporter/usage/texts.py",
    "exporter/usage/views.py",
    "exporter/usage_api/openapi.py",
    "exporter/usage_api/parameters.py",
    "cli/cost/flow.py",
    "cli/cost/lake.py",
    "cli/cost/plan.py",
    "cli/cost/prices.py",
    "cli/cost/timestream.py",
    "cli/access_logs/formats.py",
    "cli/access_logs/requests.py",
    "local/onemachine/alarms/composite.py",
    "local/onemachine/alarms/evaluation.py",
    "local/onemachine/alarms/metric_math.py",
    "local/onemachine/filter_pattern.py",
    "local/onemachine/linear_regex.py",
    "local/onemachine/insights/query.py",
    "monitoring/alarms.py",
    "monitoring/cloudwatch.py",
    "monitoring/grafana.py",
    "monitoring/prometheus.py",
    "monitoring/runbook.py",
]
IMPURE = {"boto3", "botocore", "os", "time", "random", "secrets", "uuid", "aws_lambda_powertools", "requests"}
# What clocks and chance are called in modules that are otherwise pure.
READING_THE_CLOCK = {"now", "today", "utcnow", "urandom"}

# What each part may import of ours: itself, and what its neighbour upstream publishes; the command line, all.
UPSTREAM = {
    "emitter/tagline": ("tagline",),
    "consumers": ("tagline", "consumers"),
    "exporter": (
        "consumers.accounts.compaction",
        "consumers.accounts.minutes",
        "consumers.asked_days",
        "consumers.bucket",
        "consumers.deadlines",
        "consumers.documents",
        "consumers.errors",
        "consumers.outcomes",
        "consumers.rows.lake.fragments",
        "consumers.rows.late_days",
        "consumers.rows.registry",
        "consumers.rows.schema",
        "consumers.rows.live",
        "consumers.rows.store",
        "consumers.settings",
        "consumers.rows.table",
        "exporter",
    ),
    "local/onemachine": ("onemachine",),
    "cli": ("tagline", "consumers", "exporter", "onemachine", "cli"),
}
# Each Lambda function has its own.
OURS = ("tagline", "consumers", "exporter", "onemachine", "cli", "tests", "benchmarks", "examples")
PIPELINE = ("consumers", "exporter", "cli")

# A technology's name is that of the file or folder which knows it, and stands nowhere else.
TECHNOLOGIES = ("timestream", "athena", "glue")

LONG_FUNCTIONS = ("emitter/",)
LONGEST_FILE, LONGEST_FUNCTION = 800, 60


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


def test_the_services_of_one_machine_know_nothing_of_what_runs_on_them() -> None:
    for path in (ROOT / "local" / "onemachine").rglob("*.py"):
        assert re.search("tagline|consumers|exporter", path.read_text(), re.IGNORECASE) is None, name_of(path)


def test_nothing_is_called_utils_or_helpers() -> None:
    names = {path.stem for path in sources()} | {path.parent.name for path in sources()}

    assert names & {"utils", "util", "helpers", "common", "misc", "manager", "base", "shared", "lib"} == set()


# ---- Sizes -------------------------------------------------------------------------------------------------


def sources(*folders: str) -> list[Path]:
    """Return our Python files outside tests, or those of some folders."""
    kept = folders or (
        *("emitter", "consumers", "exporter", "cli", "local", "installed"),
        *("monitoring", "benchmarks", "examples"),
    )
    return sorted(
        path for folder in kept for path in (ROOT / folder).rglob("*.py") if "build" not in path.parts
    )


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_no_file_is_too_long_to_be_read_at_once() -> None:
    long = {name_of(path) for path in sources() if len(path.read_text().splitlines()) > LONGEST_FILE}

    assert long == set()


def test_no_function_is_too_long_to_be_read_at_once() -> None:
    long = {
        f"{name_of(path)}:{node.name}": length
        for path in sources()
        if not name_of(path).startswith(LONG_FUNCTIONS)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or 0) - node.lineno + 1) > LONGEST_FUNCTION
    }

    assert long == {}


# ---- Technologies ------------------------------------------------------------------------------------------


def mentions(path: Path, technology: str) -> Iterator[str]:
    """Yield the places where a file has a technology's name, in code, comments and text."""
    for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
        if technology not in token.string.lower():
            continue
        # Whoever imports a store says its name, once and for all.
        if re.match(r"\s*(from|import) ", token.line) and token.type == tokenize.NAME:
            continue
        # The registry has the values of the setting `STORE`.
        if name_of(path) == REGISTRY and token.string.strip("\"'") in STORES:
            continue
        yield f"{name_of(path)}:{token.start[0]}: {token.line.strip()}"


# What knows both services whose SQL is Presto's, and the registry of what one machine has.
OF_SEVERAL = ("local/onemachine/presto/", "local/onemachine/athena/", "local/onemachine/registry.py")


@pytest.mark.parametrize("technology", TECHNOLOGIES)
def test_a_technology_is_named_only_in_what_is_named_after_it(technology: str) -> None:
    found = [
        place
        for path in sources(*PIPELINE, "local")
        if technology not in name_of(path) and not name_of(path).startswith(OF_SEVERAL)
        for place in mentions(path, technology)
    ]

    assert found == []


# ---- Imports -----------------------------------------------------------------------------------------------


def module_of(path: Path) -> str:
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return module.removeprefix("local.").removesuffix(".__init__")


@pytest.mark.parametrize("package", [*PIPELINE, "local"])
def test_no_modules_import_each_other_in_a_circle(package: str) -> None:
    modules = {module_of(path): path for path in sources(package)}
    graph = {
        name: {
            next(m for m in (imported, imported.rpartition(".")[0]) if m in modules)
            for imported in imports(path)
            if {imported, imported.rpartition(".")[0]} & modules.keys()
        }
        - {name}
        for name, path in modules.items()
    }
    assert any(graph.values())

    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def public(path: Path) -> set[str]:
    """Return the public classes, type aliases and functions that a file defines at its top.

    Functions of cli/ are left out: a command is called like the function that does its work.
    """
    kinds = ast.ClassDef if name_of(path).startswith("cli/") else ast.ClassDef | ast.FunctionDef
    found: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, kinds):
            found.add(node.name)
        elif isinstance(node, ast.Assign):  # an alias of a type is written in CapWords
            names = {target.id for target in node.targets if isinstance(target, ast.Name)}
            found |= {name for name in names if name[0].isupper() and not name.isupper()}
    return {name for name in found if not name.startswith("_")}


LOCAL = sorted({name_of(path.parent) for path in sources("local")})
# What modules of one kind have by convention: Lambda functions; stores, by whom they are opened; formats.
CONVENTIONS = {
    "Settings",
    "Handler",
    "make_handler",
    "handler",
    "from_environment",
    "of_stack",
    "read",
    "write",
    "rows",
    "text",
    "writer",
    "install",
}


@pytest.mark.parametrize("package", [*PIPELINE, *LOCAL])
def test_no_two_public_things_of_a_package_have_one_name(package: str) -> None:
    where: dict[str, list[str]] = defaultdict(list)
    for path in sources(package):
        # The folders of one machine are packages of their own.
        if package not in LOCAL or name_of(path.parent) == package:
            for name in public(path) - CONVENTIONS:
                where[name].append(name_of(path))

    assert {name: places for name, places in where.items() if len(places) > 1} == {}


# ---- Functions ---------------------------------------------------------------------------------------------


def test_each_handler_file_is_a_function_of_the_template_and_the_reverse() -> None:
    class Loader(yaml.SafeLoader):
        pass

    Loader.add_multi_constructor("!", lambda loader, suffix, node: None)  # noqa: ARG005 - intrinsics are not of interest
    resources = yaml.load((ROOT / "template.yml").read_text(), Loader)["Resources"]
    declared = {
        resource["Properties"]["Handler"]
        for name, resource in resources.items()
        if not name.startswith("Fn::ForEach") and resource["Type"] == "AWS::Serverless::Function"
    }
    files = {f"{module_of(path)}.handler" for path in ROOT.glob("*/*/handler.py")}

    assert files == declared
