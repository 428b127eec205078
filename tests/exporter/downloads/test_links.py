"""Presigned links end when they say so."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import boto3
import pytest
from botocore.config import Config

from consumers.bucket import client_config
from exporter.downloads.links import Signer

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


class Sts:
    """Gives credentials that are good for an hour, and counts them."""

    def __init__(self) -> None:
        self.now = NOW
        self.assumed = 0

    def assume(self) -> dict[str, Any]:
        self.assumed += 1
        return {
            "AccessKeyId": f"ASIA{self.assumed}",
            "SecretAccessKey": "secret",
            "SessionToken": f"token-{self.assumed}",
            "Expiration": self.now + timedelta(hours=1),
        }

    def signer(self, config: Config) -> Signer:
        def client(credentials: Mapping[str, Any]) -> Any:
            return boto3.client(
                "s3",
                region_name="eu-west-1",
                config=config,
                aws_access_key_id=credentials["AccessKeyId"],
                aws_secret_access_key=credentials["SecretAccessKey"],
                aws_session_token=credentials["SessionToken"],
            )

        return Signer(self.assume, client, "lake", lambda: self.now)


def test_a_link_is_signed_with_version_4_for_the_regions_own_host_and_names_the_file() -> None:
    made = Sts().signer(client_config()).link("tmp/x.zip", seconds=600, filename="usage.zip")

    link = urlsplit(made.url)
    assert link.hostname == "lake.s3.eu-west-1.amazonaws.com"
    query = parse_qs(link.query)
    assert query["X-Amz-Algorithm"] == ["AWS4-HMAC-SHA256"]
    assert query["X-Amz-Expires"] == ["600"]
    assert query["X-Amz-Security-Token"] == ["token-1"]
    assert query["response-content-disposition"] == ['attachment; filename="usage.zip"']
    assert made.expires_at == NOW + timedelta(seconds=600)


@pytest.mark.parametrize(
    ("later", "seconds", "good", "assumed"),
    [
        (0, 3600, 3600, 1),
        (1799, 3600, 1801, 1),
        (1801, 3600, 3600, 2),
        (3000, 600, 600, 1),
        (3301, 600, 600, 2),
    ],
)
def test_a_link_ends_with_the_credentials_that_signed_it_and_says_so(
    later: int, seconds: int, good: int, assumed: int
) -> None:
    sts = Sts()
    signer = sts.signer(client_config())
    signer.link("k", seconds=60, filename="f.zip")
    sts.now += timedelta(seconds=later)

    made = signer.link("k", seconds=seconds, filename="f.zip")

    assert (made.expires_at - sts.now, sts.assumed) == (timedelta(seconds=good), assumed)
    assert parse_qs(urlsplit(made.url).query)["X-Amz-Expires"] == [str(good)]


def test_an_accelerated_link_names_the_accelerating_host() -> None:
    made = Sts().signer(client_config(accelerate=True)).link("k", seconds=60, filename="f")

    assert urlsplit(made.url).hostname == "lake.s3-accelerate.amazonaws.com"
