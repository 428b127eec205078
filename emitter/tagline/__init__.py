"""Write one tagged line per request to stdout, and read it back.

No dependency, no I/O but one write per record, and none of its exceptions ever reaches the handler. Install
it, attach it as a layer, or copy this folder.

    from tagline import Emitter, add

    emitter = Emitter()

    @emitter.handler
    def handler(event, context):
        add(client="acme", items=3)          # from anywhere in the call
        return {"statusCode": 200}

docs/reference/line.md describes the line. To read the code: `emitter` makes a line from `values`, without
what `privacy` masks, and `output` writes it. `collecting` gathers a record's fields while code runs,
`handlers` decides when that code is over, and `invocation` reads what Lambda gives it. `asgi` and `wsgi` are
middlewares around the same `Draft`. `budget`, `metrics`, `logs` and `record` are imported when first used.

To keep cold starts short, the core imports only standard modules that Lambda's runtime client has loaded
already, and `contextvars`; others lazily, and types only for the type checker.
"""

from .annotations import TYPE_CHECKING
from .collecting import Draft, add, add_copy, outgoing_headers
from .emitter import Emitter
from .handlers import carry
from .invocation import CORRELATION_HEADERS, DEFAULT_TIMEOUT_MARGIN_MS, MAX_CORRELATION_ID, correlation_id
from .output import DEFAULT_MAX_LINE_BYTES, MAX_LINE_BYTES, MAX_NAME_BYTES, MIN_LINE_BYTES
from .privacy import MASK, MASKED_NAMES, MIN_NAME_END, UNMASKED_NAMES, Privacy
from .values import DEFAULT_TAG, DEFAULT_TYPE, MAX_DEPTH, MAX_REPR, format_timestamp, parse_timestamp

if TYPE_CHECKING:
    from .logs import LogHandler
    from .metrics import MAX_METRICS, UNITS
    from .record import Record, UnreadableLineError, read, write

__version__ = "0.3.0"

__all__ = ["Draft", "Emitter", "LogHandler", "Privacy", "Record", "UnreadableLineError"]
__all__ += ["add", "add_copy", "carry", "correlation_id", "outgoing_headers"]
__all__ += ["format_timestamp", "parse_timestamp", "read", "write"]
__all__ += ["CORRELATION_HEADERS", "DEFAULT_MAX_LINE_BYTES", "DEFAULT_TAG", "DEFAULT_TIMEOUT_MARGIN_MS"]
__all__ += ["DEFAULT_TYPE", "MASK", "MASKED_NAMES", "MAX_CORRELATION_ID", "MAX_DEPTH", "MAX_LINE_BYTES"]
__all__ += ["MAX_METRICS", "MAX_NAME_BYTES", "MAX_REPR", "MIN_LINE_BYTES", "MIN_NAME_END"]
__all__ += ["UNITS", "UNMASKED_NAMES"]


_LAZY = {"LogHandler": "logs", "MAX_METRICS": "metrics", "UNITS": "metrics", "Record": "record"}
_LAZY.update(UnreadableLineError="record", read="record", write="record")


def __getattr__(name: str) -> object:
    """Import lazily what most functions do not use: each file takes a tenth of a millisecond."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(f".{_LAZY[name]}", __name__), name)
    return value
