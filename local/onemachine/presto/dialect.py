"""What distinguishes the services that have their SQL from Presto."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a service's SQL differs from Timestream's.

    Attributes:
        schema: The schema of tables that a query names without one; None if it must name one.
        refused: Functions that the other services have.
        standard: Whether Trino's rules of types hold: a number with a point is a DECIMAL, a text is not a
            time without a cast, a date plus days is a date, and a time has milliseconds.
    """

    schema: str | None = None
    refused: frozenset[str] = frozenset()
    standard: bool = False


TIMESTREAM = Dialect()
