"""Time: how much of an invocation is kept back, and how long to wait between tries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from consumers.errors import TaglineError

# What is left of an invocation, in seconds, when
# - nothing more is sent to a store,
RESERVE: Final = 2.0
# - nobody waits for a store's answer any longer: what was refused can still be quarantined,
ANSWER: Final = 1.5
# - no more objects of the quarantine are begun: the accounts can still be written,
LAST: Final = 1.0
# - nobody waits for anything any longer, and the handler answers.
END: Final = 0.3
# Waits between tries: a random part of a ceiling that doubles from the first to the second, in seconds.
# https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
FIRST_WAIT: Final = 0.05
LONGEST_WAIT: Final = 5.0


def countdown(context: Any) -> Callable[[], float]:
    """Return what gives the seconds that are left of an invocation.

    Args:
        context: Lambda's context object.
    """
    return lambda: float(context.get_remaining_time_in_millis()) / 1000


class TransientError(TaglineError):
    """The request may not have been carried out; it can be sent again.

    Attributes:
        wait: The shortest time to wait before that, in seconds.
        grows: Whether each wait may be longer than the one before.
    """

    def __init__(self, detail: str, wait: float = 0.0, *, grows: bool = True) -> None:
        super().__init__(detail)
        self.wait = wait
        self.grows = grows


class Backoff:
    """The waits between the tries of one request.

    Args:
        jitter: Gives a random number from 0 to 1.
    """

    def __init__(self, jitter: Callable[[], float]) -> None:
        self._jitter = jitter
        self._ceiling = FIRST_WAIT

    def wait_after(self, error: TransientError) -> float:
        """Return the seconds to wait after a try that failed."""
        wait = max(error.wait, self._jitter() * self._ceiling)
        if error.grows:
            self._ceiling = min(LONGEST_WAIT, self._ceiling * 2)
        return wait
