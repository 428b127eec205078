"""Commands for the pipeline on this machine: run it, feed it, move its clock, break things."""

from __future__ import annotations

import json
import os
import shlex
import signal
import stat
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from onemachine.faults import OF_DELIVERIES, Kind

from cli.errors import CommandError
from cli.options import MAX_DAYS, MAX_WAIT_S, AsJson, Stack, finite
from cli.screen import advancing, err, out, print_json_lines, print_pairs, print_rows, progress
from consumers.rows.registry import LOCAL_STORE, STORES

if TYPE_CHECKING:
    from onemachine.pipeline import App, Pipeline

    from cli.feed import AccessLog
    from cli.live import LiveView
    from cli.target import Target

app = typer.Typer()

_LOOK_EVERY_S = 0.2
# How long rows may take to come, after what was sent before: a function of a busy machine starts in seconds.
FEED_PATIENCE_S = 15.0

AFTER_THE_DEMO = (
    "Next: .venv/bin/tagline up runs it until Ctrl-C; docs/how-to/first-record.md leads to your record."
)


def need_unix() -> None:
    """See that services and functions can run on this machine.

    Raises:
        CommandError: If it is Windows.
    """
    if sys.platform == "win32":
        raise CommandError("AWS's services on one machine need Linux or macOS", "run the command in WSL")


def store_named(name: str) -> str:
    """Return the name of a store.

    Raises:
        typer.BadParameter: If no store has this name.
    """
    if name not in STORES:
        raise typer.BadParameter(f"{name!r} is not one of {', '.join(STORES)}")
    return name


StoreName = Annotated[
    str, typer.Option(parser=store_named, metavar="|".join(STORES), help="The store of the records.")
]
InProcess = Annotated[
    bool, typer.Option("--in-process", help="Run the functions in this process instead of their own.")
]
Template = Annotated[
    Path | None,
    typer.Option(help="Run your own SAM template instead of the samples; its lines are collected."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--parameter-overrides",
        metavar="NAME=VALUE",
        help="A parameter of the template or of the pipeline; several in one text, or given again.",
    ),
]
DataFolder = Annotated[
    Path | None, typer.Option(help="Keep the store's tables in this folder, for the next run.")
]
StartTime = Annotated[
    datetime | None,
    typer.Option(formats=["%Y-%m-%dT%H:%M:%S", "%Y-%m-%d"], help="Set the clock to this time (UTC)."),
]
Port = Annotated[
    int,
    typer.Option(
        min=0, max=65_535, help="The services' port; the APIs take the next ones. 0 takes free ones."
    ),
]
EnforceAuth = Annotated[
    bool,
    typer.Option(
        "--enforce-auth",
        help="Refuse what the HTTP APIs' authorizers would refuse. An API key that passes is printed.",
    ),
]
EnforceThrottling = Annotated[
    bool, typer.Option("--enforce-throttling", help="Refuse more requests than the HTTP APIs allow.")
]


@app.command()
def demo(
    access_log: Annotated[
        Path | None,
        typer.Option(help="Send the requests of an access log; - is standard input. The format is detected."),
    ] = None,
    requests: Annotated[int, typer.Option(min=1, help="How many requests to send to the pets API.")] = 500,
    report: Annotated[
        Path, typer.Option(help="The file to write the usage page to, which any browser opens.")
    ] = Path(".tagline/report.html"),
    store: StoreName = LOCAL_STORE,
    in_process: InProcess = False,
) -> None:
    """Run the whole pipeline on this machine, from requests to a downloaded zip and a usage page.

    The last line on stdout is one JSON object with what each stage counted. The exit status is 0 if nothing
    was lost and as many rows were downloaded as stored.

    For example:

    ```sh
    tagline demo
    tagline demo --requests 2000
    tagline demo --store lake
    tagline demo --access-log /var/log/nginx/access.log --report report.html
    ```
    """
    need_unix()
    err.print("Starting AWS's services and the pipeline on this machine, which takes some seconds ...")
    from onemachine.pipeline import Pipeline

    from cli import demo as demonstration
    from cli.apps import tagline_with_samples
    from cli.feed import open_access_log
    from cli.target import target_of

    with ExitStack() as opened:
        opened.enter_context(err.kept())
        log = None
        if access_log is not None:
            log = opened.enter_context(open_access_log(access_log))
            print_format(log)
        apps = tagline_with_samples(pets=log is None, store=store)
        pipeline = opened.enter_context(Pipeline(apps, in_process=in_process))
        print_in_process(pipeline)
        stages, result = demonstration.follow(
            pipeline, target_of(pipeline), log=log, requests=requests, report=report
        )
    demonstration.print_stages(stages, Path(result["zip"]), out)
    out.print(f"Usage page, for your browser: {result['report']}", soft_wrap=True)
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()
    # Last in a terminal; what reads stdout finds the JSON there.
    err.print(AFTER_THE_DEMO, soft_wrap=True, highlight=False)
    if result["lost"] != 0 or result["downloaded"] != result["stored"]:
        raise typer.Exit(1)


