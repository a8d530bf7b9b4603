"""ssljax: pretraining without labels in JAX, from one config file, on a laptop CPU, a GPU node or a TPU pod."""

__version__ = "0.1.0"
