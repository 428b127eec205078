"""Commands that ask: the store, the log groups, filter patterns, and whether anything is missing."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from cli.errors import CommandError
from cli.options import MAX_DAYS, AsJson, FirstDay, LastDay, OneDay, Stack, days_between, finite
from cli.screen import err, out, print_json_lines

app = typer.Typer()
filter_app = typer.Typer(help="Filter patterns of CloudWatch Logs.", no_args_is_help=True)
app.add_typer(filter_app, name="filter")


AsCsv = Annotated[bool, typer.Option("--csv", help="Print CSV instead of a table.")]


@app.command()
def query(
    sql: Annotated[str, typer.Argument(help="A SELECT; `{table}` stands for the table's name.")],
    as_csv: AsCsv = False,
    as_json: AsJson = False,
    stack: Stack = None,
) -> None:
    """Ask the store a question in its SQL.

    For example:

    ```sh
    tagline query 'SELECT route, count(*) AS requests FROM {table} GROUP BY route ORDER BY 2 DESC'
    tagline query --csv 'SELECT * FROM {table} WHERE time > ago(1h)'
    tagline query --json 'SELECT time, client, status FROM {table} WHERE status >= 500'
    tagline query --stack tagline-prod 'SELECT count(*) FROM {table}'
    ```
    """
    from cli.answers import print_answer, values_of
    from cli.target import find_target
    from exporter.store import StoreError

    check_placeholders(sql)
    try:
        store = find_target(stack).store()
        err.print(store.dialect)
        answer = store.sql(sql)
        names = [column.name for column in answer.columns]
        print_answer(names, (values_of(answer.columns, row) for row in answer.rows), csv=as_csv, json=as_json)
    except StoreError as error:
        raise CommandError(str(error), "see the examples: tagline query --help") from error


def check_placeholders(sql: str) -> None:
    """See that a question is not empty, and has no placeholder but `{table}` outside of quotes and comments.

    Raises:
        CommandError: If it is empty, or there is another.
    """
    if not sql.strip():
        raise CommandError("the question is empty", "see the examples: tagline query --help")
    outside = re.sub(r"'[^']*'|\"[^\"]*\"|--[^\n]*|/\*.*?\*/", " ", sql, flags=re.DOTALL)
    for name in re.findall(r"\{[^{}]*\}", outside):
        if name != "{table}":
            raise CommandError(f"{name} is not a placeholder", "write {table} for the table's name")


@app.command()
def insights(
    question: Annotated[str, typer.Argument(metavar="QUERY", help="A query of CloudWatch Logs Insights.")],
    group: Annotated[
        list[str] | None,
        typer.Option(help="A log group; may be given again. Default: those whose lines are collected."),
    ] = None,
    hours: Annotated[
        float, typer.Option(min=0, max=MAX_DAYS * 24, callback=finite, help="How far back to look.")
    ] = 24,
    as_csv: AsCsv = False,
    as_json: AsJson = False,
    stack: Stack = None,
) -> None:
    """Ask the log groups with a query of CloudWatch Logs Insights.

    For example:

    ```sh
    tagline insights 'filter _tag = "usage_record" | stats count(*) as requests by route | sort requests desc'
    tagline insights --hours 1 'filter status >= 500 | fields @timestamp, route, error_type'
    ```
    """
    import time

    from botocore.exceptions import ClientError
    from onemachine.insights import QueryFailedError, ask

    from cli.answers import print_answer
    from cli.stages import collected_groups
    from cli.target import find_target

    target = find_target(stack)
    now = int(target.now().timestamp())
    try:
        answer = ask(
            target.client("logs"),
            question,
            groups=group or collected_groups(target),
            start_s=now - int(hours * 3600),
            end_s=now,
            sleep=time.sleep,
        )
    except (ClientError, QueryFailedError) as error:
        message = error.response["Error"]["Message"] if isinstance(error, ClientError) else str(error)
        raise CommandError(message, "see the examples: tagline insights --help") from error
    columns = answer.columns()
    rows = ([row.get(column) for column in columns] for row in answer.rows)
    print_answer(columns, rows, csv=as_csv, json=as_json)
    err.print(f"{answer.matched:,.0f} of {answer.scanned:,.0f} events matched")


@app.command()
def reconcile(
    day: OneDay = None,
    first: FirstDay = None,
    last: LastDay = None,
    as_json: AsJson = False,
    stack: Stack = None,
) -> None:
    """Compare what was emitted on a day, or on each of several, with what arrived, for each log group.

    The exit status is 1 if anything is missing: lines that the emitters numbered and that never came.

    For example:

    ```sh
    tagline reconcile --day 2026-11-19
    tagline reconcile --from 2026-11-13 --to 2026-11-19 --stack tagline-prod
    ```
    """
    from cli.reconcile import balances_of, print_balances
    from cli.target import find_target

    target = find_target(stack)
    missing = 0
    for asked in days_between(target, first or day, last or day or first, one_by_one=True):
        balances, exported = balances_of(target, asked)
        if as_json:
            print_json_lines(balance.to_json(asked, exported) for balance in balances)
        else:
            print_balances(asked, balances, exported, out)
        missing += sum(balance.missing for balance in balances)
    if missing:
        raise typer.Exit(1)


@filter_app.command("test")
def try_pattern(
    pattern: Annotated[str, typer.Argument(help="The pattern, as a subscription or metric filter has it.")],
    file: Annotated[
        Path | None, typer.Argument(help="Messages, one a line. Default: standard input.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print the messages that a filter pattern selects, and the fields that it extracts.

    The exit status is 1 if it selects none. No pipeline has to run.

    For example:

    ```sh
    tagline filter test '"usage_record"' lines.log
    tagline filter test '{ $.status >= 500 && $.route = "/pets*" }' lines.log
    tagline filter test '[ip, user, ..., status=4*, bytes]' access.log
    ```
    """
    import contextlib
    import json

    from onemachine.filter_pattern import InvalidPatternError, compiled

    try:
        fields = compiled(pattern).fields
    except InvalidPatternError as error:
        raise CommandError(str(error), "docs/reference/filter-patterns.md has the rules") from error
    selected = 0
    with contextlib.ExitStack() as open_files:
        try:
            lines = (
                open_files.enter_context(file.open(encoding="utf-8", errors="replace", newline="\n"))
                if file
                else sys.stdin
            )
        except OSError as error:
            raise CommandError(f"cannot read {file}: {error.strerror}", "give a file of messages") from error
        for line in lines:
            message = line.rstrip("\n")
            found = fields(message)
            if found is not None:
                selected += 1
                if as_json:
                    print_json_lines([{"message": message, "fields": found}])
                else:
                    sys.stdout.write(message + (f"\t{json.dumps(found)}" if found else "") + "\n")
    if not selected:
        raise typer.Exit(1)
