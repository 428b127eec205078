"""Access logs: a file of any packing -> lines -> requests, in the format that its first lines have."""
