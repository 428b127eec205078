"""A request's record is filled from anywhere, written once, and leaks nothing into the next one."""

import asyncio
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import tagline
from tagline import Emitter, add, add_copy, carry, correlation_id, outgoing_headers, read

from tests.emitter.lines import NOW, Lines


def nothing(_event: Any, _context: Any) -> None:
    """Answer nothing."""


def seven(_event: Any, _context: Any) -> int:
    return 7


def leave(_event: Any, _context: Any) -> None:
    sys.exit(3)


@pytest.fixture(autouse=True)
def nothing_is_left_open() -> Iterator[None]:
    yield
    assert not tagline._open
    assert not tagline._due
    assert tagline._current() is None


def test_fields_are_collected_from_anywhere_and_written_once_at_the_end(
    emitter: Emitter, lines: Lines
) -> None:
    def deep_in_the_call() -> None:
        add(items=3)
        add({"not-an-identifier": True})

    with emitter.record({"route": "/pets"}) as record:
        deep_in_the_call()
        record["client"] = "acme"
        assert lines.writes == 0

    assert lines.writes == 1
    assert lines.fields.pop("duration_ms") >= 0
    assert {k: v for k, v in lines.fields.items() if k != "duration_ms"} == {
        "route": "/pets",
        "items": 3,
        "not-an-identifier": True,
        "client": "acme",
    }


def test_the_time_of_a_record_is_when_it_began(lines: Lines) -> None:
    ticks = iter([NOW, NOW + 5_000])

    with Emitter(stream=lines, clock=lambda: next(ticks)).record():
        pass

    assert [record.timestamp for record in lines.records] == [NOW]


def test_a_record_that_raises_is_written_and_the_exception_goes_on(emitter: Emitter, lines: Lines) -> None:
    def divide() -> float:
        add(step="divide")
        return 1 / 0

    with pytest.raises(ZeroDivisionError), emitter.record():
        divide()

    assert lines.fields["step"] == "divide"
    assert (lines.fields["error"], lines.fields["error_type"]) == ("division by zero", "ZeroDivisionError")


def test_nothing_leaks_into_the_next_record(emitter: Emitter, lines: Lines) -> None:
    with emitter.record():
        add(secret=1)
    with emitter.record():
        pass

    assert "secret" not in lines.records[1].fields


def test_adding_outside_of_a_record_does_nothing(lines: Lines) -> None:
    add(orphan=True)

    assert lines.getvalue() == ""


