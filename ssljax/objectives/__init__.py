"""Pretraining methods, one file each; the names a config may write as `"file.Class"`."""
