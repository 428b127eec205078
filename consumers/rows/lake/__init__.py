"""The consumer whose store is the lake: Parquet files in S3."""
