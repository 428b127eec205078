"""Why a zip cannot be made: a sentence for its caller, and whether trying again may help.

A caller may be a tenant. So a sentence has days, names of the lake's files and what the caller asked for, and
never the text of another service's error. That is in the worker's log, under the incident.
"""

from __future__ import annotations

from typing import NamedTuple

from botocore.exceptions import BotoCoreError, ClientError

from consumers.documents import NewerDocumentError
from consumers.errors import TaglineError

# Codes of S3 for failures that pass: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
_PASSING = ("SlowDown", "Throttling", "ThrottlingException", "RequestTimeout", "RequestTimeTooSkewed")
_FIRST_SERVER_ERROR = 500
_GONE = ("NoSuchKey", "404", "PreconditionFailed", "412")


class UnavailableError(TaglineError, ValueError):
    """A zip that cannot be made, and trying again does not help; the message has the reason."""


class DamagedError(TaglineError, ValueError):
    """A file of the lake is not as it was written; the message names it."""


class GoneError(TaglineError):
    """A file of the lake is not there any more; the message names it."""


class SlowError(TaglineError, TimeoutError):
    """An invocation made no progress in its time."""


class Failure(NamedTuple):
    """The part of a job's document about an error.

    Attributes:
        reason: A sentence for the caller.
        passes: Whether the error is transient: the job stays, and is resumed where it is.
        again: Whether the zip is begun again after a while.
        is_ours: Whether the caller can do nothing about it, and somebody should look into the log.
    """

    reason: str
    passes: bool = False
    again: bool = True
    is_ours: bool = True


def failure_of(error: Exception) -> Failure:
    """Return the part of a job's document about an error, whatever it is."""
    if isinstance(error, UnavailableError):
        return Failure(str(error), again=False, is_ours=False)
    if isinstance(error, DamagedError | GoneError | NewerDocumentError | SlowError):
        return Failure(str(error))
    if passes(error):
        return Failure("the storage did not answer several times in a row: ask again", passes=True)
    return Failure("an internal error: ask again, or tell the operator the incident")


def passes(error: Exception) -> bool:
    """Tell whether an error of S3 is transient: throttling, a broken connection, a server error."""
    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return error.response["Error"]["Code"] in _PASSING or status >= _FIRST_SERVER_ERROR
    return isinstance(error, BotoCoreError | ConnectionError)


def file_error(key: str, error: Exception) -> Exception:
    """Return an error that reading a file of the lake raised, as one that names the file."""
    if passes(error) or (isinstance(error, TaglineError) and not isinstance(error, NewerDocumentError)):
        return error
    if isinstance(error, ClientError):
        code = error.response["Error"]["Code"]
        if code == "InvalidObjectState":
            return UnavailableError(f"{key} is in the archive: restore it, or ask for later days")
        if code in _GONE:
            return GoneError(f"{key} is gone, as after a new export of its day: ask again")
        return GoneError(f"{key} cannot be read: ask again, or tell the operator the incident")
    if isinstance(error, NewerDocumentError):
        return DamagedError(f"{key} cannot be read: {error}")
    if isinstance(error, ValueError | KeyError | TypeError):
        return DamagedError(f"{key} is damaged: tell the operator")
    return error
