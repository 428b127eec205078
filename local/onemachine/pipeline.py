"""Templates, run on one machine: resources made, functions, event sources, schedules, HTTP APIs."""

from __future__ import annotations

import contextlib
import functools
import json
import re
import secrets
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from botocore.config import Config

from onemachine import lambda_reads, logs
from onemachine.access_logs import Access
from onemachine.address import client
from onemachine.alarms.service import Alarms
from onemachine.apis import ApiServers
from onemachine.batches import KinesisSettings, MappingSettings
from onemachine.clock import Clock
from onemachine.destinations import Destinations
from onemachine.event_sources import KinesisMapping, SqsMapping
from onemachine.faults import OF_DELIVERIES, OF_THE_SERVICE, Fault, Kind
from onemachine.functions import Function, FunctionFailedError, Functions
from onemachine.invocations import AsyncInvocations
from onemachine.registry import SERVICES, TYPES, types_of
from onemachine.s3 import Applied, apply_lifecycle
from onemachine.schedules import Schedule, Scheduler, is_enabled
from onemachine.service import ResourceType, Service
from onemachine.services import KEYS, Services
from onemachine.template.event_sources import event_invokes, event_source_mappings
from onemachine.template.functions import functions
from onemachine.template.resolution import resolve
from onemachine.template.sam import translate
from onemachine.template.schedules import running_schedules
from onemachine.template.stack import Stack, TemplateError

