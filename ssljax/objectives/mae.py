"""Masked autoencoder: predict the pixels of hidden patches from the visible ones."""

import dataclasses
from typing import ClassVar, final

import jax
import jax.numpy as jnp
from flax import linen as nn

from ssljax import rng as random
from ssljax.errors import UserError
from ssljax.models.mae_decoder import MAEDecoder
from ssljax.models.patches import grid_shape, patchify, unpatchify
from ssljax.models.vit import ViT
from ssljax.types import Array, Batch, LossOutput, Objective, Params, Part, State

__all__ = ["MAE", "mae_loss", "normalize_patches", "patchify", "random_masking", "unpatchify"]


def num_kept(count: int, *, ratio: float) -> int:
  """Returns int(count (1 - ratio)): how many of `count` patches stay visible.

  Raises:
    UserError: the ratio leaves no patch visible or none hidden.
  """
  kept = int(count * (1 - ratio))
  if not 0 < kept < count:
    raise UserError(f"mask_ratio: {ratio} keeps {kept} of {count} patches, expected 1 to {count - 1}")
  return kept


def random_masking(noise: Array, *, ratio: float) -> tuple[Array, Array, Array]:
  """Returns (keep_idx int32[B,K], restore_idx int32[B,N], mask f32[B,N]) for noise[B,N].

  The K = int(N (1 - ratio)) patches of smallest noise stay, in the order of their noise; restore_idx undoes the
  shuffle (its values below K are places in keep_idx); mask is 1 where a patch is hidden.

  Raises:
    UserError: the ratio leaves no patch visible or none hidden.
  """
  count = noise.shape[-1]
  kept = num_kept(count, ratio=ratio)
  shuffle = jnp.argsort(noise, axis=-1)
  restore_idx = jnp.argsort(shuffle, axis=-1)
  return shuffle[:, :kept], restore_idx, (restore_idx >= kept).astype(jnp.float32)


def patch_statistics(patches: Array) -> tuple[Array, Array]:
  """Returns mean and sqrt(unbiased variance + 1e-6) of each patch: two f32[B,N,1] for patches[B,N,P]."""
  variance = jnp.var(patches, axis=-1, keepdims=True, ddof=1)
  return jnp.mean(patches, axis=-1, keepdims=True), jnp.sqrt(variance + 1e-6)


def normalize_patches(patches: Array) -> Array:
  """Returns patches[B,N,P] with each patch's mean taken off, over its deviation (`patch_statistics`)."""
  mean, deviation = patch_statistics(patches)
  return (patches - mean) / deviation


