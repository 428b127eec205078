"""The documentation held against the code: what there is is documented, and what is documented is there.

A page's tables name things in their first column, in backticks. Blocks of ```python and ```pycon are run,
page by page and in order; those of ```py are not. `python -m tests.test_docs` writes the commands' pages.
"""

import ast
import doctest
import importlib
import inspect
import io
import json
import pkgutil
import re
import shlex
import time
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import tagline
import typer
from onemachine import authorizers, http_api
from onemachine.template.functions import functions
from onemachine.template.http_apis import http_routes
from onemachine.template.resolution import resolve
from onemachine.template.sam import translate
from onemachine.template.stack import Stack

import cli.demo
import cli.main
from cli.options import Reason
from consumers.accounts import handler as reconcile
from consumers.accounts.accounting import Totals
from consumers.accounts.compaction import Day
from consumers.lines import extract, quarantine, subscription
from consumers.lines.extract import Rejected
from consumers.lines.ledger import Ledger
from consumers.lines.subscription import LogEvent
from consumers.meters import destinations, javascript, meter, search
from consumers.meters import handler as meter_handler
from consumers.rows import handler as row_handler
from consumers.rows import schema, table
from consumers.rows.timestream import limits, writer
from exporter.downloads import handler as downloads
from exporter.downloads import openapi
from exporter.downloads.jobs import Job, Request, State
from exporter.downloads.limits import DownloadLimits
from exporter.downloads.service import DownloadService
from exporter.export import handler as export
from exporter.export.day import Export
from exporter.lake import manifest as archive
from exporter.lake.formats import Format, ZipFormat
from exporter.lake.manifest import Manifest, Part
from exporter.store import Column, Days
from exporter.usage import handler as usage_handler
from exporter.usage.roller import Rolled
from exporter.usage_api import openapi as usage_openapi
from exporter.zips import handler as zipper
from exporter.zips.making import Budget, make_zip
from tests import builders, function_settings
from tests.twins import Bucket, Links, leased

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"
COMMANDS = REFERENCE / "commands.md"
# Which page has which groups of commands (cli/commands/); commands-ask.md has all others.
COMMAND_PAGES = {
    COMMANDS.name: ("here",),
    "commands-ask.md": (),
    "commands-data.md": ("lake", "kept", "schema"),
}
MARKER = (
    "<!-- What follows is made of the commands' help: "
    "PYTHONPATH=.:emitter .venv/bin/python -m tests.test_docs -->"
)
STAGES = ("emitter", "consumers", "exporter", "local", "cli", "installed", "monitoring")
PACKAGES = ("tagline", "consumers", "exporter", "onemachine", "cli")
WRITTEN_BY_HAND = (
    *sorted(DOCS.rglob("*.md")),
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    ROOT / "emitter" / "README.md",
    ROOT / "local" / "README.md",
)

DAY = date(2025, 11, 20)
PART = Part(f"{archive.folder(DAY)}part-00000.csv.gz", 1, 1, "00", "2025-11-20", "2025-11-20")
MANIFEST = Manifest(DAY, 1, (Column("time", "timestamp"),), (PART,))
# No part of the record: the same line, said to CloudWatch.
KEYS_FOR_METRICS = {"_aws"}
# Where X-Ray is on, a version is known, time was short, or nobody ended a record.
SELDOM_ADDED = {"trace_id", "timed_out", "unfinished", "incomplete", "sample_rate"}
SELDOM_ADDED |= {"trigger", "record_count", "failure_count"}  # of events that are not HTTP requests
# Set for every function by the template's Globals, and read by a library.
LIBRARY_SETTINGS = "All functions of the pipeline"
# Documented by what they stand in for: `consumers.bucket.Bucket` has the same methods.
DESCRIBED_ELSEWHERE = {"consumers.bucket.Objects", "consumers.bucket.Downloads"}

OWN_WORDS = (ast.Constant, ast.JoinedStr)


# --- reading pages and code -------------------------------------------------------------------------------


