"""A function that says again what a web server's access log said: one record per request, as it was then.

It is invoked with `{"requests": [{"id": ..., "timestamp": ..., <fields>}]}`. The same request has the same id
and the same time whenever it is said, so saying it twice changes nothing in the store.
"""

from typing import Any

from tagline import Emitter

emitter = Emitter()


def handler(event: dict[str, Any], context: Any) -> dict[str, int]:  # noqa: ARG001 - the handler's signature
    """Write one line per request, and return how many."""
    for request in event["requests"]:
        fields = dict(request)
        emitter.emit(fields, id=fields.pop("id"), timestamp=fields.pop("timestamp"))
    return {"emitted": len(event["requests"])}
