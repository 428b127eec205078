"""Who may ask the download API, over HTTP on one machine: by signature, key or token, and how often."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from onemachine.address import CREDENTIALS, REGION
from onemachine.functions import Result
from onemachine.http_api import HttpApi, Route, Throttle
from onemachine.http_messages import Request
from onemachine.pipeline import App, Pipeline
from onemachine.template.http_apis import http_apis
from onemachine.template.resolution import resolve
from onemachine.template.sam import translate
from rich.progress import Progress
from typer.testing import CliRunner

from cli.apps import ROOT
from cli.commands.here import print_addresses
from cli.download import Fetched, fetch_zip
from cli.errors import CommandError
from cli.main import app
from cli.target import FILE, running_target, target_of, write_running
from exporter.store import Days
from tests.exporter.downloads.test_downloads_live import TIMEOUT_S, YESTERDAY, put_lake
from tests.onemachine.issuer import Issuer, private_key, token

ISSUER = "https://id.example.com/pool"
TOKENS = {"JwtIssuer": ISSUER, "JwtAudience": "usage", "TenantClaim": "client_id"}

# What cannot be said of an API of this kind, or is not this API's to say.
EXCLUDED = {
    "unsupported_method": "API Gateway answers a path without a route for the method with 404, not 405",
    "positive_data_acceptance": "a schema cannot say that one date is not before another, or in the past",
}


def pipeline(
    parameters: dict[str, str] | None = None, *, keys: str = "", auth: bool = True, throttling: bool = False
) -> Pipeline:
    """Return the pipeline alone, whose issuer's keys are at an address."""
    return Pipeline(
        [App("tagline", ROOT / "template.yml", {"Store": "timestream", **(parameters or {})})],
        in_process=True,
        enforce_auth=auth,
        enforce_throttling=throttling,
        issuers={ISSUER: keys},
    )


class Caller:
    """Somebody who asks, with headers of their own."""

    def __init__(self, asked: Pipeline, **headers: str) -> None:
        self.url = asked.outputs["tagline"]["DownloadUrl"]
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    def call(self, method: str, path: str, **given: Any) -> requests.Response:
        url = path if path.startswith("http") else self.url + path
        return requests.request(method, url, headers=self.headers, timeout=TIMEOUT_S, **given)

    def ask(self, **wanted: str) -> requests.Response:
        day = str(YESTERDAY)
        return self.call("POST", "/downloads", json={"start_date": day, "end_date": day, **wanted})


# --- on one machine: a signature, or the key --------------------------------------------------------------


@pytest.fixture
def signing() -> Iterator[Pipeline]:
    with pipeline() as running_one:
        yield running_one


# What a request of each route is answered with. A zip may be there when it is asked for again: 200, not 202.
ROUTES = [
    ("GET", "/download/usage?start_date=2025-11-20&end_date=2025-11-20", (202, 200)),
    ("POST", "/downloads", (400,)),
    ("GET", "/downloads/0123456789abcdef0123456789abcdef", (404,)),
    ("DELETE", "/downloads/0123456789abcdef0123456789abcdef", (404,)),
    ("GET", "/openapi.json", (200,)),
]


def test_every_route_takes_the_key_or_a_signature_and_nothing_else(signing: Pipeline) -> None:
    assert signing.api_key is not None
    strangers = [
        Caller(signing),
        Caller(signing, x_api_key="x"),
        Caller(signing, authorization=signing.api_key),
        Caller(signing, authorization="Bearer x"),
    ]
    keys = Credentials(CREDENTIALS["AWS_ACCESS_KEY_ID"], CREDENTIALS["AWS_SECRET_ACCESS_KEY"])
    for method, path, statuses in ROUTES:
        for stranger in strangers:
            refused = stranger.call(method, path)
            assert (refused.status_code, refused.json()) == (403, {"message": "Forbidden"}), (method, path)
        request = AWSRequest(method, strangers[0].url + path)
        SigV4Auth(keys, "execute-api", REGION).add_auth(request)
        signed = Caller(signing, **dict(request.headers.items()))
        keyed = Caller(signing, x_api_key=signing.api_key)
        answers = {each.call(method, path).status_code for each in (signed, keyed)}
        assert answers <= set(statuses), (method, path)


def test_the_signed_request_that_the_page_shows_is_let_through(signing: Pipeline) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not on this machine")
    text = (ROOT / "docs" / "how-to" / "download.md").read_text()
    (command,) = re.findall(r"^(curl [^`]*--aws-sigv4[^`]*)^```$", text, re.MULTILINE)
    shown = {
        **CREDENTIALS,
        "AWS_SESSION_TOKEN": "",
        "AWS_REGION": REGION,
        "DownloadUrl": signing.outputs["tagline"]["DownloadUrl"],
    }

    done = subprocess.run(
        ["sh", "-c", re.sub("2026-11-..", "2025-11-20", command)],
        env={**os.environ, **shown},
        capture_output=True,
        check=True,
    )

    assert json.loads(done.stdout)["start_date"] == "2025-11-20"


