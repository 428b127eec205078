"""What watches a stack: a table of alarms, and the template, alert rules and dashboard that come of it."""
