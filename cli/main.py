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
from rich.table import Column, Table

from cli.deployment import (
    CommandError,
    Deployment,
    deployed,
    forget_running,
    running,
    running_or_none,
    write_running,
)

if TYPE_CHECKING:
    from cli.feed import AccessLog
    from cli.quarantine import Window
    from cli.replay import Item, Outcome
    from exporter.store import Days
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
# How far the clock is put forward at once: ten years, each night of which the daily export runs.
MAX_DAYS = 3_660

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
    LOSE = "lose"
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
    from cli.apps import tagline_with_samples
    from local.pipeline import Pipeline

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
    port: Annotated[int, typer.Option(min=0, max=65_535, help="The services' port; 0 takes a free one.")] = 0,
    enforce_auth: Annotated[
        bool,
        typer.Option(
            "--enforce-auth",
            help="Refuse what the HTTP APIs' authorizers would refuse. An API key that passes is printed.",
        ),
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
    from cli.apps import tagline_with_samples, tagline_with_template
    from local.pipeline import Pipeline
    from local.template import TemplateError

    if running_or_none() is not None:
        raise CommandError(
            "a pipeline is running in this folder already", "stop it with Ctrl-C, or use another folder"
        )
    if template is not None and not template.is_file():
        raise CommandError(f"there is no template {template}", "give the path of a SAM template")
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
    days: Annotated[float, typer.Option(min=0, max=MAX_DAYS, help="Put the clock forward by days.")] = 0,
    hours: Annotated[
        float, typer.Option(min=0, max=MAX_DAYS * 24, help="Put the clock forward by hours.")
    ] = 0,
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
    out.print(f"It is {turned['now']}.", highlight=False)
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
        typer.Option(
            help="To calls of this service: timestream, or another by its name in boto3. Default: all."
        ),
    ] = "",
    operation: Annotated[
        str,
        typer.Option(
            help="To this operation, such as WriteRecords (S3, Lambda, SNS: the HTTP method). Default: all."
        ),
    ] = "",
    function: Annotated[str, typer.Option(help="The function to kill.")] = "",
    times: Annotated[int, typer.Option(min=1, help="To how many calls or deliveries.")] = 1,
    chance: Annotated[float, typer.Option(min=0, max=1, help="How likely each call is to be met.")] = 1.0,
    seconds: Annotated[float, typer.Option(min=0, help="How long: latency and delay.")] = 1.0,
) -> None:
    """Let something go wrong in the pipeline that runs here, to see that nothing is lost.

    To calls: throttle, error, deny, latency, cut (the connection, after the work was done). To deliveries of
    lines into the stream: duplicate, delay, corrupt, lose. To batches: redeliver. To a function: kill.
    `none` takes everything back.

    For example:

    ```sh
    tagline fault throttle --service timestream --operation WriteRecords --times 3
    tagline fault duplicate --times 10
    tagline fault kill --function tagline-RowConsumer
    tagline fault none
    ```
    """
    deployment = running()
    if kind is FaultKind.NONE:
        deployment.act("faults")
        out.print("Nothing goes wrong any more.")
    elif kind is FaultKind.KILL:
        name = function or deployment.outputs["RowConsumerName"]
        deployment.act("fault", kind=kind, function=name)
        out.print(f"{name} was killed; its next event starts it anew.", highlight=False)
    elif kind is FaultKind.REDELIVER:
        deployment.act("fault", kind=kind, times=times)
        out.print(f"The next {times:,} batches that succeed are delivered again.", highlight=False)
    elif kind in (FaultKind.DUPLICATE, FaultKind.DELAY, FaultKind.CORRUPT, FaultKind.LOSE):
        deployment.act("fault", kind=kind, times=times, seconds=seconds)
        out.print(f"{kind}: the next {times:,} deliveries of lines", highlight=False)
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
        calls = f"{service or 'any service'} {operation}".rstrip()
        out.print(f"{kind}: the next {times:,} calls of {calls}", highlight=False)


