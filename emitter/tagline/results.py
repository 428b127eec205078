"""A function's result decides when its work is over: now, when it has been awaited, or when it has been iterated."""

from __future__ import annotations

from functools import wraps

from .annotations import Any, Callable, Function, Optional
from .collecting import Active, current

End = Callable[[Any, Optional[BaseException]], None]


def carry(function: Function) -> Function:
    """Return the function so that it adds to the record of now, in whatever thread or task it will run.

    Coroutines and generators do so until they end. Fields added after that record was written are dropped, and
    never reach another request's record:

        pool.submit(carry(work), order)

    Raises:
        TypeError: If it is not a function that can be called.
    """
    draft = current()

    @wraps(require_callable(function, "carry"))
    def carried(*args: Any, **kwargs: Any) -> Any:
        with Active(draft):
            result = function(*args, **kwargs)
        return follow(result, lambda: Active(draft), lambda _result, _error: None)

    return shaped_like(function, carried)


def require_callable(function: Any, decorator: str) -> Any:
    """Return a function that can be decorated.

    Raises:
        TypeError: If it cannot.
    """
    if isinstance(function, (classmethod, staticmethod)):
        kind = type(function).__name__
        raise TypeError(f"{decorator} takes the function below @{kind}: write @{kind} above it")
    if not callable(function) or isinstance(function, type):
        raise TypeError(f"{decorator} takes a function, not {function!r}")
    return function


def shaped_like(function: Any, wrapper: Any) -> Any:
    """Return the wrapper as a coroutine function if the function is one: frameworks ask for it."""
    if not getattr(getattr(function, "__code__", None), "co_flags", 0) & 0x80:  # CO_COROUTINE
        return wrapper

    @wraps(function)
    async def shaped(*args: Any, **kwargs: Any) -> Any:
        return await wrapper(*args, **kwargs)

    return shaped


def follow(result: Any, active: Callable[[], Active], end: End) -> Any:
    """Return a result whose remaining work, if there is any, runs in `active()`; `end` gets its outcome once."""
    kind = type(result)
    if hasattr(kind, "__await__"):
        return _await(result, active, end)
    if hasattr(kind, "asend"):
        return _iterate_async(result, active, end)
    if hasattr(kind, "send") and hasattr(kind, "throw"):
        return _iterate(result, active, end)
    end(result, None)
    return result


async def _await(awaitable: Any, active: Callable[[], Active], end: End) -> Any:
    try:
        with active():
            result = await awaitable
    except BaseException as error:
        end(None, error)
        raise
    end(result, None)
    return result


def _iterate(generator: Any, active: Callable[[], Active], end: End) -> Any:
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


async def _iterate_async(generator: Any, active: Callable[[], Active], end: End) -> Any:
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
