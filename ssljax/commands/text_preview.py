"""What each denoiser makes of real text, for a person to read."""

import numpy as np
from rich.console import Console
from rich.text import Text as Line

from ssljax.data.corpus import Corpus
from ssljax.data.mixture import Denoiser
from ssljax.data.plan import Examples
from ssljax.data.rows import layout
from ssljax.data.vocabulary import Vocabulary

_STYLES = {"text": "", "sentinel": "bold red", "mode": "bold blue", "special": "dim"}
_SHOWN = 60  # tokens of the original


def show(corpus: Corpus, *, seed: int, console: Console | None = None) -> None:
  """Prints, for each denoiser, one text as it is, what the model reads and what it has to write; then its rates.

  The rates are those of all examples of the first epoch: share of tokens hidden and tokens a hidden span has, beside
  what the denoiser asks for. Short pieces of documents hide at least one token, so small shares come out higher.
  """
  console = console or Console()
  examples = corpus.stream(seed=seed, batch_size=1).plan(0).examples
  for number, denoiser in enumerate(corpus.mixture.denoisers):
    mine = examples.take(examples.denoiser == number)
    console.rule(Line(f"{denoiser}  {_rates(denoiser, mine)}"), align="left")
    if len(mine.length):
      _example(console, corpus, mine.take(_typical(mine)))
  console.print(_padding(corpus, seed))


def _typical(examples: Examples) -> slice:
  """Returns the first example long enough to show the denoiser, but not much longer."""
  long_enough = np.flatnonzero(examples.length >= min(_SHOWN, int(examples.length.max())))
  first = int(long_enough[0])
  return slice(first, first + 1)


def _rates(denoiser: Denoiser, examples: Examples) -> str:
  hidden = int((examples.length - examples.visible).sum())
  rate = f"hidden {hidden / max(int(examples.length.sum()), 1):.3f} (asked {denoiser.density:g})"
  if denoiser.mean_span is None:
    return rate
  return f"{rate}, span {hidden / max(int(examples.spans.sum()), 1):.2f} (asked {denoiser.mean_span:g})"


def _example(console: Console, corpus: Corpus, example: Examples) -> None:
  vocabulary, store = corpus.vocabulary, corpus.tokens.tokens
  inputs, targets = _read_and_written(corpus, example)
  begin, length = int(example.begin[0]), int(example.length[0])
  rows = {"original": store[begin : begin + length], "input": inputs, "target": targets}
  for name, ids in rows.items():
    console.print(Line(f"{name:>8}  ", style="bold").append_text(_spelt(vocabulary, ids)), soft_wrap=False)


def _read_and_written(corpus: Corpus, example: Examples) -> tuple[np.ndarray, np.ndarray]:
  """Returns the ids a model reads of one example and those it has to write, as a batch has them."""
  arrays = layout(corpus.tokens.tokens, example, np.array([1]), mixture=corpus.mixture, vocabulary=corpus.vocabulary)
  row = {key: value[0] for key, value in arrays.items()}
  real = row["target_segments"] > 0
  targets = row["targets"][real]
  if "inputs" in row:
    return row["inputs"][row["input_segments"] > 0], targets
  prefix = row["prefix"][real] > 0
  return targets[prefix], targets[~prefix]


def _spelt(vocabulary: Vocabulary, ids: np.ndarray) -> Line:
  line = Line()
  for kind, text in vocabulary.spell(ids):
    line.append(text, style=_STYLES[kind])
  return line


def _padding(corpus: Corpus, seed: int) -> str:
  """Returns a line about an epoch: rows, examples a row, share of padding."""
  plan = corpus.stream(seed=seed, batch_size=1).plan(0)
  e = plan.examples
  sizes = corpus.mixture.sizes(e.length, e.visible, e.spans)
  used, room = int(sizes.inputs.sum() + sizes.targets.sum()), plan.rows * sum(corpus.mixture.capacity)
  return (
    f"{len(e.length):,} examples in {plan.rows:,} rows of {' + '.join(map(str, corpus.mixture.capacity))} tokens, "
    f"{1 - used / room:.1%} padding; {len(corpus.tokens.tokens):,} tokens, {corpus.tokens.num_bytes:,} bytes, "
    f"{corpus.vocabulary.size:,} ids"
  )
