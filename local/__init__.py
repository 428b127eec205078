"""The services under the pipeline, on one machine: one file per service."""
