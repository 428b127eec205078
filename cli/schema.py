"""Schemas at the terminal: what is declared, and whether a change of it is allowed."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cli.errors import CommandError
from cli.screen import FoldingTable
from consumers.rows import schema, table
from consumers.rows.schema import Change, DeclaredDimension, Schema


def read_schemas(place: str, folder: Path) -> tuple[Schema, ...]:
    """Return the schemas of a folder, or those that a folder had at a commit.

    Args:
        place: A folder, or what git calls a commit: a branch, a tag, a hash.
        folder: The folder that is meant in a commit.

    Raises:
        CommandError: If it is neither, or the schemas are not valid.
    """
    try:
        if Path(place).is_dir():
            return schema.read(Path(place))
        return schema.parse(dict(_committed(place, folder)))
    except schema.SchemaError as error:
        raise CommandError(
            f"the schemas are not valid: {error}", "docs/reference/schema.md has the rules"
        ) from error


def _committed(commit: str, folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the names and contents of a folder's schemas at a commit; none where it had no such folder."""
    if not folder.is_dir():
        raise CommandError(f"{folder} is not a folder", "name the folder of the new schemas")
    try:
        _git(folder, "rev-parse", "--verify", "--end-of-options", f"{commit}^{{commit}}")
    except subprocess.CalledProcessError as error:
        raise CommandError(
            f"{commit} is neither a folder nor a commit", "give a folder, or a commit"
        ) from error
    here = _git(folder, "rev-parse", "--show-prefix").decode().rstrip("\n")
    for name in _git(folder, "ls-tree", "-rz", "--full-tree", "--name-only", commit).decode().split("\0"):
        file = name.removeprefix(here)
        if name.startswith(here) and "/" not in file and file.endswith(".toml"):
            yield file, _git(folder, "show", f"{commit}:{name}")


def _git(folder: Path, *arguments: str) -> bytes:
    git = shutil.which("git")
    if git is None:
        raise CommandError("git, which reads a commit, is not installed", "give a folder instead")
    done = subprocess.run([git, *arguments], cwd=folder, check=True, capture_output=True)  # noqa: S603 - what is typed ends the options
    return done.stdout


def changes_table(changes: list[Change]) -> FoldingTable:
    """Return what `tagline schema check` prints."""
    shown = FoldingTable("type", "key", "change", "allowed", "because", title_justify="left")
    for change in changes:
        shown.add_row(change.type, change.key, change.change, str(change.verdict), change.reason)
    return shown


def schema_tables(schemas: tuple[Schema, ...]) -> Iterator[FoldingTable]:
    """Yield what `tagline schema show` prints: a table for each type of record."""
    for each in schemas:
        title = (
            f"{each.type}, revision {each.revision}: undeclared to {each.undeclared}, unfit to {each.unfit}"
        )
        shown = FoldingTable(title=title, title_justify="left")
        for name in ("field", "column", "kind", "longest or default", "values", "pii"):
            shown.add_column(name)
        for name, dimension in each.all_dimensions().items():
            shown.add_row(
                name,
                table.column_name(name),
                "dimension",
                f"{dimension.bytes} bytes",
                _values(dimension),
                _pii(dimension.pii),
            )
        for name, measure in each.measures.items():
            default = "" if measure.default is None else str(measure.default)
            shown.add_row(name, table.column_name(name), measure.type, default, "", _pii(measure.pii))
        yield shown


def schema_json(each: Schema) -> dict[str, Any]:
    """Return what is declared of a type of record, for a program."""
    return {
        "type": each.type,
        "revision": each.revision,
        "undeclared": each.undeclared,
        "unfit": each.unfit,
        "dimensions": {name: found._asdict() for name, found in each.all_dimensions().items()},
        "measures": {name: found._asdict() for name, found in each.measures.items()},
    }


def describe_usage(schemas: tuple[Schema, ...]) -> str:
    """Return how much of what a table may have is declared, and the version of its rows."""
    measures = {name for each in schemas for name in each.measures}
    dimensions = {table.SOURCE, *table.DIMENSIONS, *(name for each in schemas for name in each.dimensions)}
    bounded = {each.undeclared for each in schemas if each.type == schema.ANY_TYPE} == {schema.EXTRA}
    bounded = bounded and all(each.undeclared == schema.EXTRA for each in schemas)
    return (
        f"{len(measures) + len(table.OWN_MEASURES):,} of {schema.MAX_TABLE_MEASURES:,} measures"
        f"{'' if bounded else ', and those that are not declared'}; "
        f"{len(dimensions)} of {schema.MAX_TABLE_DIMENSIONS} dimensions; rows are of version "
        f"{schema.plans(schemas).version}"
    )


def _values(dimension: DeclaredDimension) -> str:
    """Return which values a dimension keeps, and what the others become."""
    if not dimension.limit:
        return "any"
    others = f"in {dimension.buckets} groups" if dimension.buckets else "as `other`"
    return f"{', '.join(dimension.values)}; others {others}" if dimension.values else others


def _pii(pii: bool) -> str:
    return "yes" if pii else ""
