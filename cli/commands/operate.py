"""Commands for people who operate a pipeline."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.options import Stack
from cli.screen import err, out, print_rows

app = typer.Typer()


@app.command()
def doctor(
    canary: Annotated[
        bool, typer.Option("--canary/--no-canary", help="Write a record and follow it into the store.")
    ] = True,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for it at each place.")] = 300,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object a line.")] = False,
    stack: Stack = None,
) -> None:
    """Look for what is wrong with a pipeline, with a fix for each; then follow a record through it.

    The record has the type `doctor`, so that it counts in no number of usage. The exit status is 1 if
    something is wrong, or if the record does not come.

    For example:

    ```sh
    tagline doctor
    tagline doctor --stack tagline-prod --no-canary --json
    ```
    """
    import json
    from dataclasses import asdict

    from cli.doctor.canary import follow
    from cli.doctor.checks import all_checks, examine
    from cli.target import find_target

    target = find_target(stack)
    findings = list(examine(target, all_checks(target)))
    if as_json:
        for finding in findings:
            out.print(json.dumps(asdict(finding)), soft_wrap=True, highlight=False)
    elif findings:
        names = ["check", "problem", "fix"]
        print_rows(names, [[each.check, each.problem, each.fix] for each in findings], out)
    else:
        out.print("the settings are in order")
    lost = False
    for hop in follow(target, wait) if canary else ():
        lost = hop.seconds is None
        if as_json:
            out.print(json.dumps(asdict(hop)), soft_wrap=True, highlight=False)
        else:
            came = "did not come" if hop.seconds is None else f"after {hop.seconds:.1f} s"
            out.print(f"a record came to: {hop.place}, {came}" if not lost else f"{hop.place}: {came}")
    if target.endpoint is not None:
        err.print("functions are not looked at on one machine")
    if findings or lost:
        raise typer.Exit(1)
