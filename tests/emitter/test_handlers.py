"""Every kind of handler leaves one record, when its work is over; so does what `carry` returns."""

import asyncio
import functools
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
from tagline import Emitter, add, carry

from tests.builders import Context, http_event
from tests.emitter.lines import Lines

EVENT = http_event("GET /pets/{id}", "/pets/7")
CONTEXT = Context()


def work(event: Any, context: Any) -> dict[str, int]:
    assert (event, context) == (EVENT, CONTEXT)
    add(worked=True)
    return {"statusCode": 201}


async def async_work(event: Any, context: Any) -> dict[str, int]:
    await asyncio.sleep(0)
    return work(event, context)


def wrapped(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        return function(*args)

    return wrapper


class Pets:
    """Handlers in a class, under the decorators that Python has for them."""

    emitter: Emitter

    @classmethod
    def of(cls, emitter: Emitter) -> Any:
        class Decorated:
            @emitter.handler
            def method(self, event: Any, context: Any) -> Any:
                return work(event, context)

            @emitter.handler
            async def async_method(self, event: Any, context: Any) -> Any:
                return await async_work(event, context)

            @classmethod
            @emitter.handler
            def of_class(cls, event: Any, context: Any) -> Any:
                return work(event, context)

            @staticmethod
            @emitter.handler
            def static(event: Any, context: Any) -> Any:
                return work(event, context)

            @emitter.handler
            @wrapped
            def decorated(self, event: Any, context: Any) -> Any:
                return work(event, context)

        return Decorated()


class CallablePet:
    def __call__(self, event: Any, context: Any) -> Any:
        return work(event, context)

    async def wait(self, event: Any, context: Any) -> Any:
        return await async_work(event, context)


class AsyncCallable:
    async def __call__(self, event: Any, context: Any) -> Any:
        return await async_work(event, context)


class Promise:
    """An awaitable that is not a coroutine."""

    def __init__(self, awaited: Awaitable[Any]) -> None:
        self._awaited = awaited

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._awaited.__await__()


HANDLERS: dict[str, Callable[[Emitter], Any]] = {
    "a function": lambda emitter: emitter.handler(work),
    "with parentheses": lambda emitter: emitter.handler()(work),
    "a coroutine function": lambda emitter: emitter.handler(async_work),
    "a partial": lambda emitter: emitter.handler(functools.partial(work)),
    "a partial of a coroutine function": lambda emitter: emitter.handler(functools.partial(async_work)),
    "a callable": lambda emitter: emitter.handler(CallablePet()),
    "a callable that is async": lambda emitter: emitter.handler(AsyncCallable()),
    "a bound method": lambda emitter: emitter.handler(CallablePet().__call__),
    "a bound coroutine method": lambda emitter: emitter.handler(CallablePet().wait),
    "a sync function that returns a coroutine": lambda emitter: emitter.handler(
        lambda event, context: async_work(event, context)  # noqa: PLW0108 - not a coroutine function
    ),
    "a sync function that returns an awaitable": lambda emitter: emitter.handler(
        lambda event, context: Promise(async_work(event, context))
    ),
    "another decorator below": lambda emitter: emitter.handler(wrapped(async_work)),
    "another decorator above": lambda emitter: wrapped(emitter.handler(work)),
    "a method": lambda emitter: Pets.of(emitter).method,
    "a coroutine method": lambda emitter: Pets.of(emitter).async_method,
    "a class method": lambda emitter: Pets.of(emitter).of_class,
    "a static method": lambda emitter: Pets.of(emitter).static,
    "a decorated method": lambda emitter: Pets.of(emitter).decorated,
}


async def result_of(awaitable: Any) -> Any:
    return await awaitable


@pytest.mark.parametrize("kind", HANDLERS)
@pytest.mark.parametrize("by_name", [False, True], ids=["by position", "by name"])
def test_every_kind_of_handler_is_recorded_until_its_work_is_over(
    kind: str, by_name: bool, emitter: Emitter, lines: Lines
) -> None:
    handler = HANDLERS[kind](emitter)
    if by_name and "above" not in kind and "decorat" not in kind:
        answer = handler(event=EVENT, context=CONTEXT)
    else:
        answer = handler(EVENT, CONTEXT)
    if inspect.isawaitable(answer):
        assert lines.writes == 0
        assert add(outside=True) is False  # its work goes on elsewhere
        answer = asyncio.run(result_of(answer))

    assert answer == {"statusCode": 201}
    fields = lines.fields
    assert (fields["worked"], fields["route"], fields["status"]) == (True, "/pets/{id}", 201)
    assert fields["request_id"] == CONTEXT.aws_request_id
    assert "outside" not in fields
    assert add(late=True) is False


@pytest.mark.parametrize("kind", ["a coroutine function", "a coroutine method"])
def test_a_coroutine_function_stays_one(kind: str, emitter: Emitter) -> None:
    assert inspect.iscoroutinefunction(HANDLERS[kind](emitter))


def test_a_handler_that_raises_later_is_recorded_with_its_error(emitter: Emitter, lines: Lines) -> None:
    @emitter.handler
    async def handler(event: Any, context: Any) -> None:  # noqa: ARG001 - the handler's signature
        await asyncio.sleep(0)
        raise ValueError("no such pet")

    with pytest.raises(ValueError, match="no such pet"):
        asyncio.run(handler(EVENT, None))

    assert (lines.fields["error_type"], lines.fields["status"]) == ("ValueError", 500)


# --- streams ----------------------------------------------------------------------------------------------


def test_a_generators_record_is_written_at_its_end_and_has_what_its_steps_added(
    emitter: Emitter, lines: Lines
) -> None:
    @emitter.handler
    def handler(event: Any, context: Any) -> Generator[int, str, str]:  # noqa: ARG001 - the signature
        heard = []
        for number in range(3):
            assert add(chunk=number)
            heard.append((yield number))
        add(heard=heard)
        return "done"

    stream = handler(EVENT, CONTEXT)
    assert next(stream) == 0
    assert add(between=True) is False  # the steps of another record may come in between
    with emitter.collect(type="other"):
        assert stream.send("a") == 1
        assert add(mine=True)
    assert stream.send("b") == 2
    with pytest.raises(StopIteration) as stop:
        stream.send("c")

    other, record = lines.records
    assert stop.value.value == "done"
    assert (other.type, other.fields["mine"], "chunk" in other.fields) == ("other", True, False)
    assert (record.fields["chunk"], record.fields["heard"]) == (2, ["a", "b", "c"])
    assert not {"between", "mine", "incomplete"} & record.fields.keys()


def test_a_generator_whose_reader_stops_is_incomplete_and_cleans_up(emitter: Emitter, lines: Lines) -> None:
    @emitter.handler
    def handler(event: Any, context: Any) -> Generator[int, None, None]:  # noqa: ARG001 - the handler's signature
        try:
            yield 1
            yield 2
        finally:
            add(cleaned=True)

    stream = handler(EVENT, None)
    next(stream)
    stream.close()

    assert (lines.fields["incomplete"], lines.fields["cleaned"]) == (True, True)
    assert "error" not in lines.fields


def test_a_generator_gets_what_is_thrown_into_it(emitter: Emitter, lines: Lines) -> None:
    @emitter.handler
    def handler(event: Any, context: Any) -> Generator[int, None, None]:  # noqa: ARG001 - the handler's signature
        try:
            yield 1
        except KeyError:
            yield 2
        raise ValueError("at the end")

    stream = handler(EVENT, None)
    assert next(stream) == 1
    assert stream.throw(KeyError()) == 2
    with pytest.raises(ValueError, match="at the end"):
        next(stream)

    assert lines.fields["error"] == "at the end"


@pytest.mark.parametrize("ends", ["by itself", "by its reader", "by an error"])
def test_an_async_generators_record_is_written_at_its_end(ends: str, emitter: Emitter, lines: Lines) -> None:
    @emitter.handler
    async def handler(event: Any, context: Any) -> AsyncGenerator[int, None]:  # noqa: ARG001 - the signature
        for number in range(2):
            await asyncio.sleep(0)
            assert add(chunk=number)
            yield number
        if ends == "by an error":
            raise ValueError("no more")

    async def read() -> None:
        stream = handler(EVENT, CONTEXT)
        assert await anext(stream) == 0
        assert add(between=True) is False
        if ends == "by its reader":
            await stream.aclose()
        else:
            assert [number async for number in stream] == [1]

    if ends == "by an error":
        with pytest.raises(ValueError, match="no more"):
            asyncio.run(read())
    else:
        asyncio.run(read())

    fields = lines.fields
    assert fields["chunk"] == (0 if ends == "by its reader" else 1)
    assert fields.get("incomplete") is (True if ends == "by its reader" else None)
    assert fields.get("error") == ("no more" if ends == "by an error" else None)
    assert "between" not in fields


def test_a_coroutine_that_nobody_awaits_leaves_an_unfinished_record(emitter: Emitter, lines: Lines) -> None:
    never: Any = None
    handler: Any = emitter.handler(lambda _event, _context: Promise(never))
    with pytest.warns(RuntimeWarning, match="never awaited"):
        handler(EVENT, CONTEXT)

    assert lines.fields["unfinished"] is True


# --- one inside another -----------------------------------------------------------------------------------


def test_a_handler_that_calls_another_one_keeps_its_record(emitter: Emitter, lines: Lines) -> None:
    """As routers and tests do, with an invocation of their own."""

    @emitter.handler
    def inner(event: Any, context: Any) -> dict[str, int]:  # noqa: ARG001 - the handler's signature
        add(where="inner")
        return {"statusCode": 200}

    @emitter.handler
    def outer(event: Any, context: Any) -> dict[str, int]:  # noqa: ARG001 - the handler's signature
        add(before=1)
        inner({}, SimpleNamespace(aws_request_id="r-inner"))
        assert add(after=1)
        return {"statusCode": 201}

    outer({}, SimpleNamespace(aws_request_id="r-outer"))

    first, second = lines.records
    assert (first.fields["request_id"], first.fields["where"]) == ("r-inner", "inner")
    assert (second.fields["request_id"], second.fields["status"]) == ("r-outer", 201)
    assert (second.fields["before"], second.fields["after"], "where" in second.fields) == (1, 1, False)
    assert all("unfinished" not in record.fields for record in lines.records)


# --- the decorator's arguments ----------------------------------------------------------------------------


def test_type_route_and_fields_can_be_given(emitter: Emitter, lines: Lines) -> None:
    @emitter.handler(type="order", route=lambda event: event["kind"], fields={"service": "shop"})
    def handler(event: Any, context: Any) -> None:
        """Take an order."""

    handler({"kind": "/orders/{id}"}, None)

    assert handler.__doc__ == "Take an order."
    assert lines.records[0].type == "order"
    assert (lines.fields["route"], lines.fields["service"]) == ("/orders/{id}", "shop")


def test_fields_can_come_from_the_event_and_the_handlers_own_win(emitter: Emitter, lines: Lines) -> None:
    @emitter.handler(fields=lambda event: {"tenant": event["tenant"], "plan": "free"})
    def handler(event: Any, context: Any) -> None:  # noqa: ARG001 - the handler's signature
        add(plan="gold")

    handler({"tenant": "acme"}, None)

    assert (lines.fields["tenant"], lines.fields["plan"]) == ("acme", "gold")


def test_a_hook_that_fails_costs_no_request_and_is_counted(emitter: Emitter, lines: Lines) -> None:
    @emitter.handler(fields=lambda event: event["missing"], route=lambda event: event["missing"])
    def handler(event: Any, context: Any) -> int:  # noqa: ARG001 - the handler's signature
        return 7

    assert handler(EVENT, None) == 7
    assert lines.fields["route"] == "/pets/{id}"
    assert emitter.errors == 1


@pytest.mark.parametrize("decorator", ["handler", "carry"])
@pytest.mark.parametrize(
    ("function", "message"),
    [
        (7, "takes a function, not 7"),
        (CallablePet, "takes a function, not <class"),
        (classmethod(work), "write @classmethod above it"),
        (staticmethod(work), "write @staticmethod above it"),
    ],
)
def test_what_is_not_a_function_is_refused_where_it_is_decorated(
    function: Any, message: str, decorator: str, emitter: Emitter
) -> None:
    with pytest.raises(TypeError, match=message):
        emitter.handler(function) if decorator == "handler" else carry(function)


# --- carry ------------------------------------------------------------------------------------------------


async def async_add(**fields: Any) -> bool:
    await asyncio.sleep(0)
    return add(**fields)


CARRIED: dict[str, Any] = {
    "a coroutine function": async_add,
    "a partial of one": functools.partial(async_add),
    "a function that returns a coroutine": lambda **fields: async_add(**fields),  # noqa: PLW0108 - as above
}


@pytest.mark.parametrize("kind", CARRIED)
def test_a_carried_coroutine_adds_to_its_own_record_only(kind: str, emitter: Emitter, lines: Lines) -> None:
    async def serve() -> None:
        first = emitter.collect({"name": "first"}).begin(is_block=True)
        carried = carry(CARRIED[kind])
        first.suspend()
        with emitter.collect({"name": "second"}):
            assert await carried(by="carried")
            assert add(mine=True)
            first.end()
            assert await carried(late=True) is False

    asyncio.run(serve())

    one, two = lines.records
    assert (one.fields["name"], one.fields["by"], two.fields["mine"]) == ("first", "carried", True)
    assert all("late" not in record.fields for record in lines.records)
    assert "by" not in two.fields


def test_a_carried_generator_adds_in_each_of_its_steps(emitter: Emitter, lines: Lines) -> None:
    def steps() -> Iterator[bool]:
        yield add(first=True)
        yield add(second=True)

    with emitter.collect({"name": "its own"}), ThreadPoolExecutor(1) as pool:
        stream = carry(steps)()
        assert next(stream)
        assert pool.submit(next, stream).result()

    assert (lines.fields["first"], lines.fields["second"]) == (True, True)


def test_a_function_that_was_carried_outside_of_a_record_adds_to_none(emitter: Emitter) -> None:
    carried = carry(add)

    with emitter.collect():
        assert carried(x=1) is False
        assert add(x=1)
