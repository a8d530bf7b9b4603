"""From planned examples to the arrays of a batch: read, corrupt and lay out all examples of all rows as one."""

import numpy as np

from ssljax.data import denoising
from ssljax.data.denoising import Spans
from ssljax.data.mixture import GROUPS, Mixture
from ssljax.data.plan import Examples
from ssljax.data.vocabulary import Vocabulary


def corrupt(
  tokens: np.ndarray, examples: Examples, vocabulary: Vocabulary
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
  """Returns (inputs, their lengths, targets, their lengths) of examples, one after the other, nothing added yet.

  Args:
    tokens: the store, any integers [T].
    examples: P examples.
    vocabulary: where the sentinels are.
  """
  lengths = examples.length.astype(np.int64)
  ends = np.cumsum(lengths)
  flat = np.arange(int(ends[-1])) + np.repeat(examples.begin - (ends - lengths), lengths)
  text = tokens[flat].astype(np.int32)
  inputs, targets = denoising.split_spans(text, _spans(examples, lengths), last_sentinel=vocabulary.last_sentinel)
  visible, spans = examples.visible.astype(np.int64), examples.spans
  return inputs, visible + spans, targets, lengths - visible + spans


def _spans(examples: Examples, lengths: np.ndarray) -> Spans:
  """Returns the spans of all examples; a prefix split is one visible and one hidden span without sentinels."""
  offset = np.cumsum(lengths) - lengths
  marked = examples.spans > 0
  noise, count = lengths[marked] - examples.visible[marked], examples.spans[marked].astype(np.int64)
  spans = denoising.random_spans(examples.key[marked], lengths[marked], noise, count)
  moved = np.repeat((offset - _offsets_alone(lengths, marked))[marked], count)
  spans = Spans(spans.number, spans.kept + moved, spans.hidden + moved, spans.end + moved)
  plain = denoising.prefix_spans(lengths, examples.visible.astype(np.int64))
  parts = zip(spans, (field[~marked] for field in plain), strict=True)
  return Spans(*(np.concatenate(pair) for pair in parts))


def _offsets_alone(lengths: np.ndarray, marked: np.ndarray) -> np.ndarray:
  """Returns where each marked example begins among the marked ones alone."""
  own = np.where(marked, lengths, 0)
  return np.cumsum(own) - own


def layout(
  tokens: np.ndarray, examples: Examples, counts: np.ndarray, *, mixture: Mixture, vocabulary: Vocabulary
) -> dict[str, np.ndarray]:
  """Returns the arrays of B rows: those of `encoder_decoder` or of `decoder_only` (see below), padding 0.

  encoder_decoder   inputs, input_segments, input_positions int32[B,Li]; targets, target_segments, target_positions
                    int32[B,Lt]; an example's inputs are mode token, text, </s>, its targets text, </s>.
  decoder_only      targets, target_segments, target_positions int32[B,L], and prefix int32[B,L], 1 on the inputs
                    (mode token and text, no </s>), which are not to be predicted.
  both              target_group uint8[B,Lt] (place in `mixture.GROUPS`) and target_bytes uint8[B,Lt] (bytes of text
                    that a token stands for; 0 on sentinels, </s> and what is not predicted).

  Args:
    tokens: the store.
    examples: those of all rows, in the rows' order.
    counts: int64[B], examples of each row.
    mixture: lengths, layout, modes.
    vocabulary: ids.
  """
  inputs, input_lengths, targets, target_lengths = corrupt(tokens, examples, vocabulary)
  modes = [mixture.mode(denoiser) for denoiser in mixture.denoisers]
  first = np.array([-1 if mode is None else vocabulary.mode(mode) for mode in modes])[examples.denoiser]
  first = first if any(modes) else None
  row = np.repeat(np.arange(len(counts)), counts)
  segment = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts) + 1
  group = np.array([GROUPS.index(denoiser.group) for denoiser in mixture.denoisers], np.uint8)[examples.denoiser]
  if mixture.layout == "encoder_decoder":
    source = _framed(inputs, input_lengths, first=first, last=vocabulary.eos)
    target = _framed(targets, target_lengths, first=None, last=vocabulary.eos)
    placed = _Places.of(target[1], row, segment, (len(counts), mixture.capacity[-1]))
    read = _Places.of(source[1], row, segment, (len(counts), mixture.capacity[0]))
    arrays = {"inputs": read.put(source[0]), "input_segments": read.segments, "input_positions": read.positions}
    targets, predicted = target[0], np.ones(len(target[0]), bool)
  else:
    source = _framed(inputs, input_lengths, first=first, last=None)
    target = _framed(targets, target_lengths, first=None, last=vocabulary.eos)
    joined, lengths, predicted = _joined(*source, *target)
    placed = _Places.of(lengths, row, segment, (len(counts), mixture.capacity[0]))
    arrays = {"prefix": placed.put(~predicted)}
    targets = joined
  size = vocabulary.bytes_of[targets] * predicted
  return arrays | {
    "targets": placed.put(targets),
    "target_segments": placed.segments,
    "target_positions": placed.positions,
    "target_group": placed.put(np.repeat(group, placed.lengths), np.uint8),
    "target_bytes": placed.put(size, np.uint8),
  }


