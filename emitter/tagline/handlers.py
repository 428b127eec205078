"""A function's result decides when its work is over: at once, when awaited, or when iterated to its end."""

from __future__ import annotations

from functools import wraps

from .annotations import Any, Callable, Function, Optional
from .collecting import Active, Draft, current

_CO_COROUTINE = 0x80
_ANSWERS = frozenset([dict, str, type(None)])  # nothing of their work is left


def carry(function: Function) -> Function:
    """Return the function so that it adds to the record of now, in whatever thread or task it will run.

    Coroutines and generators do so until they end. Fields that are added after that record was written are
    dropped, and never reach another request's record:

        pool.submit(carry(work), order)

    Raises:
        TypeError: If it is not a function.
    """
    draft = current()

    @wraps(_require_function(function, "carry"))
    def carried(*args: Any, **kwargs: Any) -> Any:
        with Active(draft):
            result = function(*args, **kwargs)
        return _follow(result, lambda: Active(draft), lambda _answer, _error: None)

    return _like(function, carried)


def decorate(function: Function, draft_of: Callable[[Any, Any], Draft]) -> Function:
    """Return a handler that leaves one record per invocation.

    Args:
        function: A function, method, coroutine or generator function, partial or callable object that takes
            an event and a context.
        draft_of: Makes the draft of an invocation from its event and context.

    Raises:
        TypeError: If it is not a function.
    """
    # As an index: 1 if `self` or `cls` comes first.
    before_event = _is_in_class(_require_function(function, "@emitter.handler"))

    @wraps(function)
    def recorded(*args: Any, **kwargs: Any) -> Any:
        event, context = (*args[before_event:], None, None)[:2]
        draft = draft_of(kwargs.get("event", event), kwargs.get("context", context)).begin(is_block=True)

        def end(answer: Any, error: Optional[BaseException]) -> None:
            if error is None:
                draft.invocation.answered(answer)
            if isinstance(error, GeneratorExit):  # its reader wanted no more
                draft.end({"incomplete": True})
            else:
                draft.end(error=error)

        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            draft.end(error=error)
            raise
        if type(result) in _ANSWERS:
            end(result, None)
            return result
        draft.suspend()  # the rest of the work runs in `draft.active`, step by step
        return _follow(result, draft.active, end)

    return _like(function, recorded)


def _require_function(function: Any, decorator: str) -> Any:
    if isinstance(function, (classmethod, staticmethod)):
        kind = type(function).__name__
        raise TypeError(f"{decorator} takes a function: write @{kind} above it, not below")
    if not callable(function) or isinstance(function, type):
        raise TypeError(f"{decorator} takes a function, not {function!r}")
    return function


def _is_in_class(function: Any) -> bool:
    """Return whether a function gets its instance or class before the event."""
    if hasattr(function, "__self__"):  # a bound method
        return False
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    names = getattr(getattr(function, "__code__", None), "co_varnames", ())
    return names[:1] in (("self",), ("cls",))


def _like(function: Function, wrapper: Any) -> Function:
    """Return the wrapper as a coroutine function if the function is one: frameworks ask for it."""
    if not getattr(getattr(function, "__code__", None), "co_flags", 0) & _CO_COROUTINE:
        return wrapper  # type: ignore[no-any-return]

    @wraps(function)
    async def awaited(*args: Any, **kwargs: Any) -> Any:
        return await wrapper(*args, **kwargs)

    return awaited  # type: ignore[return-value]


def _follow(
    result: Any, active: Callable[[], Active], end: Callable[[Any, Optional[BaseException]], None]
) -> Any:
    """Return a result whose remaining work, if any, runs in `active()`; `end` gets its outcome once."""
    kind = type(result)
    if hasattr(kind, "__await__"):
        return _await(result, active, end)
    if hasattr(kind, "asend"):
        return _iterate_async(result, active, end)
    if hasattr(kind, "send") and hasattr(kind, "throw"):
        return _iterate(result, active, end)
    end(result, None)
    return result


async def _await(awaitable: Any, active: Any, end: Any) -> Any:
    try:
        with active():
            result = await awaitable
    except BaseException as error:
        end(None, error)
        raise
    end(result, None)
    return result


def _iterate(generator: Any, active: Any, end: Any) -> Any:
    step, value = generator.send, None
    try:
        while True:
            with active():
                item = step(value)
            try:
                step, value = generator.send, (yield item)
            except GeneratorExit:
                with active():
                    generator.close()
                raise
            except BaseException as error:
                step, value = generator.throw, error
    except StopIteration as stop:
        end(stop.value, None)
        return stop.value
    except BaseException as error:
        end(None, error)
        raise


async def _iterate_async(generator: Any, active: Any, end: Any) -> Any:
    step, value = generator.asend, None
    try:
        while True:
            with active():
                item = await step(value)
            try:
                step, value = generator.asend, (yield item)
            except GeneratorExit:
                with active():
                    await generator.aclose()
                raise
            except BaseException as error:
                step, value = generator.athrow, error
    except StopAsyncIteration:
        end(None, None)
    except BaseException as error:
        end(None, error)
        raise
