"""Stage 2: a Kinesis batch of CloudWatch lines becomes rows in a store."""
