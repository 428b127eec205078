"""Ask the download API for a zip, wait for it, and fetch it by its link."""

from __future__ import annotations

import json
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from rich.progress import Progress, TaskID

from cli.errors import CommandError
from cli.target import Target
from exporter.store import Days
from local.authorizers import API_KEY_HEADER

TIMEOUT_S = 30
WAIT_S = 15 * 60  # as long as the worker may run
_LOOK_EVERY_S = 0.1
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Fetched:
    """What is in a zip, by what it says of itself.

    Attributes:
        rows: How many rows.
        bytes: How large the zip is.
        days_not_exported: The days that the lake did not have, `YYYY-MM-DD`.
    """

    rows: int
    bytes: int
    days_not_exported: tuple[str, ...]


def fetch_zip(target: Target, days: Days, path: Path, bars: Progress) -> Fetched:
    """Write the zip of a range of days to a file, and return what is in it.

    Args:
        target: The pipeline.
        days: The range.
        path: The file; it is there only when all of it is.
        bars: Where the progress is shown.

    Raises:
        CommandError: If the API refuses, or the zip cannot be made, fetched or written.
    """
    if path.is_dir() or not path.parent.is_dir():
        raise CommandError(f"{path} cannot be written", "give --out a file in a folder that is there")
    base = target.outputs["DownloadUrl"]
    query = {"start_date": days.first.isoformat(), "end_date": days.last.isoformat()}
    with requests.Session() as session:
        if target.api_key is not None:
            session.headers[API_KEY_HEADER] = target.api_key
        asked = _answer(session.get(f"{base}/download/usage", params=query, timeout=TIMEOUT_S))
        bar = bars.add_task("zip", total=None)
        state = _await(session, f"{base}/downloads/{asked['id']}", bars, bar)
    # The link speaks for itself: the key is not for where it leads.
    part = path.with_name(path.name + ".part")
    with requests.get(state["download_link"], stream=True, timeout=TIMEOUT_S) as response:
        if not response.ok:
            raise CommandError(
                f"the link answers {response.status_code}", "links expire: ask again for the same days"
            )
        size = int(response.headers["content-length"])
        bars.update(bar, total=size, completed=0, description="bytes of the zip")
        with part.open("wb") as file:
            for chunk in response.iter_content(CHUNK_BYTES):
                file.write(chunk)
                bars.advance(bar, len(chunk))
    part.replace(path)
    with zipfile.ZipFile(path) as fetched:
        manifest = json.loads(fetched.read("manifest.json"))
    return Fetched(manifest["rows"], path.stat().st_size, tuple(manifest["days_not_exported"]))


def _await(session: requests.Session, status_url: str, bars: Progress, bar: TaskID) -> dict[str, Any]:
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        state = _answer(session.get(status_url, timeout=TIMEOUT_S))
        if state["status"] in ("ready", "empty"):
            return state
        if state["status"] == "failed":
            raise CommandError(f"the zip could not be made: {state['reason']}", "fix that, and ask again")
        if progress := state.get("progress"):
            bars.update(bar, total=progress["total_bytes"], completed=progress["done_bytes"])
        time.sleep(_LOOK_EVERY_S)
    raise CommandError(f"the zip is not ready after {WAIT_S} seconds", f"look again: {status_url}")


def _answer(response: requests.Response) -> dict[str, Any]:
    body: dict[str, Any] = response.json()
    if not response.ok:
        raise CommandError(str(body.get("detail", body.get("message", body))), "see tagline download --help")
    return body
