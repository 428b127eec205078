"""CloudWatch alarms: what they are about, when they change their state, and who is notified."""
