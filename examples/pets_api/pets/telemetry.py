"""Logs, metrics and usage records. Their settings are in the function's environment: template.yml."""

import warnings

from aws_lambda_powertools import Logger, Metrics
from tagline import Emitter

logger = Logger()
metrics = Metrics()
emitter = Emitter()

# Most requests have no metric, and Powertools would warn about that on stderr.
warnings.filterwarnings("ignore", "No application metrics to publish")
