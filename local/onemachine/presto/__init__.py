"""The SQL that Timestream and Athena have from Presto: read with its types, written as DuckDB's."""
