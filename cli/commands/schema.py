"""Commands for the schemas: what is declared, and whether a change of it may be deployed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.options import AsJson
from cli.screen import out, print_json_lines

app = typer.Typer()
schema_app = typer.Typer(help="The schemas of records: the files in `schemas/`.", no_args_is_help=True)
app.add_typer(schema_app, name="schema")

SCHEMAS = Path("schemas")


@schema_app.command("show")
def show_schemas(
    folder: Annotated[Path, typer.Argument(help="The schemas' folder.")] = SCHEMAS,
    as_json: AsJson = False,
) -> None:
    """Print what is declared for each type of record, and which of it is personal data.

    No pipeline has to run.

    For example:

    ```sh
    tagline schema show
    ```
    """
    from cli.schema import describe_usage, read_schemas, schema_json, schema_tables

    schemas = read_schemas(str(folder), folder)
    if as_json:
        print_json_lines(map(schema_json, schemas))
        return
    for table in schema_tables(schemas):
        out.print(table)
    out.print(describe_usage(schemas), highlight=False)


@schema_app.command("check")
def check_schemas(
    old: Annotated[str, typer.Argument(help="What is deployed: a folder or a git commit.")],
    new: Annotated[Path, typer.Argument(help="The folder to deploy.")] = SCHEMAS,
    as_json: AsJson = False,
) -> None:
    """Print what differs between two versions of the schemas, and whether that may be deployed.

    A change that stored rows forbid is refused, with what to do instead; one that gives the same records
    other rows needs a higher `revision`. The exit status is 0 if everything is allowed, and 1 if
    something is not. No pipeline has to run.

    For example:

    ```sh
    tagline schema check main
    tagline schema check deployed/schemas schemas
    ```
    """
    from cli.schema import changes_table, read_schemas
    from consumers.rows.schema import changes

    found = changes(read_schemas(old, new), read_schemas(str(new), new))
    if as_json:
        print_json_lines(change._asdict() | {"allowed": change.allowed} for change in found)
    elif found:
        out.print(changes_table(found))
    else:
        out.print("Nothing differs.")
    if not all(change.allowed for change in found):
        raise typer.Exit(1)
