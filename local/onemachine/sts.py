"""STS: the secrets of roles that were assumed in moto, for as long as they may be used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC

from moto.sts.models import sts_backends

from onemachine.clock import Now, real_time
from onemachine.functions import ACCOUNT_ID
from onemachine.signatures import SignatureError

_PARTITION = "aws"


class Secrets(Mapping[str, str]):
    """Secret access keys by access key id: some that never end, and those of roles that were assumed.

    Args:
        lasting: Those that never end.
        clock: Says what time it is, with a time zone.
    """

    def __init__(self, lasting: Mapping[str, str], clock: Now = real_time) -> None:
        self._lasting = lasting
        self._clock = clock

    def __getitem__(self, access_key: str) -> str:
        """Return a secret.

        Raises:
            KeyError: Nobody has such a key.
            SignatureError: The session is over: S3's `ExpiredToken`,
                https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
        """
        if access_key in self._lasting:
            return self._lasting[access_key]
        role = sts_backends[ACCOUNT_ID][_PARTITION].get_assumed_role_from_access_key(access_key)
        if role is None:
            raise KeyError(access_key)
        if role.expiration.replace(tzinfo=UTC) <= self._clock():
            raise SignatureError("ExpiredToken", "The provided token has expired.", 400)
        return str(role.secret_access_key)

    def __iter__(self) -> Iterator[str]:
        """Yield the access key ids."""
        yield from self._lasting
        yield from (role.access_key_id for role in sts_backends[ACCOUNT_ID][_PARTITION].assumed_roles)

    def __len__(self) -> int:
        """Return how many there are."""
        return sum(1 for _ in self)