@app.command()
def outbox() -> None:
    """Print the e-mails that the pipeline that runs here would have sent.

    For example:

    ```sh
    tagline outbox
    ```
    """
    from cli import rows

    mails = running().act("outbox")
    if not mails:
        out.print("No e-mail would have been sent.")
        return
    names = ("sent_at", "to", "subject", "body")
    rows.show(("sent", "to", "subject", "message"), [[mail[name] for name in names] for mail in mails], out)


kept_lines = typer.Typer(help="What could not be stored, and why.", no_args_is_help=True)
app.add_typer(kept_lines, name="quarantine")

Stack = Annotated[
    str | None,
    typer.Option(
        help="The pipeline of this stack on AWS, by the environment's credentials and region. "
        "Default: the one that runs here."
    ),
]
Reasons = Annotated[
    list[str] | None, typer.Option("--reason", help="Only this reason; may be given again. Default: all.")
]
FirstArrival = Annotated[
    datetime | None, day_option("--from", "The first day on which they arrived (UTC). Default: the earliest.")
]
LastArrival = Annotated[
    datetime | None, day_option("--to", "The last day, inclusive (UTC). Default: the latest.")
]


@kept_lines.command("ls")
def list_quarantine(
    first: FirstArrival = None,
    last: LastArrival = None,
    reason: Reasons = None,
    keys: Annotated[bool, typer.Option("--keys", help="Each object by its key.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object a line.")] = False,
    stack: Stack = None,
) -> None:
    """Print what is in quarantine: how many lines of a day and a reason, and what is wrong with the first.

    For example:

    ```sh
    tagline quarantine ls
    tagline quarantine ls --from 2026-11-01 --reason unparseable --keys
    ```
    """
    import json

    from cli import quarantine

    rows = quarantine.summary(deployment_named(stack), arrival_days(first, last), reason or (), by_key=keys)
    if as_json:
        for row in rows:
            sys.stdout.write(json.dumps(row) + "\n")
    elif rows and keys:
        for row in rows:
            # A key is there to be copied: it is not cut off, however long it is.
            out.print(row["key"], soft_wrap=True, highlight=False, markup=False)
            out.print(f"  {quarantine.in_short(row)}", highlight=False, markup=False)
    elif rows:
        out.print(quarantine.table(rows))
    else:
        out.print("Nothing is in quarantine.")


@kept_lines.command("show")
def show_quarantine(
    key: Annotated[str, typer.Argument(help="An object's key; `tagline quarantine ls --keys` has them.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the lines whole, as they are kept.")] = False,
    stack: Stack = None,
) -> None:
    """Print the lines of an object in quarantine: why, where they came from, and how they begin.

    They may hold what your users said: mind where you print them to.

    For example:

    ```sh
    tagline quarantine show quarantine/late/year=2026/month=11/day=20/shardId-000000000000-4959.jsonl
    ```
    """
    from cli import quarantine

    content = quarantine.body(deployment_named(stack), key)
    if as_json:
        sys.stdout.write(content.decode())
    else:
        quarantine.show(key, content, out)


class ReplaySource(StrEnum):
    """What can be replayed."""

    QUARANTINE = "quarantine"
    FAILED = "failed"
    LOGS = "logs"