def section(page: Path, heading: str) -> str:
    """Return what stands under a heading, up to the next one."""
    found = re.search(
        rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", page.read_text(), re.MULTILINE | re.DOTALL
    )
    assert found, f"{page.relative_to(ROOT)} has no section {heading!r}"
    return found[1]


def named(text: str) -> set[str]:
    """Return the names in backticks that rows of a text's tables begin with: one, or a list with commas."""
    found = re.findall(r"^\| (`[^`]+`(?:, `[^`]+`)*)", text, re.MULTILINE)
    return {name for names in found for name in re.findall("`([^`]+)`", names)}


def blocks(page: Path, *languages: str) -> list[tuple[str, str]]:
    """Return the fenced blocks of a page in some languages, each with its language."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    return [(language, text) for language, text in found if language in languages]


def modules() -> Iterator[ModuleType]:
    """Yield every module that users may import."""
    for name in PACKAGES:
        package = importlib.import_module(name)
        yield package
        for info in pkgutil.walk_packages(package.__path__, f"{name}."):
            yield importlib.import_module(info.name)


def public(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Yield what a module itself defines for others, by its full name."""
    for name, value in vars(module).items():
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__:
            yield f"{module.__name__}.{name}", value


@pytest.fixture(scope="module")
def stack() -> Stack:
    template = translate(ROOT / "template.yml")
    # Meters are switched on by their bucket.
    parameters = {"MeterBucket": "ingest", "Store": "timestream"}
    return resolve(template, parameters, stack_name="tagline", endpoint="http://127.0.0.1:5000")


# --- the line and the table -------------------------------------------------------------------------------


def test_every_key_of_the_line_is_documented() -> None:
    record = tagline.Record(id="1", timestamp=0, src="s", seq=0, trunc=("a",))

    assert named(section(REFERENCE / "line.md", "The keys of the format")) == {
        *record.to_json(),
        *KEYS_FOR_METRICS,
    }


def test_every_field_that_the_emitter_adds_is_documented(capsys: pytest.CaptureFixture[str]) -> None:
    @tagline.Emitter().handler
    def failing(_event: Any, _context: Any) -> None:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        failing(builders.http_event("GET /pets", "/pets"), builders.Context())

    record = tagline.read(capsys.readouterr().out)
    assert named(section(REFERENCE / "line.md", "Your fields")) == {*record.fields, *SELDOM_ADDED}


def test_every_column_of_the_table_is_documented() -> None:
    constants = {table.SOURCE, *table.DIMENSIONS, *table.PARTITION}
    constants |= set(table.OWN_MEASURES)

    assert named(section(REFERENCE / "table.md", "Columns")) == {"time", "measure_name", *constants}


@pytest.mark.parametrize(
    ("page", "limit"),
    [
        ("line.md", tagline.DEFAULT_MAX_LINE_BYTES),
        ("line.md", tagline.MAX_LINE_BYTES),
        ("line.md", tagline.MAX_REPR),
        ("line.md", tagline.MAX_DEPTH),
        ("table.md", table.MAX_MEASURES),
        ("table.md", table.MAX_NAME_BYTES),
        ("table.md", table.MAX_ID_BYTES),
        ("decoding.md", subscription.MAX_INFLATED_BYTES),
        ("decoding.md", subscription.PIECE_BYTES),
        ("decoding.md", extract.MAX_DEPTH),
        ("quarantine.md", subscription.MAX_INFLATED_BYTES),
        ("quarantine.md", extract.MAX_DEPTH),
        ("table.md", limits.MAX_RECORD_BYTES),
        ("table.md", table.OFFSETS),
        ("table.md", table.REVISION),
        ("meters.md", meter.MAX_TEXT),
        ("meters.md", meter.MAX_DIMENSIONS),
        ("meters.md", javascript.MAX_DEPTH),
        ("meters.md", destinations.MAX_POST_RECORDS),
        ("meters.md", destinations.MAX_POST_BYTES),
        ("meters.md", search.MAX_BULK_RECORDS),
        ("meters.md", search.MAX_BULK_BYTES),
        ("table.md", table.MAX_DIMENSION_BYTES),
        ("table.md", table.MAX_DEPTH),
        ("table.md", table.MAX_MEASURES - len(table.OWN_MEASURES)),
        ("schema.md", schema.MAX_TABLE_MEASURES),
        ("schema.md", schema.MAX_TABLE_DIMENSIONS),
        ("schema.md", schema.MAX_DIMENSION_NAME_BYTES),
        ("schema.md", schema.MAX_SERIES_BYTES),
        ("schema.md", schema.MIN_DIMENSION_BYTES),
        ("schema.md", schema.DEFAULT_DIMENSION_BYTES),
        ("schema.md", schema.MAX_BUCKETS),
        ("schema.md", schema.MAX_REVISION),
        ("schema.md", table.REVISION),
        ("lake.md", archive.PART_BYTES >> 20),
    ],
)
def test_limits_are_documented_as_they_are(page: str, limit: int) -> None:
    assert re.search(rf"\b{limit:,}\b", (REFERENCE / page).read_text())


