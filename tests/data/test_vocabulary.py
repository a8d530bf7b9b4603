"""The ids beyond a tokenizer's: mode tokens, then sentinels counted down from the last; T5's own if there."""

import numpy as np
import pytest

from ssljax.data.tokenizer import open_tokenizer
from ssljax.data.vocabulary import Vocabulary
from ssljax.errors import UserError

MODES = ("[NLU]", "[S2S]", "[NLG]")


class T5Like:
  """Ten pieces and T5's hundred sentinels, <extra_id_0> last."""

  size, pad, eos, fingerprint = 110, 0, 1, "t5"
  bytes_of = np.full(110, 2, np.uint8)

  def id(self, piece):
    inside = piece.startswith("<extra_id_") and piece[10:-1].isdecimal()
    return 109 - int(piece[10:-1]) if inside and int(piece[10:-1]) < 100 else None


def test_added_ids():
  vocabulary = Vocabulary(open_tokenizer("bytes"), MODES, 5)
  assert vocabulary.size == 259 + 3 + 5 and vocabulary.last_sentinel == 266 and vocabulary.eos == 1
  assert [vocabulary.mode(name) for name in MODES] == [259, 260, 261]
  kinds = [vocabulary.kind(token) for token in (0, 1, 3, 258, 259, 261, 262, 266)]
  assert kinds == ["special", "special", "text", "text", "mode", "mode", "sentinel", "sentinel"]
  assert vocabulary.bytes_of[:3].tolist() == [0, 0, 0] and (vocabulary.bytes_of[3:259] == 1).all()
  assert not vocabulary.bytes_of[259:].any()


def test_sentinels_of_the_tokenizers_own():
  vocabulary = Vocabulary(T5Like(), (), 60)
  assert vocabulary.size == 110 and vocabulary.last_sentinel == 109
  assert vocabulary.bytes_of[109] == vocabulary.bytes_of[50] == 0 and vocabulary.bytes_of[9] == 2
  with pytest.raises(UserError, match="up to 128 spans, the tokenizer has 100 sentinels"):
    Vocabulary(T5Like(), (), 128)


def test_readable_pieces():
  vocabulary = Vocabulary(open_tokenizer("bytes"), MODES, 5)
  ids = [261, *np.array(list(b"ab")) + 3, 266, ord("c") + 3, 265, 1, 0]
  assert vocabulary.spell(ids) == [
    *(("mode", "[NLG]"), ("text", "ab"), ("sentinel", "<0>"), ("text", "c"), ("sentinel", "<1>")),
    *(("special", "</s>"), ("special", "<pad>")),
  ]
