"""CloudWatch Logs Insights on one machine: its query language, its fields, its five operations."""

from onemachine.insights.client import Answer, QueryFailedError, ask
from onemachine.insights.engine import Result
from onemachine.insights.fields import Event
from onemachine.insights.query import run
from onemachine.insights.service import install
from onemachine.insights.syntax import MalformedQueryError

__all__ = ["Answer", "Event", "MalformedQueryError", "QueryFailedError", "Result", "ask", "install", "run"]