@pytest.mark.parametrize(
    ("heading", "text"),
    [
        ("The file", "revision = 1\nunknown = 1"),
        ("A dimension", "revision = 1\ndimensions.a.unknown = 1"),
        ("A measure", "revision = 1\nmeasures.a.unknown = 1"),
    ],
)
def test_every_key_of_a_schema_is_documented(heading: str, text: str) -> None:
    with pytest.raises(schema.SchemaError) as raised:
        schema.parse({"t.toml": text.encode()})

    known = set(str(raised.value).partition("there is ")[2].split(", "))
    assert named(section(REFERENCE / "schema.md", heading)) == known | (
        set(schema.TYPES) if heading == "A measure" else set()
    )


def test_the_schema_that_a_page_shows_is_valid() -> None:
    ((_, text),) = blocks(DOCS / "how-to" / "declare-a-schema.md", "toml")

    assert schema.parse({"api_request.toml": text.encode()})[0].type == "api_request"


# --- settings ---------------------------------------------------------------------------------------------


def test_every_setting_of_a_function_is_documented_under_its_name(stack: Stack) -> None:
    page = REFERENCE / "settings.md"
    everywhere = named(section(page, LIBRARY_SETTINGS))
    several = named(section(page, "Variables of several functions"))
    used: set[str] = set()
    for function in functions(stack):
        text = section(page, function.logical_id)
        shared = re.search(r"^Also (.+?)[.:]", text, re.MULTILINE)
        documented = named(text) | set(re.findall(r"`(\w+)`", shared[1] if shared else ""))
        of_the_allocator = {name for name in function.environment if name.startswith("MALLOC_")}
        assert documented == function_settings.variables(function.handler) | of_the_allocator
        assert set(function.environment) == documented | everywhere, function.logical_id
        own = named(text)
        assert documented - own <= several, function.logical_id
        used |= documented - own
    assert used == several


def test_every_settings_class_belongs_to_a_function_of_the_template(stack: Stack) -> None:
    read = {
        name for function in functions(stack) for name in function_settings.settings_classes(function.handler)
    }
    kinds = {
        module.__name__
        for module in modules()
        for name, value in public(module)
        if name.endswith(".Settings") and is_dataclass(value)
    }

    assert kinds == read


def test_every_variable_that_the_emitter_reads_is_documented() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "emitter" / "tagline").glob("*.py"))
    variables = re.findall(r'(?:os\.environ\.get\(|os\.environ\[|setting\()"(\w+)"', sources)
    variables += re.findall(r'"(\w+)" in os\.environ', sources)

    assert named(section(REFERENCE / "settings.md", "The emitter")) == set(variables)


# --- HTTP, lake, quarantine, metrics ----------------------------------------------------------------------


def test_every_route_is_documented(stack: Stack) -> None:
    headings = re.findall(r"^## `(.+)`$", (REFERENCE / "http.md").read_text(), re.MULTILINE)
    headings += [name for name in named(section(REFERENCE / "usage.md", "The API")) if " " in name]

    assert sorted(headings) == sorted(f"{route.method} {route.path}" for route in http_routes(stack))


