"""What the configured evaluators say of a retriever of texts, with BM25 and chance beside it."""

from collections.abc import Callable, Mapping

import jax
import numpy as np

from ssljax import build, distributed, sharding
from ssljax.data.beir import open_beir
from ssljax.data.ict import Passages, open_passages
from ssljax.data.search import Search, cloze, lead
from ssljax.errors import UserError
from ssljax.evaluators import bm25
from ssljax.evaluators.retrieval import ranked
from ssljax.evaluators.text_retrieval import FUSED, NDCG, TextRetrieval, fused, without
from ssljax.training.evaluation import encoded_rows, parameters
from ssljax.training.run import Run
from ssljax.types import TrainState

BEIR = "beir:"  # of `evaluation.source`, before a folder
Rankings = list[np.ndarray]
"""Of each task the best passages int64[Q,K] of its queries."""


class SearchMeasure:
  """Calls the evaluators of `config.evaluation` on rankings of held-out passages by the products of their vectors.

  Raises:
    UserError: a batch the devices do not divide, an evaluator that reads no searches, a split with too few passages.
  """

  def __init__(self, run: Run, *, say: Callable[[str], None] = print):
    section = run.job.evaluation
    assert section is not None and isinstance(run.source, Passages)
    self._run, self._size = run, section.batch_size
    self._evaluators = [
      _reader(build.build(part, "evaluators", where=f"evaluation.evals.{name}"), name)
      for name, part in section.evals.items()
    ]
    devices = sharding.batch_devices(run.mesh)
    if self._size % devices:
      raise UserError(f"evaluation.batch_size: found {self._size}, expected a multiple of {devices} devices")
    say = say if distributed.is_main() else _silent
    self._most = max((k for evaluator in self._evaluators for k in evaluator.ks), default=1)
    self._searches = _searches(run, run.source, most=self._most, say=say)
    for search in self._searches:
      say(search.about)
      for evaluator in self._evaluators:
        evaluator.check(search)
    self._words: Rankings | None = None
    if not bm25.installed():
      say('no row of BM25: it needs bm25s: pip install "ssljax[text]"')

  def __call__(self, state: TrainState) -> dict[str, float]:
    """Returns the evaluators' numbers for a state."""
    return self._scores(self._ranked(state))

  def beside(self, state: TrainState, *, row: str) -> dict[str, float]:
    """Returns the numbers of a state as "ROW/NAME", and of it fused with BM25, where that is installed."""
    found, count = self._ranked(state), self._by_words()
    rows = {row: self._scores(found)}
    if count is not None:
      rows[f"{row}_bm25"] = self._scores([fused(pair) for pair in zip(found, count, strict=True)])
    return _flat(rows)

  def baselines(self) -> dict[str, float]:
    """Returns the numbers of random rankings as "chance/NAME", and those of BM25 as "bm25/NAME", where installed."""
    chance = [evaluator.chance(search) for evaluator in self._evaluators for search in self._searches]
    rows = {"chance": {key: value for scores in chance for key, value in scores.items()}}
    count = self._by_words()
    return _flat(rows if count is None else rows | {"bm25": self._scores(count)})

  def _scores(self, rankings: Rankings) -> dict[str, float]:
    pairs = list(zip(self._searches, rankings, strict=True))
    return {k: v for evaluator in self._evaluators for pair in pairs for k, v in evaluator(*pair).items()}

  def _ranked(self, state: TrainState) -> Rankings:
    rankings = []
    with jax.set_mesh(self._run.mesh):
      for search in self._searches:
        queries = self._encoded(state, "query", search.queries)
        passages = self._encoded(state, "block", search.passages)
        rankings.append(self._best(ranked(queries, passages, k=self._depth + 1), search))
    return rankings

  def _encoded(self, state: TrainState, side: str, rows: np.ndarray) -> np.ndarray:
    params, inner = parameters(state), state.objective_state
    encode = lambda ids: self._run.encode(params, inner, {side: ids})[f"{side}_features"]
    return encoded_rows(encode, rows, size=self._size, mesh=self._run.mesh)

  def _by_words(self) -> Rankings | None:
    """Returns BM25's rankings, made once; None where it is not installed."""
    if self._words is None and bm25.installed():
      counted = lambda search: bm25.bm25_ranked(search.query_texts, search.passage_texts, k=self._depth + 1)
      self._words = [self._best(counted(search), search) for search in self._searches]
    return self._words

  def _best(self, found: np.ndarray, search: Search) -> np.ndarray:
    return without(found, search.same, k=self._depth)

  @property
  def _depth(self) -> int:
    return max(FUSED, NDCG, self._most)


def _reader(evaluator: object, name: str) -> TextRetrieval:
  if not isinstance(evaluator, TextRetrieval):
    raise UserError(f"evaluation.evals.{name}: reads no searches, expected text_retrieval.TextRetrieval for data.ict")
  return evaluator


def _searches(run: Run, source: Passages, *, most: int, say: Callable[[str], None]) -> list[Search]:
  """Returns the tasks: on held-out text, without `lead` where its passages are no more than `most`; or BEIR's."""
  section = run.job.evaluation
  assert section is not None
  spec, key = section.source or run.job.data.source, "evaluation.source"
  assert spec is not None
  if spec.startswith(BEIR):
    return [open_beir(spec.removeprefix(BEIR), source, split=section.test)]
  test = open_passages(spec, source.cloze, split=section.test, trained_on=source.trained_on, key=key)
  first, second = cloze(test), lead(test)
  if second is not None and len(second.passages) > most:
    return [first, second]
  say(
    f"lead: left out, as {0 if second is None else len(second.passages)} blocks have one of their document before them"
  )
  return [first]


def _silent(text: str) -> None:
  """Prints nothing: another process of the run prints the same."""
  del text


def _flat(rows: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
  return {f"{row}/{key}": float(value) for row, scores in rows.items() for key, value in scores.items()}
