"""The command that plans a pipeline: what it handles, needs and costs at a rate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.commands.here import store_named
from cli.options import AsJson, Stack, finite
from cli.screen import err, out, print_json_lines, print_rows
from consumers.rows.registry import STORES

if TYPE_CHECKING:
    from cli.cost.flow import StoreCost
    from cli.cost.plan import Plan

app = typer.Typer()

RATES = (1.0, 10.0, 100.0, 1_000.0, 10_000.0, 100_000.0)
MOST_A_SECOND, MOST_LINES = 10_000_000, 10_000


def all_finite(values: list[float] | None) -> list[float] | None:
    """Return an option's numbers; see `finite`."""
    for value in values or ():
        finite(value)
    return values


Rates = Annotated[
    list[float] | None,
    typer.Option(
        min=0.001,
        max=MOST_A_SECOND,
        callback=all_finite,
        help="Requests a second; may be given again. Default: 1 to 100,000.",
    ),
]
OnlyStore = Annotated[
    str | None,
    typer.Option(
        parser=store_named, metavar="|".join(STORES), help="Only with this store. Default: with each."
    ),
]
LinesPerRecord = Annotated[
    float | None,
    typer.Option(
        min=1,
        max=MOST_LINES,
        callback=finite,
        help="Lines that CloudWatch Logs puts into a Kinesis record. Default: 1, the most expensive.",
    ),
]
Hops = Annotated[bool, typer.Option("--hops", help="Print each hop of each plan.")]
Measured = Annotated[
    bool, typer.Option("--measured", help="Measure the lines and rows of the pipeline that runs here.")
]


@app.command()
def cost(
    rate: Rates = None,
    store: OnlyStore = None,
    lines_per_record: LinesPerRecord = None,
    hops: Hops = False,
    measured: Measured = False,
    as_json: AsJson = False,
    stack: Stack = None,
) -> None:
    """Plan a pipeline: what it needs and costs at a rate, which limits apply, and what to set.

    Prices are AWS's list prices in us-east-1, without free tiers; `--json` names their date and pages. Sizes
    are those of an API's records (`python -m benchmarks cost`); with `--stack`, they are measured there.

    For example:

    ```sh
    tagline cost
    tagline cost --rate 200 --store lake --hops
    tagline cost --stack tagline-prod --rate 500 --json
    ```
    """
    from dataclasses import replace
    from importlib import import_module

    from cli.cost import prices
    from cli.cost.flow import Setup, Sizes
    from cli.cost.measure import measured_sizes
    from cli.cost.plan import plan_of
    from cli.target import find_target

    sizes, names = measured_sizes(find_target(stack)) if measured or stack else (Sizes(), [])
    if lines_per_record is not None:
        sizes = replace(sizes, lines_per_record=lines_per_record)
    wanted = [store] if store else STORES
    stores: list[StoreCost] = [import_module(f"cli.cost.{name}").COST for name in wanted]
    plans = [plan_of(each, sizes, Setup(), of) for of in stores for each in rate or RATES]
    if as_json:
        print_json_lines(plan_json(plan, names) for plan in plans)
        return
    err.print(
        f"list prices of {prices.REGION}, read {prices.READ}; measured here: {', '.join(names) or 'nothing'}"
    )
    print_plans(plans)
    for plan in plans if hops else ():
        print_hops(plan)


def plan_json(plan: Plan, measured: list[str]) -> dict[str, Any]:
    """Return a plan for a program, with its prices and where they are from."""
    from dataclasses import asdict

    from cli.cost import prices
    from cli.cost.prices import dated

    flow = plan.flow
    return {
        "rate": flow.rate,
        "store": plan.store.name,
        "usd_a_month": round(plan.usd, 2),
        "usd_per_million": round(plan.usd_per_million, 4),
        "shards": flow.shards,
        "batch_records": flow.batch_records,
        "batch_lines": flow.batch_lines,
        "batches_per_s": flow.batches_per_s,
        "batch_s": flow.batch_s,
        "concurrency": flow.concurrency,
        "settings": plan.settings,
        "hops": [asdict(hop) for hop in plan.hops],
        "limits": [asdict(bite) for bite in plan.bites],
        "sizes": asdict(flow.sizes),
        "measured": measured,
        "prices": {
            "read": prices.READ.isoformat(),
            "region": prices.REGION,
            "list": dated() | {name: asdict(each) for name, each in plan.store.prices.items()},
        },
    }


def print_plans(plans: list[Plan]) -> None:
    """Print a line for each plan, and below them the limits that bite."""
    names = [
        "store",
        "requests/s",
        "$ a month",
        "$ a million",
        "stream",
        "lines a batch",
        "batches/s",
        "at once",
    ]
    rows = [
        [
            plan.store.name,
            f"{plan.flow.rate:,g}",
            f"{plan.usd:,.0f}",
            f"{plan.usd_per_million:,.2f}",
            plan.stream,
            f"{plan.flow.batch_lines:,.0f}",
            f"{plan.flow.batches_per_s:,.2f}",
            f"{plan.flow.concurrency:,.1f}",
        ]
        for plan in plans
    ]
    print_rows(names, rows, out)
    bites: dict[tuple[str, str], list[str]] = {}
    for plan in sorted(plans, key=lambda each: each.flow.rate):
        for bite in plan.bites:
            shown = [
                plan.store.name,
                f"{plan.flow.rate:,g}",
                bite.what,
                f"{bite.used:,.0f}",
                f"{bite.limit:,.0f}",
            ]
            bites.setdefault((plan.store.name, bite.what), [*shown, bite.fix])
    if bites:
        names = ["store", "from requests/s", "what bites", "needed", "limit", "what to do"]
        print_rows(names, list(bites.values()), out)


def print_hops(plan: Plan) -> None:
    """Print the hops of a plan."""
    out.print(f"{plan.store.name}, {plan.flow.rate:,g} requests a second")
    rows = [
        [hop.name, f"{hop.per_s:,.3f}", hop.items, f"{hop.bytes_per_s:,.0f}", f"{hop.usd:,.2f}"]
        for hop in plan.hops
    ]
    print_rows(["hop", "a second", "of", "bytes a second", "$ a month"], rows, out)
