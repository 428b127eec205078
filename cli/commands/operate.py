"""Commands for people who operate a pipeline."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from cli.errors import CommandError
from cli.options import MAX_DAYS, MAX_WAIT_S, AsJson, Stack, finite
from cli.screen import err, out, print_json_lines, print_rows

if TYPE_CHECKING:
    from cli.subscriptions import Outcome

app = typer.Typer()


@app.command()
def doctor(
    canary: Annotated[
        bool,
        typer.Option(
            "--canary/--no-canary", help="Whether to write a test record and follow it into the store."
        ),
    ] = True,
    wait: Annotated[
        float,
        typer.Option(
            min=0,
            max=MAX_WAIT_S,
            callback=finite,
            help="How many seconds to wait for the record at each place.",
        ),
    ] = 300,
    as_json: AsJson = False,
    stack: Stack = None,
) -> None:
    """Check a pipeline's settings, print a fix for each problem, and follow a test record into the store.

    The record has the type `doctor`, so usage does not count it. The exit status is 1 if there is a
    problem, or if the record does not arrive.

    For example:

    ```sh
    tagline doctor
    tagline doctor --stack tagline-prod --no-canary --json
    ```
    """
    from dataclasses import asdict

    from cli.doctor.canary import follow
    from cli.doctor.checks import all_checks, examine
    from cli.target import find_target

    target = find_target(stack)
    findings = list(examine(target, all_checks(target)))
    if as_json:
        print_json_lines(map(asdict, findings))
    elif findings:
        names = ["check", "problem", "fix"]
        print_rows(names, [[each.check, each.problem, each.fix] for each in findings], out)
    else:
        out.print("the settings are in order")
    lost = False
    for hop in follow(target, wait) if canary else ():
        lost = hop.seconds is None
        if as_json:
            print_json_lines([asdict(hop)])
        else:
            came = "did not come" if hop.seconds is None else f"after {hop.seconds:.1f} s"
            out.print(f"a record came to: {hop.place}, {came}" if not lost else f"{hop.place}: {came}")
    if target.endpoint is not None:
        err.print("functions are not looked at on one machine")
    if findings or lost:
        raise typer.Exit(1)


Names = Annotated[list[str] | None, typer.Argument(metavar="LOG_GROUP", help="Log groups, by name.")]
Prefix = Annotated[
    str, typer.Option(help="The log groups whose names begin with this. Default with --tag: all.")
]
Tags = Annotated[
    list[str] | None,
    typer.Option(
        "--tag",
        metavar="KEY=VALUE",
        help="Only log groups with this tag; if given again, with all of the tags.",
    ),
]
Pretend = Annotated[bool, typer.Option("--dry-run", help="Print what would be done, and do nothing.")]


@app.command()
def subscribe(
    names: Names = None,
    prefix: Prefix = "",
    tags: Tags = None,
    listing: Annotated[
        bool, typer.Option("--list", help="Print what is subscribed, and do nothing.")
    ] = False,
    pretend: Pretend = False,
    as_json: AsJson = False,
    stack: Stack = None,
) -> None:
    """Collect the lines of more log groups, with a subscription filter on each. No filter is replaced.

    If a group cannot be subscribed, the reason is printed and the exit status is 1. Groups that are always
    collected belong in the stack's parameter `LogGroups`.

    For example:

    ```sh
    tagline subscribe /aws/lambda/my-api --stack tagline-prod
    tagline subscribe --prefix /aws/lambda/shop- --dry-run
    tagline subscribe --tag team=shop --tag stage=prod
    tagline subscribe --list
    ```
    """
    from dataclasses import asdict

    from cli import subscriptions
    from cli.target import find_target

    target = find_target(stack)
    if not listing:
        groups = subscriptions.chosen_groups(target, names or (), prefix, _tags(tags))
        _print_outcomes(subscriptions.subscribe(target, groups, pretend=pretend), as_json=as_json)
        return
    found = [*subscriptions.subscriptions(target), *subscriptions.account_policies(target)]
    if as_json:
        print_json_lines(map(asdict, found))
    else:
        print_rows(
            ["log group", "filter", "pattern"], [[each.group, each.name, each.pattern] for each in found], out
        )


@app.command()
def unsubscribe(
    names: Names = None,
    prefix: Prefix = "",
    tags: Tags = None,
    pretend: Pretend = False,
    as_json: AsJson = False,
    stack: Stack = None,
) -> None:
    """Remove the subscription filters that `tagline subscribe` created.

    A filter of the stack stays: remove its group from the parameter `LogGroups`.

    For example:

    ```sh
    tagline unsubscribe /aws/lambda/my-api --stack tagline-prod
    ```
    """
    from cli import subscriptions
    from cli.target import find_target

    target = find_target(stack)
    groups = subscriptions.chosen_groups(target, names or (), prefix, _tags(tags))
    _print_outcomes(subscriptions.unsubscribe(target, groups, pretend=pretend), as_json=as_json)


def _tags(texts: list[str] | None) -> dict[str, str]:
    pairs = {}
    for text in texts or ():
        key, equals, value = text.partition("=")
        if not equals:
            raise CommandError(f"--tag {text} has no =", "give it as KEY=VALUE")
        pairs[key] = value
    return pairs


def _print_outcomes(outcomes: Iterable[Outcome], *, as_json: bool) -> None:
    from dataclasses import asdict

    found = list(outcomes)
    if as_json:
        print_json_lines(map(asdict, found))
    else:
        print_rows(["log group", "outcome"], [[each.group, each.text] for each in found], out)
    if not all(each.done for each in found):
        raise typer.Exit(1)


Functions = Annotated[
    list[str] | None,
    typer.Option(
        "--function",
        help="Only lines of this function, by its name in the template, or a log group; may be given again.",
    ),
]


@app.command()
def logs(
    function: Functions = None,
    pattern: Annotated[
        str, typer.Option("--filter", help="Only lines that this filter pattern selects.")
    ] = "",
    minutes: Annotated[
        float, typer.Option(min=0, max=MAX_DAYS * 1_440, callback=finite, help="How far back to begin.")
    ] = 10,
    follow: Annotated[bool, typer.Option("--follow", help="Continue with new lines until Ctrl-C.")] = False,
    as_json: AsJson = False,
    stack: Stack = None,
) -> None:
    """Print what the pipeline's own functions log.

    For example:

    ```sh
    tagline logs
    tagline logs --follow --function RowConsumer --stack tagline-prod
    tagline logs --filter '{ $.level = "ERROR" }' --minutes 1440 --json
    ```
    """
    from cli.logs import LogLine, Tail, follow_lines, own_groups, rest
    from cli.options import format_time
    from cli.target import find_target

    def show(line: LogLine) -> None:
        when = format_time(line.time_ms)
        if as_json:
            print_json_lines([line.to_json(when)])
        else:
            name = line.group.rpartition("/")[2]
            out.print(f"{when} {name}: {line.message}", soft_wrap=True, highlight=False)

    target = find_target(stack)
    since_ms = int(target.now().timestamp() * 1_000 - minutes * 60_000)
    tail = Tail(target, own_groups(target, function or ()), pattern, since_ms)
    if follow:
        follow_lines(tail, show, rest)
        return
    for line in tail.look():
        show(line)
