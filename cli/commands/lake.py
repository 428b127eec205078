"""Commands for the lake: export, verify and erase days, and download them."""

from __future__ import annotations

import shutil
import sys
import tempfile
import webbrowser
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Column

from cli.errors import CommandError
from cli.options import AsJson, FirstDay, LastDay, OneDay, Stack, day_option, days_between, finite
from cli.screen import FoldingTable, err, out, print_json_lines, progress

if TYPE_CHECKING:
    from rich.console import Console

    from cli.download import Fetched
    from cli.target import Target
    from exporter.store import Days

app = typer.Typer()

Token = Annotated[
    str | None,
    typer.Option(
        envvar="TAGLINE_TOKEN",
        help="A token, if the API asks for one. Default: requests to a stack are signed.",
    ),
]

# The exit status of a download of days that the lake does not have.
_NOTHING_EXPORTED = 3


@app.command()
def export(
    day: OneDay = None,
    first: FirstDay = None,
    last: LastDay = None,
    usd_per_gb: Annotated[
        float | None,
        typer.Option(
            min=0,
            callback=finite,
            help="The price of a gigabyte scanned in your contract, to see what days cost.",
        ),
    ] = None,
    as_json: AsJson = False,
    stack: Stack = None,
) -> None:
    """Write days to the lake now, as the daily schedule does with yesterday.

    Days that take longer than an invocation are resumed. A day that another run is writing is left to it.

    For example:

    ```sh
    tagline export --day 2026-11-19
    tagline export --from 2026-11-01 --to 2026-11-19 --usd-per-gb 0.01
    ```
    """
    from cli.lake import export_days
    from cli.target import find_target

    target = find_target(stack)
    days = days_between(target, first or day, last or day or first, one_by_one=True)
    with progress() as bars:
        if as_json:
            print_json_lines(export_days(target, days, bars))
            return
        results = list(export_days(target, days, bars))
    _print_exports(results, usd_per_gb)


def _print_exports(results: Iterable[Mapping[str, Any]], usd_per_gb: float | None) -> None:
    # Nine columns in the eighty of a narrow terminal: nothing of a number may be cut off.
    table = FoldingTable("day", "format", padding=0)
    numbers = ("rows", "bytes", "parts", "revision", "seconds", "metered_bytes")
    for name in (*numbers[:-1], "MB read", *(["USD"] if usd_per_gb is not None else [])):
        table.add_column(name, justify="right")
    remarks: list[str] = []
    for exported in results:
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
def verify(
    first: FirstDay = None, last: LastDay = None, as_json: AsJson = False, stack: Stack = None
) -> None:
    """Read exported days again: checksums, rows and times, and what the store still has of them.

    The exit status is 0 if everything matches the manifests, and 1 if anything differs.

    For example:

    ```sh
    tagline verify --from 2026-11-01 --to 2026-11-19
    tagline verify --from 2026-11-01 --to 2026-11-19 --stack tagline-prod
    ```
    """
    from cli.lake import do_task
    from cli.target import find_target

    target = find_target(stack)
    days = days_between(target, first, last or first)
    table = FoldingTable("day", "format", Column("rows", justify="right"), "what is wrong")
    wrong = 0
    with progress() as bars:
        for answer in do_task(target, "verify", days, bars):
            for result in answer["results"]:
                problems = list(result.get("problems", ()))
                if "failed" in result:
                    problems.append(f"it cannot be read: {result['failed']}")
                wrong += bool(problems)
                if as_json:
                    print_json_lines([{**result, "problems": problems}])
                    continue
                shown = "\n".join(problems) or "nothing"
                table.add_row(_days_of(result), result["format"], _number(result.get("rows")), shown)
    if not as_json:
        out.print(table)
    if wrong:
        raise typer.Exit(1)


def _days_of(result: Mapping[str, Any]) -> str:
    """Return the day of a result, or its days."""
    first, last = result["day"], result.get("last_day", result["day"])
    return str(first) if first == last else f"{first} to {last}"


def _number(count: int | None) -> str:
    return "" if count is None else f"{count:,}"


