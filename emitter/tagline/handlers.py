"""The decorator of Lambda handlers."""

from __future__ import annotations

from functools import wraps

from .annotations import Any, Callable, Optional
from .collecting import Draft
from .results import follow, require_callable, shaped_like


def decorate(function: Any, draft_of: Callable[[Any, Any], Draft]) -> Any:
    """Return a handler that leaves one record per invocation.

    Args:
        function: A function, method, coroutine function, generator function, partial or callable object that
            takes an event and a context.
        draft_of: Makes the draft of an invocation from its event and context.

    Raises:
        TypeError: If it is not a function that can be called.
    """
    require_callable(function, "@emitter.handler")
    before = _leading_parameters(function)

    @wraps(function)
    def recorded(*args: Any, **kwargs: Any) -> Any:
        event, context = (*args[before:], None, None)[:2]
        draft = draft_of(kwargs.get("event", event), kwargs.get("context", context)).begin(is_block=True)

        def end(answer: Any, error: Optional[BaseException]) -> None:
            if isinstance(error, GeneratorExit):  # its reader wanted no more
                draft.end({"incomplete": True})
                return
            if error is None:
                draft.answered(answer)
            draft.end(error=error)

        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            draft.end(error=error)
            raise
        draft.suspend()
        return follow(result, draft.active, end)

    return shaped_like(function, recorded)


def _leading_parameters(function: Any) -> int:
    """Return how many arguments stand before the event: 1 for a function in a class, which gets its instance."""
    if hasattr(function, "__self__"):  # a bound method
        return 0
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    names = getattr(getattr(function, "__code__", None), "co_varnames", ())
    return 1 if names[:1] in (("self",), ("cls",)) else 0
