"""Ask the download API for a zip, wait for it, and fetch it by its link."""

from __future__ import annotations

import json
import time
import zipfile
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import boto3
import requests
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from requests import PreparedRequest
from requests.auth import AuthBase
from rich.progress import Progress, TaskID

from cli.errors import CommandError
from cli.target import Target
from exporter.store import Days

# https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-api-usage-plans.html
API_KEY_HEADER = "x-api-key"

TIMEOUT_S = 30
WAIT_S = 15 * 60  # as long as the worker may run
# API Gateway's own 429 has no time to ask again.
_LOOK_AFTER_S = 1
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Fetched:
    """What is in a zip, by its manifest.

    Attributes:
        rows: How many rows.
        bytes: How large the zip is.
        days_not_exported: The days that the lake did not have, `YYYY-MM-DD`.
    """

    rows: int
    bytes: int
    days_not_exported: tuple[str, ...]


class SignedRequests(AuthBase):
    """Signs requests to an API of AWS with this process's credentials, by Signature Version 4."""

    def __init__(self) -> None:
        session = boto3.Session()
        credentials = session.get_credentials()
        if credentials is None or session.region_name is None:
            raise CommandError(
                "requests to the download API cannot be signed: there are no credentials, or no region",
                "set AWS_PROFILE and AWS_REGION, or give --token where the API asks for tokens",
            )
        self._signer = SigV4Auth(credentials, "execute-api", session.region_name)

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        """Sign a request."""
        signed = AWSRequest(request.method, request.url, data=request.body)
        self._signer.add_auth(signed)
        request.headers.update(dict(signed.headers.items()))
        return request


def fetch_zip(target: Target, days: Days, path: Path, bars: Progress, token: str | None = None) -> Fetched:
    """Write the zip of a range of days to a file, and return what is in it.

    Args:
        target: The pipeline.
        days: The range.
        path: The file; it is there only when all of it is. A link is followed.
        bars: Where the progress is shown.
        token: A token for the API; without one, requests to a stack on AWS are signed.

    Raises:
        CommandError: If the API refuses, or the zip cannot be made, fetched or written.
    """
    file = writable_file(path)
    base = target.outputs["DownloadUrl"]
    query = {"start_date": days.first.isoformat(), "end_date": days.last.isoformat()}
    with api_session(target, token) as session:
        bar = bars.add_task("zip", total=1)
        state = _await(session, f"{base}/download/usage", query, bars, bar)
    # The link speaks for itself: the key is not for where it leads.
    part = file.with_name(file.name + ".part")
    with requests.get(state["download_link"], stream=True, timeout=TIMEOUT_S) as response:
        if not response.ok:
            raise CommandError(
                f"the link answers {response.status_code}", "links expire: ask again for the same days"
            )
        size = int(response.headers["content-length"])
        bars.update(bar, total=size, completed=0, description="bytes of the zip")
        with part.open("wb") as written:
            for chunk in response.iter_content(CHUNK_BYTES):
                written.write(chunk)
                bars.advance(bar, len(chunk))
    part.replace(file)
    with zipfile.ZipFile(file) as fetched:
        manifest = json.loads(fetched.read("manifest.json"))
    return Fetched(manifest["rows"], file.stat().st_size, tuple(manifest["days_not_exported"]))


def api_session(target: Target, token: str | None) -> requests.Session:
    """Return a session whose requests the pipeline's API lets through.

    Args:
        target: The pipeline.
        token: A token for the API; without one, requests to a stack on AWS are signed.
    """
    session = requests.Session()
    if token is not None:
        session.headers["Authorization"] = f"Bearer {token}"
    elif target.api_key is not None:
        session.headers[API_KEY_HEADER] = target.api_key
    elif target.endpoint is None:
        session.auth = SignedRequests()
    return session


def writable_file(path: Path) -> Path:
    """Return the file that a path leads to.

    Raises:
        CommandError: If its folder is not there, or it is not a regular file.
    """
    file = path.resolve()
    if not file.parent.is_dir():
        raise CommandError(f"{path} cannot be written", "give a file in a folder that is there")
    if file.exists() and not file.is_file():
        raise CommandError(f"{path} cannot be written: it is not a regular file", "give another file")
    return file


def _await(
    session: requests.Session, url: str, query: dict[str, str], bars: Progress, bar: TaskID
) -> dict[str, Any]:
    """Ask for a zip, and return the answer once the zip is ready.

    After each answer, it waits as long as the API asks for.
    """
    deadline = time.monotonic() + WAIT_S
    status_url = None
    while time.monotonic() < deadline:
        response = session.get(status_url or url, params=None if status_url else query, timeout=TIMEOUT_S)
        state = response.json()
        if response.ok:
            status_url = f"{url.removesuffix('/download/usage')}/downloads/{state['id']}"
            if state["status"] in ("ready", "empty"):
                return dict(state)
            if state["status"] == "failed":
                raise CommandError(f"the zip could not be made: {state['reason']}", "fix that, and ask again")
            bars.update(bar, completed=state.get("progress", 0))
        elif response.status_code != HTTPStatus.TOO_MANY_REQUESTS:
            detail = str(state.get("detail", state.get("message", state)))
            raise CommandError(detail, "see tagline download --help")
        time.sleep(float(response.headers.get("Retry-After", _LOOK_AFTER_S)))
    raise CommandError(f"the zip is not ready after {WAIT_S} seconds", f"look again: {status_url or url}")
