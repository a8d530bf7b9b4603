"""Data on the host: sources, splits and the step-indexed stream. NumPy only, no jax."""
