"""The files of the lake in S3: days, manifests, formats, locks."""
