"""What becomes of what is written to a service, one outcome for each item. Pure."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TypeVar

Carrier = TypeVar("Carrier")
"""What an item carries along: whatever the caller needs to find its line again."""

Item = TypeVar("Item")
Carried = tuple[Carrier, Item]
"""An item with what it carries along."""


@dataclass(frozen=True, slots=True)
class Stored:
    """The service has the item."""


@dataclass(frozen=True, slots=True)
class Duplicate:
    """The same record is in the same request already, or the store has it under a higher version."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The service will never take the item.

    Attributes:
        reason: The reason for quarantine: `late`, `future` or `invalid` for rows, `meter_refused` for meters.
        detail: The service's words.
        columns: The columns that are of another type in the table, if the store names them.
    """

    reason: str
    detail: str
    columns: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Unwritten:
    """The item may be missing; trying again can help."""

    detail: str


@dataclass(frozen=True, slots=True)
class Undecided:
    """The service refused a request of several items as a whole: smaller requests show which ones it means.

    Attributes:
        detail: The service's words.
        kind: What items have in common that the service mostly judges alike, such as rows of the same columns
            and types; None if nothing is known.
    """

    detail: str
    kind: Hashable | None = None


Outcome = Stored | Duplicate | Refused | Unwritten
"""What becomes of an item."""


def all_stored(outcomes: Sequence[Outcome | Undecided]) -> bool:
    """Return whether a request went as nearly all do; this costs less than a look at each outcome."""
    return isinstance(outcomes[0], Stored) and outcomes.count(outcomes[0]) == len(outcomes)
