"""AWS's services on one machine: moto's server in this process, with what it lacks put in."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from moto.awslambda.responses import LambdaResponse
from moto.cloudwatch.models import CloudWatchBackend, cloudwatch_backends
from moto.core.base_backend import BackendDict
from moto.core.model_instances import reset_model_data
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from moto.sns.models import sns_backends
from werkzeug.serving import make_server

from onemachine import sts
from onemachine.address import CREDENTIALS, REGION, client, environment
from onemachine.control import Control
from onemachine.faults import Faults
from onemachine.functions import ACCOUNT_ID, Functions
from onemachine.http_api import STOP_WITHIN_S
from onemachine.invocations import AsyncInvocations, answer_invoke
from onemachine.logs import Delivery
from onemachine.protocols import Application
from onemachine.registry import SERVICES
from onemachine.service import Service
from onemachine.signatures import Keys
from onemachine.sns import Outbox
from onemachine.unknown import KnownErrors

KEYS = Keys(sts.Secrets({CREDENTIALS["AWS_ACCESS_KEY_ID"]: CREDENTIALS["AWS_SECRET_ACCESS_KEY"]}), REGION)


class Services:
    """The services, empty, at one address until they are stopped.

    There is one set in a process: moto keeps its state in its modules.

    Args:
        port: The port on 127.0.0.1; 0 takes a free one.
        data: A folder in which tables outlive this process.
        services: What stands for them.

    Attributes:
        endpoint: Their address.
        data: The folder in which tables outlive this process.
        keys: The key pairs of signed requests.
        faults: What goes wrong between a client and them.
        delivery: What carries lines from log groups into streams.
        control: What a command can make of them.
        outbox: The e-mails.
    """

    def __init__(
        self, port: int = 0, data: Path | None = None, services: Sequence[Service] = SERVICES
    ) -> None:
        # werkzeug logs each request to stderr.
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        BackendDict.reset()
        reset_model_data()
        if data is not None:
            data.mkdir(parents=True, exist_ok=True)
        self.data, self.keys = data, KEYS
        self._services = services
        self._lock = threading.Lock()
        self._clients: dict[str, Any] = {}
        self._installed = {each.name: each.install(self) for each in services if each.install}
        self.delivery: Delivery = self._installed["logs"]
        self.outbox: Outbox = self._installed["sns"]
        # and a traceback for each call that it lacks.
        logging.getLogger("moto").setLevel(logging.CRITICAL)
        application: Application = KnownErrors(DomainDispatcherApplication(create_backend_app))
        for service in services:
            if service.front:
                application = service.front(application, self._installed[service.name])
        self.faults = Faults(
            application,
            errors={each.name: each.errors for each in services},
            clients={each.name: each.clients for each in services if each.clients},
        )
        self.control = Control(self.faults)
        # Where the port is taken, werkzeug would print its own advice and exit.
        with socket.create_server(("127.0.0.1", port)) as listening:
            self._server = make_server(
                "127.0.0.1",
                port,
                self.control,
                threaded=True,
                request_handler=MotoRequestHandler,
                fd=listening.fileno(),
            )
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(STOP_WITHIN_S,), name="services", daemon=True
        )
        self._thread.start()
        self.endpoint = f"http://127.0.0.1:{self._server.port}"

    @property
    def cloudwatch(self) -> CloudWatchBackend:
        """What moto keeps of CloudWatch: metrics and alarms."""
        return cloudwatch_backends[ACCOUNT_ID][REGION]

    def publish(self, topic: str, subject: str, message: str) -> None:
        """Publish what a service tells a topic; no client asks for it, so that no fault reaches it.

        Args:
            topic: The topic's ARN.
            subject: The subject of mails.
            message: JSON with a text for each protocol, or `default`.
        """
        sns_backends[ACCOUNT_ID][REGION].publish(message, topic, subject=subject, message_structure="json")

    def environment(self) -> dict[str, str]:
        """Return the variables by which a process finds these services instead of AWS's."""
        return environment(self.endpoint)

    def client(self, service: str) -> Any:
        """Return the boto3 client of one of these services; clients may be shared between threads."""
        with self._lock:
            if service not in self._clients:
                self._clients[service] = client(self.endpoint, service)
            return self._clients[service]

    def serve(self, functions: Functions, events: AsyncInvocations) -> None:
        """Let Lambda's Invoke reach functions."""

        def invoke(response: Any) -> tuple[int, dict[str, str], bytes]:
            body = response.body or b""
            payload = body if isinstance(body, bytes) else body.encode()
            status, headers, answer = answer_invoke(
                functions, events, response.path, dict(response.headers), payload
            )
            # moto's server takes the status from a header of this name.
            return status, {**headers, "status": str(status)}, answer

        LambdaResponse.invoke = invoke  # type: ignore[method-assign]  # moto's needs Docker

    def stop(self) -> None:
        """Close the port and forget everything."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        for service in self._services:
            if service.remove:
                service.remove(self._installed[service.name])
