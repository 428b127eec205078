"""CloudWatch Logs Insights on one machine: its query language, its fields, its five operations."""

from local.insights.client import Answer, QueryFailedError, ask
from local.insights.engine import Result
from local.insights.fields import Event
from local.insights.query import run
from local.insights.service import install
from local.insights.syntax import MalformedQueryError

__all__ = ["Answer", "Event", "MalformedQueryError", "QueryFailedError", "Result", "ask", "install", "run"]
