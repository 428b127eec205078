"""What only Timestream answers when it does not do what it was asked."""

from dataclasses import dataclass

from onemachine.presto.errors import ServiceError


@dataclass(frozen=True, slots=True)
class Rejection:
    """One record that was not written, and why.

    Attributes:
        index: The record's place in the request, from 0.
        reason: The service's text.
        existing_version: The version that is stored already, where that is the reason.
    """

    index: int
    reason: str
    existing_version: int | None = None


class RejectedRecordsError(ServiceError):
    """Some records of a request were not written; those that are not named here were.

    Args:
        rejections: In the order of the request's records.
    """

    def __init__(self, rejections: tuple[Rejection, ...]) -> None:
        super().__init__(
            "RejectedRecordsException",
            "One or more records have been rejected. See RejectedRecords for details.",
        )
        self.rejections = rejections
