"""The download worker: files of the lake become a zip."""
