"""What Timestream answers when it does not do what it was asked."""

from dataclasses import dataclass


class ServiceError(Exception):
    """An error that AWS models: boto3 raises it as ``client.exceptions.<code>``."""

    def __init__(self, code: str, message: str) -> None:
        """Keep the parts of the answer.

        Args:
            code: The error's name in the service's model, e.g. ``ValidationException``.
            message: What the caller reads.
        """
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class Rejection:
    """One record that was not written, and why.

    Args:
        index: The record's place in the request, from 0.
        reason: The service's text.
        existing_version: The version that is stored already, where that is the reason.
    """

    index: int
    reason: str
    existing_version: int | None = None


class RejectedRecordsError(ServiceError):
    """Some records of a request were not written; those that are not named here were."""

    def __init__(self, rejections: tuple[Rejection, ...]) -> None:
        """Keep the rejections.

        Args:
            rejections: In the order of the request's records.
        """
        super().__init__(
            "RejectedRecordsException",
            "One or more records have been rejected. See RejectedRecords for details.",
        )
        self.rejections = rejections


def invalid(message: str) -> ServiceError:
    """Name what is wrong with a request.

    Args:
        message: What the caller reads.

    Returns:
        The ValidationException to raise.
    """
    return ServiceError("ValidationException", message)
