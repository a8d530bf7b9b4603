"""What the configured evaluators say of a text model."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from ssljax import build, distributed, sharding
from ssljax.data.corpus import Corpus, open_corpus
from ssljax.errors import UserError
from ssljax.evaluators.text import Arrays, TextProbe
from ssljax.training.evaluation import parameters
from ssljax.training.run import Run
from ssljax.types import Array, Batch, Params, TrainState


class TextMeasure:
  """Calls the evaluators of `config.evaluation` on held-out text.

  Raises:
    UserError: a batch the devices do not divide, a split without documents, an unknown evaluator.
  """

  def __init__(self, run: Run, *, say: Callable[[str], None] = print):
    section, data = run.job.evaluation, run.job.data
    assert section is not None and isinstance(run.source, Corpus)
    if section.source is not None:
      raise UserError("evaluation.source: found one, expected none for text: the test split of data.source is measured")
    self._run, self._say, self.train = run, say if distributed.is_main() else _silent, run.source
    self.test = open_corpus(data.source, self.train.text, split=section.test, trained_on=self.train.trained_on)
    devices = sharding.batch_devices(run.mesh)
    if section.batch_size % devices:
      raise UserError(f"evaluation.batch_size: found {section.batch_size}, expected a multiple of {devices} devices")
    self._evaluators = {
      name: build.build(part, "evaluators", where=f"evaluation.evals.{name}") for name, part in section.evals.items()
    }
    self._score = jax.jit(self._sums)

  def _sums(self, params: Params, batch: Batch) -> tuple[Array, Array]:
    nats = self._run.objective.nats(params, batch)
    return jnp.sum(nats), jnp.sum(batch["target_bytes"].astype(jnp.float32))

  def __call__(self, state: TrainState, *, when: tuple[str, ...] = ("always",)) -> dict[str, float]:
    """Returns the numbers of the evaluators whose `when` is among these, for a state."""
    params, place = parameters(state), sharding.batch_sharding(self._run.mesh)

    def score(arrays: Arrays) -> tuple[float, float]:
      nats, size = self._score(params, {key: jax.device_put(value, place) for key, value in arrays.items()})
      return float(nats), float(size)

    def write(prompts: np.ndarray, most: int, temperature: float, seed: int) -> np.ndarray:
      key = jax.random.key(seed)
      eos = self.train.vocabulary.eos
      written = self._run.objective.write(params, prompts, most, temperature=temperature, rng=key, eos=eos)
      return distributed.to_host(written)

    probe = TextProbe(
      train=self.train,
      test=self.test,
      batch_size=self._run.job.evaluation.batch_size,
      score=score,
      write=write,
      say=self._say,
    )
    with jax.set_mesh(self._run.mesh):
      chosen = [evaluator for evaluator in self._evaluators.values() if evaluator.when in when]
      return {key: value for evaluator in chosen for key, value in evaluator(probe).items()}


def _silent(text: str) -> None:
  """Prints nothing: another process of the run prints the same."""
  del text
