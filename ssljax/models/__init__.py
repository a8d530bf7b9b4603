"""Encoders, heads and decoders: Flax Linen modules used as pure functions by `init` and `apply`."""
