"""Stage one: structure-focused distribution matching."""
