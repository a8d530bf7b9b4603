"""The published augmentations, as one table of numbers."""

import dataclasses

import flax

from ssljax.augment.crop import Filter
from ssljax.augment.normalize import Statistics

Floats = tuple[float, ...]


@flax.struct.dataclass
class View:
  """The parameters of one view. Probabilities are shares of the pictures.

  Attributes:
    crop: smallest and largest share of the area of a random resized crop.
    flip: probability of a mirror image.
    jitter: strengths of brightness, contrast, saturation and hue.
    jitter_probability: probability that the colours are jittered.
    gray: probability of grayscale.
    blur: probability of a Gaussian blur.
    solarize: probability of solarising.
  """

  crop: Floats = (0.08, 1.0)
  flip: float = 0.5
  jitter: Floats = (0.0, 0.0, 0.0, 0.0)
  jitter_probability: float = 0.0
  gray: float = 0.0
  blur: float = 0.0
  solarize: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
  """The views a method makes of one picture.

  Attributes:
    views: the views of full size; none for a method that looks at the whole centre square.
    local_views: the small views of multi-crop.
    filter: the interpolation of its reference code.
    normalize: the pixel statistics of its reference code.
  """

  views: tuple[View, ...]
  local_views: tuple[View, ...] = ()
  filter: Filter = "bicubic"
  normalize: Statistics = "imagenet"


_SIMCLR = View(jitter=(0.8, 0.8, 0.8, 0.2), jitter_probability=0.8, gray=0.2, blur=0.5)
_SIMCLR_WEAK = _SIMCLR.replace(jitter=(0.4, 0.4, 0.4, 0.1))
_MOCO = View(crop=(0.2, 1.0), jitter=(0.4, 0.4, 0.4, 0.1), jitter_probability=0.8, gray=0.2, blur=0.5)
_BYOL = View(jitter=(0.4, 0.4, 0.2, 0.1), jitter_probability=0.8, gray=0.2)
_DINO = (
  _BYOL.replace(crop=(0.4, 1.0), blur=1.0),
  _BYOL.replace(crop=(0.4, 1.0), blur=0.1, solarize=0.2),
)

RECIPES: dict[str, Recipe] = {
  "none": Recipe(views=()),
  "mae": Recipe(views=(View(crop=(0.2, 1.0)),)),
  "ijepa": Recipe(views=(View(crop=(0.3, 1.0), flip=0.0),), filter="bilinear"),
  "simclr": Recipe(views=(_SIMCLR,) * 2, normalize="none"),
  "simclr_cifar": Recipe(views=(_SIMCLR.replace(jitter=(0.4, 0.4, 0.4, 0.1), blur=0.0),) * 2, normalize="none"),
  "moco_v2": Recipe(views=(_MOCO,) * 2, filter="bilinear"),
  "byol": Recipe(views=(_BYOL.replace(blur=1.0), _BYOL.replace(blur=0.1, solarize=0.2))),
  "dino": Recipe(views=_DINO, local_views=(_BYOL.replace(crop=(0.05, 0.4), blur=0.5),) * 8),
  # No mirror image where there are texts: they say left and right, and what is written.
  "clip": Recipe(views=(View(crop=(0.9, 1.0), flip=0.0),), normalize="clip"),
  # The first view is the teacher's. Small patches are cut from 60 to 100 % of the picture at 256 pixels.
  "obow": Recipe(
    views=(View(crop=(1.0, 1.0)), *(_MOCO.replace(crop=(0.08, 0.6)),) * 2),
    local_views=(_MOCO.replace(crop=(0.084, 0.141), blur=0.0),) * 5,
    filter="bilinear",
  ),
  # The first view is the one that goes with the text.
  "slip": Recipe(views=(View(crop=(0.5, 1.0), flip=0.0), *(_SIMCLR_WEAK,) * 2), filter="bilinear"),
  "swav": Recipe(
    views=(_SIMCLR.replace(crop=(0.14, 1.0)),) * 2,
    local_views=(_SIMCLR.replace(crop=(0.05, 0.14)),) * 6,
    filter="bilinear",
  ),
}
