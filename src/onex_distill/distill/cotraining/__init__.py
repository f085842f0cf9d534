"""Co-training of the student with its cache: the fractional step."""
