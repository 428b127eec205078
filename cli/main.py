"""The `tagline` command: every command's arguments, and how it says what went wrong."""

from __future__ import annotations

import signal
import sys
import threading
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from cli.deployment import (
    CommandError,
    Deployment,
    forget_running,
    running,
    running_or_none,
    write_running,
)

if TYPE_CHECKING:
    from cli.feed import AccessLog
    from exporter.query import Days
    from local.pipeline import Pipeline

app = typer.Typer(
    help="One tagged log line is an API's usage record: the pipeline on this machine, and what is in it.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)

out = Console()
# Progress and complaints go here, so that what is printed can be read by a program.
err = Console(stderr=True)

LOOK_EVERY_S = 0.2

InProcess = Annotated[
    bool, typer.Option("--in-process", help="Run the functions in this process instead of their own.")
]


class FaultKind(StrEnum):
    """What can be made to happen."""

    THROTTLE = "throttle"
    ERROR = "error"
    DENY = "deny"
    LATENCY = "latency"
    CUT = "cut"
    DUPLICATE = "duplicate"
    DELAY = "delay"
    CORRUPT = "corrupt"
    REDELIVER = "redeliver"
    KILL = "kill"
    NONE = "none"


def day_option(name: str, description: str) -> Any:
    """Return an option that takes a day, in UTC."""
    return typer.Option(name, formats=["%Y-%m-%d"], metavar="YYYY-MM-DD", help=description)


OneDay = Annotated[datetime | None, day_option("--day", "The day (UTC). Default: yesterday.")]
FirstDay = Annotated[
    datetime | None, day_option("--from", "The first day (UTC). Default: the last, or yesterday.")
]
LastDay = Annotated[datetime | None, day_option("--to", "The last day (UTC), inclusive. Default: the first.")]


@app.command()
def demo(
    access_log: Annotated[
        Path | None,
        typer.Option(help="Say again the requests of a web server's access log (common or combined format)."),
    ] = None,
    requests: Annotated[int, typer.Option(min=1, help="How many requests to send to the pets API.")] = 500,
    in_process: InProcess = False,
) -> None:
    """Run the whole pipeline on this machine, from requests to a downloaded zip.

    The last line on stdout is one JSON object with what each stage counted. The exit status is 0 if nothing
    was lost and as many rows were downloaded as stored.

    For example:

    ```sh
    tagline demo
    tagline demo --requests 2000
    tagline demo --access-log /var/log/nginx/access.log
    ```
    """
    from cli import demo as demonstration
    from cli import feed
    from local.pipeline import Pipeline, tagline_with_samples

    log = None
    if access_log is not None:
        log = feed.read_access_log(access_log)
        complain_of(log)
    apps = tagline_with_samples(window_s=0, pets=log is None)
    with Pipeline(apps, in_process=in_process) as pipeline:
        say_how_functions_run(pipeline)
        lines, result = demonstration.run(
            pipeline, deployment_of(pipeline), log=log, requests=requests, screen=err
        )
    demonstration.show(lines, Path(result["zip"]), out)
    sys.stdout.write(demonstration.last_line(result) + "\n")
    if not demonstration.verdict(result):
        raise typer.Exit(1)


@app.command()
def up(
    template: Annotated[
        Path | None,
        typer.Option(help="Run a SAM template of your own instead of the samples; its lines are collected."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Keep Timestream's tables in this folder, for the next time.")
    ] = None,
    now: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%dT%H:%M:%S", "%Y-%m-%d"], help="Put the clock to this time (UTC)."),
    ] = None,
    port: Annotated[int, typer.Option(help="The services' port; 0 takes a free one.")] = 0,
    enforce_auth: Annotated[
        bool, typer.Option("--enforce-auth", help="Refuse what the HTTP APIs' authorizers would refuse.")
    ] = False,
    enforce_throttling: Annotated[
        bool, typer.Option("--enforce-throttling", help="Refuse more requests than the HTTP APIs allow.")
    ] = False,
    magnetic_reports: Annotated[
        bool,
        typer.Option(
            "--magnetic-reports",
            help="Report conflicts in Timestream's magnetic store to S3 afterwards, as AWS does.",
        ),
    ] = False,
    in_process: InProcess = False,
) -> None:
    """Run the pipeline on this machine until Ctrl-C, and print its addresses.

    The other commands, run in the same folder, then find it. So does any program that uses boto3 or the AWS
    command line, with the variables that are printed.

    For example:

    ```sh
    tagline up
    tagline up --template my-api/template.yml --data .tagline/data
    tagline up --now 2026-01-01T00:10:00 --port 4566
    ```
    """
    from local.pipeline import Pipeline, tagline_with_samples, tagline_with_template
    from local.template import TemplateError

    if running_or_none() is not None:
        raise CommandError(
            "a pipeline is running in this folder already", "stop it with Ctrl-C, or use another folder"
        )
    try:
        with Pipeline(
            tagline_with_template(template) if template else tagline_with_samples(pets=True),
            in_process=in_process,
            ports=[port],
            enforce_auth=enforce_auth,
            enforce_throttling=enforce_throttling,
            now=now and now.replace(tzinfo=UTC),
            data=data,
            magnetic_reports=magnetic_reports,
        ) as pipeline:
            say_how_functions_run(pipeline)
            for name in pipeline.not_run:
                err.print(f"{name} is in the template and not on this machine", highlight=False)
            deployment = deployment_of(pipeline)
            write_running(deployment)
            try:
                stopped = threading.Event()
                for number in (signal.SIGINT, signal.SIGTERM):
                    signal.signal(number, lambda *_: stopped.set())
                say_addresses(pipeline, deployment)
                # A signal that another thread gets wakes nobody: look for it.
                while not stopped.wait(LOOK_EVERY_S):
                    pass
                err.print("stopping")
            finally:
                forget_running()
    except TemplateError as error:
        raise CommandError(
            str(error), "mend the template; docs/how-to/run-your-function.md has what runs"
        ) from error
    except OSError as error:
        raise CommandError(str(error), "another port, or a folder that can be written to") from error


@app.command()
def tick(
    days: Annotated[float, typer.Option(min=0, help="Put the clock forward by days.")] = 0,
    hours: Annotated[float, typer.Option(min=0, help="Put the clock forward by hours.")] = 0,
    function: Annotated[
        list[str] | None, typer.Option(help="Call this function as its schedule does; may be given again.")
    ] = None,
) -> None:
    """Put the clock of the pipeline that runs here forward, and let happen what happens in that time.

    Schedules fire for every time that passes, lifecycle rules are applied, links expire. Without an option,
    the daily export is called as its schedule does.

    For example:

    ```sh
    tagline tick
    tagline tick --days 1
    ```
    """
    deployment = running()
    if not (days or hours or function):
        function = [deployment.outputs["DailyExporterName"]]
    turned = deployment.act("tick", seconds=days * 86_400 + hours * 3_600, functions=function or [])
    out.print(f"It is {turned['now']}.")
    for answer in turned["answers"]:
        out.print_json(data=answer)
    for bucket, did in turned["aged"].items():
        counts = ", ".join(f"{count} {what}" for what, count in did.items() if count)
        if counts:
            out.print(f"{bucket}: {counts}")


@app.command()
def fault(
    kind: Annotated[FaultKind, typer.Argument(help="What is to happen.")],
    service: Annotated[
        str,
        typer.Option(help="To calls of this service: timestream, kinesis, s3, sqs, logs, ... Default: all."),
    ] = "",
    operation: Annotated[
        str, typer.Option(help="To this operation, such as WriteRecords (S3: the HTTP method). Default: all.")
    ] = "",
    function: Annotated[str, typer.Option(help="The function to kill.")] = "",
    times: Annotated[int, typer.Option(min=1, help="To how many calls or deliveries.")] = 1,
    chance: Annotated[float, typer.Option(min=0, max=1, help="How likely each call is to be met.")] = 1.0,
    seconds: Annotated[float, typer.Option(min=0, help="How long: latency and delay.")] = 1.0,
) -> None:
    """Let something go wrong in the pipeline that runs here, to see that nothing is lost.

    To calls: throttle, error, deny, latency, cut (the connection, after the work was done). To deliveries of
    lines into the stream: duplicate, delay, corrupt. To batches: redeliver. To a function: kill. `none` takes
    everything back.

    For example:

    ```sh
    tagline fault throttle --service timestream --operation WriteRecords --times 3
    tagline fault duplicate --times 10
    tagline fault kill --function tagline-TimestreamConsumer
    tagline fault none
    ```
    """
    deployment = running()
    if kind is FaultKind.NONE:
        deployment.act("faults")
    elif kind is FaultKind.KILL:
        name = function or deployment.outputs["TimestreamConsumerName"]
        deployment.act("fault", kind=kind, function=name)
    elif kind is FaultKind.REDELIVER:
        deployment.act("fault", kind=kind, times=times)
    elif kind in (FaultKind.DUPLICATE, FaultKind.DELAY, FaultKind.CORRUPT):
        deployment.act("fault", kind=kind, times=times, seconds=seconds)
    else:
        deployment.act(
            "fault",
            kind=kind,
            service=service,
            operation=operation,
            times=times,
            chance=chance,
            seconds=seconds,
        )


@app.command()
def outbox() -> None:
    """Print the e-mails that the pipeline that runs here would have sent.

    For example:

    ```sh
    tagline outbox
    ```
    """
    mails = running().act("outbox")
    table = Table("sent", "to", "subject", "message")
    for mail in mails:
        table.add_row(mail["sent_at"], mail["to"], mail["subject"], mail["body"])
    out.print(table)


@app.command()
def feed(
    access_log: Annotated[Path, typer.Argument(help="A web server's access log.")],
) -> None:
    """Say an access log's requests again, into the pipeline that runs here.

    Each line becomes one record, with the same identity whenever it is said: feeding a file again changes
    nothing. Times are moved by whole days, so that the last falls on yesterday.

    For example:

    ```sh
    tagline feed /var/log/nginx/access.log
    ```
    """
    from cli import demo as demonstration
    from cli import feed as feeding

    deployment = running()
    log = feeding.read_access_log(access_log)
    complain_of(log)
    with demonstration.progress(err) as bars:
        bar = bars.add_task("requests", total=log.lines)
        feeding.send_access_log(deployment, log, demonstration.advancing(bars, bar))
    out.print(f"{log.lines:,} requests said again")


patterns = typer.Typer(help="Filter patterns of CloudWatch Logs.", no_args_is_help=True)
app.add_typer(patterns, name="filter")


@patterns.command("test")
def try_pattern(
    pattern: Annotated[str, typer.Argument(help="The pattern, as a subscription or metric filter has it.")],
    file: Annotated[
        Path | None, typer.Argument(help="Messages, one a line. Default: standard input.")
    ] = None,
) -> None:
    """Print the messages that a filter pattern selects, and the fields that it takes out of them.

    The exit status is 0 if there is one, and 1 if there is none. Nothing has to run.

    For example:

    ```sh
    tagline filter test '"usage_record"' lines.log
    tagline filter test '{ $.status >= 500 && $.route = "/pets*" }' lines.log
    tagline filter test '[ip, user, ..., status=4*, bytes]' access.log
    ```
    """
    import contextlib
    import json

    from local.filter_pattern import InvalidPatternError, compiled

    try:
        fields = compiled(pattern).fields
    except InvalidPatternError as error:
        raise CommandError(
            str(error), "docs/reference/filter-patterns.md has what a pattern may be"
        ) from error
    selected = 0
    with contextlib.ExitStack() as open_files:
        try:
            lines = (
                open_files.enter_context(file.open(encoding="utf-8", errors="replace")) if file else sys.stdin
            )
        except OSError as error:
            raise CommandError(f"cannot read {file}: {error.strerror}", "give a file of messages") from error
        for line in lines:
            message = line.rstrip("\n")
            found = fields(message)
            if found is not None:
                selected += 1
                sys.stdout.write(message + (f"\t{json.dumps(found)}" if found else "") + "\n")
    if not selected:
        raise typer.Exit(1)


@app.command()
def query(
    sql: Annotated[str, typer.Argument(help="A SELECT; `{table}` stands for the table's name.")],
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV instead of a table.")] = False,
) -> None:
    """Ask the store of the pipeline that runs here.

    For example:

    ```sh
    tagline query 'SELECT route, count(*) AS requests FROM {table} GROUP BY route ORDER BY 2 DESC'
    tagline query --csv 'SELECT * FROM {table} WHERE time > ago(1h)'
    ```
    """
    import csv

    from botocore.exceptions import ClientError

    from cli import stages

    deployment = running()
    try:
        names, rows = stages.ask(deployment, sql.replace("{table}", deployment.table))
        if as_csv:
            writer = csv.writer(sys.stdout, lineterminator="\n")
            writer.writerow(names)
            writer.writerows(rows)
            return
        table = Table(*names)
        for row in rows:
            table.add_row(*("" if value is None else value for value in row))
    except ClientError as error:
        raise CommandError(
            error.response["Error"]["Message"], "see the examples: tagline query --help"
        ) from error
    out.print(table)


@app.command()
def insights(
    question: Annotated[str, typer.Argument(metavar="QUERY", help="A query of CloudWatch Logs Insights.")],
    group: Annotated[
        list[str] | None,
        typer.Option(help="A log group; may be given again. Default: those whose lines are collected."),
    ] = None,
    hours: Annotated[float, typer.Option(min=0, help="How far back to look.")] = 24,
) -> None:
    """Ask the log groups of the pipeline that runs here, as Logs Insights does.

    For example:

    ```sh
    tagline insights 'stats count(*) as requests by route | sort requests desc'
    tagline insights --hours 1 'filter status >= 500 | fields @timestamp, route, error_type'
    ```
    """
    import time

    from botocore.exceptions import ClientError

    from cli import stages
    from local.insights import QueryFailedError, ask

    deployment = running()
    now = int(time.time())
    try:
        answer = ask(
            deployment.client("logs"),
            question,
            groups=group or stages.collected_groups(deployment),
            start_s=now - int(hours * 3600),
            end_s=now,
            sleep=time.sleep,
        )
    except (ClientError, QueryFailedError) as error:
        message = error.response["Error"]["Message"] if isinstance(error, ClientError) else str(error)
        raise CommandError(message, "see the examples: tagline insights --help") from error
    columns = answer.columns()
    table = Table(*columns)
    for row in answer.rows:
        table.add_row(*(row.get(column, "") for column in columns))
    out.print(table)
    err.print(f"{answer.matched:,.0f} of {answer.scanned:,.0f} events matched")


@app.command()
def export(
    day: OneDay = None,
    first: FirstDay = None,
    last: LastDay = None,
    usd_per_gb: Annotated[
        float | None,
        typer.Option(min=0, help="What your contract says of a gigabyte scanned, to see what days cost."),
    ] = None,
) -> None:
    """Write days to the lake now, as the daily schedule does with yesterday.

    Days that take longer than the function may are gone on with. A day that another run is writing is left
    to it.

    For example:

    ```sh
    tagline export --day 2026-11-19
    tagline export --from 2026-11-01 --to 2026-11-19 --usd-per-gb 0.01
    ```
    """
    from cli import demo as demonstration
    from cli import lake

    deployment = running()
    days = asked_days(first or day, last or day or first)
    table = Table("day")
    numbers = ("rows", "bytes", "parts", "revision", "seconds", "metered_bytes")
    for name in (*numbers[:-1], "MB metered", *(["USD"] if usd_per_gb is not None else [])):
        table.add_column(name, justify="right")
    with demonstration.progress(err) as bars:
        for exported in lake.export(deployment, days, bars):
            if exported.get("locked"):
                table.add_row(f"{exported['day']} (another run is writing it)")
                continue
            kept = " (kept: the store has fewer rows by now)" if exported["kept"] else ""
            metered = exported["metered_bytes"]
            table.add_row(
                f"{exported['day']} {exported['format']}{kept}",
                *(f"{exported[name]:,}" for name in numbers[:-1]),
                f"{metered / 1e6:,.1f}",
                *([f"{metered / 1e9 * usd_per_gb:,.4f}"] if usd_per_gb is not None else []),
            )
    out.print(table)


@app.command()
def verify(first: FirstDay = None, last: LastDay = None) -> None:
    """Read exported days again: checksums, rows and times, and what the store still has of them.

    The exit status is 0 if all is as the manifests say, and 1 if anything is not.

    For example:

    ```sh
    tagline verify --from 2026-11-01 --to 2026-11-19
    ```
    """
    from cli import demo as demonstration
    from cli import lake

    deployment = running()
    days = asked_days(first, last or first)
    table = Table("day", "format", "rows", "what is wrong")
    wrong = 0
    with demonstration.progress(err) as bars:
        for verified in lake.verify(deployment, days, bars):
            wrong += bool(verified.problems)
            rows = "" if verified.rows is None else f"{verified.rows:,}"
            table.add_row(str(verified.day), verified.kind, rows, "\n".join(verified.problems) or "nothing")
    out.print(table)
    if wrong:
        raise typer.Exit(1)


@app.command()
def forget(
    client: Annotated[str, typer.Option(help="The client, as the column `client` has it.")],
    first: FirstDay = None,
    last: LastDay = None,
    do_it: Annotated[
        bool, typer.Option("--yes", help="Do it. Without this, only what would be done is shown.")
    ] = False,
) -> None:
    """Remove a client's rows from exported days, and keep them from coming back.

    The days that hold them are written again without them, their whole records in `overflow/` are removed,
    and an entry without personal data says what was done. docs/how-to/erase.md has what this does not reach.

    For example:

    ```sh
    tagline forget --client customer-17 --from 2026-11-01 --to 2026-11-19
    tagline forget --client customer-17 --from 2026-11-01 --to 2026-11-19 --yes
    ```
    """
    from cli import demo as demonstration
    from cli import lake

    deployment = running()
    days = asked_days(first, last or first)
    with demonstration.progress(err) as bars:
        found = list(lake.find(deployment, client, days, bars))
    table = Table("day", "format", "rows", "whole records")
    for each in found:
        table.add_row(str(each.day), each.kind, f"{each.rows:,}", f"{len(each.overflow):,}")
    out.print(table)
    if not do_it:
        out.print("Nothing was done. To do it, say the same with --yes.")
        return
    with demonstration.progress(err) as bars:
        done, key = lake.erase(deployment, client, found, bars)
    rows = sum(each.rows for each, _ in done)
    out.print(f"{rows:,} rows of {len(done):,} days are gone; {key} says so.")


@app.command()
def download(
    first: FirstDay = None,
    last: LastDay = None,
    to_file: Annotated[Path, typer.Option("--out", help="The file to write.")] = Path("usage.zip"),
) -> None:
    """Fetch the exported days of a range as a zip of CSV files.

    For example:

    ```sh
    tagline download --from 2026-11-01 --to 2026-11-19 --out november.zip
    ```
    """
    from cli import demo as demonstration
    from cli import stages
    from cli.download import download as fetch

    deployment = running()
    days = asked_days(first, last or first)
    with demonstration.progress(err) as bars:
        fetch(deployment, days, to_file, bars)
    count = stages.downloaded(to_file)
    out.print(f"{to_file}: {count.records:,} rows, {count.bytes:,} bytes")


def asked_days(first: datetime | None, last: datetime | None) -> Days:
    """Return the days from the first to the last; yesterday where neither is given."""
    from exporter.query import Days

    yesterday = datetime.now(UTC) - timedelta(days=1)
    try:
        return Days((first or last or yesterday).date(), (last or first or yesterday).date())
    except ValueError as error:
        raise CommandError(str(error), "give --from and --to in this order") from error


def deployment_of(pipeline: Pipeline) -> Deployment:
    """Return where a pipeline of this process is."""
    samples = {**pipeline.outputs.get("sample", {}), **pipeline.outputs.get("pets", {})}
    return Deployment(pipeline.services.endpoint, pipeline.outputs["tagline"], samples)


def say_addresses(pipeline: Pipeline, deployment: Deployment) -> None:
    """Print where a pipeline is, and the variables by which programs find it."""
    table = Table("address", "of", title="The pipeline runs", title_justify="left")
    for name, value in pipeline.outputs.get("app", {}).items():
        table.add_row(value, f"{name} of your template")
    if deployment.samples:
        table.add_row(deployment.samples["PetsApiUrl"], "the pets API: every request leaves a record")
        table.add_row(deployment.samples["SampleApiUrl"], "the same without a framework")
    table.add_row(deployment.outputs["DownloadUrl"], "the download API")
    table.add_row(deployment.endpoint, "AWS's services")
    out.print(table)
    for name, value in pipeline.services.environment().items():
        sys.stdout.write(f"export {name}={value}\n")
    out.print("Stop it with Ctrl-C.")
    sys.stdout.flush()


def say_how_functions_run(pipeline: Pipeline) -> None:
    """Say so where functions do not run as they are deployed."""
    if pipeline.functions.runs_in_process:
        err.print(
            f"Functions run in this process, without limits of memory and time: "
            f"{pipeline.functions.why_in_process}."
        )


def complain_of(log: AccessLog) -> None:
    """Name the lines that are no access log's, the first ten of them."""
    shown = 10
    for number, reason in log.unreadable[:shown]:
        err.print(f"{log.path}:{number}: {reason}", highlight=False)
    if len(log.unreadable) > shown:
        err.print(f"... and {len(log.unreadable) - shown:,} more lines like these")


def run() -> None:
    """Run the command; what goes wrong is said in a sentence, with what to do next."""
    try:
        app()
    except CommandError as error:
        err.print("[bold red]error:[/]", str(error), highlight=False)
        err.print("[bold]next:[/]", error.advice, highlight=False)
        sys.exit(1)
