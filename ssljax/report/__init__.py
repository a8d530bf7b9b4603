"""What a run looks like: one page of curves, numbers and pictures that opens without a network."""
