"""Amazon Timestream for LiveAnalytics on one machine: its limits, its rejections, its SQL."""

from local.timestream.engine import Timestream
from local.timestream.wire import Direct, install

__all__ = ["Direct", "Timestream", "install"]
