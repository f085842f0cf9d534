"""onex-distill: distil a 28-step, guided text-to-image teacher into a student of 1.x network evaluations."""

__version__ = "0.1.0"