def mae_loss(prediction: Array, target: Array, mask: Array) -> Array:
  """Returns sum(mask * mean_pixels (prediction - target)^2) / sum(mask): f32[] for [B,N,P], [B,N,P], [B,N]."""
  error = jnp.mean(jnp.square(prediction - target), axis=-1)
  return jnp.sum(error * mask) / jnp.sum(mask)


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class MAE(Objective):
  """Hides most patches at random, encodes the rest and regresses the pixels of the hidden.

  Attributes:
    encoder: a `vit.ViT`.
    decoder_width, decoder_depth, decoder_heads: size of the decoder, which is thrown away after pretraining.
    mask_ratio: share of patches hidden; their number is the same in every image.
    norm_pix: regress pixels normalised by their patch's mean and deviation.

  Raises:
    UserError: the encoder is no ViT, or the sizes do not fit.

  Source: He et al., Masked Autoencoders Are Scalable Vision Learners, 2021, arXiv 2111.06377.
  Differs from the reference: the bias of the patch embedding starts at zero.
  """

  encoder: nn.Module
  decoder_width: int = 512
  decoder_depth: int = 8
  decoder_heads: int = 16
  mask_ratio: float = 0.75
  norm_pix: bool = True
  batch_keys: ClassVar[tuple[str, ...]] = ("image",)

  def __post_init__(self):
    if not isinstance(self.encoder, ViT):
      raise UserError(f"mae.MAE: encoder {type(self.encoder).__name__}, expected vit.ViT (it encodes visible patches)")
    num_kept(self.count, ratio=self.mask_ratio)
    _ = self.decoder

  @property
  def count(self) -> int:
    """Patches in an image."""
    return self.encoder.grid[0] * self.encoder.grid[1]

  @property
  def decoder(self) -> MAEDecoder:
    """The decoder that fits the encoder."""
    return MAEDecoder(
      grid=self.encoder.grid,
      outputs=self.encoder.patch**2 * self.encoder.channels,
      width=self.decoder_width,
      depth=self.decoder_depth,
      heads=self.decoder_heads,
      dtype=self.encoder.dtype,
      remat=self.encoder.remat,
    )

  def parts(self) -> dict[str, Part]:
    """Returns "encoder" and "decoder"."""
    return {"encoder": Part(self.encoder, "encoder", None), "decoder": Part(self.decoder, "decoder", None)}

  def init(self, rng: Array, batch: Batch) -> tuple[Params, State]:
    """Returns {"encoder", "decoder"} and no state."""
    encoder_key, decoder_key = jax.random.split(rng)
    images = jnp.zeros((1, *batch["image"].shape[1:]))
    encoder = self.encoder.init(encoder_key, images)["params"]
    tokens, order = jnp.zeros((1, self.count, self.encoder.features)), jnp.arange(self.count)[None]
    decoder = self.decoder.init(decoder_key, tokens, order)["params"]
    return {"encoder": encoder, "decoder": decoder}, {}

  def masking(self, rng: Array, index: Array, *, count: int | None = None) -> tuple[Array, Array, Array]:
    """Returns `random_masking` of `count` patches (by default `self.count`) from the keys of examples uint32[B,2]."""
    noise = jax.vmap(lambda key: jax.random.uniform(key, (count or self.count,)))(random.example_keys(rng, index))
    return random_masking(noise, ratio=self.mask_ratio)

  def reconstruct(
    self, params: Params, images: Array, keep_idx: Array, restore_idx: Array, *, keys: Array | None = None
  ) -> Array:
    """Returns predictions f32[B,N,P] for all patches of images[B,H,W,C] from those in `keep_idx`."""
    encoded = self.encoder.apply({"params": params["encoder"]}, images, keep=keep_idx, keys=keys)
    decoder = self.decoder.clone(grid=grid_shape(*images.shape[1:3], patch=self.encoder.patch))
    return decoder.apply({"params": params["decoder"]}, encoded["tokens"], restore_idx, cls=encoded.get("cls"))

  def loss(self, params: Params, state: State, batch: Batch, *, rng: Array, step: Array) -> LossOutput:
    """Returns the mean squared error over hidden patches; `weight` is their number."""
    del step
    images = batch["image"]
    target = patchify(images, patch=self.encoder.patch)
    keep_idx, restore_idx, mask = self.masking(rng, batch["index"], count=target.shape[1])
    path_keys = random.example_keys(jax.random.fold_in(rng, 1), batch["index"])
    prediction = self.reconstruct(params, images, keep_idx, restore_idx, keys=path_keys)
    if self.norm_pix:
      target = normalize_patches(target)
    loss = mae_loss(prediction, target, mask)
    baseline = mae_loss(jnp.mean(target, axis=(0, 1)), target, mask)  # what the mean patch would leave
    return LossOutput(
      loss=loss, state=state, metrics={"mae/explained_variance": 1 - loss / baseline}, weight=jnp.sum(mask)
    )

  def encode(self, params: Params, state: State, batch: Batch) -> dict[str, Array]:
    """Returns "embedding" as the encoder pools it, and "cls" and "mean" (of patch tokens), all f32[B,D]."""
    del state
    encoded = self.encoder.apply({"params": params["encoder"]}, batch["image"])
    mean = jnp.mean(encoded.pop("tokens"), axis=1)
    return encoded | {"mean": mean}

  def show(self, params: Params, state: State, batch: Batch, *, rng: Array) -> dict[str, Array]:
    """Returns original, masked and reconstructed images f32[N,3,H,W,C]; visible patches are pasted in."""
    del state
    images, patch = batch["image"], self.encoder.patch
    patches = patchify(images, patch=patch)
    keep_idx, restore_idx, mask = self.masking(rng, batch["index"], count=patches.shape[1])
    prediction, hidden = self.reconstruct(params, images, keep_idx, restore_idx), mask[..., None]
    if self.norm_pix:
      mean, deviation = patch_statistics(patches)
      prediction = prediction * deviation + mean
    visible = patches * (1 - hidden)
    rows = [patches, visible, visible + prediction * hidden]
    return {"original | masked | reconstruction": jnp.stack([unpatchify(row, patch=patch) for row in rows], axis=1)}
