"""Records that are being collected, and which of them code adds to."""

from __future__ import annotations

import sys
import time
import weakref
from collections.abc import MutableMapping
from contextvars import ContextVar
from threading import get_ident

from . import deadline
from .annotations import TYPE_CHECKING, Any, Callable, Fields, Iterator, Mapping, Optional
from .invocation import CORRELATION_HEADERS, Invocation, correlation_id
from .process import after_copy
from .values import repr_of, to_json_value

if TYPE_CHECKING:
    from .emitter import Emitter

# Drafts that nobody holds but the context: of more in one context, the oldest is written as unfinished.
MAX_NESTED = 8


class _Stack(tuple["Draft", ...]):
    """The records that were begun in a context, the innermost last."""

    __slots__ = ()
    is_carried = False


class _Carried(_Stack):
    """A record that was made current on purpose: when it has been written, nothing else takes its place."""

    __slots__ = ()
    is_carried = True


_stack: ContextVar[_Stack] = ContextVar("tagline", default=_Stack())
# Weak, so that a draft that nobody holds ends as unfinished.
_open: dict[int, weakref.ref[Draft]] = {}


class Draft(MutableMapping[str, Any]):
    """A record that is being collected: a mapping of its fields. It is written once, by the first `end`.

    `Emitter.collect` and `Emitter.begin` make it. `with` begins and ends it.
    """

    open = False  # from `begin` until it is written

    def __init__(
        self, emitter: Emitter, fields: dict[str, Any], options: dict[str, Any], event: Any, context: Any
    ) -> None:
        self.fields = fields
        self.emitter = emitter
        self._options = options
        self._event = event
        self._context = context

    def begin(self, *, is_block: bool = False) -> Draft:
        """Begin to collect: `add` reaches this record from everywhere in the request.

        Args:
            is_block: Whether the caller will surely call `end`. A record that was begun without, by an earlier
                invocation, is written as unfinished when the next one begins.
        """
        self._invocation = Invocation(self._event, self._context)
        self._is_block = is_block
        self._get_context = _weakly(self._context)
        self._event, self._context = None, self._context if is_block else None
        stack = _stack.get()
        request_id = self._invocation.request_id
        for draft in stack:
            if request_id and not draft._is_block and draft._invocation.request_id not in (None, request_id):
                draft.give_up()  # one invocation at a time runs in an environment
        outer = [draft for draft in stack if draft.open]
        self.is_outermost = not outer
        self._thread, self._is_in_loop = get_ident(), _is_in_loop()
        if self._options["timestamp"] is None:
            self._options["timestamp"] = self.emitter.now() / 1000
        self._began = time.perf_counter()
        self.open = True
        _open[id(self)] = weakref.ref(self)
        _stack.set(stack.__class__((*outer, self)[-MAX_NESTED:]))
        margin_ms = self.emitter.timeout_margin_ms
        if margin_ms > 0 and (left_ms := self._remaining_ms()) is not None:
            deadline.watch(self, (left_ms - margin_ms) / 1000)
        return self

    def add(self, fields: Optional[Fields] = None, /, **more: Any) -> bool:
        """Add fields.

        Returns:
            Whether the record took them, which it does until it is written.
        """
        if self.open:
            joined(self.fields, fields).update(more)
        return self.open

    def add_first(self, fields: Any, *, route: Optional[str]) -> None:
        """Add fields that the request's own code may replace."""
        for name, value in {**as_dict(fields), **({"route": route} if route else {})}.items():
            self.fields.setdefault(name, value)

    def active(self) -> Active:
        """Return a context manager that makes this the current record for a block, in any thread or task."""
        return Active(self)

    def suspend(self) -> None:
        """Stop being the current record of this context. The record stays open."""
        stack = _stack.get()
        _stack.set(stack.__class__(draft for draft in stack if draft.open and draft is not self))

    def answered(self, answer: Any) -> None:
        """Take the client's status, or the number of failures, from a Lambda function's answer."""
        self._invocation.answered(answer)

    def end(self, fields: Optional[Fields] = None, /, *, error: Optional[BaseException] = None) -> bool:
        """Write the record, unless it has been written.

        Args:
            fields: Fields to add before.
            error: The exception that ended the request, if one did.

        Returns:
            Whether it was written now.
        """
        if not self._close():
            return False
        known = self._invocation.fields
        if error is not None:
            known.update(error=repr_of(error, str), error_type=type(error).__name__)
            self._invocation.failed()
        known["duration_ms"] = round((time.perf_counter() - self._began) * 1000, 3)
        if (remaining_ms := self._remaining_ms()) is not None:
            known["remaining_ms"] = remaining_ms
        self._write(fields)
        return True

    def give_up(self) -> None:
        """Write the record as unfinished: nothing will end it. When its work ended is not known."""
        if self._close():
            self._write({"unfinished": True})

    def run_out(self) -> None:
        """Write the record because its invocation's time is nearly over, or has long been. Raises nothing."""
        try:
            left_ms = self._remaining_ms()
            if left_ms is None or left_ms < -self.emitter.timeout_margin_ms:
                self.give_up()  # the environment was frozen: the invocation ended long ago
            else:
                self.end({"timed_out": True})
        except BaseException:
            return  # a stream raised what ends a thread; the watch goes on

    def _close(self) -> bool:
        """Return whether this call is the one that writes the record."""
        if _open.pop(id(self), None) is None:  # of two threads, one gets it
            return False
        # Close before reading the fields, so that add() never reports a field that is not on the line.
        self.open = False
        deadline.forget(self)
        self.suspend()
        return True

    def _write(self, fields: Optional[Fields]) -> None:
        merged = joined({**self._invocation.fields, **self.fields}, fields)
        self.emitter.emit(merged, **self._options)

    def _remaining_ms(self) -> Optional[int]:
        try:
            remaining: int = self._get_context().get_remaining_time_in_millis()
            return remaining
        except Exception:
            return None  # not a Lambda context, or it is gone

    def belongs_here(self) -> bool:
        """Return whether code in this context cannot work for another request.

        A thread that inherited its context works for one request after another (a pool's thread, under
        `-X thread_inherit_context`). A thread that got it from an event loop (`asyncio.to_thread`) does not.
        """
        return self._is_in_loop or self._thread == get_ident()

    def __enter__(self) -> Draft:
        return self.begin(is_block=True)

    def __exit__(self, kind: object, error: Optional[BaseException], trace: object) -> None:
        self.end(error=error)

    def __del__(self) -> None:
        if self.open:
            try:
                self.give_up()
            except Exception:
                return  # the interpreter is shutting down

    def __getitem__(self, name: str) -> Any:
        return self.fields[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self.fields[name] = value

    def __delitem__(self, name: str) -> None:
        del self.fields[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.fields)

    def __len__(self) -> int:
        return len(self.fields)

    def __ior__(self, fields: Fields) -> Draft:
        self.fields.update(fields)
        return self


class Active:
    """Makes a record the current one while a block runs; None: no record."""

    def __init__(self, draft: Optional[Draft]) -> None:
        self._drafts = _Carried(() if draft is None else (draft,))

    def __enter__(self) -> None:
        self._token = _stack.set(self._drafts)

    def __exit__(self, *_: object) -> None:
        try:
            _stack.reset(self._token)
        except ValueError:
            return  # a generator was closed in another context than the one it ran in


def current(emitter: Optional[Emitter] = None) -> Optional[Draft]:
    """Return the draft that this code adds to, if that can be told.

    Args:
        emitter: Consider only the drafts of this emitter.
    """
    stack = _stack.get()
    for draft in reversed(stack):
        if draft.open and emitter in (None, draft.emitter):
            return draft
    if stack.is_carried or (stack and stack[-1].belongs_here()):
        return None
    # A thread without a context: it works for the request in progress, if there is only one.
    found = [draft for draft in (reference() for reference in list(_open.values())) if draft is not None]
    requests = [draft for draft in found if draft.is_outermost]
    if len(requests) != 1 or requests[0].belongs_here() or emitter not in (None, requests[0].emitter):
        return None
    return requests[0]


def add(fields: Optional[Fields] = None, /, **more: Any) -> bool:
    """Add fields to the record that is being collected in this request; outside of one, do nothing.

    Tasks belong to the request that started them. So does a thread that begins no record itself, as long as one
    request at a time is in the process, as in Lambda; if there are several, use `carry`.

    Returns:
        Whether a record took them.
    """
    draft = current()
    return draft is not None and draft.add(fields, **more)


def add_copy(fields: Optional[Fields] = None, /, **more: Any) -> bool:
    """Add fields as `add` does, with their values as they are now: later changes do not show."""
    draft = current()
    return draft is not None and draft.add(to_json_value({**joined({}, fields), **more}))


def outgoing_headers(headers: Optional[Mapping[str, str]] = None, /) -> dict[str, str]:
    """Return headers for a request to another service, with this request's correlation id among them."""
    known = dict(headers or {})
    value = request_ids().get("correlation_id")
    if value and correlation_id(known) is None:
        known[CORRELATION_HEADERS[0]] = str(value)
    return known


def request_ids() -> dict[str, Any]:
    """Return `request_id` and `correlation_id` of the current record, as far as it has them."""
    draft = current()
    if draft is None:
        return {}
    known = {**draft._invocation.fields, **draft.fields}
    ids = {"request_id": known.get("request_id"), "correlation_id": known.get("correlation_id")}
    ids["correlation_id"] = ids["correlation_id"] or ids["request_id"]
    return {name: value for name, value in ids.items() if value}


def joined(into: dict[Any, Any], fields: Any) -> dict[Any, Any]:
    """Add fields to a dict, and return it."""
    into.update(as_dict(fields))
    return into


def as_dict(fields: Any) -> dict[Any, Any]:
    """Return a copy of fields as a dict. Anything that is not a mapping is kept under the key `fields`."""
    try:
        return dict(fields or ())
    except Exception:
        return {"fields": fields}


def _weakly(context: Any) -> Callable[[], Any]:
    """Return what gives a context as long as its invocation holds it."""
    try:
        return weakref.ref(context)
    except TypeError:
        return lambda: context


def _is_in_loop() -> bool:
    try:
        return sys.modules["asyncio"].get_running_loop() is not None
    except (KeyError, RuntimeError, AttributeError):
        return False


def _forget_all() -> None:
    for reference in list(_open.values()):
        if (draft := reference()) is not None:
            draft.open = False  # its writer is the process that began it
    _open.clear()


after_copy(_forget_all)
