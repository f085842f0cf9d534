"""What is measured and how: sampling plans, scorers, studies."""
