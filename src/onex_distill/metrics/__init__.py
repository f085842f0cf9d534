"""Metric maths, one file a family."""
