"""Records that are being collected, and to which of them `add` adds."""

from __future__ import annotations

import sys
import time
import weakref
from contextvars import ContextVar
from threading import get_ident

from .annotations import TYPE_CHECKING, Any, Fields, Mapping, Optional
from .invocation import CORRELATION_HEADERS, Invocation, correlation_id, forget, watch, weakly
from .output import after_copy
from .values import as_dict, repr_of, to_json

if TYPE_CHECKING:
    from .emitter import Emitter
else:
    Emitter = object  # for those who evaluate annotations

# Beyond this many nested records, a context drops its oldest, which is written when its owner drops it too.
MAX_NESTED = 8


class _Carried(tuple["Draft", ...]):
    """The stack of code that `Active` gave its record: once that is written, `add` looks for no other one."""

    __slots__ = ()


_NO_DRAFTS: tuple[Draft, ...] = ()
# The records begun in a context, the innermost last. Changes keep the tuple's class: it may be `_Carried`.
_stack: ContextVar[tuple[Draft, ...]] = ContextVar("tagline", default=_NO_DRAFTS)
_open: dict[int, weakref.ref[Draft]] = {}  # of all contexts, by the draft's id()


class Draft(dict[str, Any]):
    """A record that is being collected: a dict of its fields. It is written once, by the first `end`.

    `Emitter.collect` and `Emitter.begin` make it. `with` begins and ends it.

    Args:
        emitter, fields, event, context: As for `Emitter.collect`.
        options: The other arguments of `emit`.
    """

    __slots__ = (  # quicker than a dict
        *("__weakref__", "_began", "_get_context", "_has_begun", "_is_block", "_is_in_loop", "_options"),
        *("_request", "_thread", "emitter", "invocation", "is_nested", "open"),
    )

    def __init__(
        self, emitter: Emitter, fields: Any, event: Any, context: Any, options: dict[str, Any]
    ) -> None:
        super().__init__(fields if type(fields) is dict else as_dict(fields))
        self.emitter = emitter
        self.open = False  # from `begin` until it is written
        self._is_block = self._has_begun = False
        self._options = options
        self._request = event, context

    @property
    def fields(self) -> dict[str, Any]:  # the older name of the draft itself
        return self

    def begin(self, *, is_block: bool = False) -> Draft:
        """Begin to collect: `add` reaches this record from everywhere in the request.

        Args:
            is_block: Whether `end` is certain to be called. If not, the next invocation may give it up.
        """
        if self.open:
            self._is_block = is_block or self._is_block
            return self
        event, context = self._request
        # A block keeps Lambda's context alive. Otherwise, a context that is gone means a finished invocation.
        self._request = None, context if is_block else None
        self._get_context = None if context is None else weakly(context)
        self.invocation = Invocation(event, context)
        self._is_block = is_block
        stack = _stack.get()
        outer = self._outer(stack) if stack else ()
        self.is_nested = outer != ()
        self._thread, self._is_in_loop = get_ident(), _is_in_loop()
        if self._options.get("timestamp") is None:
            # In seconds: `event_time` refuses milliseconds before 2000, which a clock may give.
            self._options["timestamp"] = self.emitter.now() / 1000
        self._began = time.perf_counter_ns()
        self.open = self._has_begun = True
        _open[id(self)] = weakref.ref(self)
        _stack.set((self,) if stack is _NO_DRAFTS else stack.__class__((*outer[1 - MAX_NESTED :], self)))
        margin_ms = self.emitter.timeout_margin_ms
        if context is not None and margin_ms > 0 and (left_ms := self._remaining_ms()) is not None:
            watch(self, (left_ms - margin_ms) / 1000)
        return self

    def _outer(self, stack: tuple[Draft, ...]) -> tuple[Draft, ...]:
        """Return the open records around this one; give up those that an earlier invocation left."""
        for draft in stack:
            if draft.open and self._follows_the_invocation_of(draft):
                draft.give_up()
        return tuple([draft for draft in stack if draft.open])

    def _follows_the_invocation_of(self, draft: Draft) -> bool:
        """Return whether another invocation left the other record open: no block, and another request id."""
        ids = {draft.invocation.request_id, self.invocation.request_id}
        return not draft._is_block and None not in ids and len(ids) > 1

    def add(self, fields: Optional[Fields] = None, /, **more: Any) -> bool:
        """Add fields, and return whether the record took them, which it does until it is written."""
        if self.open:
            self.update(as_dict(fields), **more)
        return self.open

    def active(self) -> Active:
        """Return a context manager that makes this the current record for a block, in any thread or task."""
        return Active(self)

    def suspend(self) -> None:
        """Stop being the current record of this context. The record stays open."""
        stack = _stack.get()
        if stack:
            rest = stack[:-1] if stack[-1] is self else [draft for draft in stack if draft is not self]
            _stack.set(stack.__class__(rest))

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
        known = self.invocation.fields
        if error is not None:
            known.update(error=repr_of(error, str), error_type=type(error).__name__)
            self.invocation.failed()
        known["duration_ms"] = (time.perf_counter_ns() - self._began) // 1_000 / 1_000
        if self._get_context and (remaining_ms := self._remaining_ms()) is not None:
            known["remaining_ms"] = remaining_ms
        self._write(None if fields is None else as_dict(fields))
        return True

    def give_up(self) -> None:
        """Write the record as unfinished: nothing will end it, and when its work ended is not known."""
        if self._close():
            self._write({"unfinished": True})

    def run_out(self) -> None:
        """Write the record because its invocation's time is nearly over, or long over. Raises nothing."""
        try:
            left_ms = self._remaining_ms()
            if left_ms is None or left_ms < -self.emitter.timeout_margin_ms:
                self.give_up()  # the environment was frozen, or nothing holds the context any more
            else:
                self.end({"timed_out": True})
        except BaseException:
            return  # a stream raised what would end the watching thread

    def _close(self) -> bool:
        """Return whether this call is the one that writes the record."""
        if _open.pop(id(self), None) is None:  # of two threads, one gets it
            return False
        # Close before reading the fields, so that add() never reports a field that is not on the line.
        self.open = False
        if self._get_context:
            forget(self)
        self.suspend()
        return True

    def _write(self, last: Optional[Fields]) -> None:
        self.emitter.emit({**self.invocation.fields, **self, **(last or {})}, **self._options)

    def _remaining_ms(self) -> Optional[int]:
        if self._get_context is None:
            return None
        try:
            return int(self._get_context().get_remaining_time_in_millis())
        except Exception:
            return None  # no Lambda context, or it is gone

    def is_ours(self) -> bool:
        """Return whether the context decides if the code that runs now belongs to this record's request.

        It does in an event loop (`asyncio.to_thread` copies it for one call), and in the record's own thread.
        Another thread may have inherited it (`-X thread_inherit_context`) and work for later requests.
        """
        return self._is_in_loop or self._thread == get_ident()

    def __enter__(self) -> Draft:  # noqa: PYI034 - Self is in Python 3.11 only
        return self.begin(is_block=True)

    def __exit__(self, kind: object, error: Optional[BaseException], trace: object) -> None:  # noqa: PYI036
        self.end(error=error)

    def __del__(self) -> None:
        if self.open:
            try:
                self.give_up()
            except Exception:
                return  # the interpreter is shutting down
        elif not self._has_begun:
            from warnings import warn

            how = "write `with emitter.collect(...)` or `emitter.begin(...)`"
            warn(f"a record was never begun: {how}", RuntimeWarning, stacklevel=2)


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
            return  # a generator was closed in another context than it ran in


