"""Commands for lines that were not stored: list and show the quarantine, and send lines again."""

from __future__ import annotations

import sys
from collections.abc import Collection
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from cli.errors import CommandError
from cli.options import (
    MAX_WAIT_S,
    AsJson,
    Reasons,
    Stack,
    arrival_days,
    day_option,
    finite,
    format_time,
    parse_day,
    parse_time,
)
from cli.screen import err, out, print_json_lines, progress

if TYPE_CHECKING:
    from cli.replay import ReplayItem, ReplayOutcome
    from cli.target import Target

app = typer.Typer()
quarantine_app = typer.Typer(help="Lines that could not be stored, and why.", no_args_is_help=True)
app.add_typer(quarantine_app, name="quarantine")

_MINUTE_MS = 60_000

FirstArrival = Annotated[
    datetime | None, day_option("--from", "The first day on which they arrived (UTC). Default: the earliest.")
]
LastArrival = Annotated[
    datetime | None, day_option("--to", "The last day, inclusive (UTC). Default: the latest.")
]


class ReplaySource(StrEnum):
    """What can be replayed."""

    QUARANTINE = "quarantine"
    FAILED = "failed"
    LOGS = "logs"


Source = Annotated[
    ReplaySource,
    typer.Argument(help="Lines in quarantine, batches that the consumer gave up, or lines of a log group."),
]
ReplayFrom = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="YYYY-MM-DD[THH:MM:SS]",
        help="The first day of arrival (UTC). For logs: a day or a time, and required.",
    ),
]
ReplayTo = Annotated[
    str | None,
    typer.Option(
        "--to",
        metavar="YYYY-MM-DD[THH:MM:SS]",
        help="The last day, inclusive. For logs: a day or a time. Default: the latest.",
    ),
]


@quarantine_app.command("ls")
def list_quarantine(
    first: FirstArrival = None,
    last: LastArrival = None,
    reason: Reasons = None,
    keys: Annotated[bool, typer.Option("--keys", help="List each object by its key.")] = False,
    as_json: AsJson = False,
    stack: Stack = None,
) -> None:
    """Print what is in quarantine: the number of lines by day and reason, and what is wrong with the first.

    For example:

    ```sh
    tagline quarantine ls
    tagline quarantine ls --from 2026-11-01 --reason unparseable --keys
    ```
    """
    from cli import quarantine
    from cli.target import find_target

    rows = quarantine.summarize(find_target(stack), arrival_days(first, last), reason or (), by_key=keys)
    if as_json:
        print_json_lines(rows)
    elif rows and keys:
        for row in rows:
            # A key is there to be copied: it is not cut off, however long it is.
            out.print(row["key"], soft_wrap=True, highlight=False)
            out.print(f"  {quarantine.in_short(row)}", highlight=False)
    elif rows:
        out.print(quarantine.summary_table(rows))
    else:
        out.print("Nothing is in quarantine.")


@quarantine_app.command("show")
def show_quarantine(
    key: Annotated[str, typer.Argument(help="An object's key; `tagline quarantine ls --keys` has them.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the lines whole, as they are kept.")] = False,
    stack: Stack = None,
) -> None:
    """Print the lines of an object in quarantine: why, where they came from, and how they begin.

    They may hold texts of your users: take care where you print them.

    For example:

    ```sh
    tagline quarantine show quarantine/late/year=2026/month=11/day=20/shardId-000000000000-4959.jsonl
    ```
    """
    from cli import quarantine
    from cli.target import find_target

    content = quarantine.read_object(find_target(stack), key)
    if as_json:
        sys.stdout.write(content.decode())
    else:
        quarantine.print_lines(key, content, out)


