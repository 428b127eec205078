"""Faults on demand between a client and the services: for tests, and to see what the pipeline does then.

A fault is a rule: for which service and operation, what happens, how often. Chance comes from a seed, so a
run repeats. It works on the wire, as a layer around the services' web server: every client meets it alike.
"""

from __future__ import annotations

import difflib
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache
from typing import Any, Final

from onemachine.protocols import Application, Environ, StartResponse, asked, refuse, sends_form

_METHODS = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")


class Kind(StrEnum):
    """What goes wrong with a call, a delivery of lines into a stream, a batch, or a function."""

    THROTTLE = "throttle"  # refused, and not carried out
    ERROR = "error"  # a server error, and not carried out
    DENY = "deny"  # access denied
    LATENCY = "latency"  # carried out later
    RESET = "reset"  # not carried out, and the connection ends
    CUT = "cut"  # carried out, and the connection ends before the answer
    DUPLICATE = "duplicate"  # delivered twice
    DELAY = "delay"  # delivered later
    CORRUPT = "corrupt"  # delivered without its end
    LOSE = "lose"  # never delivered
    REDELIVER = "redeliver"  # a batch that succeeded comes again
    KILL = "kill"  # a function's process ends
    NONE = "none"  # nothing goes wrong any more


OF_CALLS = (Kind.THROTTLE, Kind.ERROR, Kind.DENY, Kind.LATENCY, Kind.RESET, Kind.CUT)
OF_DELIVERIES = (Kind.DUPLICATE, Kind.DELAY, Kind.CORRUPT, Kind.LOSE)


_ERRORS = {
    Kind.THROTTLE: ("400 Bad Request", "ThrottlingException"),
    Kind.ERROR: ("500 Internal Server Error", "InternalServerException"),
    Kind.DENY: ("400 Bad Request", "AccessDeniedException"),
}
# SNS and STS: https://docs.aws.amazon.com/STS/latest/APIReference/CommonErrors.html
_ERRORS_OF_FORMS = {
    Kind.THROTTLE: ("400 Bad Request", "Throttling"),
    Kind.ERROR: ("500 Internal Server Error", "InternalFailure"),
    Kind.DENY: ("403 Forbidden", "AccessDenied"),
}


# In the user agent of calls that a service makes itself: no fault happens to them.
OF_THE_SERVICE: Final = "of-the-service"


@dataclass(frozen=True, slots=True)
class Fault:
    """A rule.

    Attributes:
        kind: What happens: one of `OF_CALLS`.
        service: Its name in boto3, such as `kinesis`, `s3`, or the one that its several clients have in
            signatures; empty for all.
        operation: The operation, such as `WriteRecords`, if a call has it in a header; else its HTTP
            method, as for S3; empty for all.
        times: For how many calls; None without end.
        chance: How likely each of them is, from 0 to 1.
        seconds: How long, for latency.
    """

    kind: Kind
    service: str = ""
    operation: str = ""
    times: int | None = 1
    chance: float = 1.0
    seconds: float = 0.0


class Faults:
    """The rules in force, around a web application.

    Args:
        application: What answers where no rule is met.
        seed: Where chance begins.
        errors: Status and code of services that have their own, by the name in signatures.
        clients: The clients of services that have several in boto3, by the name in signatures.
    """

    def __init__(
        self,
        application: Application,
        seed: int = 0,
        errors: Mapping[str, Mapping[Kind, tuple[str, str]]] | None = None,
        clients: Mapping[str, tuple[str, ...]] | None = None,
    ) -> None:
        self._application = application
        self._errors, self._clients = errors or {}, clients or {}
        self._chance = random.Random(seed)  # noqa: S311 - a run has to repeat
        self._lock = threading.Lock()
        # Each with the number of calls that it has met.
        self._rules: list[list[Any]] = []

    def add(self, fault: Fault) -> None:
        """Put a rule in force, after those that are.

        Args:
            fault: The rule.

        Raises:
            ValueError: No call can meet such a fault, or the service or its operation is unknown.
        """
        if fault.kind not in OF_CALLS:
            raise ValueError(f"{fault.kind} happens to no call, only {', '.join(OF_CALLS)}")
        names = self._clients.get(fault.service, (fault.service,))
        known = ", ".join(("kinesis", "s3", "sqs", *self._clients))
        fault = replace(fault, service=_signed_as(fault.service, fault.operation, names, known))
        with self._lock:
            self._rules.append([fault, 0])

    def clear(self) -> dict[Fault, int]:
        """Take all rules out of force, and return how many calls each has met."""
        with self._lock:
            rules, self._rules = self._rules, []
        met: Counter[Fault] = Counter()
        for rule, calls in rules:
            met[rule] += calls
        return met

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request, or apply the first rule that it matches."""
        service, operation = asked(environ)
        undisturbed = OF_THE_SERVICE in environ.get("HTTP_USER_AGENT", "")
        fault = None if undisturbed else self._met(service, operation)
        if fault is None:
            return self._application(environ, start_response)
        if fault.kind is Kind.LATENCY:
            time.sleep(fault.seconds)
            return self._application(environ, start_response)
        if fault.kind is Kind.RESET:
            # Before the connection ends: the server would take what is left of the request for another one.
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        if fault.kind is Kind.CUT:
            list(self._application(environ, lambda *_: lambda _: None))
        if fault.kind in {Kind.RESET, Kind.CUT}:
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            raise ConnectionAbortedError(f"{service} {operation}: {fault.kind} on demand")
        usual = _ERRORS_OF_FORMS if sends_form(environ) else _ERRORS
        status, code = {**usual, **self._errors.get(service, {})}[fault.kind]
        return refuse(environ, start_response, status, code, "on demand")

    def _met(self, service: str, operation: str) -> Fault | None:
        with self._lock:
            for rule in self._rules:
                fault, met = rule
                if (
                    met != fault.times
                    and fault.service in ("", service)
                    and fault.operation in ("", operation)
                    and self._chance.random() < fault.chance
                ):
                    rule[1] = met + 1
                    found: Fault = fault
                    return found
        return None


@cache
def _signed_as(service: str, operation: str, names: tuple[str, ...], known: str) -> str:
    """Return how the signatures of a service's calls name it."""
    if not service:
        return ""
    # A command that only lists the kinds of faults does not wait for botocore.
    import botocore.session  # noqa: PLC0415
    from botocore.exceptions import UnknownServiceError  # noqa: PLC0415

    session = botocore.session.get_session()
    try:
        models = [session.get_service_model(name) for name in names]
    except UnknownServiceError:
        raise ValueError(f"service {service!r} is unknown: name it as boto3 does, such as {known}") from None
    said = {name for model in models if model.resolved_protocol == "json" for name in model.operation_names}
    if operation and operation not in said and operation not in _METHODS:
        if not said:
            methods = ", ".join(_METHODS)
            raise ValueError(
                f"calls of {service} are known by their method only: use {methods}, not {operation!r}"
            )
        near = ", ".join(difflib.get_close_matches(operation, said)) or "one of its operations"
        raise ValueError(f"{service} has no operation {operation!r}: did you mean {near}?")
    return str(models[0].signing_name)
