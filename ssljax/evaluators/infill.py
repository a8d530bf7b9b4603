"""What a text model writes into gaps of held-out text, for a person to read."""

import dataclasses
import re
from typing import ClassVar

import numpy as np

from ssljax.data.mixture import Denoiser
from ssljax.evaluators.text import TextProbe, When


@dataclasses.dataclass(frozen=True, kw_only=True)
class Infill:
  """Prints held-out passages with gaps and what the model writes into them, greedy and sampled.

  Attributes:
    passages: how many.
    mean_span: tokens a gap has on average.
    density: share of the tokens that are hidden.
    temperature: of the sampled writing.
  """

  when: ClassVar[When] = "asked"
  passages: int = 5
  mean_span: float = 3.0
  density: float = 0.15
  temperature: float = 0.8

  def __call__(self, probe: TextProbe) -> dict[str, float]:
    """Returns {"infill/exact": share of the gaps filled greedily with exactly the text that was there}."""
    gaps = Denoiser(group="R", density=self.density, mean_span=self.mean_span)
    mixture = dataclasses.replace(probe.test.text.mix((gaps,)), row_inputs=None, row_targets=None)
    rows = probe.test.stream(seed=0, batch_size=1, mixture=mixture).rows(np.arange(self.passages))
    prompts, answers = self._split(rows)
    most = answers.shape[1] + 16
    greedy = probe.write(prompts, most, 0.0, 0)
    sampled = probe.write(prompts, most, self.temperature, 0)
    right = total = 0
    for number in range(len(prompts)):
      true, found = self._show(probe, number, prompts[number], answers[number], greedy[number], sampled[number])
      right, total = right + sum(found.get(gap) == text for gap, text in true.items()), total + len(true)
    return {"infill/exact": right / max(total, 1)}

  def _split(self, rows: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Returns (prompts, answers) of the first example of each row, padding 0."""
    first = rows["target_segments"] == 1
    if "inputs" in rows:
      return rows["inputs"] * (rows["input_segments"] == 1), rows["targets"] * first
    prefix = first & (rows["prefix"] > 0)
    answers = np.zeros_like(rows["targets"])
    for row, mine in enumerate(first & ~prefix):
      answers[row, : mine.sum()] = rows["targets"][row, mine]
    return rows["targets"] * prefix, answers

  def _show(self, probe: TextProbe, number: int, *ids: np.ndarray) -> tuple[dict[str, str], dict[str, str]]:
    """Prints one passage and returns {gap: text} as it was and as the model writes greedily."""
    prompt, true, greedy, sampled = ([piece for piece in probe.test.vocabulary.spell(row)] for row in ids)
    probe.say(f"\npassage {number + 1}: " + "".join(text for kind, text in prompt if kind in ("text", "sentinel")))
    gaps = [_gaps(pieces) for pieces in (true, greedy, sampled)]
    for gap, text in gaps[0].items():
      probe.say(f"  {gap:>5}  was {text!r:32} greedy {gaps[1].get(gap, '')!r:32} sampled {gaps[2].get(gap, '')!r}")
    return gaps[0], gaps[1]


def _gaps(pieces: list[tuple[str, str]]) -> dict[str, str]:
  """Returns {sentinel: the text after it}; what follows the end of sequence is left out."""
  found: dict[str, str] = {}
  gap = None
  for kind, text in pieces:
    if kind == "sentinel" and re.fullmatch(r"<\d+>", text):
      gap = text
      found.setdefault(gap, "")
    elif text == "</s>":
      break
    elif kind == "text" and gap:
      found[gap] += text
  return found
