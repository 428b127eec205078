"""A request's record is filled from anywhere, written once, and leaks nothing into the next one."""

import asyncio
import contextvars
import gc
import queue
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from tagline import Emitter, add, add_copy, carry

from tests.emitter.lines import NOW, Lines


@pytest.fixture(autouse=True)
def nothing_is_left_open() -> Iterator[None]:
    """After each test, code in a thread of its own finds no record to add to."""
    yield
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(add, left=True).result() is False
    assert add(left=True) is False


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


def test_adding_outside_of_a_record_does_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    Emitter()

    assert add(orphan=True) is False
    assert capsys.readouterr() == ("", "")


def test_a_draft_is_a_dict_of_its_fields(emitter: Emitter, lines: Lines) -> None:
    with emitter.collect({"a": 1}) as record:
        record["b"] = 2
        record.setdefault("a", 7)
        record |= {"c": 3}
        assert record.add(d=4)
        assert record.fields == {"a": 1, "b": 2, "c": 3, "d": 4}
        del record["d"]

    assert {name: value for name, value in lines.fields.items() if name != "duration_ms"} == {
        "a": 1,
        "b": 2,
        "c": 3,
    }


def test_a_record_that_is_never_begun_is_not_written_and_warned_of(emitter: Emitter, lines: Lines) -> None:
    with pytest.warns(RuntimeWarning, match="never begun: write `with emitter.collect"):
        emitter.collect({"route": "/pets"})

    assert lines.records == []


def test_the_older_name_of_collect_still_collects(emitter: Emitter, lines: Lines) -> None:
    with emitter.record({"a": 1}):
        pass

    assert lines.fields["a"] == 1


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


def test_a_pools_thread_that_inherited_its_context_works_for_one_request_after_another(
    emitter: Emitter, lines: Lines
) -> None:
    """As with `-X thread_inherit_context`, the default of free-threaded Python 3.14; here by copy_context."""
    work: queue.Queue[Callable[[], bool]] = queue.Queue()
    done: queue.Queue[bool] = queue.Queue()

    def loop() -> None:
        for _ in range(3):
            done.put(work.get()())

    with emitter.collect():
        inherited = contextvars.copy_context()
        thread = threading.Thread(target=inherited.run, args=(loop,))
        thread.start()
        work.put(lambda: add(n=1))
        assert done.get()
    with emitter.collect():
        work.put(lambda: add(n=2))
        assert done.get()
    work.put(lambda: add(n=3))
    assert done.get() is False
    thread.join()

    assert [record.fields["n"] for record in lines.records] == [1, 2]


def test_late_work_of_an_event_loops_thread_reaches_no_other_request(emitter: Emitter, lines: Lines) -> None:
    """`asyncio.to_thread` copies the context as well, and its work belongs to one request."""
    go = threading.Event()

    def late() -> bool:
        go.wait(60)
        return add(late=True)

    async def request() -> asyncio.Future[bool]:
        with emitter.collect():
            return asyncio.ensure_future(asyncio.to_thread(late))

    async def serve() -> bool:
        work = await asyncio.create_task(request())
        with emitter.collect({"name": "second"}):
            go.set()
            return await work

    assert asyncio.run(serve()) is False
    assert all("late" not in record.fields for record in lines.records)


def test_a_task_without_a_request_adds_to_none(emitter: Emitter, lines: Lines) -> None:
    async def serve() -> None:
        go = asyncio.Event()

        async def background() -> bool:
            await go.wait()
            return add(background=True)

        task = asyncio.create_task(background())
        await asyncio.sleep(0)
        with emitter.collect():
            go.set()
            assert await task is False

    asyncio.run(serve())

    assert "background" not in lines.fields


def test_an_inner_record_that_ends_elsewhere_leaves_the_outer_one(emitter: Emitter, lines: Lines) -> None:
    with emitter.collect({"name": "outer"}):
        inner = emitter.begin({"name": "inner"})
        thread = threading.Thread(target=inner.end)
        thread.start()
        thread.join()
        assert add(where="outer")

    inner_record, outer_record = lines.records
    assert (inner_record.fields["name"], outer_record.fields["where"]) == ("inner", "outer")


def test_a_step_of_a_request_can_run_in_any_thread(emitter: Emitter, lines: Lines) -> None:
    """As a server does that iterates a response's body."""
    draft = emitter.collect().begin(is_block=True)
    draft.suspend()

    def step() -> bool:
        with draft.active():
            return add(stepped=True)

    with emitter.collect({"name": "another"}), ThreadPoolExecutor(1) as pool:
        assert pool.submit(step).result()
        assert add(mine=True)
    assert draft.end()
    assert step() is False

    another, stepped = lines.records
    assert (another.fields["mine"], stepped.fields["stepped"]) == (True, True)


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


def test_a_record_that_was_begun_can_be_a_block_as_well(emitter: Emitter, lines: Lines) -> None:
    with emitter.begin({"a": 1}, context=SimpleNamespace(aws_request_id="r1")) as draft:
        draft["b"] = 2

    assert lines.writes == 1
    assert (lines.fields["a"], lines.fields["b"], lines.fields["request_id"]) == (1, 2, "r1")


def test_an_emitter_ends_only_its_own_record(lines: Lines) -> None:
    orders, pets = Emitter(stream=lines, type="order"), Emitter(stream=lines, type="pet")
    orders.begin()
    with pets.collect():
        assert orders.end()
        assert orders.end() is False
        assert [record.type for record in lines.records] == ["order"]

    assert [record.type for record in lines.records] == ["order", "pet"]


def test_records_that_nothing_ends_are_written_and_forgotten(emitter: Emitter, lines: Lines) -> None:
    """A worker's loop that begins one for each message, and forgets to end it after an error."""

    class Payload:
        """What a field holds, to see when it is let go."""

    payloads: weakref.WeakSet[Payload] = weakref.WeakSet()
    for number in range(1_000):
        payload = Payload()
        payloads.add(payload)
        emitter.begin({"number": number, "payload": payload})
    del payload
    gc.collect()
    assert len(payloads) <= 8
    while emitter.end():
        pass

    records = lines.records
    assert sorted(record.fields["number"] for record in records) == list(range(1_000))
    unfinished = [record for record in records if record.fields.get("unfinished")]
    assert len(unfinished) >= 992
    assert all("duration_ms" not in record.fields for record in unfinished)  # nobody knows it


def test_records_that_are_held_stay_open_however_many_they_are(emitter: Emitter, lines: Lines) -> None:
    drafts = [emitter.begin({"number": number}) for number in range(50)]
    for draft in drafts:
        assert draft.end()

    assert [record.fields["number"] for record in lines.records] == list(range(50))
    assert all("unfinished" not in record.fields for record in lines.records)


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
