"""The cluster that gets records as documents: whether it answers, takes the key and has the fields."""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus

import requests

from cli.doctor.finding import Finding
from cli.target import Target
from consumers.meters.destinations import read_key
from consumers.settings import SettingsError

HOW_TO = "docs/how-to/search-cluster.md"
TIME_OUT_S = 10
_REFUSED = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)


def search_cluster(target: Target) -> Iterator[Finding]:
    """Send a request without documents, as the consumer sends them; skipped if the stack has no `SearchUrl`.

    Credentials that may create documents need no other rights, so a refusal to show the template is ignored.
    """
    name = target.outputs.get("MeterConsumerName")
    if name is None:
        return
    function = target.client("lambda").get_function_configuration(FunctionName=name)
    settings = function.get("Environment", {}).get("Variables", {})
    if not (url := settings.get("SEARCH_URL", "").rstrip("/")):
        return
    arn = settings["METER_API_KEY_ARN"]
    check = "search cluster"
    try:
        key = read_key(target.client(arn.split(":")[2]), arn)
        status = _status("POST", f"{url}/_bulk", key)
        template = _status("GET", f"{url}/_index_template/tagline", key)
    except SettingsError as error:
        yield Finding(check, str(error), f"put the header Authorization there; {HOW_TO}")
        return
    except requests.RequestException as error:
        problem = f"{url} does not answer this machine: {type(error).__name__}"
        yield Finding(check, problem, "set SearchUrl; if only the functions' network reaches it, ignore this")
        return
    if status in _REFUSED:
        yield Finding(check, f"{url} refuses the key of {arn}: {status}", f"put a valid key there; {HOW_TO}")
    # A cluster refuses a request without documents.
    elif status != HTTPStatus.BAD_REQUEST:
        problem = f"{url} answers {status} to a bulk request without documents, not 400 as a cluster does"
        yield Finding(
            check, problem, "set SearchUrl to the address of the cluster, without a path of an index"
        )
    elif template == HTTPStatus.NOT_FOUND:
        problem = (
            f"{url} has no index template tagline: it guesses the types of fields, and keeps indices forever"
        )
        yield Finding(check, problem, HOW_TO)


def _status(method: str, url: str, key: str) -> int:
    headers = {"Authorization": key, "Content-Type": "application/x-ndjson"}
    answer = requests.request(method, url, headers=headers, timeout=TIME_OUT_S, allow_redirects=False)
    return answer.status_code
