"""Records from `logging`."""

from __future__ import annotations

import logging
import traceback

from .annotations import Any, Union
from .collecting import request_ids
from .emitter import Emitter
from .values import repr_of

# The attributes of every log record; formatters, Lambda's runtime and Python 3.12 add the last ones.
_STANDARD = {
    *vars(logging.LogRecord("", 0, "", 0, "", None, None)),
    *("message", "asctime", "taskName", "aws_request_id", "tenant_id"),
}
MAX_TRACEBACK = 8_000  # characters; the last calls are the most telling


class LogHandler(logging.Handler):
    """Writes what goes through `logging` as records: message, logger, level, error and `extra`.

    In a request, they have the `request_id` and `correlation_id` of its record.

    Args:
        emitter: The emitter that writes the records.
        type: Their kind.
        level: The lowest level that is written.
    """

    def __init__(
        self, emitter: Emitter, *, type: str = "log", level: Union[int, str] = logging.NOTSET
    ) -> None:
        super().__init__(level)
        self._emitter = emitter
        self._type = type

    def emit(self, record: logging.LogRecord) -> None:
        """Write one log record. Raises nothing."""
        fields: dict[str, Any] = {**request_ids(), "logger": record.name, "log_level": record.levelname}
        try:
            fields["message"] = record.getMessage()
        except Exception:
            fields["message"] = repr_of(record.msg, str)  # its arguments do not fit it
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            fields.update(error=repr_of(error, str), error_type=type(error).__name__)
            fields["traceback"] = "".join(traceback.format_tb(error.__traceback__))[-MAX_TRACEBACK:]
        fields.update((name, value) for name, value in vars(record).items() if name not in _STANDARD)
        self._emitter.emit(fields, type=self._type, timestamp=record.created)