@app.command()
def compare(
    day: OneDay = None,
    other: Annotated[
        str | None,
        typer.Option(
            "--with",
            metavar="STACK",
            help="The stack on AWS whose store is compared. Default: the pipeline's own export of the day.",
        ),
    ] = None,
    as_json: AsJson = False,
    stack: Stack = None,
) -> None:
    """Compare a day of the store with its export, or with the same day of another stack's store.

    For each column: rows with a value, sums of numbers and a digest of all values. The exit status is 0 if
    both have the same, and 1 if anything differs.

    For example:

    ```sh
    tagline compare --day 2026-11-19
    tagline compare --day 2026-11-19 --stack tagline --with tagline-2
    ```
    """
    from cli.compare import comparison_json, differences, export_side, print_comparison, store_side
    from cli.target import find_target

    target = find_target(stack)
    (date_,) = days_between(target, day, day, one_by_one=True)
    one = store_side(target, date_, stack or "here")
    two = export_side(target, date_) if other is None else store_side(find_target(other), date_, other)
    if as_json:
        print_json_lines([comparison_json(date_, one, two)])
    else:
        print_comparison(date_, one, two, out)
    if differences(one, two):
        raise typer.Exit(1)


@app.command()
def forget(
    client: Annotated[str, typer.Option(help="The client, exactly as in the column `client`.")] = "",
    first: Annotated[datetime | None, day_option("--from", "The first day (UTC).")] = None,
    last: Annotated[datetime | None, day_option("--to", "The last day (UTC), inclusive.")] = None,
    do_it: Annotated[
        bool, typer.Option("--yes", help="Do it. Without this, only what would be done is shown.")
    ] = False,
    is_listed: Annotated[
        bool, typer.Option("--list", help="List the clients that exports leave out, by their hashes.")
    ] = False,
    is_undone: Annotated[
        bool,
        typer.Option(
            "--undo", help="Let exports include the client's rows again, if the store still has them."
        ),
    ] = False,
    as_json: AsJson = False,
    stack: Stack = None,
) -> None:
    """Remove a client's rows from exported days, and keep them from coming back.

    The days that hold them are written again without them, their whole records in `overflow/` are removed,
    and so are zips for download that may hold them. An audit entry with the client's hash records it.
    docs/how-to/erase.md has what this does not reach. The exit status is 1 if a day could not be read.

    For example:

    ```sh
    tagline forget --client customer-17 --from 2026-11-01 --to 2026-11-19
    tagline forget --client customer-17 --from 2026-11-01 --to 2026-11-19 --yes
    tagline forget --client customer-17 --undo
    ```
    """
    from cli.target import find_target

    target = find_target(stack)
    if is_listed:
        _list_forgotten(target, as_json=as_json)
        return
    if not client:
        raise CommandError("--client is empty", "give the client as the column `client` has it")
    if is_undone:
        _undo_forgotten(target, client, as_json=as_json)
        return
    if first is None or last is None:
        raise CommandError("--from or --to is missing", "give the first and the last day to erase")
    _forget(target, client, days_between(target, first, last), do_it=do_it, as_json=as_json)


def _list_forgotten(target: Target, *, as_json: bool) -> None:
    clients = target.invoke("UpkeepName", {"task": "list"})["clients"]
    if as_json:
        print_json_lines(clients)
        return
    table = FoldingTable("hash", "rows up to")
    for each in clients:
        table.add_row(each["client_hash"], each["erased"] or "any time")
    out.print(table)


def _undo_forgotten(target: Target, client: str, *, as_json: bool) -> None:
    audit = target.invoke("UpkeepName", {"task": "undo", "client": client})["audit"]
    if audit is None:
        raise CommandError(
            "this client is not among those to forget", "check the name: it is compared exactly"
        )
    if as_json:
        print_json_lines([{"audit": audit}])
        return
    out.print("Exports have the client's rows again. Export days again for those that the store still has.")
    out.print(f"Recorded in {audit}", soft_wrap=True, highlight=False)


def _forget(target: Target, client: str, days: Days, *, do_it: bool, as_json: bool) -> None:
    from cli.lake import do_task

    found: list[dict[str, Any]] = []
    failed: list[dict[str, Any]] = []
    audit = ""
    with progress() as bars:
        for answer in do_task(target, "forget" if do_it else "find", days, bars, client):
            found += [result for result in answer["results"] if result.get("rows")]
            failed += [result for result in answer["results"] if "failed" in result]
            audit = answer.get("audit", "")
    if as_json:
        done = {"done": True, "audit": audit} if do_it else {"done": False}
        print_json_lines([*found, *failed, done])
    else:
        _print_forgotten(found, failed, audit if do_it else None)
    if failed:
        raise CommandError(
            f"{len(failed):,} of the lake's days are unchanged: they could not be read or written",
            "see above for the reasons, and run the command again; it continues",
        )


