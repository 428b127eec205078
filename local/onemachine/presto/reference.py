"""Tables of functions for the pages of which are answered on one machine."""

from collections.abc import Iterator, Mapping

from onemachine.presto.calls import SPECIAL_FORMS
from onemachine.presto.functions import AGGREGATES, SCALARS, WINDOWS

# These are not calls, but pages of functions list them.
_SYNTAX = frozenset(
    {
        *("case", "if", "try", "cast", "try_cast", "extract", "position", "all", "any", "some", "count"),
        *("current_date", "current_time", "current_timestamp", "localtime", "localtimestamp", "unnest"),
    }
)


def is_answered(name: str) -> bool:
    """Tell whether calls of a function are translated; some arguments may still be refused.

    Args:
        name: Its name, in small letters.
    """
    return name in _SYNTAX or any(name in table for table in (SCALARS, AGGREGATES, WINDOWS, SPECIAL_FORMS))


def function_table(
    pages: Mapping[str, str], guide: str, refused: frozenset[str] = frozenset()
) -> Iterator[str]:
    """Yield a table's lines: a row for each page of a service's reference.

    Args:
        pages: The names of functions, with spaces between, by page.
        guide: Where the pages are.
        refused: Functions that the service does not have.
    """
    yield "| page | answered | refused |\n| --- | --- | --- |"
    for page, names in pages.items():
        known = [name for name in names.split() if is_answered(name) and name not in refused]
        others = [name for name in names.split() if name not in known]
        yield f"| [{page}]({guide}/{page}.html) | {_listed(known)} | {_listed(others)} |"


def page_list(pages: Mapping[str, str], guide: str) -> Iterator[str]:
    """Yield a list's lines: a page of a service's reference, and which of its functions are not answered.

    Args:
        pages: The names of functions, with spaces between, by page.
        guide: Where the pages are.
    """
    for page, names in pages.items():
        others = [name for name in names.split() if not is_answered(name)]
        yield f"- [{page}]({guide}/{page}.html)" + (f", but not {_listed(others)}" if others else "")


def note_list(notes: Mapping[str, str]) -> Iterator[str]:
    """Yield a list's lines: what is special about functions.

    Args:
        notes: A note on each, by name; those with the same are in one line.
    """
    for note in dict.fromkeys(notes.values()):
        yield f"- {_listed([name for name, own in notes.items() if own == note])}: {note}."


def _listed(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
