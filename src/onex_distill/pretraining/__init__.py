"""The embedded teacher, from nothing."""