POLL_S = 0.02
# The name at the start of a line of requirements.txt; options and addresses have none.
REQUIREMENT = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?(?=\s*(?:$|[\[;<>=!~#]))")
_API_KEY_BYTES = 24


@dataclass(frozen=True)
class App:
    """A stack to run.

    Attributes:
        name: The stack's name.
        template: Its SAM template; `CodeUri`s are relative to it.
        parameters: Values for the template's parameters, where they are not the defaults.
    """

    name: str
    template: Path
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Turned:
    """What happened while the clock was put forward.

    Attributes:
        now: The time since then.
        answers: What the functions that schedules called returned.
        aged: What lifecycle rules did, by bucket.
    """

    now: datetime
    answers: list[Any]
    aged: Mapping[str, Applied]


class Watcher(Protocol):
    """What is called for all that happens, by the threads in which it does."""

    def request(self, api: str, access: Access) -> None:
        """Take a request that an HTTP API answered.

        Args:
            api: The API's logical id.
            access: The request.
        """

    def lines(self, log_group: str, texts: Sequence[str]) -> None:
        """Take what a function wrote, or a program put into a log group.

        Args:
            log_group: The log group.
            texts: Log events: lines, or several lines that belong together.
        """

    def fault(self, kind: Kind, what: str) -> None:
        """Take a fault that was asked for.

        Args:
            kind: What happens.
            what: To what; empty for everything.
        """


class Pipeline:
    """Stacks that run, from the start of the `with` block to its end.

    Args:
        apps: The stacks, each made after the ones before it.
        in_process: Run functions in this interpreter instead of separate processes.
        ports: Ports for the services and then for each API, in the templates' order; free ones after them.
        enforce_auth: Let HTTP APIs ask their authorizers; otherwise everyone may call them.
        enforce_throttling: Let HTTP APIs take no more requests than their stages allow.
        issuers: The file or local address of an issuer's keys, by the issuer; see `authorizers.read_keys`.
        now: The time to put the clock to at the start; default the real time.
        data: A folder in which tables outlive this pipeline.
        watcher: What is called for requests, lines and faults.
        standing: What stands for the services.

    Attributes:
        services: The AWS services.
        functions: The functions.
        outputs: The stacks' outputs by the stack's name.
        parameters: The values that were given for the stacks' parameters, by the stack's name.
        api_key: What lets a request through where HTTP APIs ask for a signature; None where they do not ask.
        addresses: Where the stacks' APIs are, by the stack's name and the API's logical id.
        stages: The stage with which a REST API's paths begin, by its address; empty for HTTP APIs.
        code: The folders of the functions' code, by the stack's name.
        not_run: What the templates have that nothing stands for on one machine, and why.
        missing: What functions need and do not have.
        alarms: The alarms.
        events: The asynchronous invocations.
        scheduler: The schedules.
        clock: The time of all of it.
    """

    def __init__(
        self,
        apps: Sequence[App],
        *,
        in_process: bool = False,
        ports: Sequence[int] = (),
        enforce_auth: bool = False,
        enforce_throttling: bool = False,
        issuers: Mapping[str, str] | None = None,
        now: datetime | None = None,
        data: Path | None = None,
        watcher: Watcher | None = None,
        standing: Sequence[Service] = SERVICES,
    ) -> None:
        self._apps = apps
        self._watcher = watcher
        self._standing, self._types = standing, types_of(standing)
        self._ports = list(ports)
        self._in_process = in_process
        self._enforce_throttling = enforce_throttling
        self._issuers = dict(issuers or {})
        self._now = now
        self._data = data
        self.outputs: dict[str, dict[str, str]] = {}
        self.addresses: dict[str, dict[str, str]] = {}
        self.stages: dict[str, str] = {}
        self.code: dict[str, list[Path]] = {}
        self.parameters = {app.name: app.parameters for app in apps}
        self.api_key = secrets.token_urlsafe(_API_KEY_BYTES) if enforce_auth else None

    def __enter__(self) -> Self:
        """Bring everything up.

        Raises:
            TemplateError: If a template cannot be resolved.
            OSError: If a port is taken.
        """
        self._stop: list[Callable[[], None]] = []
        try:
            self._start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take everything down, in the opposite order."""
        self._end()

    def client(self, service: str) -> Any:
        """Return a boto3 client of the services."""
        return self.services.client(service)

    def invoke(self, function: str, event: Any = None) -> Any:
        """Call a function, and return what its handler returned.

        Args:
            function: The function's name, as outputs and log groups have it.
            event: The event, as `json` writes it.

        Raises:
            FunctionFailedError: The function failed in its own process. In this interpreter, what its handler
                raised is raised.
        """
        result = self.functions.invoke(function, json.dumps(event).encode())
        answer = json.loads(result.payload)
        if result.error:
            raise result.raised or FunctionFailedError(function, answer)
        return answer

    def reload(self) -> None:
        """Restart functions with their present code; an invocation that runs is completed first."""
        self.functions.restart({**self.services.environment(), **self.clock.environment()})

    def advance(self, by: timedelta) -> Turned:
        """Put the clock forward, and let happen what happens in that time.

        Functions get the records that streams have now, schedules fire for every time that passes, the
        lifecycle rules of buckets are applied, and functions are restarted, at the new time.

        Args:
            by: How far.
        """

        def turn() -> None:
            self.clock.advance(by)
            self.reload()

        for mapping in self.mappings:
            if by > timedelta() and isinstance(mapping, KinesisMapping):
                mapping.catch_up()
        self.alarms.evaluate()
        results = self.scheduler.fire_due(turn)
        self.alarms.evaluate()
        s3 = client(self.services.endpoint, "s3", Config(user_agent_extra=OF_THE_SERVICE))
        aged = apply_lifecycle(s3, self.clock.now())
        return Turned(self.clock.now(), [json.loads(result.payload) for result in results], aged)

    def settle(self, timeout_s: float = 300.0) -> None:
        """Wait until everything that was written has gone as far as it goes.

        Raises:
            TimeoutError: If it has not by then.
        """
        deadline = time.monotonic() + timeout_s
        self.functions.flush()
        while not (self.events.idle() and all(mapping.idle() for mapping in self.mappings)):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the pipeline was not idle within {timeout_s:g} seconds")
            time.sleep(POLL_S)
        self.functions.flush()

    def _start(self) -> None:
        self.clock = Clock()
        self._stop.append(self.clock.stop)
        if self._now is not None:
            self.clock.put(self._now)
        self.services = Services(self._ports.pop(0) if self._ports else 0, self._data, self._standing)
        self._stop.append(self.services.stop)
        shipper = logs.Shipper(self.client("logs"))
        if self._watcher is not None:
            self.services.delivery.watch = self._watcher.lines
        cloudwatch, metrics = self.services.cloudwatch, self.services.delivery.metrics
        self._observe = functools.partial(metrics.observe_lambda, cloudwatch)
        self.functions = Functions(
            shipper.ship,
            {**self.services.environment(), **self.clock.environment()},
            self._in_process,
            observe=self._observe,
        )
        self._stop.append(self.functions.stop)
        self.destinations = Destinations(self.client, self.functions.invoke)
        self.events = AsyncInvocations(self.functions, self.destinations.send)
        self._stop.append(self.events.stop)
        self.services.serve(self.functions, self.events)
        self.alarms = Alarms(cloudwatch, metrics, self.clock.now, self.services.publish)
        self.mappings: list[KinesisMapping | SqsMapping] = []
        self._described: list[MappingSettings] = []
        lambda_reads.install(self.functions, lambda: self._described, self._enable)
        schedules: list[Schedule] = []
        self.not_run: list[str] = []
        self.missing: list[str] = []
        for app in self._apps:
            stack = self._add(app)
            schedules += [
                each for each in running_schedules(stack) if each.function in self.functions.names()
            ]
        self.scheduler = Scheduler(
            schedules, self.events.run, self.clock.now, catch_up=True, is_enabled=is_enabled
        )
        self.scheduler.start()
        self._stop.append(self.scheduler.stop)
        self.alarms.start()
        self._stop.append(self.alarms.stop)
        self.services.control.actions.update(
            clock=lambda _: {"now": self.clock.now().isoformat()},
            tick=self._tick,
            fault=self._fault,
            outbox=self._e_mails,
        )

    def _add(self, app: App) -> Stack:
        """Make what a stack has, and run it but for its schedules."""
        stack = resolve(
            _translated(app.template, app.template.stat().st_mtime_ns),
            app.parameters,
            stack_name=app.name,
            endpoint=self.services.endpoint,
            types=self._types,
        )
        self._create(stack)
        self.not_run += [*not_run(stack, self._types), *self._add_alarms(stack)]
        self._add_functions(stack, app.template.parent)
        for settings in event_source_mappings(stack):
            if settings.function in self.functions.names():
                self._map(settings)
        self.addresses[app.name] = self._apis(stack)
        self.outputs[app.name] = stack.outputs(self.addresses[app.name])
        return stack

    def _map(self, settings: MappingSettings) -> None:
        """Start an event source mapping."""
        mapping = self._mapping(settings)
        mapping.enable(settings.enabled)
        mapping.start()
        self._stop.append(mapping.stop)
        self._described.append(settings)
        self.mappings.append(mapping)

    def _enable(self, settings: MappingSettings, enabled: bool) -> None:
        """Enable an event source mapping, or disable it."""
        place = self._described.index(settings)
        self._described[place] = replace(settings, enabled=enabled)
        self.mappings[place].enable(enabled)

    def _add_functions(self, stack: Stack, folder: Path) -> None:
        """Add a stack's functions, and note those that cannot be run, and what the others lack."""
        groups = {group.name for group in stack.of_type("AWS::Logs::LogGroup")}
        for declared in functions(stack):
            if reason := why_not_run(declared, folder):
                self.not_run.append(f"{declared.logical_id} ({reason})")
                continue
            function = replace(declared, code=(folder / declared.code).resolve())
            self.functions.add(function)
            self.code.setdefault(stack.name, []).append(function.code)
            if names := missing_requirements(function.code):
                self.missing.append(
                    f"{function.logical_id} needs {', '.join(names)}: run sam build, or install them here"
                )
            if function.log_group not in groups:
                self._ensure_log_group(function.log_group)
        for name, settings in event_invokes(stack).items():
            self.events.configure(name, settings)

    def _tick(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """Put the clock forward, and call the functions of schedules now where that is asked for."""
        turned = self.advance(timedelta(seconds=float(wanted.get("seconds", 0))))
        fired = [
            json.loads(result.payload)
            for function in wanted.get("functions", ())
            for result in self.scheduler.tick(function)
        ]
        return {
            "now": turned.now.isoformat(timespec="seconds"),
            "answers": turned.answers + fired,
            "aged": {bucket: asdict(applied) for bucket, applied in turned.aged.items()},
        }

    def _fault(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """Put a fault in force, or do at once what happens to no call: kill a function, deliver again."""
        kind = Kind(wanted.pop("kind"))
        if self._watcher is not None:
            names = (wanted.get(name) for name in ("service", "operation", "function"))
            self._watcher.fault(kind, " ".join(str(name) for name in names if name))
        if kind is Kind.NONE:
            self._clear_faults()
        elif kind is Kind.KILL:
            self.functions.kill(wanted["function"])
        elif kind is Kind.REDELIVER:
            for mapping in self.mappings:
                mapping.redeliver(int(wanted.get("times", 1)))
        elif kind in OF_DELIVERIES:
            self.services.delivery.disturb(kind, times=wanted["times"], seconds=wanted["seconds"])
        else:
            wanted.pop("function", None)
            self.services.faults.add(Fault(kind, **wanted))
        return {}

    def _clear_faults(self) -> None:
        """Take all faults out of force."""
        self.services.faults.clear()
        self.services.delivery.calm()
        for mapping in self.mappings:
            mapping.redeliver(0)

    def _e_mails(self, _wanted: dict[str, Any]) -> list[dict[str, Any]]:
        return [asdict(mail) for mail in self.services.outbox.mails()]

    def _ensure_log_group(self, name: str) -> None:
        """Make a log group that no template has, as Lambda does when the function is first called."""
        client = self.client("logs")
        with contextlib.suppress(client.exceptions.ResourceAlreadyExistsException):
            client.create_log_group(logGroupName=name)

    def _end(self) -> None:
        while self._stop:
            self._stop.pop()()

    def _create(self, stack: Stack) -> None:
        """Make a stack's resources, each kind after those that it names."""
        for kind in self._types.values():
            # A queue's dead letters have to be there before it.
            for resource in sorted(
                stack.of_type(kind.name), key=lambda made: "RedrivePolicy" in made.properties
            ):
                if kind.create:
                    kind.create(self.services.client, resource)

    def _add_alarms(self, stack: Stack) -> list[str]:
        """Make a stack's alarms; return those that cannot be evaluated here, with the reason."""
        refused = []
        for kind in ("AWS::CloudWatch::Alarm", "AWS::CloudWatch::CompositeAlarm"):
            for resource in stack.of_type(kind):
                try:
                    self.alarms.add(resource.name, resource.properties)
                except ValueError as error:
                    refused.append(f"{resource.logical_id} ({kind}: {error})")
        return refused

    def _mapping(self, settings: MappingSettings) -> KinesisMapping | SqsMapping:
        if isinstance(settings, KinesisSettings):
            return KinesisMapping(
                settings,
                self.client("kinesis"),
                self.destinations.send,
                self.functions.invoke,
                observe=self._observe,
            )
        if not settings.queue_url:
            raise TemplateError(f"queue {settings.queue_arn} is in no resource of the template")
        return SqsMapping(settings, self.client("sqs"), self.functions.invoke)

    def _apis(self, stack: Stack) -> dict[str, str]:
        """Start a stack's HTTP and REST APIs and return their addresses by logical id."""
        shipper = logs.Shipper(self.client("logs"))
        servers = ApiServers(
            invoke=self.functions.invoke,
            functions=self.functions.names(),
            next_port=lambda: self._ports.pop(0) if self._ports else 0,
            keys=KEYS,
            api_key=self.api_key,
            is_throttled=self._enforce_throttling,
            issuers=self._issuers,
            ship=lambda group, at_ms, text: shipper.ship(group, "access", [(at_ms, text)]),
            observe=self._watcher.request if self._watcher else None,
        )
        addresses = {}
        for name, stage, server in servers.servers(stack):
            addresses[name] = f"http://127.0.0.1:{server.start()}"
            self.stages[addresses[name]] = stage
            self._stop.append(server.stop)
        return addresses


@cache
def _translated(path: Path, _modified: int) -> dict[str, Any]:
    """Return a translated template; what it was translated to is kept as long as the file is the same."""
    return translate(path)


def not_run(stack: Stack, types: Mapping[str, ResourceType] = TYPES) -> list[str]:
    """List what a stack has that nothing stands for on one machine.

    Args:
        stack: The stack.
        types: The types of resources that run here, or that need not be created here.

    Returns:
        Logical ids with their types, and which functions' layers, in the template's order.
    """
    ignored = [
        f"{resource.logical_id} ({resource.type})"
        for resource in stack.resources.values()
        if resource.type not in types
    ]
    layered = [
        f"the layers of {function.logical_id}"
        for function in stack.of_type("AWS::Lambda::Function")
        if function.properties.get("Layers")
    ]
    imported = [f"{logical_id} ({reason})" for logical_id, reason in stack.left_out.items()]
    return ignored + layered + imported


def why_not_run(function: Function, folder: Path) -> str:
    """Return why a function cannot be run on one machine; empty if it can.

    Args:
        function: As the template has it.
        folder: Where the template is; its code is looked for from there.
    """
    if not function.not_run and not (folder / function.code).is_dir():
        return f"its CodeUri, {function.code}, is not a folder beside the template"
    return function.not_run


def missing_requirements(code: Path) -> list[str]:
    """Return the requirements of a function that are neither beside its code nor installed here.

    Args:
        code: The folder of its code; without a `requirements.txt`, nothing is required.
    """
    listed = code / "requirements.txt"
    if not listed.is_file():
        return []
    names = (REQUIREMENT.match(line) for line in listed.read_text(errors="replace").splitlines())
    found = {_normal(each.name) for each in metadata.distributions(path=[str(code), *sys.path])}
    return [
        name[0]
        for name in names
        if name and _normal(name[0]) not in found and not _imported_as(name[0].replace("-", "_"))
    ]


def _imported_as(name: str) -> bool:
    """Say whether a module is there, though nothing tells which distribution brought it."""
    return name.isidentifier() and find_spec(name) is not None


def _normal(name: str) -> str:
    """Return a distribution's name as all ways to write it are compared.

    https://packaging.python.org/en/latest/specifications/name-normalization/
    """
    return re.sub(r"[-_.]+", "-", name).lower()
