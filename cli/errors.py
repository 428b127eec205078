"""What ends a command: a problem in a sentence, and what to do next."""

from __future__ import annotations

from consumers.errors import TaglineError


class CommandError(TaglineError):
    """A command cannot do what it was asked.

    Args:
        problem: What is wrong, with the value and the limit.
        advice: What to do next.
    """

    def __init__(self, problem: str, advice: str) -> None:
        super().__init__(problem)
        self.advice = advice
