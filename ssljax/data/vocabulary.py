"""The ids a model knows: a tokenizer's pieces, then mode tokens, then sentinels that count down from the last id."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Literal

import numpy as np

from ssljax.data.tokenizer import Tokenizer
from ssljax.errors import UserError

Kind = Literal["text", "sentinel", "mode", "special"]


@dataclasses.dataclass(frozen=True)
class Vocabulary:
  """A tokenizer with what denoising adds to it.

  Where the tokenizer has T5's sentinels (<extra_id_0>, ...) or a mode token as a piece of its own, that piece serves.

  Attributes:
    tokenizer: pieces, padding (0) and end of sequence.
    modes: the mode tokens, such as "[NLU]".
    sentinels: how many the denoisers need.

  Raises:
    UserError: the tokenizer has sentinels, but fewer.
  """

  tokenizer: Tokenizer
  modes: tuple[str, ...]
  sentinels: int

  def __post_init__(self):
    if self._own_sentinels and self._own_sentinels < self.sentinels:
      raise UserError(
        f"data.text: the denoisers make up to {self.sentinels} spans, the tokenizer has {self._own_sentinels} "
        "sentinels (longer spans, shorter inputs_length, or another tokenizer)"
      )

  @functools.cached_property
  def _own_sentinels(self) -> int:
    first, count = self.tokenizer.id("<extra_id_0>"), 0
    while first is not None and self.tokenizer.id(f"<extra_id_{count}>") == first - count:
      count += 1
    return count

  @functools.cached_property
  def _added_modes(self) -> tuple[str, ...]:
    return tuple(mode for mode in self.modes if self.tokenizer.id(mode) is None)

  @property
  def size(self) -> int:
    """Returns the number of ids."""
    return self.tokenizer.size + len(self._added_modes) + (0 if self._own_sentinels else self.sentinels)

  @property
  def last_sentinel(self) -> int:
    """Returns the id of the first span's sentinel; span k's is k lower."""
    first = self.tokenizer.id("<extra_id_0>") if self._own_sentinels else None
    return self.size - 1 if first is None else first

  @property
  def eos(self) -> int:
    """Returns the id of the end of sequence."""
    return self.tokenizer.eos

  def mode(self, name: str) -> int:
    """Returns the id of a mode token."""
    own = self.tokenizer.id(name)
    return self.tokenizer.size + self._added_modes.index(name) if own is None else own

  @functools.cached_property
  def bytes_of(self) -> np.ndarray:
    """Returns how many bytes of text each id stands for, uint8[size]; 0 for what is no text."""
    table = np.zeros(self.size, np.uint8)
    table[: self.tokenizer.size] = self.tokenizer.bytes_of
    table[self.last_sentinel - self.sentinels + 1 : self.last_sentinel + 1] = 0
    for name in self.modes:
      table[self.mode(name)] = 0
    return table

  def kind(self, token: int) -> Kind:
    """Returns what an id is."""
    if self.last_sentinel - self.sentinels < token <= self.last_sentinel:
      return "sentinel"
    if token in {self.mode(name) for name in self.modes}:
      return "mode"
    return "special" if token in (self.tokenizer.pad, self.eos) or token >= self.size else "text"

  def spell(self, ids: Sequence[int]) -> list[tuple[Kind, str]]:
    """Returns the ids as readable pieces: runs of text, <0> <1> ... for sentinels, mode tokens, </s>."""
    names = {self.mode(name): name for name in self.modes} | {self.eos: "</s>", self.tokenizer.pad: "<pad>"}
    pieces: list[tuple[Kind, str]] = []
    text: list[int] = []

    def flush() -> None:
      if text:
        pieces.append(("text", self.tokenizer.decode(text)))
        text.clear()

    for token in map(int, ids):
      kind = self.kind(token)
      if kind == "text":
        text.append(token)
        continue
      flush()
      pieces.append(
        (kind, f"<{self.last_sentinel - token}>" if kind == "sentinel" else names.get(token, f"<{token}?>"))
      )
    flush()
    return pieces
