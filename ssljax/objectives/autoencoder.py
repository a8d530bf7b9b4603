"""Denoising autoencoder: give back the picture that was there before noise was added."""

import dataclasses
import math
from typing import ClassVar, final

import jax
import jax.numpy as jnp
from flax import linen as nn

from ssljax import rng as random
from ssljax.errors import UserError
from ssljax.models.branch import run
from ssljax.models.conv_autoencoder import ConvDecoder, ConvEncoder
from ssljax.types import Array, Batch, LossOutput, Objective, Params, State


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class DenoisingAutoencoder(Objective):
  """Encodes a picture with noise to a few numbers a place and decodes them to the picture without.

      loss = mean over pictures and pixels of (decoder(encoder(x + noise e)) - x)^2,   e ~ N(0, 1)

  What G-SimCLR clusters to know which pictures are alike (`ssljax data clusters`).

  Attributes:
    encoder: a `conv_autoencoder.ConvEncoder`; the decoder is its mirror image.
    noise: standard deviation, in the unit of the pictures as they come in.

  Raises:
    UserError: another encoder, noise out of range; in `init`, sides that are no multiple of the encoder's stride.

  Source: Vincent et al., "Extracting and Composing Robust Features with Denoising Autoencoders", 2008; as in
    Chakraborty, Gosthipaty, Paul, "G-SimCLR", 2020, arXiv 2009.12007.
  """

  encoder: nn.Module
  noise: float = 0.01
  batch_keys: ClassVar[tuple[str, ...]] = ("image",)
  couples_examples: ClassVar[bool] = True

  def __post_init__(self):
    if not isinstance(self.encoder, ConvEncoder):
      found = type(self.encoder).__name__
      raise UserError(
        f"autoencoder.DenoisingAutoencoder: encoder {found}, expected conv_autoencoder.ConvEncoder (it has a mirror)"
      )
    if not 0 <= self.noise < math.inf:
      raise UserError(f"autoencoder.DenoisingAutoencoder: noise {self.noise}, expected a finite number, 0 or more")

  def decoder(self, channels: int) -> ConvDecoder:
    """Returns the network from the encoder's places to pictures of so many channels."""
    return ConvDecoder(self.encoder.widths[::-1], channels, self.encoder.dtype)

  def init(self, rng: Array, batch: Batch) -> tuple[Params, State]:
    """Returns parameters and batch statistics of "encoder" and "decoder"."""
    _, height, width, channels = batch["image"].shape
    keys = jax.random.split(rng)
    encoder = self.encoder.init(keys[0], jnp.zeros((1, height, width, channels)))
    places = jnp.zeros((1, height // self.encoder.stride, width // self.encoder.stride, self.encoder.features))
    networks = {"encoder": encoder, "decoder": self.decoder(channels).init(keys[1], places)}
    params, stats = ({name: each[kind] for name, each in networks.items()} for kind in ("params", "batch_stats"))
    return params, stats

  def noisy(self, rng: Array, batch: Batch) -> Array:
    """Returns the pictures with the noise of their examples."""
    images = batch["image"]
    keys = random.example_keys(rng, batch["index"])
    return images + self.noise * jax.vmap(lambda key: jax.random.normal(key, images.shape[1:]))(keys)

  def reconstruct(self, params: Params, state: State, images: Array, *, train: bool) -> tuple[Array, State]:
    """Returns the pictures f32[B,H,W,C] that come back, and the next batch statistics."""
    batch, height, width, channels = images.shape
    found, encoder = run(self.encoder, params["encoder"], state["encoder"], images, train=train)
    places = found["tokens"].reshape(batch, height // self.encoder.stride, width // self.encoder.stride, -1)
    pictures, decoder = run(self.decoder(channels), params["decoder"], state["decoder"], places, train=train)
    return pictures, {"encoder": encoder, "decoder": decoder}

  def loss(self, params: Params, state: State, batch: Batch, *, rng: Array, step: Array) -> LossOutput:
    """Returns the mean squared error, and how much less it is than the mean picture's; `weight` is the pictures."""
    del step
    images = batch["image"]
    found, state = self.reconstruct(params, state, self.noisy(rng, batch), train=True)
    loss = jnp.mean(jnp.square(found - images))
    baseline = jnp.mean(jnp.square(images - jnp.mean(images, axis=0)))
    metrics = {"autoencoder/explained_variance": 1 - loss / baseline}
    return LossOutput(loss=loss, state=state, metrics=metrics, weight=len(images))

  def encode(self, params: Params, state: State, batch: Batch) -> dict[str, Array]:
    """Returns "embedding" f32[B,D] of pictures without noise, with the running batch statistics."""
    found, _ = run(self.encoder, params["encoder"], state["encoder"], batch["image"], train=False)
    return {"embedding": found["embedding"]}

  def show(self, params: Params, state: State, batch: Batch, *, rng: Array) -> dict[str, Array]:
    """Returns original, noisy and reconstructed images f32[N,3,H,W,C]."""
    noisy = self.noisy(rng, batch)
    found, _ = self.reconstruct(params, state, noisy, train=False)
    return {"original | with noise | reconstruction": jnp.stack([batch["image"], noisy, found], axis=1)}