@app.command()
def replay(
    source: Annotated[
        ReplaySource,
        typer.Argument(
            help="Lines in quarantine; batches that the consumer failed on to the end; or a log group's."
        ),
    ],
    first: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="YYYY-MM-DD[THH:MM:SS]",
            help="From this day on, by arrival (UTC); of a log group also from a time on, and required.",
        ),
    ] = None,
    last: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="YYYY-MM-DD[THH:MM:SS]",
            help="Up to this day, inclusive; of a log group also up to a time. Default: the latest.",
        ),
    ] = None,
    reason: Reasons = None,
    log_group: Annotated[str, typer.Option(help="The log group, where the source is logs.")] = "",
    function: Annotated[
        str,
        typer.Option(help="The function that gets a log group's lines. Default: the Timestream consumer."),
    ] = "",
    do_it: Annotated[bool, typer.Option("--run", help="Do it. Without it, only count.")] = False,
    pause: Annotated[float, typer.Option(min=0, help="Seconds of rest after each invocation.")] = 0,
    stack: Stack = None,
) -> None:
    """Send lines through the consumer again; without --run, count what that would be.

    Nothing is stored twice, whatever is replayed and however often. What is ended in the middle goes on where
    it was when the same command is run again. Objects that were replayed are moved below `replayed/`.

    For example:

    ```sh
    tagline replay quarantine --reason unparseable
    tagline replay quarantine --from 2026-11-01 --to 2026-11-19 --run
    tagline replay failed --run
    tagline replay logs --log-group /aws/lambda/my-api --from 2026-11-19T10:00:00 --to 2026-11-19T12:00:00
    ```
    """
    from cli import demo as demonstration
    from cli import quarantine
    from cli import replay as replaying

    deployment = deployment_named(stack)
    outcome = replaying.Outcome()
    if source is ReplaySource.LOGS:
        replay_logs(deployment, outcome, (log_group, first, last), function, do_it=do_it, pause=pause)
    else:
        window = arrival_days(as_day("--from", first), as_day("--to", last))
        if source is ReplaySource.QUARANTINE:
            if do_it:
                replaying.recover(deployment, outcome)
            objects = list(quarantine.keys(deployment, window, reason or ()))
            total = len(objects)
            items = replaying.from_quarantine(deployment, objects, outcome)
        else:
            names = list(replaying.failed_batches(deployment, window))
            total = len(names)
            items = replaying.from_failed_batches(deployment, names, outcome)
        with demonstration.progress(err) as bars:
            bar = bars.add_task("objects", total=total)
            if do_it:
                replaying.run(deployment, items, outcome, lambda _: bars.advance(bar), pause_s=pause)
            else:
                replaying.look(deployment, items, outcome, lambda _: bars.advance(bar))
    out.print(outcome.table())
    for name, why in outcome.failed.items():
        err.print(f"{name}: {why}", highlight=False, markup=False)
    if do_it:
        err.print("What was not rejected again is stored; the store does not tell what it had before.")
    else:
        err.print("Nothing was sent. Do it with: --run")
    if outcome.failed:
        raise typer.Exit(1)


