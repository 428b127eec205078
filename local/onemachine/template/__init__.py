"""A template on one machine: SAM to CloudFormation, then plain values, then what there is to run."""
