"""The trainer: one step for every method, and the loop around it."""
