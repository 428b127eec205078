"""Time: how much of an invocation is kept back, and how long to wait between tries."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from consumers.errors import TaglineError

Returned = TypeVar("Returned")

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
        alone: A lock: of the requests with this one, one at a time waits and is sent again.
    """

    def __init__(
        self,
        detail: str,
        wait: float = 0.0,
        *,
        grows: bool = True,
        alone: AbstractContextManager[Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.wait = wait
        self.grows = grows
        self.alone = alone


@dataclass(frozen=True, slots=True)
class Retry:
    """Sends again what fails for now.

    Attributes:
        sleep: Waits so many seconds.
        jitter: Gives a random number from 0 to 1.
    """

    sleep: Callable[[float], None]
    jitter: Callable[[], float]

    def call(self, send: Callable[[], Returned], remaining: Callable[[], float]) -> Returned:
        """Call until it does not raise `TransientError`, and return what it returns.

        Args:
            send: Sends a request.
            remaining: Gives the seconds that are left; nothing is sent in the last `RESERVE` of them.

        Raises:
            TransientError: The last one, if no time is left.
        """
        error = TransientError("not tried: no time left")
        wait, ceiling = 0.0, FIRST_WAIT
        while True:
            with error.alone or nullcontext():
                if remaining() - wait <= RESERVE:
                    raise error
                if wait:
                    self.sleep(wait)
                try:
                    return send()
                except TransientError as failed:
                    error = failed
            wait = max(error.wait, self.jitter() * ceiling)
            if error.grows:
                ceiling = min(LONGEST_WAIT, ceiling * 2)