def current(emitter: Optional[Emitter] = None) -> Optional[Draft]:
    """Return the record that this code adds to, or None if it is not certain; of one emitter, if given."""
    stack = _stack.get()
    for draft in reversed(stack):
        if draft.open and emitter in (None, draft.emitter):
            return draft
    if isinstance(stack, _Carried) or any(draft.is_ours() for draft in stack):
        return None  # the request that this code belongs to is over
    # A thread without a context works for the request in progress, if there is only one. Code in its own
    # thread or event loop would have found its record above.
    requests = [draft for draft in _open_drafts() if not draft.is_nested]
    if len(requests) != 1 or requests[0].is_ours() or emitter not in (None, requests[0].emitter):
        return None
    return requests[0]


def add(fields: Optional[Fields] = None, /, **more: Any) -> bool:
    """Add fields to the record that is being collected in this request; outside of one, do nothing.

    Tasks belong to the request that started them. So does a thread that begins no record itself, as long as
    one request at a time is in the process, as in Lambda; if there are several, use `carry`.

    Returns:
        Whether a record took them.
    """
    draft = current()
    return draft is not None and draft.add(fields, **more)


def add_copy(fields: Optional[Fields] = None, /, **more: Any) -> bool:
    """Add fields as `add` does, with their values as they are now: later changes do not show."""
    draft = current()
    return draft is not None and draft.add(to_json({**as_dict(fields), **more}))


def request_ids() -> dict[str, Any]:
    """Return `request_id` and `correlation_id` of the current record, as far as it has them."""
    draft = current()
    known = {} if draft is None else {**draft.invocation.fields, **draft}
    ids = {name: known[name] for name in ("request_id", "correlation_id") if known.get(name)}
    return {"correlation_id": ids["request_id"], **ids} if ids.keys() == {"request_id"} else ids


def outgoing_headers(headers: Optional[Mapping[str, str]] = None, /) -> dict[str, str]:
    """Return headers for a request to another service, with this request's correlation id among them."""
    known = dict(headers or {})
    value = request_ids().get("correlation_id")
    if value and correlation_id(known) is None:
        known[CORRELATION_HEADERS[0]] = str(value)
    return known


def _open_drafts() -> list[Draft]:
    return [draft for draft in [reference() for reference in list(_open.values())] if draft is not None]


def _is_in_loop() -> bool:
    asyncio = sys.modules.get("asyncio")
    try:
        return asyncio is not None and asyncio.get_running_loop() is not None
    except (AttributeError, RuntimeError):  # it is being imported, or no loop runs
        return False


def _forget_all() -> None:
    for draft in _open_drafts():
        draft.open = False  # its writer is the process that began it
    _open.clear()


after_copy(_forget_all)