def test_every_field_of_the_apis_answers_is_documented() -> None:
    bucket = Bucket()
    today = datetime(2025, 11, 21, tzinfo=UTC)
    audited: list[Mapping[str, Any]] = []
    service = DownloadService(
        bucket, Links(lambda: today), lambda _message: None, 60, lambda: today, DownloadLimits(1 << 40, 1)
    )
    api = downloads.make_handler(service, audited.append, max_days=1)

    def fields_of(route: str, path: str, query: dict[str, str] | None = None, **parameters: str) -> set[str]:
        answer = api(builders.http_event(route, path, query, **parameters), builders.Context())
        return set(json.loads(answer["body"]))

    ask, status = "GET /download/usage", "GET /downloads/{id}"
    asked = fields_of(ask, "/download/usage", {"start_date": "2025-11-20", "end_date": "2025-11-20"})
    states = set()
    request = Request(Days(DAY, DAY), ZipFormat.CSV, ("time",), "acme", "/")
    for job in (
        Job("1" * 32, request, State.READY, rows=1, kept_from=1),
        Job("2" * 32, request, State.FAILED, reason="no", incident="one"),
        Job("3" * 32, request, State.RUNNING, total_bytes=1),
    ):
        bucket[f"tmp/{job.id}.json"] = job.to_json().encode()
        states |= fields_of(status, f"/downloads/{job.id}", id=job.id)

    page = REFERENCE / "http.md"
    assert named(section(page, f"`{ask}`")) - {"start_date", "end_date"} == asked - {"start_date", "end_date"}
    assert named(section(page, "`POST /downloads`")) == set(openapi.PARAMETERS)
    assert named(section(page, f"`{status}`")) == states
    assert named(section(page, "Problems")) - {"days"} == fields_of(ask, "/download/usage")
    assert named(section(page, "Problems")) == set(
        openapi.document(1)["components"]["schemas"]["Problem"]["properties"]
    )
    listed = {
        name
        for cell in re.findall("(?m)^[|] (`.*?) [|]", section(REFERENCE / "audit-log.md", "Fields"))
        for name in re.findall("`(.+?)`", cell)
    }
    assert listed == set(audited[0])
    assert all(f"`{state}`" in section(page, f"`{status}`") for state in State)
    assert asked | states == set(openapi.document(1)["components"]["schemas"]["Download"]["properties"])


def test_every_status_of_every_route_is_documented(stack: Stack) -> None:
    described = {
        f"{method.upper()} {path}": set(operation["responses"])
        for path, operations in openapi.document(1)["paths"].items()
        for method, operation in operations.items()
    }
    assert set(described) == {f"{route.method} {route.path}" for route in http_routes(stack)}
    usage = {route for route in described if route.split(" ")[1] in usage_openapi.paths({})}
    of_usage = set(re.findall(r"^\| (\d{3}) \|", section(REFERENCE / "usage.md", "The API"), re.MULTILINE))
    assert {status for route in usage for status in described.pop(route)} - {"200", "304"} == of_usage

    page = REFERENCE / "http.md"
    rows = re.findall(r"^\| (\d{3}) \| (all|`.+?`) \| \S", section(page, "Problems"), re.MULTILINE)
    refused = {status: set(re.findall("`(.+?)`", of)) or set(described) for status, of in rows}
    assert len(refused) == len(rows)
    for route, statuses in described.items():
        good = set(re.findall(r"`(2\d\d) [A-Z]", section(page, f"`{route}`")))
        if route == "POST /downloads":  # "The answer is that of"
            good = set(re.findall(r"`(2\d\d) [A-Z]", section(page, "`GET /download/usage`")))
        assert good | {status for status, of in refused.items() if route in of} == statuses, route


def test_what_api_gateway_says_by_itself_is_documented_as_it_is_here() -> None:
    page = section(REFERENCE / "http.md", "Problems")
    said = dict(re.findall(r"^\| (\d{3}) \| `([A-Z][A-Za-z ]+)` \|$", page, re.MULTILINE))

    by_itself = (
        *(http_api.TOO_LARGE, http_api.TOO_MANY_REQUESTS, http_api.INTERNAL_SERVER_ERROR),
        *(http_api.SERVICE_UNAVAILABLE, authorizers.FORBIDDEN),
    )
    here = {str(each.status): json.loads(each.body)["message"] for each in by_itself}
    assert said == {**here, "401": "Unauthorized"}


