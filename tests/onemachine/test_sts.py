"""Links of assumed roles are good as long as their credentials."""

from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from moto import mock_aws
from onemachine.signatures import SignatureError
from onemachine.sts import Secrets


def assumed() -> Any:
    client = boto3.client("sts", region_name="us-east-1")
    arn = "arn:aws:iam::123456789012:role/links"
    return client.assume_role(RoleArn=arn, RoleSessionName="links", DurationSeconds=900)["Credentials"]


@mock_aws
def test_the_secret_of_an_assumed_role_is_known_until_its_credentials_end() -> None:
    credentials = assumed()
    key = credentials["AccessKeyId"]
    now = datetime.now(UTC)
    secrets = Secrets({"lasting": "secret"}, lambda: now)

    assert secrets[key] == credentials["SecretAccessKey"]
    assert (set(secrets), len(secrets)) == ({"lasting", key}, 2)

    now += timedelta(seconds=901)

    # https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html: ExpiredToken, 400
    with pytest.raises(SignatureError, match="The provided token has expired") as caught:
        key in secrets  # noqa: B015 - asking is what is refused
    assert (caught.value.code, caught.value.status) == ("ExpiredToken", 400)
    assert secrets["lasting"] == "secret"


@mock_aws
def test_a_key_that_nobody_has_is_unknown() -> None:
    assert "AKIASTRANGER" not in Secrets({})
