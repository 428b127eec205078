"""AWS's services on one machine: moto's server in this process, with what it lacks put in."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from moto.awslambda.responses import LambdaResponse
from moto.core.base_backend import BackendDict
from moto.core.model_instances import reset_model_data
from moto.moto_server.threaded_moto_server import ThreadedMotoServer

from local import logs, s3, sns, timestream
from local.functions import Functions
from local.invocations import AsyncInvocations, answer_invoke
from local.signatures import Keys

REGION = "us-east-1"
# Nobody's: what moto is asked with.
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"}
KEYS = Keys({CREDENTIALS["AWS_ACCESS_KEY_ID"]: CREDENTIALS["AWS_SECRET_ACCESS_KEY"]}, REGION)


class Services:
    """The services, empty, at an address of their own until they are stopped.

    There is one set in a process: moto keeps its state in its modules.

    Args:
        port: The port on 127.0.0.1; 0 takes a free one.
        outbox: A file for the e-mails that topics would send, so that other processes can read them.
    """

    def __init__(self, port: int = 0, outbox: Path | None = None) -> None:
        # moto says each request on stderr.
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        BackendDict.reset()
        reset_model_data()
        self.timestream = timestream.Timestream()
        timestream.install(self.timestream)
        logs.install()
        s3.install(KEYS)
        self.outbox = sns.Outbox(outbox)
        sns.install(self.outbox)
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
        self._server.start()
        self.endpoint = f"http://127.0.0.1:{self._server.get_host_and_port()[1]}"

    def environment(self) -> dict[str, str]:
        """Return the variables by which a process finds these services instead of AWS's."""
        return {
            **CREDENTIALS,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self, service: str, config: Config | None = None) -> Any:
        """Return a boto3 client of one of these services."""
        return client(self.endpoint, service, config)

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
        self._server.stop()
        s3.remove()
        self.timestream.close()


def client(endpoint: str, service: str, config: Config | None = None) -> Any:
    """Return a boto3 client of the services at an address, whatever this process's environment says."""
    return boto3.client(
        service,
        region_name=REGION,
        endpoint_url=endpoint,
        aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        config=config,
    )