def _framed(
  flat: np.ndarray, lengths: np.ndarray, *, first: np.ndarray | None, last: int | None
) -> tuple[np.ndarray, np.ndarray]:
  """Returns (tokens, lengths) with a token of its own before and one common token after each example."""
  before, after = int(first is not None), int(last is not None)
  framed = lengths + before + after
  begin = np.cumsum(framed) - framed
  result = np.empty(int(framed.sum()), np.int32)
  result[np.arange(len(flat)) + np.repeat(begin + before - (np.cumsum(lengths) - lengths), lengths)] = flat
  if first is not None:
    result[begin] = first
  if last is not None:
    result[begin + framed - 1] = last
  return result, framed


def _joined(
  a: np.ndarray, a_lengths: np.ndarray, b: np.ndarray, b_lengths: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns (tokens, lengths, is from b) of each example's a and b one after the other."""
  lengths = a_lengths + b_lengths
  begin = np.cumsum(lengths) - lengths
  place_a = np.arange(len(a)) + np.repeat(begin - (np.cumsum(a_lengths) - a_lengths), a_lengths)
  place_b = np.arange(len(b)) + np.repeat(begin + a_lengths - (np.cumsum(b_lengths) - b_lengths), b_lengths)
  tokens, second = np.empty(len(a) + len(b), np.int32), np.zeros(len(a) + len(b), bool)
  tokens[place_a], tokens[place_b], second[place_b] = a, b, True
  return tokens, lengths, second


class _Places:
  """Where the tokens of examples lie in rows of one length: one after the other, in the order given."""

  def __init__(self, lengths: np.ndarray, where: np.ndarray, segment: np.ndarray, shape: tuple[int, int]):
    self.lengths, self.shape = lengths, shape
    self._where = where
    self.segments = self.put(np.repeat(segment, lengths))
    self.positions = self.put(np.arange(len(where)) - np.repeat(np.cumsum(lengths) - lengths, lengths))

  @classmethod
  def of(cls, lengths: np.ndarray, row: np.ndarray, segment: np.ndarray, shape: tuple[int, int]) -> "_Places":
    """Returns the places of examples that lie in `row` int64[P], ascending."""
    before = np.cumsum(lengths) - lengths
    first = np.append(True, row[1:] != row[:-1])
    row_begin = before[np.flatnonzero(first)[np.cumsum(first) - 1]]
    where = np.arange(int(lengths.sum())) + np.repeat(row * shape[1] - row_begin, lengths)
    return cls(lengths, where, segment, shape)

  def put(self, values: np.ndarray, dtype: type = np.int32) -> np.ndarray:
    """Returns [B,L] with a value a token, 0 where there is none."""
    result = np.zeros(self.shape[0] * self.shape[1], dtype)
    result[self._where] = values
    return result.reshape(self.shape)