def replay_logs(
    deployment: Deployment,
    outcome: Outcome,
    asked: tuple[str, str | None, str | None],
    function: str,
    *,
    do_it: bool,
    pause: float,
) -> None:
    """Replay the lines of a log group from a time to another, or count them."""
    from cli import demo as demonstration
    from cli import replay as replaying

    group, first, last = asked
    if not (group and first):
        raise CommandError(
            "a log group is replayed by its name, from a time on", "give --log-group and --from"
        )
    function = function or deployment.outputs["RowConsumerName"]
    end_ms = as_time("--to", last, end=True) if last else int(deployment.now().timestamp() * 1000)
    wanted = replaying.Slice(group, as_time("--from", first), end_ms)
    cursor = replaying.cursor_key(group, first, last, function)
    known = replaying.read_cursor(deployment, cursor)
    if known is not None:
        err.print(f"{group}: replayed up to {as_text(known)} already, going on from there", highlight=False)
        wanted = replaying.Slice(group, known, wanted.end_ms)
    if wanted.end_ms <= wanted.first_ms:
        raise CommandError(
            f"{as_text(wanted.end_ms)} is not after {as_text(wanted.first_ms)}",
            "give --from and --to in this order",
        )
    minute = 60_000
    with demonstration.progress(err) as bars:
        bar = bars.add_task("minutes", total=-(-(wanted.end_ms - wanted.first_ms) // minute))

        def advance(item: Item) -> None:
            bars.update(bar, completed=(int(item.name) - wanted.first_ms) // minute)

        items = replaying.from_log_group(deployment, wanted, function)
        if do_it:
            replaying.run(
                deployment,
                items,
                outcome,
                advance,
                pause_s=pause,
                done=lambda item: replaying.write_cursor(deployment, cursor, item),
            )
            replaying.forget_cursor(deployment, cursor)
        else:
            replaying.look(deployment, items, outcome, advance)
        bars.update(bar, completed=bars.tasks[bar].total)


def deployment_named(stack: str | None) -> Deployment:
    """Return the pipeline of a stack, or the one that runs here."""
    import boto3

    return running() if stack is None else deployed(stack, boto3.client("cloudformation"))


def arrival_days(first: datetime | None, last: datetime | None) -> Window:
    """Return the days from the first to the last."""
    from cli.quarantine import Window

    if first is not None and last is not None and last < first:
        raise CommandError(
            f"{last:%Y-%m-%d} is before {first:%Y-%m-%d}", "give --from and --to in this order"
        )
    return Window(first and first.date(), last and last.date())


def as_day(option: str, text: str | None) -> datetime | None:
    """Return the day that an option's text says."""
    try:
        return None if text is None else datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError as error:
        raise CommandError(
            f"{option} {text} is no day", "objects are kept by the day of their arrival: give YYYY-MM-DD"
        ) from error


def as_time(option: str, text: str, *, end: bool = False) -> int:
    """Return the time that an option's text says, in milliseconds since 1970: of a day its begin or end."""
    try:
        when = datetime.fromisoformat(text)
    except ValueError as error:
        raise CommandError(
            f"{option} {text} is no time", "give YYYY-MM-DD or YYYY-MM-DDTHH:MM:SS, in UTC"
        ) from error
    when = when.replace(tzinfo=UTC) if when.tzinfo is None else when
    whole_day = timedelta(days=1) if end and len(text) == len("YYYY-MM-DD") else timedelta()
    return int((when + whole_day).timestamp() * 1000)


def as_text(when_ms: int) -> str:
    """Return a time in milliseconds since 1970 for a person."""
    return datetime.fromtimestamp(when_ms / 1000, UTC).isoformat(timespec="milliseconds")


@app.command()
def feed(
    access_log: Annotated[Path, typer.Argument(help="A web server's access log.")],
) -> None:
    """Say an access log's requests again, into the pipeline that runs here.

    Each line becomes one record, with the same identity whenever it is said: feeding a file again on the same
    day changes nothing. Times are moved by whole days, so that the last falls on yesterday.

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


schemas = typer.Typer(help="What is declared of records: the files in `schemas/`.", no_args_is_help=True)
app.add_typer(schemas, name="schema")

SCHEMAS = Path("schemas")


@schemas.command("show")
def show_schemas(
    folder: Annotated[Path, typer.Argument(help="The schemas' folder.")] = SCHEMAS,
) -> None:
    """Print what is declared of each type of record, and which of it tells of a person.

    Nothing has to run.

    For example:

    ```sh
    tagline schema show
    ```
    """
    from cli import schema as declared

    read = declared.at(str(folder), folder)
    for shown in declared.tables(read):
        out.print(shown)
    out.print(declared.summary(read), highlight=False)


@schemas.command("check")
def check_schemas(
    old: Annotated[str, typer.Argument(help="What is deployed: a folder, or a commit of git's.")],
    new: Annotated[Path, typer.Argument(help="The folder of what is to be deployed.")] = SCHEMAS,
) -> None:
    """Print what differs between two versions of the schemas, and whether that may be deployed.

    A change that rows in the table forbid is refused, with what to do instead; one that makes other rows of
    the same records needs a higher `revision`. The exit status is 0 if everything is allowed, and 1 if
    something is not. Nothing has to run.

    For example:

    ```sh
    tagline schema check main
    tagline schema check deployed/schemas schemas
    ```
    """
    from cli import schema as declared
    from consumers.rows.schema import changes

    found = changes(declared.at(old, new), declared.at(str(new), new))
    if not found:
        out.print("Nothing differs.")
        return
    out.print(declared.changes_table(found))
    if not all(change.allowed for change in found):
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

    from cli import rows, stages

    deployment = running()
    try:
        names, answer = stages.ask(deployment, sql.replace("{table}", deployment.table))
        if as_csv:
            writer = csv.writer(sys.stdout, lineterminator="\n")
            writer.writerow(names)
            writer.writerows(answer)
            return
        found = [["" if value is None else value for value in row] for row in answer]
    except ClientError as error:
        raise CommandError(
            error.response["Error"]["Message"], "see the examples: tagline query --help"
        ) from error
    rows.show(names, found, out)


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
    tagline insights 'filter _tag = "usage_record" | stats count(*) as requests by route | sort requests desc'
    tagline insights --hours 1 'filter status >= 500 | fields @timestamp, route, error_type'
    ```
    """
    import time

    from botocore.exceptions import ClientError

    from cli import rows, stages
    from local.insights import QueryFailedError, ask

    deployment = running()
    now = int(deployment.now().timestamp())
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
    rows.show(columns, [[row.get(column, "") for column in columns] for row in answer.rows], out)
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
    days = asked_days(deployment, first or day, last or day or first)
    # Nine columns in the eighty of a narrow terminal: nothing of a number may be cut off.
    table = Table("day", "format", padding=0)
    numbers = ("rows", "bytes", "parts", "revision", "seconds", "metered_bytes")
    for name in (*numbers[:-1], "MB read", *(["USD"] if usd_per_gb is not None else [])):
        table.add_column(name, justify="right")
    remarks: list[str] = []
    with demonstration.progress(err) as bars:
        for exported in lake.export(deployment, days, bars):
            if exported.get("locked"):
                table.add_row(exported["day"], exported["format"])
                remarks.append(f"{exported['day']}: left to another run, which is writing it")
                continue
            if exported["kept"]:
                remarks.append(f"{exported['day']}: kept as it was, for the store has fewer rows by now")
            metered = exported["metered_bytes"]
            table.add_row(
                exported["day"],
                exported["format"],
                *(f"{exported[name]:,}" for name in numbers[:-2]),
                f"{exported['seconds']:,.2f}",
                f"{metered / 1e6:,.1f}",
                *([f"{metered / 1e9 * usd_per_gb:,.4f}"] if usd_per_gb is not None else []),
            )
    out.print(table)
    for remark in remarks:
        out.print(remark, highlight=False)


@app.command()
def reconcile(day: OneDay = None, stack: Stack = None) -> None:
    """Compare what was emitted on a day with what arrived, for each log group.

    The exit status is 1 if anything is missing: lines that the emitters numbered and that never came.

    For example:

    ```sh
    tagline reconcile --day 2026-11-19
    tagline reconcile --day 2026-11-19 --stack tagline-prod
    ```
    """
    from cli import reconcile as reconciling

    deployment = deployment_named(stack)
    asked = (day or deployment.now() - timedelta(days=1)).date()
    balances, exported = reconciling.balances(deployment, asked)
    reconciling.show(asked, balances, exported, out)
    if any(balance.missing for balance in balances):
        raise typer.Exit(1)


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
    days = asked_days(deployment, first, last or first)
    table = Table("day", "format", Column("rows", justify="right"), "what is wrong")
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
    first: Annotated[datetime, day_option("--from", "The first day (UTC).")],
    last: Annotated[datetime, day_option("--to", "The last day (UTC), inclusive.")],
    do_it: Annotated[
        bool, typer.Option("--yes", help="Do it. Without this, only what would be done is shown.")
    ] = False,
) -> None:
    """Remove a client's rows from exported days, and keep them from coming back.

    The days that hold them are written again without them, their whole records in `overflow/` are removed,
    and so are zips for download that may hold them. An entry without personal data says what was done.
    docs/how-to/erase.md has what this does not reach.

    For example:

    ```sh
    tagline forget --client customer-17 --from 2026-11-01 --to 2026-11-19
    tagline forget --client customer-17 --from 2026-11-01 --to 2026-11-19 --yes
    ```
    """
    from cli import demo as demonstration
    from cli import lake

    if not client:
        raise CommandError("--client is empty", "give the client as the column `client` has it")
    deployment = running()
    days = asked_days(deployment, first, last)
    with demonstration.progress(err) as bars:
        found = list(lake.find(deployment, client, days, bars))
    table = Table("day", "format", Column("rows", justify="right"), Column("whole records", justify="right"))
    for each in found:
        table.add_row(str(each.day), each.kind, f"{each.rows:,}", f"{len(each.overflow):,}")
    out.print(table if found else "The lake has no rows of this client on these days.")
    if not do_it:
        out.print("Nothing was done. To do it, say the same with --yes.")
        return
    with demonstration.progress(err) as bars:
        done, key = lake.erase(deployment, client, days, bars)
    rows = sum(each.rows for each in done)
    out.print(
        f"Removed {rows:,} of the client's rows; written again: {len(done):,} of the lake's days.",
        highlight=False,
    )
    out.print("Zips for download that may have had them are gone; who asks again gets new ones.")
    out.print(f"{key} says so.", soft_wrap=True, highlight=False)


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
    from cli.download import download as fetch

    deployment = running()
    days = asked_days(deployment, first, last or first)
    with demonstration.progress(err) as bars:
        fetched = fetch(deployment, days, to_file, bars)
    out.print(f"{to_file}: {fetched.rows:,} rows, {fetched.bytes:,} bytes")
    if missing := fetched.days_not_exported:
        until = f" to {missing[-1]}" if len(missing) > 1 else ""
        out.print(
            f"Days that the lake does not have yet: {len(missing)} of {len(days)}, {missing[0]}{until}."
            " `tagline export` writes them.",
            soft_wrap=True,
            highlight=False,
        )


def asked_days(deployment: Deployment, first: datetime | None, last: datetime | None) -> Days:
    """Return the days from the first to the last; yesterday where neither is given."""
    from exporter.store import Days

    yesterday = deployment.now() - timedelta(days=1)
    try:
        return Days((first or last or yesterday).date(), (last or first or yesterday).date())
    except ValueError as error:
        raise CommandError(str(error), "give --from and --to in this order") from error


def deployment_of(pipeline: Pipeline) -> Deployment:
    """Return where a pipeline of this process is."""
    samples = {**pipeline.outputs.get("sample", {}), **pipeline.outputs.get("pets", {})}
    return Deployment(
        pipeline.services.endpoint, pipeline.outputs["tagline"], samples, api_key=pipeline.api_key
    )


def say_addresses(pipeline: Pipeline, deployment: Deployment) -> None:
    """Print where a pipeline is, and the variables by which programs find it."""
    table = Table("address", "of", title="The pipeline runs", title_justify="left")
    for name, value in pipeline.outputs.get("app", {}).items():
        table.add_row(value, f"{name} of your template")
    if deployment.samples:
        table.add_row(deployment.samples["PetsApiUrl"], "the pets API: every request leaves a record")
        table.add_row(deployment.samples["SampleApiUrl"], "a sample API without a framework")
    table.add_row(deployment.outputs["DownloadUrl"], "the download API")
    if deployment.api_key is not None:
        table.add_row(deployment.api_key, "the key for it: in the header x-api-key, instead of a signature")
    table.add_row(deployment.endpoint, "AWS's services")
    out.print(table)
    out.print("Programs that use boto3 or the AWS command line find it with:")
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