@app.command()
def up(
    template: Template = None,
    parameter_overrides: Overrides = None,
    store: StoreName = LOCAL_STORE,
    data: DataFolder = None,
    now: StartTime = None,
    port: Port = 0,
    enforce_auth: EnforceAuth = False,
    enforce_throttling: EnforceThrottling = False,
    in_process: InProcess = False,
) -> None:
    """Run the pipeline on this machine until Ctrl-C, and print its addresses and what happens.

    Requests, records, tracebacks and faults are printed as they come. When code changes, its functions
    restart. At the end, the usage page is saved to `.tagline/report.html`.

    Commands in the same folder find it; programs that use boto3 find it by the variables of `tagline env`.

    For example:

    ```sh
    tagline up
    tagline up --template my-api/template.yml --data .tagline/data
    tagline up --template my-api/template.yml --parameter-overrides "Table=things MeterUrl=http://127.0.0.1:9000"
    tagline up --now 2026-01-01T00:10:00 --port 4566
    ```
    """
    need_unix()
    from onemachine.pipeline import Pipeline
    from tagline import DEFAULT_TAG

    from cli.live import LiveView
    from cli.target import running_or_none

    if data is not None and store != LOCAL_STORE:
        raise CommandError(f"--data keeps tables of {LOCAL_STORE} alone, not of {store}", "leave it out")
    if running_or_none() is not None:
        raise CommandError(
            "a pipeline is running in this folder already", "stop it with Ctrl-C, or use another folder"
        )
    with _explained(), out.kept(), err.kept():
        apps = _apps(template, parameters_of(parameter_overrides or []), store)
        given = apps[-1].parameters
        view = LiveView(
            given.get("Tag", DEFAULT_TAG), given["LogGroups"].split(","), given.get("LinePrefix", "")
        )
        with Pipeline(
            apps,
            in_process=in_process,
            ports=range(port, 65_536) if port else (),
            enforce_auth=enforce_auth,
            enforce_throttling=enforce_throttling,
            now=now and now.replace(tzinfo=UTC),
            data=data,
            watcher=view,
        ) as pipeline:
            keep_running(pipeline, view)


def _apps(path: Path | None, parameters: Mapping[str, str], store: str) -> list[App]:
    """Return what `up` runs: the user's template, or the samples."""
    from cli.apps import built, tagline_with_samples, tagline_with_template

    if path is None:
        return tagline_with_samples(pets=True, store=store, parameters=parameters)
    if not path.is_file():
        raise CommandError(f"there is no template {path}", "give the path of a SAM template")
    if built(path) != path:
        err.print(f"{built(path)} is run: sam build made it", highlight=False, soft_wrap=True)
    return tagline_with_template(built(path), parameters, store=store)


@contextmanager
def _explained() -> Iterator[None]:
    """Say what to do about a template that cannot be run, and about a port or folder that cannot be used."""
    from onemachine.template.stack import ParameterError, TemplateError

    try:
        yield
    except ParameterError as error:
        raise CommandError(
            str(error), "--parameter-overrides NAME=VALUE gives a parameter a value"
        ) from error
    except TemplateError as error:
        raise CommandError(
            str(error), "fix the template; docs/how-to/run-your-function.md has what runs"
        ) from error
    except OSError as error:
        raise CommandError(str(error), "give another port, or a folder that you can write to") from error