def test_the_command_asks_with_the_key_of_the_pipeline_that_runs_in_its_folder(
    signing: Pipeline,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    put_lake(signing, YESTERDAY)
    print_addresses(signing, target_of(signing))
    assert str(signing.api_key) in capsys.readouterr().out
    write_running(target_of(signing))

    assert running_target().api_key == signing.api_key
    assert FILE.stat().st_mode & 0o077 == 0, "others on the machine can read the key"
    before = YESTERDAY - timedelta(days=1)
    with Progress(disable=True) as bars:
        fetched = fetch_zip(running_target(), Days(before, YESTERDAY), tmp_path / "usage.zip", bars)
        for nowhere in (tmp_path, tmp_path / "nowhere" / "usage.zip"):
            with pytest.raises(CommandError, match="cannot be written"):
                fetch_zip(running_target(), Days(before, YESTERDAY), nowhere, bars)
    assert fetched == Fetched(30, (tmp_path / "usage.zip").stat().st_size, (str(before),))
    with zipfile.ZipFile(tmp_path / "usage.zip") as made:
        assert json.loads(made.read("manifest.json"))["rows"] == 30


def test_the_command_writes_through_a_link_or_to_stdout_and_refuses_what_is_no_file(
    signing: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    put_lake(signing, YESTERDAY)
    write_running(target_of(signing))
    (tmp_path / "kept").mkdir()
    target, link, pipe = tmp_path / "kept" / "usage.zip", tmp_path / "link.zip", tmp_path / "pipe"
    target.write_bytes(b"old")
    link.symlink_to(target)
    os.mkfifo(pipe)
    run = CliRunner().invoke
    day = ["--from", str(YESTERDAY), "--to", str(YESTERDAY)]

    linked = run(app, ["download", *day, "--out", "link.zip"])
    piped = run(app, ["download", *day, "--out", "-"])
    nothing = run(app, ["download", "--from", "2025-01-01", "--to", "2025-01-02", "--out", "none.zip"])
    refused = run(app, ["download", *day, "--out", str(pipe)])

    assert (linked.exit_code, piped.exit_code, nothing.exit_code) == (0, 0, 3)
    assert link.is_symlink()
    assert zipfile.is_zipfile(target)
    with zipfile.ZipFile(io.BytesIO(piped.stdout_bytes)) as made:
        assert json.loads(made.read("manifest.json"))["rows"] == 30
    assert "2 of 2" in nothing.stdout
    assert isinstance(refused.exception, CommandError)
    assert str(refused.exception) == f"{pipe} cannot be written: it is not a regular file"
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_each_pipeline_has_a_key_of_its_own_and_none_if_everyone_may_ask() -> None:
    assert pipeline(auth=False).api_key is None
    assert pipeline().api_key != pipeline().api_key
    assert len(str(pipeline().api_key)) == 32


# --- where there is an issuer: tokens ---------------------------------------------------------------------


@pytest.fixture
def tokens() -> Iterator[Pipeline]:
    with Issuer() as issuer, pipeline(TOKENS, keys=issuer.url) as running_one:
        yield running_one


def claims(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    own = {"iss": ISSUER, "aud": "usage", "iat": now - 60, "exp": now + 3600, "scope": "tagline/downloads"}
    given = {**own, "client_id": "acme", **changes}
    return {name: value for name, value in given.items() if value is not None}


def bearer(asked: Pipeline, **changes: Any) -> Caller:
    return Caller(asked, authorization=f"Bearer {token(private_key(), claims(**changes))}")


# https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-jwt-authorizer.html
REFUSED: list[tuple[dict[str, Any], int, str]] = [
    ({"scope": None}, 403, "insufficient_scope"),
    ({"scope": "tagline/downloads2 openid"}, 403, "insufficient_scope"),
    ({"exp": 1_700_000_000}, 401, "the token has expired"),
    ({"iss": "https://id.example.com/other"}, 401, "issuer"),
    ({"aud": "another"}, 401, "audience"),
    ({"nbf": 4_000_000_000}, 401, "not valid yet"),
]


def test_a_token_is_looked_at_before_the_function_is_asked(tokens: Pipeline) -> None:
    for changes, status, reason in REFUSED:
        refused = bearer(tokens, **changes).ask()
        said = {401: "Unauthorized", 403: "Forbidden"}[status]
        assert (refused.status_code, refused.json()) == (status, {"message": said}), changes
        assert reason in refused.headers["www-authenticate"]
    for stranger in (Caller(tokens), Caller(tokens, x_api_key=str(tokens.api_key))):
        assert [stranger.call(method, path).status_code for method, path, _ in ROUTES] == [401] * len(ROUTES)
    for scopes in ("tagline/downloads", "openid tagline/downloads"):
        assert bearer(tokens, scope=scopes).ask().status_code in (202, 200)


def test_a_token_brings_its_bearers_own_rows_and_downloads_and_no_others(tokens: Pipeline) -> None:
    put_lake(tokens, YESTERDAY)
    acme, zeta, nobody = (bearer(tokens, client_id=name) for name in ("acme", "zeta", None))

    asked = acme.ask(client="acme").json()
    theirs = acme.ask(client="zeta")
    tokens.settle()

    assert (theirs.status_code, theirs.headers["content-type"]) == (403, "application/problem+json")
    assert "'zeta'" in theirs.json()["detail"]
    assert zeta.ask().json()["id"] != asked["id"]
    for method in ("GET", "DELETE"):
        assert zeta.call(method, asked["status_url"]).status_code == 404
        assert nobody.call(method, asked["status_url"]).status_code == 403
    assert nobody.ask().status_code == 403
    ready = acme.call("GET", asked["status_url"])
    assert ready.status_code == 200
    # The link speaks for itself: it takes no token.
    fetched = requests.get(ready.json()["download_link"], timeout=TIMEOUT_S)
    assert fetched.status_code == 200
    with zipfile.ZipFile(io.BytesIO(fetched.content)) as made:
        rows = made.read(f"{YESTERDAY}-part-00000.csv").decode().splitlines()[1:]
    assert (len(rows), {row.split(",")[1] for row in rows}) == (20, {"acme"})
    assert ready.json()["rows"] == 20
    assert acme.call("DELETE", asked["status_url"]).status_code == 204


def test_the_description_names_what_callers_have_to_bring(tokens: Pipeline) -> None:
    described = bearer(tokens).call("GET", "/openapi.json").json()

    assert described["security"] == [{"token": ["tagline/downloads"]}]
    scheme = described["components"]["securitySchemes"]["token"]
    assert (scheme["type"], scheme["scheme"], scheme["bearerFormat"]) == ("http", "bearer", "JWT")
    assert ISSUER in scheme["description"]


def test_a_program_that_reads_the_description_finds_nothing_wrong_with_the_api(tokens: Pipeline) -> None:
    caller = bearer(tokens, scope="tagline/downloads tagline/admin")
    put_lake(tokens, YESTERDAY)
    target_of(tokens).invoke("UsageRollerName", {})
    options = {
        "--header": f"Authorization: {caller.headers['authorization']}",
        "--exclude-checks": ",".join(EXCLUDED),
        "--max-examples": "10",
        "--seed": "1",
        "--generation-database": "none",
    }
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{caller.url}/openapi.json"]

    done = subprocess.run(
        [*command, *(word for option in options.items() for word in option)],
        capture_output=True,
        text=True,
        check=False,
    )

    if "No module named" in done.stderr:
        pytest.skip("schemathesis is not installed")
    assert done.returncode == 0, done.stdout[-5_000:] + done.stderr[-2_000:]
    assert "No issues found" in done.stdout, done.stdout[-5_000:]
    assert "Authentication failed" not in done.stdout, "nothing but refusals was looked at"


# --- how many ---------------------------------------------------------------------------------------------


def test_as_many_requests_as_the_template_says_are_let_through() -> None:
    stack = resolve(
        translate(ROOT / "template.yml"),
        {"Store": "timestream", "DownloadsPerSecond": "7", "DownloadsBurst": "15"},
        stack_name="tagline",
        endpoint="http://127.0.0.1",
    )
    (spec,) = http_apis(stack)
    assert spec.throttle is not None
    now_s = 0.0
    api = HttpApi(
        [Route("GET", "/openapi.json", "echo")],
        lambda _name, _payload: Result(b"{}", None, "id"),
        throttle=Throttle(*spec.throttle),
        clock_s=lambda: now_s,
    )

    def let_through() -> int:
        answers = [api.answer(Request("GET", "/openapi.json", [], b"", "127.0.0.1")) for _ in range(30)]
        passed = [answer.status for answer in answers].count(200)
        too_many = replace(answers[-1], headers=())
        assert (too_many.status, too_many.body) == (429, b'{"message":"Too Many Requests"}')
        return passed

    open_to_all = {"GET /health": (10.0, 20), "GET /health/live": (10.0, 20), "GET /health/ready": (10.0, 20)}
    assert spec.route_throttles == open_to_all
    assert let_through() == 15
    now_s = 1.0
    assert let_through() == 7
    now_s = 1_000.0
    assert let_through() == 15
    api.stop()


def test_a_caller_who_asks_too_often_is_told_so() -> None:
    with pipeline({"DownloadsPerSecond": "1"}, auth=False, throttling=True) as limited:
        caller = Caller(limited)
        seen = [caller.call("GET", "/openapi.json").status_code for _ in range(20)]
        # One more is let through each second, however slow this is: somewhere there is one too many.
        while seen[-1] != 429 and len(seen) < 1_000:
            seen.append(caller.call("GET", "/openapi.json").status_code)
    assert set(seen[:20]) == {200}
    assert seen[-1] == 429


def test_without_being_told_nothing_is_counted(tagline: Pipeline) -> None:
    caller = Caller(tagline)
    assert {caller.call("GET", "/openapi.json").status_code for _ in range(40)} == {200}
