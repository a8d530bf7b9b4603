"""Views that change as training goes on: small and calm at first, in the end as they are meant to be."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ssljax import build
from ssljax.augment.views import Views
from ssljax.errors import UserError

Section = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stages:
  """The views of each step by a table of stages; what is not in it is as in `views`, those of the last steps.

  EfficientTrain's first stage of five, at 224 pixels: {"until": "180ep", "bandwidth": 160, "strength": 0.2}. Any key of
  `views.Views` may stand there, so resolution, low frequencies and the strength of the augmentation grow by one table.
  Every stage is a program of its own; all are compiled before training begins.

  Attributes:
    views: the keys of `views.Views`: the views after the last stage, and what evaluation sees.
    stages: in order; `until` is the step (or a duration) before which a stage ends.

  Raises:
    UserError: stages out of order, an unknown key, or a stage whose views are not of the same kinds.

  Source: Wang, Yue, Lu et al., "EfficientTrain: Exploring Generalized Curriculum Learning for Training Visual
    Backbones", 2022, arXiv 2211.09703.
  Differs from the reference: the strength is that of the colour jitter, not of RandAugment; batches stay as large.
  """

  views: Views
  stages: tuple[Section, ...]

  def __post_init__(self):
    end = 0
    for number, (until, views) in enumerate(self.programs[:-1]):
      if not isinstance(until, int) or until <= end:
        raise UserError(f"augment.stages[{number}].until: found {until!r}, expected a step after {end}")
      if views.produces != self.views.produces:
        found, expected = (", ".join(one.produces) for one in (views, self.views))
        raise UserError(f"augment.stages[{number}]: makes {found}, expected {expected} as augment.views does")
      end = until

  @property
  def programs(self) -> tuple[tuple[int | None, Views], ...]:
    """(the step before which it ends, augmentation) of each stage; the last one, `views`, does not end."""
    base = {field.name: getattr(self.views, field.name) for field in dataclasses.fields(self.views)}
    changes = [{key: value for key, value in stage.items() if key != "until"} for stage in self.stages]
    made = [build.construct(Views, base | part, where=f"augment.stages[{n}]") for n, part in enumerate(changes)]
    return (*((stage.get("until"), views) for stage, views in zip(self.stages, made, strict=True)), (None, self.views))