def _print_forgotten(found: list[dict[str, Any]], failed: list[dict[str, Any]], audit: str | None) -> None:
    from exporter.upkeep.tasks import IN_STORE

    table = FoldingTable(
        "day", "format", Column("rows", justify="right"), Column("whole records", justify="right")
    )
    for each in found:
        table.add_row(each["day"], each["format"], _number(each["rows"]), _number(each["whole_records"]))
    out.print(table if found else "The lake has no rows of this client on these days.")
    for each in failed:
        err.print(f"{each['day']} in {each['format']}: {each['failed']}", soft_wrap=True, highlight=False)
    if audit is not None:
        rows = sum(each["rows"] for each in found)
        days = sum(each["format"] != IN_STORE for each in found)
        out.print(
            f"Removed {rows:,} of the client's rows; written again: {days:,} of the lake's days.",
            highlight=False,
        )
        out.print("Zips for download that may contain them were removed; a new request makes new ones.")
        out.print(f"Recorded in {audit}", soft_wrap=True, highlight=False)
    else:
        out.print("Nothing was done. To do it, add --yes.")


@app.command()
def dashboard(
    file: Annotated[
        Path | None, typer.Option("--file", help="Save the page to this file, and do not open it.")
    ] = None,
    token: Token = None,
    stack: Stack = None,
) -> None:
    """Open the usage page: requests, errors and times by route and client.

    On this machine, the numbers are those of now; on AWS, those of the last hour.

    For example:

    ```sh
    tagline dashboard
    tagline dashboard --stack tagline-prod --file report.html
    ```
    """
    from cli.dashboard import link_to_page, save_page
    from cli.target import find_target

    link = link_to_page(find_target(stack), token)
    if file is not None:
        save_page(link, file)
        out.print(f"The usage page is in {file}.", soft_wrap=True, highlight=False)
        return
    out.print(link, soft_wrap=True, highlight=False, markup=False)
    webbrowser.open(link)


@app.command()
def download(
    first: FirstDay = None,
    last: LastDay = None,
    to_file: Annotated[Path, typer.Option("--out", help="The file to write, - for stdout.")] = Path(
        "usage.zip"
    ),
    token: Token = None,
    as_json: AsJson = False,
    stack: Stack = None,
) -> None:
    """Fetch the exported days of a range as a zip of CSV files.

    The exit status is 3 if the lake has none of the days.

    For example:

    ```sh
    tagline download --from 2026-11-01 --to 2026-11-19 --out november.zip
    tagline download --from 2026-11-01 --to 2026-11-19 --stack tagline-prod
    ```
    """
    from cli.download import fetch_zip
    from cli.target import find_target

    target = find_target(stack)
    days = days_between(target, first, last or first)
    is_piped = str(to_file) == "-"
    shown = err if is_piped else out
    with progress() as bars, tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "usage.zip") if is_piped else to_file
        fetched = fetch_zip(target, days, path, bars, token)
        if is_piped:
            with path.open("rb") as file:
                shutil.copyfileobj(file, sys.stdout.buffer)
            sys.stdout.buffer.flush()
    missing = fetched.days_not_exported
    if as_json and not is_piped:
        print_json_lines([{"file": str(to_file), **asdict(fetched)}])
    else:
        _print_fetched(shown, to_file, fetched, len(days))
    if missing and len(missing) == len(days):
        raise typer.Exit(_NOTHING_EXPORTED)


def _print_fetched(shown: Console, to_file: Path, fetched: Fetched, asked: int) -> None:
    shown.print(f"{to_file}: {fetched.rows:,} rows, {fetched.bytes:,} bytes")
    if missing := fetched.days_not_exported:
        until = f" to {missing[-1]}" if len(missing) > 1 else ""
        shown.print(
            f"Days that the lake does not have yet: {len(missing)} of {asked}, {missing[0]}{until}."
            " `tagline export` writes them.",
            soft_wrap=True,
            highlight=False,
        )
