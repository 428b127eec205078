"""WriteRecords with a body that we make, sent by botocore; a plain call where that cannot be relied on.

botocore's validation and serialisation take nine tenths of what a request costs, for a body that the mapping
can write down directly. So the call is made without records, and the body is put in by a handler of
botocore's event `before-call`, after which botocore signs and sends it like its own. botocore does not
promise that event, so each request is looked at once more when it is signed, at its documented event
`before-send`: what is about to go out is our body, or it does not go out.
https://docs.aws.amazon.com/botocore/latest/topics/events.html
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import orjson

_SERVICE_OPERATION = "timestream-write.WriteRecords"


class Calls:
    """Calls of WriteRecords by one client, from any number of threads.

    Args:
        client: A boto3 client for timestream-write, without validation of parameters. What has no events, and
            a botocore that does not emit them, gets plain calls.

    Attributes:
        plain: Whether calls are plain from now on.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._thread = _Sending()
        events = getattr(getattr(client, "meta", None), "events", None)
        self.plain = events is None
        if events is not None:
            events.register(f"before-call.{_SERVICE_OPERATION}", self._put_body)
            events.register(f"before-send.{_SERVICE_OPERATION}", self._check_body)

    def write(self, body: bytes, records: int) -> Mapping[str, Any]:
        """Send a request and return its answer; what the client raises passes through.

        Args:
            body: The request's JSON.
            records: How many records are in it.
        """
        if not self.plain:
            try:
                answer = self._with_body(body)
            except _NotOurBodyError:
                # Nothing was written: what went out, if anything did, had no records in it.
                self.plain = True
            else:
                if answer.get("RecordsIngested", {}).get("Total", records) == records:
                    return answer
                # Not all of it was understood. Saying it again stores nothing twice.
        answered: Mapping[str, Any] = self._client.write_records(**orjson.loads(body))
        return answered

    def _with_body(self, body: bytes) -> Mapping[str, Any]:
        sending = self._thread
        sending.body, sending.put, sending.checked = body, False, False
        try:
            answer: Mapping[str, Any] = self._client.write_records(Records=[])
        except _NotOurBodyError:
            raise
        except Exception as error:
            if sending.put:
                raise  # about our request, whatever it is
            raise _NotOurBodyError from error
        finally:
            sending.body = None
        if not sending.checked:
            raise _NotOurBodyError
        return answer

    def _put_body(self, params: dict[str, Any], **_event: Any) -> None:
        if self._thread.body is not None:
            params["body"] = self._thread.body
            self._thread.put = True

    def _check_body(self, request: Any, **_event: Any) -> None:
        """Stop a signed request whose body is another: what botocore raises from here, it does not send."""
        if self._thread.body is not None:
            if request.body != self._thread.body:
                raise _NotOurBodyError
            self._thread.checked = True


class _Sending(threading.local):
    """The body that a thread is sending, and how far it has got; none while a call is plain."""

    body: bytes | None = None
    put = False
    checked = False


class _NotOurBodyError(Exception):
    """The client does not send what it was given."""
