"""Tables of tensors on disk, read lazily by row."""
