"""Mixtures of denoisers by name: which there are, how long a text each takes, and what an example becomes."""

import dataclasses
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from ssljax.data import denoising
from ssljax.errors import UserError, nearest

Layout = Literal["encoder_decoder", "decoder_only"]
Group = Literal["R", "S", "X", "C"]
GROUPS: tuple[Group, ...] = ("R", "S", "X", "C")  # a batch's `target_group` counts from 0 in this order
MODES: dict[str, dict[Group, str]] = {
  "ul2": {"R": "[NLU]", "S": "[S2S]", "X": "[NLG]", "C": "[S2S]"},  # those of the released 20B checkpoint
  "rsx": {"R": "[R]", "S": "[S]", "X": "[X]", "C": "[S]"},  # the paper's
  "absent": {},
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Denoiser:
  """One way to hide text.

  Attributes:
    group: R (regular), S (sequential), X (extreme), or C (causal: everything is a target).
    density: share of the tokens hidden; of a prefix split, on average; 1 leaves no prefix.
    mean_span: tokens a hidden span has on average; None: one span, from a random place to the end.
    rate: its share of the mixture's examples, before they are normalised.
  """

  group: Group
  density: float
  mean_span: float | None = None
  rate: float = 1.0

  def __post_init__(self):
    if self.group not in GROUPS:
      raise UserError(f"denoiser.group: unknown group {nearest(str(self.group), GROUPS)}")
    if not 0 < self.density <= 1 or (self.density == 1 and self.mean_span is not None):
      raise UserError(f"{self}: density, expected more than 0 and less than 1, or 1 without mean_span")
    if self.mean_span is None and 0.5 < self.density < 1:
      raise UserError(f"{self}: density of a prefix split, expected at most 0.5, or 1 (no prefix)")
    if (self.mean_span is not None and self.mean_span < 1) or self.rate < 0:
      raise UserError(f"{self}: expected mean_span of at least 1 and rate of at least 0")

  def __str__(self) -> str:
    if self.mean_span is None:
      return f"{self.group} (causal)" if self.density == 1 else f"{self.group} (prefix, r {self.density:g})"
    return f"{self.group} (mu {self.mean_span:g}, r {self.density:g})"

  def counts(self, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns (hidden tokens, sentinels) of examples of `lengths` tokens, two int64[N]; a prefix split's at most."""
    if self.mean_span is None:
      least = np.clip(np.rint((1 - 2 * self.density) * (lengths - 1)).astype(np.int64), 0, None)
      hidden = lengths if self.density == 1 else np.where(lengths < 2, lengths, lengths - np.maximum(least, 1))
      return hidden, np.zeros_like(lengths)
    hidden, spans = denoising.noise_counts(lengths, density=self.density, mean_span=self.mean_span)
    single = lengths < 2  # one token is predicted from nothing
    return np.where(single, lengths, hidden), np.where(single, 0, spans)


_R = (Denoiser(group="R", density=0.15, mean_span=3), Denoiser(group="R", density=0.15, mean_span=8))
_S = Denoiser(group="S", density=0.25)
_X = tuple(Denoiser(group="X", density=r, mean_span=mu) for mu, r in ((3, 0.5), (8, 0.5), (64, 0.15), (64, 0.5)))
MIXTURES: dict[str, tuple[Denoiser, ...]] = {
  # Table 1 of the paper, all at the same rate.
  "ul2": (*_R, _S, *_X),
  # U-PaLM's: half prefix language modelling, a quarter regular, a quarter extreme.
  "ul2r": (
    Denoiser(group="S", density=0.5, rate=0.5),
    Denoiser(group="R", density=0.15, mean_span=3, rate=0.25),
    Denoiser(group="X", density=0.15, mean_span=32, rate=0.125),
    Denoiser(group="X", density=0.5, mean_span=3, rate=0.125),
  ),
  "span_corruption": (Denoiser(group="R", density=0.15, mean_span=3),),
  "prefix_lm": (Denoiser(group="S", density=0.5),),
  "causal_lm": (Denoiser(group="C", density=1.0),),
}


class Sizes(NamedTuple):
  """Tokens of examples after corruption, mode token and end of sequence counted, int64[N] each."""

  inputs: np.ndarray
  targets: np.ndarray


@dataclasses.dataclass(frozen=True)
class Mixture:
  """Denoisers, their rates, and the lengths they have to fit.

  Attributes:
    denoisers: at least one.
    layout: encoder_decoder (inputs and targets apart) or decoder_only (targets after inputs, in one sequence).
    inputs_length: tokens an example may have for the encoder; of decoder_only: in its one sequence.
    targets_length: tokens an example may have for the decoder; unused by decoder_only.
    modes: which mode tokens come first: "ul2", "rsx" or "absent".
    row_inputs, row_targets: tokens of a row, which holds one example or several; None: those of an example.

  Raises:
    UserError: a denoiser that no text of two tokens fits, or rates that add up to nothing.
  """

  denoisers: tuple[Denoiser, ...]
  layout: Layout
  inputs_length: int
  targets_length: int
  modes: str = "ul2"
  row_inputs: int | None = None
  row_targets: int | None = None

  def __post_init__(self):
    rows = (("inputs", self.row_inputs, self.inputs_length), ("targets", self.row_targets, self.targets_length))
    for side, row, example in rows:
      if row is not None and row < example:
        raise UserError(f"data.text.row_{side}: found {row}, expected at least {side}_length={example}")
    if self.modes not in MODES:
      raise UserError(f"data.text.modes: unknown modes {nearest(self.modes, MODES)}")
    if not self.denoisers or sum(denoiser.rate for denoiser in self.denoisers) <= 0:
      raise UserError("data.text.denoisers: found none with a rate above 0, expected at least one")
    for denoiser, length in zip(self.denoisers, self.lengths, strict=True):
      if length < 2:
        raise UserError(
          f"data.text: no text fits denoiser {denoiser} in inputs_length={self.inputs_length}, "
          f"targets_length={self.targets_length}; expected longer ones"
        )

  @property
  def mode_names(self) -> tuple[str, ...]:
    """Returns the mode tokens, each once, also those the mixture does not use: ids must not depend on the mixture."""
    return tuple(dict.fromkeys(MODES[self.modes].values()))

  def mode(self, denoiser: Denoiser) -> str | None:
    """Returns the mode token of a denoiser."""
    return MODES[self.modes].get(denoiser.group)

  @property
  def capacity(self) -> tuple[int, ...]:
    """Returns the tokens a row has: (inputs, targets) or (sequence,)."""
    inputs = self.row_inputs or self.inputs_length
    return (inputs, self.row_targets or self.targets_length) if self.layout == "encoder_decoder" else (inputs,)

  @property
  def shares(self) -> np.ndarray:
    """Returns the denoisers' rates, f64[D], adding up to 1."""
    rates = np.array([denoiser.rate for denoiser in self.denoisers])
    return rates / rates.sum()

  def sizes(self, lengths: np.ndarray, visible: np.ndarray, sentinels: np.ndarray) -> Sizes:
    """Returns what examples of `lengths` tokens become, with so many visible tokens and sentinels on either side."""
    extra = int(bool(MODES[self.modes])) + int(self.layout == "encoder_decoder")
    return Sizes(visible + sentinels + extra, lengths - visible + sentinels + 1)

  @property
  def lengths(self) -> tuple[int, ...]:
    """Returns the longest text each denoiser takes, in tokens: whatever it hides, the row's lengths hold it."""
    return tuple(self._longest(denoiser) for denoiser in self.denoisers)

  def _longest(self, denoiser: Denoiser) -> int:
    tokens = np.arange(1, min(self.inputs_length + self.targets_length, denoising.MAX_LENGTH - 1) + 1)
    most, spans = denoiser.counts(tokens)
    split = denoiser.mean_span is None and denoiser.density < 1
    least = np.ones_like(tokens) if split else most
    fits = [self._fits(self.sizes(tokens, tokens - hidden, spans)) for hidden in (most, least)]
    return int(np.logical_and.accumulate(fits[0] & fits[1]).sum())

  def _fits(self, sizes: Sizes) -> np.ndarray:
    if self.layout == "decoder_only":
      return sizes.inputs + sizes.targets <= self.inputs_length
    return (sizes.inputs <= self.inputs_length) & (sizes.targets <= self.targets_length)

  @property
  def sentinels(self) -> int:
    """Returns the largest number of spans any denoiser makes of a text it takes."""
    pairs = zip(self.denoisers, self.lengths, strict=True)
    return max(int(denoiser.counts(np.arange(1, length + 1))[1].max()) for denoiser, length in pairs)


def named(mixture: str | Sequence[Denoiser]) -> tuple[Denoiser, ...]:
  """Returns the denoisers of a mixture's name, or those given.

  Raises:
    UserError: nothing has this name.
  """
  if not isinstance(mixture, str):
    return tuple(mixture)
  if mixture not in MIXTURES:
    raise UserError(f"data.text.mixture: unknown mixture {nearest(mixture, MIXTURES)}")
  return MIXTURES[mixture]
