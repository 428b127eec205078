"""The list of forgotten clients in the bucket, and its key, which is a secret outside of the bucket."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from typing import Any

from consumers.bucket import Objects
from consumers.settings import SettingsError
from exporter.lake.forgotten import KEY, Forgotten

ReadKey = Callable[[], bytes]


def no_key() -> bytes:
    """Refuse to return a key.

    Raises:
        SettingsError: Always.
    """
    raise SettingsError(f"{KEY} is there, but its key is not known: set FORGOTTEN_KEY_ARN")


def key_of_secret(arn: str, client: Callable[[str], Any]) -> ReadKey:
    """Return a function that reads the key from its secret, once.

    Args:
        arn: The ARN of the secret in Secrets Manager.
        client: Gives a boto3 client by a service's name.
    """

    @cache
    def read() -> bytes:
        secret: str = client("secretsmanager").get_secret_value(SecretId=arn)["SecretString"]
        return hashlib.sha256(secret.encode()).digest()

    return read


class ForgottenList:
    """The list of forgotten clients.

    Args:
        objects: The bucket.
        read_key: Gives the key; called only if there is a list, or a client is to be added.
    """

    def __init__(self, objects: Objects, read_key: ReadKey = no_key) -> None:
        self.objects = objects
        self.read_key = read_key

    def read(self) -> Forgotten | None:
        """Return the clients, or None if the list does not exist.

        Raises:
            WrongKeyError: If the list was written with another key.
        """
        found = self.objects.get(KEY)
        return None if found is None else Forgotten.from_json(found, self.read_key())

    def change(self, change: Callable[[Forgotten], Forgotten]) -> Forgotten:
        """Change the list by compare-and-swap, and return it; a list of an earlier release is written as new.

        Args:
            change: Gives the new list.
        """
        while True:
            found = self.objects.read(KEY)
            key = self.read_key()
            changed = change(Forgotten(key) if found is None else Forgotten.from_json(found[0], key))
            body = changed.to_json()
            if (found and found[0]) == body or self.objects.replace(KEY, body, found and found[1]):
                return changed
