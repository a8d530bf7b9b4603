"""Mean and standard deviation of pixel values, by name."""

from typing import Literal

import jax.numpy as jnp

from ssljax.types import Array

Statistics = Literal["imagenet", "clip", "half", "none"]
STATISTICS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
  "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
  "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),  # of CLIP's own pictures
  "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
  "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}


def normalize(images: Array, statistics: Statistics) -> Array:
  """Returns (images - mean) / std for images f32[...,3] in [0,1]."""
  mean, std = STATISTICS[statistics]
  return (images - jnp.array(mean)) / jnp.array(std)


def denormalize(images: Array, statistics: Statistics) -> Array:
  """Returns images * std + mean, clipped to [0,1]: the inverse of `normalize`, for pictures."""
  mean, std = STATISTICS[statistics]
  return jnp.clip(images * jnp.array(std) + jnp.array(mean), 0, 1)