def test_every_alarm_that_a_page_names_is_in_the_template() -> None:
    pages = "".join(page.read_text() for page in DOCS.rglob("*.md"))
    there = set(re.findall(r"(?m)^  (\w+Alarm):$", (ROOT / "template.yml").read_text()))

    assert there
    assert set(re.findall(r"`([A-Z]\w+Alarm)`", pages)) <= there


def test_every_prefix_in_the_bucket_is_documented(stack: Stack) -> None:
    (bucket,) = stack.of_type("AWS::S3::Bucket")
    rules = bucket.properties["LifecycleConfiguration"]["Rules"]

    documented = named(section(REFERENCE / "bucket.md", "Keys in the bucket"))
    assert documented == {rule["Prefix"] for rule in rules if "Prefix" in rule}


def test_every_format_of_the_lake_and_of_downloads_is_documented() -> None:
    text = (REFERENCE / "lake.md").read_text()
    of_downloads = {
        kind: tuple(re.findall("`(.+?)`", made_of))
        for kind, made_of in re.findall(
            r"^\| `(.+?)` \| .+? \| (.+?) \|",
            section(REFERENCE / "zip.md", "Formats of downloads"),
            re.MULTILINE,
        )
    }

    assert named(section(REFERENCE / "lake.md", "Formats")) == set(Format)
    assert all(
        f"`{archive.folder(DAY, kind).partition('year=')[0]}year=.../part-00000.{kind}`" in text
        for kind in Format
    )
    assert of_downloads == {kind: kind.made_of for kind in ZipFormat}
    assert "(zip.md#formats-of-downloads)" in section(REFERENCE / "http.md", "`POST /downloads`")


def test_every_field_of_the_manifests_is_documented() -> None:
    page = REFERENCE / "lake.md"
    manifest = json.loads(MANIFEST.to_json())
    bucket = Bucket()
    bucket[archive.folder(DAY) + archive.MANIFEST] = Manifest(DAY, 1, ()).to_json()
    job = Job("0" * 32, Request(Days(DAY, DAY)))
    make_zip(leased(bucket, job), Budget(lambda: 900))
    with zipfile.ZipFile(io.BytesIO(bucket[f"tmp/{'0' * 32}.zip"])) as made:
        of_zip = json.loads(made.read("manifest.json"))

    assert named(section(page, "The manifest")) == set(manifest)
    assert named(section(page, "A part")) == set(manifest["parts"][0])
    assert named(section(REFERENCE / "zip.md", "The zip")) == set(of_zip)
    assert manifest["format"] in section(page, "The manifest")


def test_every_reason_for_quarantine_is_documented() -> None:
    said = {
        reason
        for module in modules()
        if module.__name__.startswith("consumers")
        for reason in re.findall(r'\b(?:Rejected|Refused)\(\s*"(\w+)"', inspect.getsource(module))
    }
    classified = {
        constant.value
        for answer in ast.walk(ast.parse(inspect.getsource(writer._classify)))
        if isinstance(answer, ast.Return) and answer.value
        for constant in ast.walk(answer.value)
        if isinstance(constant, ast.Constant) and isinstance(constant.value, str)
    }

    # What is taken by another record is tried elsewhere, and never kept under that word.
    expected = said | classified - {"taken"}
    assert named(section(REFERENCE / "quarantine.md", "Reasons")) == expected == {*Reason}


def test_every_field_of_a_quarantined_line_is_documented() -> None:
    rejected = Rejected("invalid", "why")
    event = LogEvent("1", 0, "line", "group", "stream", "owner")
    body = quarantine.lines(builders.kinesis_record("", 1), [(event, rejected), (None, rejected)])

    written = {name for line in body.splitlines() for name in json.loads(line)}
    assert named(section(REFERENCE / "quarantine.md", "Objects")) == written


