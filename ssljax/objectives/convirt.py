"""ConVIRT: images and texts attract each other through non-linear heads, images the more."""

import dataclasses
from typing import final

from ssljax.errors import UserError
from ssljax.losses.contrastive import softmax_loss
from ssljax.objectives.clip import _ImageText
from ssljax.types import Array


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class ConVIRT(_ImageText):
  """Classifies which of the batch's texts belongs to an image and, with less weight, which image to a text.

  The paper's towers have two-layer heads and a text tower that comes pretrained, whose first layers stay:

      model = dual.DualEncoder, initial_scale None, two dual.Tower with layers=2, width=512
      init  = [("params/text/encoder/(token_embedder|pos_embed|type_embed|norm_pre)", "freeze"),
               ("params/text/encoder/blocks/[0-5]/", "freeze")]

  Attributes:
    model: a `dual.DualEncoder` that learns neither scale nor bias.
    pairs: how the logits of all pairs are computed, as in `simclr.SimCLR`.
    temperature: what cosines are divided by.
    image_weight: of the direction from images to texts; the other has the rest of 1.

  Raises:
    UserError: another model or one with a scale or bias, a number out of range, an unknown way for the pairs; in
      `init`, a batch of one example.

  Source: Zhang, Jiang, Miura, Manning, Langlotz, "Contrastive Learning of Medical Visual Representations from Paired
    Images and Text", 2020, arXiv 2010.00747.
  Differs from the reference: a caption is taken whole, the authors draw one sentence of it.
  """

  temperature: float = 0.1
  image_weight: float = 0.75

  def __post_init__(self):
    self._check("convirt.ConVIRT")
    for key in ("initial_scale", "initial_bias"):
      if getattr(self.model, key) is not None:
        found = f"model.{key} {getattr(self.model, key)}"
        raise UserError(f"convirt.ConVIRT: {found}, expected None: the temperature is the objective's and fixed")
    if not self.temperature > 0:
      raise UserError(f"convirt.ConVIRT: temperature {self.temperature}, expected more than 0")
    if not 0 <= self.image_weight <= 1:
      raise UserError(f"convirt.ConVIRT: image_weight {self.image_weight}, expected a share, from 0 to 1")

  def _loss(self, image: Array, text: Array, scale: Array, bias: Array) -> Array:
    del scale, bias
    return softmax_loss(image, text, scale=1 / self.temperature, image_weight=self.image_weight, pairs=self.pairs)
