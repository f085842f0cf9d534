"""Loops over many students: fronts, the band search, recovery, the ablation, reuse errors."""
