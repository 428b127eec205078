"""Meter records out of the same stream: into files of an ingest bucket, or to an ingest API."""
