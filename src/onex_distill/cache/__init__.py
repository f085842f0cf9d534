"""Distill-Cache: which blocks a step skips, what stands in for them, and the exported student."""
