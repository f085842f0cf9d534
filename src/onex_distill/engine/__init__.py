"""The training loop, its checkpoints and its randomness, and the update steps of every stage."""