@app.command()
def replay(
    source: Source,
    first: ReplayFrom = None,
    last: ReplayTo = None,
    reason: Reasons = None,
    log_group: Annotated[str, typer.Option(help="The log group, if the source is logs.")] = "",
    function: Annotated[
        str, typer.Option(help="The function that gets a log group's lines. Default: the row consumer.")
    ] = "",
    do_it: Annotated[bool, typer.Option("--run", help="Do it. Without it, only count.")] = False,
    pause: Annotated[
        float,
        typer.Option(min=0, max=MAX_WAIT_S, callback=finite, help="Seconds to wait after each invocation."),
    ] = 0,
    as_json: AsJson = False,
    stack: Stack = None,
) -> None:
    """Send lines through the consumer again; without --run, only count them.

    Nothing is stored twice, whatever is replayed and however often. If the command is interrupted, run it
    again: it continues. Objects that were replayed are moved below `replayed/`.

    For example:

    ```sh
    tagline replay quarantine --reason unparseable
    tagline replay quarantine --from 2026-11-01 --to 2026-11-19 --run
    tagline replay failed --run
    tagline replay logs --log-group /aws/lambda/my-api --from 2026-11-19T10:00:00 --to 2026-11-19T12:00:00
    ```
    """
    from cli.replay import ReplayOutcome
    from cli.target import find_target

    target = find_target(stack)
    outcome = ReplayOutcome()
    if source is ReplaySource.LOGS:
        replay_logs(target, outcome, (log_group, first, last), function, do_it=do_it, pause=pause)
    else:
        days = parse_day("--from", first), parse_day("--to", last)
        replay_objects(target, outcome, source, days, reason or (), do_it=do_it, pause=pause)
    if as_json:
        print_json_lines([{**outcome.to_json(), "sent": do_it}])
    else:
        out.print(outcome.table())
    for name, why in outcome.failed.items():
        err.print(f"{name}: {why}", highlight=False)
    if do_it:
        err.print(
            "Lines that were not rejected again are stored; the store does not tell which it had already."
        )
    else:
        err.print("Nothing was sent. Do it with: --run")
    if outcome.failed:
        raise typer.Exit(1)


def replay_objects(
    target: Target,
    outcome: ReplayOutcome,
    source: ReplaySource,
    days: tuple[datetime | None, datetime | None],
    reasons: Collection[str],
    *,
    do_it: bool,
    pause: float,
) -> None:
    """Replay the objects of quarantine, or the failed batches, that arrived on some days; or count them."""
    from cli import quarantine
    from cli import replay as replaying

    window = arrival_days(*days)
    if source is ReplaySource.QUARANTINE:
        if do_it:
            replaying.recover(target, outcome)
        objects = list(quarantine.list_objects(target, window, reasons))
        total = len(objects)
        items = replaying.from_quarantine(target, objects, outcome)
    else:
        names = list(replaying.failed_batches(target, window))
        total = len(names)
        items = replaying.from_failed_batches(target, names, outcome)
    with progress() as bars:
        bar = bars.add_task("objects", total=total)
        if do_it:
            replaying.send_items(target, items, outcome, lambda _: bars.advance(bar), pause_s=pause)
        else:
            replaying.count_items(target, items, outcome, lambda _: bars.advance(bar))


def replay_logs(
    target: Target,
    outcome: ReplayOutcome,
    asked: tuple[str, str | None, str | None],
    function: str,
    *,
    do_it: bool,
    pause: float,
) -> None:
    """Replay the lines of a log group from a time to another, or count them."""
    from cli import replay as replaying

    group, first, last = asked
    if not (group and first):
        raise CommandError(
            "a replay of logs needs a log group and a first time", "give --log-group and --from"
        )
    function = function or target.outputs["RowConsumerName"]
    first_ms = parse_time("--from", first)
    end_ms = parse_time("--to", last, end=True) if last else int(target.now().timestamp() * 1000)
    cursor = replaying.cursor_key(group, first, last, function)
    known = replaying.read_cursor(target, cursor)
    if known is not None:
        err.print(f"{group}: replayed up to {format_time(known)} already, resuming there", highlight=False)
        first_ms = known
    if end_ms <= first_ms:
        raise CommandError(
            f"{format_time(end_ms)} is not after {format_time(first_ms)}",
            "give --from and --to in this order",
        )
    with progress() as bars:
        bar = bars.add_task("minutes", total=-(-(end_ms - first_ms) // _MINUTE_MS))

        def advance(item: ReplayItem) -> None:
            bars.update(bar, completed=(int(item.name) - first_ms) // _MINUTE_MS)

        def note(item: ReplayItem) -> None:
            replaying.write_cursor(target, cursor, item)

        items = replaying.from_log_group(target, replaying.LogSlice(group, first_ms, end_ms), function)
        if do_it:
            replaying.send_items(target, items, outcome, advance, pause_s=pause, done=note)
            target.bucket().delete([cursor])
        else:
            replaying.count_items(target, items, outcome, advance)
        bars.update(bar, completed=bars.tasks[bar].total)