def test_every_metric_and_field_of_the_summary_lines_is_documented(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POWERTOOLS_METRICS_NAMESPACE", "Tagline")
    # A name of its own: the logger of a name writes to the stdout of its first use for ever.
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", f"tagline-{time.monotonic_ns()}")
    page = REFERENCE / "metrics.md"
    reasons = named(section(REFERENCE / "quarantine.md", "Reasons"))
    of_meters = {reason for reason in reasons if reason.startswith("meter_")}
    ledger = Ledger([builders.kinesis_record("", 1)], quarantined=Counter(reasons - of_meters))
    meters = Ledger([builders.kinesis_record("", 1)], quarantined=Counter(of_meters))
    reports: dict[str, list[Any]] = {
        "RowConsumer": [lambda: row_handler.report_rows(ledger, "timestream")],
        "MeterConsumer": [lambda: meter_handler.report_meters(meters, store="s3")],
        "Reconciler": [lambda: reconcile.report_day(Day(DAY, {"/g": Totals(3, 2, {"late": 1}, 1)}))],
        "DailyExporter": [
            lambda: export.report_exported(Export(MANIFEST, kept=False)),
            lambda: export._report_failure("2026-11-19", "no", True),
            lambda: export._report_error("2026-11-19", ValueError("no")),
        ],
        "UsageRoller": [
            lambda: usage_handler.report_rolled(Rolled(["2026-11-19"], data_through=datetime.now(UTC)))
        ],
        "DownloadWorker": [
            lambda: zipper._report(Job("0" * 32, Request(Days(DAY, DAY)), State.READY, rows=1), None),
            lambda: zipper._report(Job("0" * 32, Request(Days(DAY, DAY)), State.EMPTY, rows=0), None),
            lambda: zipper._report(Job("0" * 32, Request(Days(DAY, DAY)), State.RUNNING), None),
            lambda: zipper._report(Job("0" * 32, Request(Days(DAY, DAY)), State.FAILED, reason="no"), None),
        ],
    }
    for function, calls in reports.items():
        for call in calls:
            call()
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        metrics = {
            metric["Name"]
            for line in lines
            for of_namespace in line.get("_aws", {}).get("CloudWatchMetrics", [])
            for metric in of_namespace["Metrics"]
        }
        assert named(section(page, function)) == metrics, function
        for line in lines:
            own = set(line) - {"_aws", "level", "location", "message", "timestamp", "service"}
            assert own <= set(re.findall(r"`(\w+)`", section(page, function))), function


# --- exceptions, the command, the tree --------------------------------------------------------------------


def test_every_public_exception_is_documented() -> None:
    exceptions = {
        name
        for module in modules()
        for name, value in public(module)
        if inspect.isclass(value) and issubclass(value, Exception)
    }

    assert named(section(REFERENCE / "exceptions.md", "In Python")) == exceptions


def test_every_complaint_of_the_command_is_documented() -> None:
    complaints = [
        max((str(part.value) for part in said if isinstance(part, ast.Constant)), key=len).strip()
        for module in modules()
        if module.__name__.startswith("cli")
        for call in ast.walk(ast.parse(inspect.getsource(module)))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "CommandError"
        # Where there are no words of the code's own, it passes on another's sentence.
        if (said := getattr(call.args[0], "values", [call.args[0]])) and isinstance(call.args[0], OWN_WORDS)
    ]

    documented = named(section(REFERENCE / "errors.md", "At the terminal"))
    assert [each for each in complaints if not any(each in row for row in documented)] == []
    assert [row for row in documented if not any(each in row for each in complaints)] == []


def test_everything_public_says_what_it_is() -> None:
    silent = []
    for module in modules():
        if not module.__doc__:
            silent.append(module.__name__)
        for name, value in public(module):
            if inspect.isclass(value) or inspect.isfunction(value):
                silent += [each for each, docstring in docstrings(name, value) if not docstring]

    assert silent == []


def docstrings(name: str, value: Any) -> Iterator[tuple[str, str | None]]:
    """Yield the docstring of a class or function, and of the public methods that a class defines."""
    yield name, value.__doc__
    if inspect.isclass(value) and name not in DESCRIBED_ELSEWHERE:
        for method, defined in vars(value).items():
            if inspect.isfunction(defined) and not method.startswith("_"):
                # Where a method replaces another, that one's docstring counts.
                yield f"{name}.{method}", inspect.getdoc(getattr(value, method))


@pytest.mark.parametrize("page", COMMAND_PAGES)
def test_the_pages_of_the_commands_are_made_of_the_commands_help(page: str) -> None:
    text = (REFERENCE / page).read_text()

    assert text == with_commands(page, text), "run: python -m tests.test_docs"


def with_commands(page: str, text: str) -> str:
    """Return a page whose part after the marker is made of the help of its commands."""
    commands = dict(leaves("tagline", typer.main.get_command(cli.main.app)))
    count = Counter(option for command in commands.values() for option in options_of(command))
    shared = {option for option in count if count[option] > 3}
    made = []
    if page == COMMANDS.name:
        made += ["## Options of several commands", bullets(sorted(shared))]
    for name, command in commands.items():
        if page_of(command) == page:
            own: list[tuple[str, str]] = []
            others: list[tuple[str, str]] = []
            for option in options_of(command):
                (others if option in shared else own).append(option)
            made += [f"## `{name}`", command.help.replace("For example:\n\n", "")]
            made += [bullets(own)] if own else []
            names = ", ".join(f"`{option.partition(' ')[0]}`" for option, _ in others)
            link = f"[{names}]({COMMANDS.name}#options-of-several-commands)"
            made += [f"{'Also' if own else 'Options:'} {link}."] if others else []
    return text.partition(MARKER)[0] + "\n\n".join([MARKER, *made]) + "\n"


def leaves(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    """Yield the commands below a command that has some, each with its name as it is typed."""
    if not hasattr(command, "commands"):
        yield name, command
    else:
        for each, below in command.commands.items():
            yield from leaves(f"{name} {each}", below)


def page_of(command: Any) -> str:
    """Return the page that has a command."""
    group = command.callback.__module__.rpartition(".")[2]
    return next((page for page, groups in COMMAND_PAGES.items() if group in groups), "commands-ask.md")


def options_of(command: Any) -> list[tuple[str, str]]:
    """Return the arguments and options of a command, each with its explanation."""
    records = [parameter.get_help_record(typer.Context(command)) for parameter in command.params]
    return [(with_metavar(record[0]), record[1]) for record in records if record]


def with_metavar(option: str) -> str:
    """Return an option with a word for its value instead of a Python type."""
    for kind, word in (
        (r"<(?:list\[)?str\]?>", "TEXT"),
        (r"<path>", "PATH"),
        (r"<(?:list\[)?(?:float|int)\b.*?>", "N"),
    ):
        option = re.sub(kind, word, option)
    return option


def bullets(options: list[tuple[str, str]]) -> str:
    return "\n".join(f"* `{option}`: {explanation}" for option, explanation in options)


def test_every_field_of_the_demos_last_line_is_documented() -> None:
    (result,) = [
        node.value.elts[1]
        for node in ast.walk(ast.parse(inspect.getsource(cli.demo.follow)))
        if isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple)
    ]

    assert isinstance(result, ast.Dict)
    names = {key.value for key in result.keys if isinstance(key, ast.Constant)}
    assert named(section(COMMANDS, "The demo's last line")) == names


COMMAND_LINES = [
    pytest.param(line, id=f"{page.stem}: {line[:50]}")
    for page in WRITTEN_BY_HAND
    for _, block in blocks(page, "sh")
    for line in re.findall(r"^(?:\.venv/bin/)?(tagline .*?)(?: +#.*)?$", block, re.MULTILINE)
]


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_every_command_that_a_page_shows_is_understood(line: str) -> None:
    line = re.sub(r"\$\([^)]*\)", "2026-11-20", line)
    _, name, *arguments = shlex.split(line)
    commands: Any = typer.main.get_command(cli.main.app)

    commands.commands[name].make_context(name, arguments)


def test_the_page_of_the_tree_has_every_folder_of_the_pipeline() -> None:
    ((_, tree),) = [
        block for block in blocks(DOCS / "contributing" / "tree.md", "text") if "emitter/" in block[1]
    ]
    listed: list[str] = []
    for line in tree.splitlines():
        if found := re.match(r"(\S+) ", line):
            listed.append(found[1])
        elif found := re.match(r"  (\S+) ", line):
            listed.append(next(name for name in reversed(listed) if re.fullmatch(r"\w+/", name)) + found[1])
    folders = {
        f"{path.parent.relative_to(ROOT)}/"
        for top in STAGES
        for path in (ROOT / top).rglob("*.py")
        if path.name != "__init__.py" and "build" not in path.parts
    }

    assert folders - set(listed) == set()
    assert [name for name in listed if not (ROOT / name).exists()] == []


def test_what_is_passed_in_the_page_of_the_tree_are_types_of_the_code() -> None:
    page = (DOCS / "contributing" / "tree.md").read_text()
    table = page.partition("## What is passed")[2].partition("## ")[0]
    passed = {line.split("|")[2] for line in table.splitlines() if line.startswith("| ")}
    types = {word for cell in passed for word in re.findall(r"`([A-Z]\w+)`", cell)}

    assert len(types) > 10
    assert types <= {name for module in modules() for name in vars(module)}


# --- the pages themselves ---------------------------------------------------------------------------------


LINKS = [
    pytest.param(page, target, id=f"{page.stem}: {target}")
    for page in WRITTEN_BY_HAND
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    if not target.startswith("https://")
]


@pytest.mark.parametrize(("page", "target"), LINKS)
def test_links_lead_to_a_page_and_its_heading(page: Path, target: str) -> None:
    path, _, anchor = target.partition("#")
    linked = (page.parent / path).resolve() if path else page

    assert linked.is_file()
    text = linked.read_text() if anchor else ""  # pictures have none
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    assert not anchor or anchor in [
        re.sub(r"[^\w\s-]", "", heading).strip().lower().replace(" ", "-") for heading in headings
    ]


MAX_WORDS, MAX_WORDS_OF_A_PAGE = 45_000, 1_500


def words(page: Path) -> int:
    """Return how many words a page has: outside of blocks of code, and without the bars of tables."""
    prose = re.sub(r"^ *```.*?^ *```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return sum(bool(re.search(r"\w", word)) for word in prose.split())


def test_the_pages_are_short() -> None:
    count = {str(page.relative_to(ROOT)): words(page) for page in DOCS.rglob("*.md")}

    assert {page: number for page, number in count.items() if number > MAX_WORDS_OF_A_PAGE} == {}
    assert sum(count.values()) <= MAX_WORDS


@pytest.mark.parametrize("source", sorted(ROOT.glob("*.yml")), ids=lambda path: path.name)
def test_pages_that_a_file_mentions_are_there(source: Path) -> None:
    assert all((ROOT / page).is_file() for page in mentioned(source.read_text()))


def test_pages_that_the_code_mentions_are_there() -> None:
    pages = {page for module in modules() for page in mentioned(inspect.getsource(module))}

    assert pages
    assert all((ROOT / page).is_file() for page in pages)


def mentioned(text: str) -> set[str]:
    """Return the pages of ours that a text names."""
    return set(re.findall(r"\bdocs/[\w/-]+\.md", text))


@pytest.mark.parametrize(
    "page",
    [page for page in WRITTEN_BY_HAND if blocks(page, "python", "pycon")],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_the_examples_of_a_page_run(page: Path) -> None:
    names: dict[str, Any] = {}
    runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS)
    parser = doctest.DocTestParser()
    for number, (language, text) in enumerate(blocks(page, "python", "pycon")):
        if language == "python":
            exec(compile(text, f"{page.name}, block {number}", "exec"), names)
        else:
            example = parser.get_doctest(text, names, f"{page.name}, block {number}", str(page), 0)
            runner.run(example, clear_globs=False)
            names.update(example.globs)

    assert runner.summarize(verbose=False).failed == 0


if __name__ == "__main__":
    for each in COMMAND_PAGES:
        (REFERENCE / each).write_text(with_commands(each, (REFERENCE / each).read_text()))