def parameters_of(texts: Sequence[str]) -> dict[str, str]:
    """Return the parameters of texts such as `Name=value Other="two words"`.

    Raises:
        typer.BadParameter: If a text is not of this form.
    """
    parameters = {}
    for text in texts:
        try:
            pairs = [pair.partition("=") for pair in shlex.split(text)]
        except ValueError as error:
            raise typer.BadParameter(f"{text!r}: {error}") from error
        for name, equals, value in pairs:
            if not equals or not name:
                raise typer.BadParameter(f"{name!r} is not of the form NAME=VALUE")
            parameters[name] = value
    return parameters


def keep_running(pipeline: Pipeline, view: LiveView) -> None:
    """Print where a pipeline is, and let the other commands find it, until a signal ends it."""
    from cli.live import CodeWatch
    from cli.target import remove_running, target_of, write_running

    print_in_process(pipeline)
    for name in pipeline.not_run:
        err.print(f"not on this machine: {name}", highlight=False)
    for each in pipeline.missing:
        err.print(each, highlight=False)
    target = target_of(pipeline)
    write_running(target)
    code = CodeWatch(
        [folder for name, folders in pipeline.code.items() if name != "tagline" for folder in folders]
    )
    try:
        stopped = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stopped.set())
        print_addresses(pipeline, target)
        # A signal that another thread gets wakes nobody: look for it.
        while not stopped.wait(_LOOK_EVERY_S):
            if (path := code.changed()) is not None:
                pipeline.reload()
                view.reloaded(path)
        print_end(target, view)
    finally:
        remove_running()


def print_end(target: Target, view: LiveView) -> None:
    """Print what was counted, and save the usage page if there are records."""
    from cli.dashboard import link_to_page, save_page
    from cli.target import FOLDER

    summary, page = view.summary(), FOLDER / "report.html"
    view.close()
    out.print()  # after ^C
    if view.counts["record"]:
        try:
            save_page(link_to_page(target), page)
            summary += f"\nUsage page, for your browser: {page.resolve()}"
        except CommandError as error:
            err.print(f"no usage page: {error}", highlight=False)
    out.print(summary, soft_wrap=True, highlight=False)


@app.command()
def feed(
    log: Annotated[
        Path, typer.Argument(help="An access log, compressed or not, or a pipe; - is standard input.")
    ],
    lines: Annotated[
        bool, typer.Option("--lines", help="The log is a program's output: send its lines as they are.")
    ] = False,
) -> None:
    """Send an access log's requests, or a program's output, into the pipeline that runs here.

    Each line of an access log becomes one record. Feeding a file again on the same day changes nothing. Times
    are moved by whole days, so that the last request was yesterday.

    With `--lines`, a tagged line is a row about a second after the program prints it. The first Ctrl-C goes
    to the program, the second ends the command.

    For example:

    ```sh
    tagline feed /var/log/nginx/access.log
    zcat access.log.*.gz | tagline feed -
    python my_program.py | tagline feed --lines -
    ```
    """
    from cli.feed import open_access_log, send_access_log
    from cli.target import running_target

    target = running_target()
    if lines:
        feed_output(target, log)
        return
    before = count_rows(target)
    with open_access_log(log) as opened, progress() as bars:
        print_format(opened)
        bar = bars.add_task("requests", total=opened.lines)
        written = send_access_log(target, opened, advancing(bars, bar))
    out.print(f"{written:,} records written")
    if before is not None:
        print_more_rows(target, before, written)


def feed_output(target: Target, path: Path) -> None:
    """Send a program's output while the program runs, and print how many rows and rejected lines it made."""
    from cli.output import send_lines

    with _stopped_by_signals(path) as stopped:
        before = count_rows(target)
        sent = send_lines(
            target,
            path,
            stopped,
            lambda line: err.print(f"{path}:{line.number}: {line.reason}", highlight=False),
        )
    out.print(f"lines sent: {sent.lines:,}, with the tag: {sent.marked:,}")
    if before is not None:
        print_more_rows(target, before, sent.marked)


