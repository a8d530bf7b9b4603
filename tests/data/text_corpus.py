"""A tiny corpus and documents in memory, for the tests of text."""

from ssljax.data.documents import Documents

_PROSE = "the quick brown fox jumps over a lazy dog while seven wizards brew strong coffee near rivers"
WORDS = _PROSE.split()
LINES = [f"{a} {b} {c}\n\tif {b}:\n        return {a}" for a in WORDS for b in WORDS[::3] for c in WORDS[::5]]


class Given(Documents):
  """Texts given as a list."""

  def __init__(self, texts, fingerprint="given"):
    self.texts, self.fingerprint = texts, fingerprint

  def __len__(self):
    return len(self.texts)

  def read(self, row):
    return self.texts[row]

  def name(self, row):
    return f"given[{row}]"
