"""What a check of the doctor finds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong.

    Attributes:
        check: What was looked at.
        problem: What is wrong, in a sentence.
        fix: What to do.
    """

    check: str
    problem: str
    fix: str
