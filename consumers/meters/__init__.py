"""Records out of the same stream: into an ingest bucket, to an ingest API, or into a search index."""
