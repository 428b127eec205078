"""The usage page: its link, and the page as a file."""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path

import requests

from cli.download import TIMEOUT_S, api_session, writable_file
from cli.errors import CommandError
from cli.target import Target


def link_to_page(target: Target, token: str | None = None) -> str:
    """Return a link to the usage page. On this machine, the page is written first.

    Args:
        target: The pipeline.
        token: A token for the API; without one, requests to a stack on AWS are signed.

    Raises:
        CommandError: If the API refuses, or the page does not exist yet.
    """
    if target.endpoint is not None:
        target.invoke("UsageRollerName", {})
    with api_session(target, token) as session:
        response = session.get(f"{target.outputs['DownloadUrl']}/dashboard", timeout=TIMEOUT_S)
    answer = response.json()
    if response.status_code == HTTPStatus.NOT_FOUND:
        raise CommandError("there is no usage page yet", "the function UsageRollerName writes it every hour")
    if not response.ok:
        raise CommandError(
            f"the API refuses: {answer['message']}", "give credentials that may invoke it, or --token"
        )
    return str(answer["dashboard_link"])


def save_page(link: str, path: Path) -> None:
    """Write the page that a link leads to to a file.

    Raises:
        CommandError: If it cannot be fetched or written.
    """
    file = writable_file(path)
    response = requests.get(link, timeout=TIMEOUT_S)
    if not response.ok:
        raise CommandError(f"the link answers {response.status_code}", "links expire: ask again")
    file.write_bytes(response.content)
