"""Weights out of and into other libraries, by tables of names that are read in both directions."""
