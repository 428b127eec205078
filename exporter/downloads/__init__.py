"""The download API: a range of days becomes a link."""
