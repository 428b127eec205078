"""Days out of the store into the lake."""
