"""Amazon Timestream for LiveAnalytics on one machine: its limits, its rejections, its SQL."""

from onemachine.timestream.engine import Timestream
from onemachine.timestream.wire import Direct, install

__all__ = ["Direct", "Timestream", "install"]
