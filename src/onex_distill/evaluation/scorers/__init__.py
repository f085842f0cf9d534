"""What scores images: recipes that prepare them, the networks, and their weights."""
