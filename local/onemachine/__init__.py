"""AWS's services and Lambda functions on one machine: one file per service.

A template's stack runs as AWS would run it: `onemachine.pipeline` puts it together.
"""

__version__ = "0.1.0"