@contextmanager
def _stopped_by_signals(path: Path) -> Iterator[threading.Event]:
    """Give an event that Ctrl-C sets. While a program writes into a pipe, the first Ctrl-C is the program's.

    A shell sends Ctrl-C to both. What the program still writes then is read, until it ends.
    """
    stopped, asked = threading.Event(), threading.Event()
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode if str(path) == "-" else path.stat().st_mode
    except OSError:  # the command will report it
        mode = 0
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
        asked.set()

    def stop(number: int, _: object) -> None:
        if number == signal.SIGTERM or asked.is_set():
            stopped.set()
            return
        asked.set()
        # A signal may come while something is printed: not by way of the same buffer.
        os.write(2, b"\nWaiting for the program's end; Ctrl-C again ends it now.\n")

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@app.command()
def tick(
    days: Annotated[
        float, typer.Option(min=0, max=MAX_DAYS, callback=finite, help="Move the clock forward by days.")
    ] = 0,
    hours: Annotated[
        float,
        typer.Option(min=0, max=MAX_DAYS * 24, callback=finite, help="Move the clock forward by hours."),
    ] = 0,
    function: Annotated[
        list[str] | None, typer.Option(help="Run this scheduled function now; may be given again.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Move the clock of this machine's pipeline forward: schedules fire, old objects and links expire.

    A schedule fires once for every time that passes. Without an option, the clock stays and the daily export
    runs.

    For example:

    ```sh
    tagline tick
    tagline tick --days 1
    ```
    """
    from cli.target import running_target

    target = running_target()
    if not (days or hours or function):
        function = [target.outputs["DailyExporterName"]]
    turned = target.act("tick", seconds=days * 86_400 + hours * 3_600, functions=function or [])
    if as_json:
        print_json_lines([turned])
        return
    out.print(f"It is {turned['now']}.", highlight=False)
    for answer in turned["answers"]:
        out.print_json(data=answer, indent=None)
    for bucket, did in turned["aged"].items():
        counts = ", ".join(f"{count} {what}" for what, count in did.items() if count)
        if counts:
            out.print(f"{bucket}: {counts}")


@app.command()
def fault(
    kind: Annotated[Kind, typer.Argument(help="The fault.")],
    service: Annotated[
        str, typer.Option(help="The service whose calls fail, by its name in boto3. Default: all.")
    ] = "",
    operation: Annotated[
        str,
        typer.Option(
            help="The operation that fails, such as WriteRecords (S3, Lambda, SNS: a method). Default: all."
        ),
    ] = "",
    function: Annotated[str, typer.Option(help="kill: the function. Default: the consumer of rows.")] = "",
    times: Annotated[int, typer.Option(min=1, help="How many calls, deliveries or batches.")] = 1,
    chance: Annotated[
        float,
        typer.Option(min=0, max=1, callback=finite, help="The probability that a call fails, from 0 to 1."),
    ] = 1.0,
    seconds: Annotated[
        float, typer.Option(min=0, max=MAX_WAIT_S, callback=finite, help="latency, delay: how many seconds.")
    ] = 1.0,
) -> None:
    """Inject a fault into this machine's pipeline, to see that no record is lost.

    - calls of services: `throttle`, `error`, `deny`, `latency`, `reset` and `cut` (the connection ends
      before or after the service did its work)
    - lines on their way into the stream: `duplicate`, `delay`, `corrupt`, `lose`
    - batches of the consumer: `redeliver`
    - a function: `kill`
    - `none` ends all faults.

    For example:

    ```sh
    tagline fault throttle --service kinesis --operation GetRecords --times 3
    tagline fault duplicate --times 10
    tagline fault kill --function tagline-RowConsumer
    tagline fault none
    ```
    """
    from cli.target import running_target

    target = running_target()
    if kind is Kind.NONE:
        target.act("fault", kind=kind)
        out.print("All faults have ended.")
    elif kind is Kind.KILL:
        name = function or target.outputs["RowConsumerName"]
        target.act("fault", kind=kind, function=name)
        out.print(f"{name} was killed; its next event starts it again.", highlight=False)
    elif kind is Kind.REDELIVER:
        target.act("fault", kind=kind, times=times)
        out.print(f"The next {times:,} batches that succeed are delivered again.", highlight=False)
    elif kind in OF_DELIVERIES:
        target.act("fault", kind=kind, times=times, seconds=seconds)
        out.print(f"{kind}: the next {times:,} deliveries of lines", highlight=False)
    else:
        rule = {"service": service, "operation": operation, "chance": chance, "seconds": seconds}
        target.act("fault", kind=kind, times=times, **rule)
        calls = f"{service or 'any service'} {operation}".rstrip()
        out.print(f"{kind}: the next {times:,} calls of {calls}", highlight=False)


@app.command()
def env(
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object instead.")] = False,
    stack: Stack = None,
) -> None:
    """Print the variables that the pages' examples use, for a shell: addresses and names.

    For the pipeline on this machine they include credentials, so that boto3 and the AWS command line
    reach it.

    For example:

    ```sh
    eval "$(tagline env)"
    curl "$PetsApiUrl/pets"
    ```
    """
    from cli.target import find_target

    variables = find_target(stack).variables()
    if as_json:
        sys.stdout.write(json.dumps(variables) + "\n")
        return
    for name, value in variables.items():
        sys.stdout.write(f"export {name}={shlex.quote(value)}\n")


@app.command()
def outbox(as_json: AsJson = False) -> None:
    """Print the e-mails that the pipeline that runs here would have sent.

    For example:

    ```sh
    tagline outbox
    ```
    """
    from cli.target import running_target

    mails = running_target().act("outbox")
    if as_json:
        print_json_lines(mails)
        return
    if not mails:
        out.print("No e-mail would have been sent.")
        return
    names = ("sent_at", "to", "subject", "body")
    rows = [[mail[name] for name in names] for mail in mails]
    print_rows(("sent", "to", "subject", "message"), rows, out)


def print_addresses(pipeline: Pipeline, target: Target) -> None:
    """Print where a pipeline is, and the variables by which programs find it."""
    addresses = [
        (value, f"{name} of your template") for name, value in pipeline.outputs.get("app", {}).items()
    ]
    shown = " ".join(pipeline.outputs.get("app", {}).values())
    addresses += [
        (f"{url}{pipeline.stages[url]}", f"{name} of your template")
        for name, url in pipeline.addresses.get("app", {}).items()
        if url not in shown
    ]
    if "PetsApiUrl" in target.samples:
        addresses += [
            (target.samples["PetsApiUrl"], "the pets API: every request leaves a record"),
            (target.samples["SampleApiUrl"], "a sample API without a framework"),
        ]
    addresses.append((target.outputs["DownloadUrl"], "the download API"))
    if target.api_key is not None:
        addresses.append((target.api_key, "the key for it: in the header x-api-key, instead of a signature"))
    addresses.append((pipeline.services.endpoint, "AWS's services"))
    out.print("The pipeline runs:")
    print_pairs(addresses, out)
    out.print('Programs that use boto3, and the examples of the pages, find it with: eval "$(tagline env)"')
    out.print("Stop it with Ctrl-C.")
    out.file.flush()


def print_in_process(pipeline: Pipeline) -> None:
    """Print why functions run in this process, if they do: not as they are deployed."""
    if pipeline.functions.runs_in_process:
        err.print(
            f"Functions run in this process, without limits of memory and time: "
            f"{pipeline.functions.why_in_process}."
        )


def count_rows(target: Target) -> tuple[int, int] | None:
    """Return how many rows and lines in quarantine there are; None if the store does not answer."""
    from cli.stages import quarantined, total
    from exporter.store import StoreError

    try:
        return target.store().count(), total(quarantined(target).values()).records
    except StoreError as error:
        err.print(f"rows are not counted: {error}", highlight=False)
        return None


def print_more_rows(target: Target, before: tuple[int, int], expected: int) -> None:
    """Wait for rows, and print how many more there are than before."""
    from cli.demo import wait_for_rows
    from cli.stages import total
    from exporter.store import StoreError

    rows, kept = before
    try:
        with progress() as bars:
            now, reasons = wait_for_rows(target, rows + kept + expected, bars, FEED_PATIENCE_S)
    except StoreError as error:
        err.print(f"rows are not counted: {error}", highlight=False)
        return
    now_kept = total(reasons.values()).records
    store = target.store().name
    out.print(f"more rows in {store}: {now - rows:,}, more lines in quarantine: {now_kept - kept:,}")


def print_format(log: AccessLog) -> None:
    """Print an access log's format, and the first ten lines that are not in it."""
    shown = 10
    err.print(f"{log.name}: {log.format} format, {log.lines:,} requests", highlight=False)
    for line in log.unreadable[:shown]:
        err.print(f"{log.name}:{line.number}: {line.reason}", highlight=False)
    if len(log.unreadable) > shown:
        err.print(f"... and {len(log.unreadable) - shown:,} more lines like these")
