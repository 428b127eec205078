"""CloudWatch lines out of a Kinesis batch: records, and what becomes of every line."""