def test_concurrent_tasks_and_threads_do_not_mix(emitter: Emitter, lines: Lines) -> None:
    async def request(number: int) -> None:
        with emitter.record():
            add(task=number)
            await asyncio.sleep(0)
            add(same=number)

    async def serve() -> None:
        await asyncio.gather(*map(request, range(20)))

    def work(number: int) -> None:
        with emitter.record():
            add(task=number)
            add(same=number)

    asyncio.run(serve())
    threads = [threading.Thread(target=work, args=[20 + number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(record.fields["task"] for record in lines.records) == list(range(28))
    assert all(record.fields["task"] == record.fields["same"] for record in lines.records)


@dataclass
class Context:
    aws_request_id: str = "8f5ac1b8-4f5a-4d0c-8f5d-0c1b84f5a4d0"


HTTP_2 = {
    "version": "2.0",
    "routeKey": "GET /pets/{id}",
    "rawPath": "/pets/7",
    "requestContext": {"http": {"method": "GET", "path": "/pets/7"}},
}
HTTP_1 = {"httpMethod": "POST", "resource": "/pets", "path": "/prod/pets", "requestContext": {}}
DEFAULT_ROUTE = {**HTTP_2, "routeKey": "$default"}
ANSWERS: dict[str, Callable[[], Any]] = {
    "answers": lambda: {"statusCode": 201},
    "raises": lambda: 1 / 0,
}


@pytest.mark.parametrize(
    ("event", "answer", "said"),
    [
        (HTTP_2, "answers", {"method": "GET", "route": "/pets/{id}", "path": "/pets/7", "status": 201}),
        (HTTP_2, "raises", {"method": "GET", "route": "/pets/{id}", "path": "/pets/7", "status": 500}),
        (HTTP_1, "answers", {"method": "POST", "route": "/pets", "path": "/prod/pets", "status": 201}),
        (DEFAULT_ROUTE, "answers", {"method": "GET", "route": "/pets/7", "path": "/pets/7", "status": 201}),
        ({"Records": []}, "answers", {"status": 201}),
        (None, "raises", {}),
    ],
)
def test_a_decorated_handler_writes_what_the_invocation_says(
    event: Any, answer: str, said: dict[str, Any], emitter: Emitter, lines: Lines
) -> None:
    @emitter.handler
    def handler(event: Any, context: Any) -> Any:  # noqa: ARG001 - the handler's signature
        return ANSWERS[answer]()

    try:
        handler(event, Context())
    except ZeroDivisionError:
        assert answer == "raises"

    fields = lines.fields
    assert fields.pop("request_id") == fields.pop("correlation_id") == Context.aws_request_id
    assert fields.pop("duration_ms") >= 0
    assert fields.pop("cold_start") is True
    assert fields.pop("error", None) == ("division by zero" if answer == "raises" else None)
    fields.pop("error_type", None)
    assert fields == said


def test_what_the_handler_says_wins(emitter: Emitter, lines: Lines) -> None:
    @emitter.handler
    def handler(event: Any, context: Any) -> Any:  # noqa: ARG001 - the handler's signature
        add(route="/pets/{pet}", status=418)
        return {"statusCode": 200}

    handler(HTTP_2, None)

    assert (lines.fields["route"], lines.fields["status"]) == ("/pets/{pet}", 418)


# --- threads and tasks ------------------------------------------------------------------------------------


def test_a_bare_thread_of_the_only_request_adds_to_its_record(emitter: Emitter, lines: Lines) -> None:
    with emitter.record():
        thread = threading.Thread(target=add, kwargs={"from_thread": True})
        thread.start()
        thread.join()

    assert lines.fields["from_thread"] is True


def test_a_worker_of_a_pool_adds_to_the_request_in_progress(emitter: Emitter, lines: Lines) -> None:
    with ThreadPoolExecutor(1) as pool:
        for number in range(2):
            with emitter.record():
                assert pool.submit(add, number=number).result()

    assert [record.fields["number"] for record in lines.records] == [0, 1]


def test_what_cannot_be_told_apart_is_not_mixed(emitter: Emitter, lines: Lines) -> None:
    both_are_open = threading.Barrier(2)
    taken: list[bool] = []

    def request(name: str) -> None:
        with emitter.record({"name": name}):
            both_are_open.wait(60)
            helper = threading.Thread(target=lambda: taken.append(add(helped=name)))
            helper.start()
            helper.join()
            both_are_open.wait(60)

    threads = [threading.Thread(target=request, args=[name]) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert taken == [False, False]
    assert all("helped" not in record.fields for record in lines.records)


def test_a_carried_function_adds_to_its_own_request_among_many(emitter: Emitter, lines: Lines) -> None:
    both_are_open = threading.Barrier(2)

    def request(name: str, pool: ThreadPoolExecutor) -> None:
        with emitter.record({"name": name}):
            both_are_open.wait(60)
            assert pool.submit(carry(add), helped=name).result()
            both_are_open.wait(60)

    with ThreadPoolExecutor(1) as pool:
        threads = [threading.Thread(target=request, args=[name, pool]) for name in "ab"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert all(record.fields["helped"] == record.fields["name"] for record in lines.records)


def test_a_carried_function_that_outlives_its_request_adds_nothing_to_the_next(
    emitter: Emitter, lines: Lines
) -> None:
    with emitter.record():
        late = carry(add)
    with emitter.record():
        worker = threading.Thread(target=late, kwargs={"late": True})
        worker.start()
        worker.join()
        assert late(late=True) is False
        assert add(mine=True)

    assert "late" not in lines.records[1].fields
    assert lines.records[1].fields["mine"] is True


def test_a_task_that_outlives_its_request_adds_nothing_to_the_next(emitter: Emitter, lines: Lines) -> None:
    async def serve() -> None:
        go = asyncio.Event()

        async def late() -> bool:
            await go.wait()
            return add(late=True)

        with emitter.record():
            task = asyncio.create_task(late())
        with emitter.record():
            go.set()
            assert await task is False

    asyncio.run(serve())

    assert all("late" not in record.fields for record in lines.records)


def test_without_contexts_in_the_process_threads_are_told_apart_all_the_same(
    monkeypatch: pytest.MonkeyPatch, emitter: Emitter, lines: Lines
) -> None:
    """In Lambda nothing has imported `contextvars` when a handler begins; it may do so in the middle."""
    monkeypatch.setattr(tagline, "_contexts", None)
    monkeypatch.setattr(sys, "modules", {k: v for k, v in sys.modules.items() if k != "contextvars"})
    with emitter.record({"name": "outer"}):
        assert tagline._contexts is None
        monkeypatch.undo()
        monkeypatch.setattr(tagline, "_contexts", None)

        async def tasks() -> None:
            with emitter.record({"name": "inner"}):
                add(said_in="inner")
            add(said_in="outer")

        asyncio.run(tasks())
        assert tagline._contexts is not None

    assert [(r.fields["name"], r.fields["said_in"]) for r in lines.records] == [
        ("inner", "inner"),
        ("outer", "outer"),
    ]


def test_records_nest_and_the_innermost_takes_what_is_added(emitter: Emitter, lines: Lines) -> None:
    with emitter.record({"name": "request"}):
        with emitter.record({"name": "job"}, type="job", tag="audit"):
            add(where="job")
        add(where="request")

    job, request = lines.records
    assert (job.type, job.tag, job.fields["where"]) == ("job", "audit", "job")
    assert (request.type, request.fields["where"]) == ("api_request", "request")


# --- begin and end ----------------------------------------------------------------------------------------


def test_a_record_is_begun_in_one_place_and_ended_in_another(emitter: Emitter, lines: Lines) -> None:
    def end() -> None:
        assert emitter.end({"last": True})

    emitter.begin({"first": True}, type="order", id="order-1")
    add(middle=True)
    end()

    (record,) = lines.records
    assert (record.type, record.id) == ("order", "order-1")
    assert [record.fields[name] for name in ("first", "middle", "last")] == [True, True, True]
    assert emitter.end() is False


def test_a_record_is_written_once_however_often_it_is_ended(emitter: Emitter, lines: Lines) -> None:
    draft = emitter.begin()

    assert [draft.end(), draft.end(), emitter.end()] == [True, False, False]
    assert draft.add(late=True) is False
    assert len(lines.records) == 1


def test_threads_that_race_to_end_a_record_write_it_once(emitter: Emitter, lines: Lines) -> None:
    with ThreadPoolExecutor(8) as pool:
        for _ in range(50):
            draft = emitter.begin()
            assert sum(pool.map(lambda _, draft=draft: draft.end(), range(8))) == 1
            draft.end()

    assert lines.writes == 50


def test_records_that_are_ended_out_of_order_leave_nothing(emitter: Emitter, lines: Lines) -> None:
    outer = emitter.begin({"name": "outer"})
    inner = emitter.begin({"name": "inner"})
    outer.end()
    assert add(who="inner")
    inner.end()

    assert add(who="nobody") is False
    assert {r.fields["name"]: r.fields.get("who") for r in lines.records} == {"outer": None, "inner": "inner"}


def test_the_next_invocation_writes_a_record_that_the_last_one_never_ended(
    emitter: Emitter, lines: Lines
) -> None:
    def handler(request_id: str) -> None:
        emitter.begin(context=SimpleNamespace(aws_request_id=request_id))
        add(from_=request_id)
        if request_id == "first":
            raise RuntimeError("before it was ended")
        emitter.end()

    with pytest.raises(RuntimeError):
        handler("first")
    handler("second")

    first, second = lines.records
    assert (first.fields["from_"], first.fields["unfinished"]) == ("first", True)
    assert (second.fields["from_"], "unfinished" in second.fields) == ("second", False)


def test_copied_values_are_those_of_the_moment(emitter: Emitter, lines: Lines) -> None:
    body = {"items": [1], "note": "x"}

    with emitter.record():
        add_copy(body=body)
        add(same=body)
        body["items"].append(2)  # type: ignore[attr-defined]  # it is a list

    assert lines.fields["body"] == {"items": [1], "note": "x"}
    assert lines.fields["same"]["items"] == [1, 2]


def test_copying_outside_of_a_record_does_nothing() -> None:
    assert add_copy(body={}) is False


def test_each_tag_has_its_own_numbers_without_gaps(emitter: Emitter, lines: Lines) -> None:
    """A subscription filter lets one tag through: the other tag's lines would look like lost ones."""
    for tag in (None, "audit", "audit", None, "audit"):
        emitter.emit(tag=tag)

    numbers = {tag: [r.seq for r in lines.records if r.tag == tag] for tag in ("usage_record", "audit")}
    assert numbers == {"usage_record": [0, 1], "audit": [0, 1, 2]}


@pytest.fixture
def impatient_threads() -> Iterator[None]:
    """Have threads take turns as often as can be."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("impatient_threads")
def test_threads_that_write_an_emitters_first_lines_write_as_one_source() -> None:
    for _ in range(30):
        lines = Lines()
        emitter = Emitter(stream=lines)
        threads = [threading.Thread(target=emitter.emit) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        records = lines.records
        assert sorted(record.seq or 0 for record in records) == list(range(8))
        assert len({record.src for record in records}) == 1
        assert len({record.id for record in records}) == 8


# --- cancelled, timed out ---------------------------------------------------------------------------------


def test_a_cancelled_task_leaves_its_record(emitter: Emitter, lines: Lines) -> None:
    async def serve() -> None:
        async def request() -> None:
            with emitter.record({"route": "/slow"}):
                await asyncio.sleep(60)

        task = asyncio.create_task(request())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(serve())

    assert (lines.fields["route"], lines.fields["error_type"]) == ("/slow", "CancelledError")


def test_a_handler_that_exits_leaves_its_record(emitter: Emitter, lines: Lines) -> None:
    with pytest.raises(SystemExit):
        emitter.handler(leave)({}, None)

    assert lines.fields["error_type"] == "SystemExit"


@dataclass
class Ending(Context):
    """An invocation with little time left."""

    remaining_ms: int = 0

    def get_remaining_time_in_millis(self) -> int:
        return self.remaining_ms


def until(condition: Callable[[], bool]) -> None:
    for _ in range(12_000):
        if condition():
            return
        time.sleep(0.005)
    raise AssertionError("it did not come about in a minute")


def test_an_invocation_that_runs_out_of_time_leaves_its_record_before_the_end(
    emitter: Emitter, lines: Lines
) -> None:
    @emitter.handler
    def handler(event: Any, context: Any) -> None:  # noqa: ARG001 - the handler's signature
        add(step="slow")
        until(lambda: lines.writes == 1)
        add(step="too late")

    handler(HTTP_2, Ending(remaining_ms=150))

    assert lines.writes == 1
    fields = lines.fields
    assert (fields["timed_out"], fields["step"], fields["route"]) == (True, "slow", "/pets/{id}")
    assert "status" not in fields


def test_the_margin_is_a_setting_and_zero_turns_it_off(monkeypatch: pytest.MonkeyPatch, lines: Lines) -> None:
    monkeypatch.setenv("TAGLINE_TIMEOUT_MARGIN_MS", "0")

    with Emitter(stream=lines).record(context=Ending(remaining_ms=0)):
        assert not tagline._due

    assert "timed_out" not in lines.fields
    assert Emitter(timeout_margin_ms=50).timeout_margin_ms == 50
    monkeypatch.setenv("TAGLINE_TIMEOUT_MARGIN_MS", "soon")
    assert Emitter().timeout_margin_ms == 200


def test_an_earlier_end_than_the_watched_one_is_not_missed(emitter: Emitter, lines: Lines) -> None:
    late = emitter.begin({"name": "late"}, context=Ending(remaining_ms=600_000))
    early = emitter.begin({"name": "early"}, context=Ending(remaining_ms=250))
    until(lambda: lines.writes == 1)

    assert lines.fields["name"] == "early"
    assert [early.end(), late.end()] == [False, True]


def test_a_stream_that_ends_a_thread_does_not_end_the_watch(emitter: Emitter, lines: Lines) -> None:
    class Leaving:
        def write(self, text: str, /) -> None:  # noqa: ARG002 - stdout's signature
            raise SystemExit

    broken = Emitter(stream=Leaving()).begin(context=Ending(remaining_ms=201))
    until(lambda: not broken.open)
    emitter.begin(context=Ending(remaining_ms=201))
    until(lambda: lines.writes == 1)

    assert lines.fields["timed_out"] is True


def test_many_invocations_are_watched_by_one_thread(emitter: Emitter, lines: Lines) -> None:
    handler = emitter.handler(nothing)

    for _ in range(200):
        handler({}, Ending(remaining_ms=30_000))

    assert sum(thread.name == "tagline-timeout" for thread in threading.enumerate()) <= 1
    assert lines.writes == 200


# --- copies of the process --------------------------------------------------------------------------------


def test_a_forked_child_is_another_source_and_does_not_write_its_parents_record(
    emitter: Emitter, lines: Lines
) -> None:
    emitter.emit()
    reading, writing = os.pipe()
    draft = emitter.begin({"name": "parent"})
    child = os.fork()
    if child == 0:
        draft.end()
        emitter.emit()
        os.write(writing, lines.getvalue().encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        of_child = [read(line) for line in pipe.read().splitlines()]
    os.waitpid(child, 0)
    emitter.emit()
    assert draft.end()

    before, own = of_child  # what was in its copy of the buffer, and its own
    assert own.src != before.src
    assert (own.seq, own.id != before.id) == (0, True)
    assert [record.seq for record in lines.records] == [0, 1, 2]
    assert len({record.src for record in lines.records}) == 1


def test_an_environment_restored_from_a_snapshot_is_another_source(
    monkeypatch: pytest.MonkeyPatch, lines: Lines
) -> None:
    """As https://docs.aws.amazon.com/lambda/latest/dg/snapstart-runtime-hooks-python.html has it."""
    snapshot = pytest.importorskip("snapshot_restore_py")
    monkeypatch.setenv("AWS_LAMBDA_INITIALIZATION_TYPE", "snap-start")
    monkeypatch.setattr(tagline, "_following", False)
    emitter = Emitter(stream=lines)
    emitter.emit()
    hooks = snapshot.get_after_restore()
    for hook, arguments, keywords in hooks:
        hook(*arguments, **keywords)
    emitter.emit()

    before, after = lines.records
    assert before.src != after.src
    assert (before.seq, after.seq) == (0, 0)
    assert emitter._ids == []  # nothing that has to be unique would be in a snapshot


# --- the invocation ---------------------------------------------------------------------------------------


def test_a_record_says_which_invocation_it_is_of(
    monkeypatch: pytest.MonkeyPatch, emitter: Emitter, lines: Lines
) -> None:
    monkeypatch.setenv("_X_AMZN_TRACE_ID", "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=557abc;Sampled=1")
    context = SimpleNamespace(
        aws_request_id="r1",
        function_name="orders",
        function_version="7",
        memory_limit_in_mb="128",
        get_remaining_time_in_millis=lambda: 2_900,
    )
    handler = emitter.handler(nothing)

    handler({"headers": {"X-Correlation-Id": "c1"}}, context)
    handler({}, context)

    first, second = (dict(record.fields) for record in lines.records)
    assert first.pop("duration_ms") >= 0
    assert first == {
        "request_id": "r1",
        "correlation_id": "c1",
        "trace_id": "1-5759e988-bd862e3fe1be46a994272793",
        "function_name": "orders",
        "function_version": "7",
        "memory_mb": 128,
        "cold_start": True,
        "remaining_ms": 2_900,
    }
    assert (second["cold_start"], second["correlation_id"]) == (False, "r1")


def test_provisioned_concurrency_has_no_cold_start(monkeypatch: pytest.MonkeyPatch, lines: Lines) -> None:
    monkeypatch.setenv("AWS_LAMBDA_INITIALIZATION_TYPE", "provisioned-concurrency")

    Emitter(stream=lines).handler(nothing)({}, None)

    assert lines.fields["cold_start"] is False


def test_an_async_handler_is_recorded_until_it_is_done(emitter: Emitter, lines: Lines) -> None:
    @emitter.handler
    async def handler(event: Any, context: Any) -> dict[str, int]:  # noqa: ARG001 - the handler's signature
        await asyncio.sleep(0)
        add(step="done")
        return {"statusCode": 202}

    asyncio.run(handler(HTTP_2, None))

    assert (lines.fields["step"], lines.fields["status"]) == ("done", 202)


class Broken:
    """An event and a context that answer nothing."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise RuntimeError(name)


@pytest.mark.parametrize("event", [Broken(), {"headers": Broken()}, {"headers": [1]}, [], "text", None])
def test_an_event_or_context_of_any_kind_costs_no_request(event: Any, emitter: Emitter, lines: Lines) -> None:
    assert emitter.handler(seven)(event, Broken() if event is None else None) == 7

    assert len(lines.records) == 1


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({"x-correlation-id": "a", "x-request-id": "b"}, "a"),
        ({"X-Request-ID": "b"}, "b"),
        ([(b"host", b"x"), (b"x-request-id", b"b")], "b"),
        ({"x-correlation-id": "two words"}, None),
        ({"x-correlation-id": "a\r\nset-cookie: x"}, None),
        ({"x-correlation-id": "x" * 129}, None),
        # https://docs.aws.amazon.com/lambda/latest/dg/services-alb.html: with multi-value headers
        ({"X-Request-Id": ["b", "c"]}, "b"),
        ({"x-request-id": [], "x-correlation-id": "a"}, "a"),
        ([(10**18, "x"), ("x-request-id", 7), (b"x-correlation-id", b"a")], "a"),
        ([("x-request-id",)], None),
        (7, None),
        ({}, None),
        (None, None),
    ],
)
def test_a_correlation_id_is_taken_if_it_can_be_handed_on(headers: Any, said: str | None) -> None:
    assert correlation_id(headers) == said


def test_a_load_balancers_headers_of_several_values_carry_a_correlation_id(
    emitter: Emitter, lines: Lines
) -> None:
    """https://docs.aws.amazon.com/elasticloadbalancing/latest/application/lambda-functions.html."""
    event = {"httpMethod": "GET", "path": "/pets", "multiValueHeaders": {"x-request-id": ["b"]}}

    emitter.handler(nothing)(event, None)

    assert (lines.fields["correlation_id"], lines.fields["route"]) == ("b", "/pets")


def test_an_answer_that_cannot_be_asked_is_handed_on(emitter: Emitter, lines: Lines) -> None:
    class Answer(dict[str, Any]):
        def __contains__(self, key: object) -> bool:
            raise RuntimeError("not now")

    answer = Answer(statusCode=200)

    assert (
        emitter.handler(lambda _event, _context: answer)({"httpMethod": "GET", "path": "/"}, None) is answer
    )
    assert "status" not in lines.fields


def test_an_exception_of_any_kind_is_in_the_record_and_goes_on(emitter: Emitter, lines: Lines) -> None:
    class Odd(Exception):  # noqa: N818 - as odd as can be
        @property  # type: ignore[misc]  # this as well
        def __class__(self) -> type:
            raise RuntimeError("no class")

        def __str__(self) -> str:
            raise BaseException("no text")  # noqa: TRY002 - the least that one can raise

    with pytest.raises(Odd), emitter.record():
        raise Odd

    assert (lines.fields["error"], lines.fields["error_type"]) == ("<Odd>", "Odd")


def test_the_headers_that_carry_a_correlation_id_can_be_chosen() -> None:
    headers = {"X-Trace": "t", "x-correlation-id": "c"}

    assert correlation_id(headers, ["x-missing", "x-trace"]) == "t"
    assert correlation_id(headers, []) is None


def test_a_correlation_id_is_handed_on(emitter: Emitter) -> None:
    with emitter.record({"correlation_id": "c1"}):
        assert outgoing_headers({"accept": "*/*"}) == {"accept": "*/*", "x-correlation-id": "c1"}
        assert outgoing_headers({"X-Correlation-Id": "mine"}) == {"X-Correlation-Id": "mine"}
    with emitter.record(context=SimpleNamespace(aws_request_id="r1")):
        assert outgoing_headers() == {"x-correlation-id": "r1"}

    assert outgoing_headers() == {}
