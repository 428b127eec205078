"""Amazon Athena on one machine: queries over the Glue catalog's tables and the files that they name."""

from onemachine.athena.service import install

__all__ = ["install"]
