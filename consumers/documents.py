"""The version of a stored document: readers ignore keys that they do not know, and refuse a newer version."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from consumers.errors import TaglineError

VERSION: Final = "format_version"


class NewerDocumentError(TaglineError, ValueError):
    """A newer version of Tagline has written the document."""


def check_version(document: Mapping[str, Any], newest: int) -> int:
    """Return a document's version; a document without one is of version 1.

    Args:
        document: The document's keys.
        newest: The newest version that the caller reads.

    Raises:
        NewerDocumentError: If the document's version is higher.
    """
    version = document.get(VERSION, 1)
    if not isinstance(version, int) or version > newest:
        raise NewerDocumentError(
            f"{VERSION} is {version!r}, and this version of Tagline reads up to {newest}: "
            "deploy the version that wrote it, or a newer one"
        )
    return version
