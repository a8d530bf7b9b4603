"""A retrieval task of one's own in BEIR's files, corpus.jsonl, queries.jsonl and qrels/SPLIT.tsv; they are hostile."""

import json
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ssljax.data.ict import Passages
from ssljax.data.search import Search
from ssljax.errors import UserError

MAX_LINE = 2**20  # bytes
MAX_PASSAGES = 200_000  # their vectors and a ranking's products are held in memory
MAX_QUERIES = 50_000
MAX_JUDGED = 5_000_000  # lines of qrels
_SPLIT = re.compile(r"[A-Za-z0-9_-]+")
_COLUMNS = ("query-id", "corpus-id", "score")


def open_beir(folder: str, passages: Passages, *, split: str) -> Search:
  """Returns the task "queries" of a folder of BEIR's form.

  A passage is its title, a space and its text. Lines that do not fit are refused, not left out: a score is compared
  with others'. Only the queries that qrels/SPLIT.tsv judges with a score above 0 are asked; a passage with a query's id
  is no answer to it.

  Args:
    folder: where corpus.jsonl ({"_id", "title", "text"}), queries.jsonl ({"_id", "text"}) and qrels/ are.
    passages: whose tokenizer and lengths are those of the run.
    split: the name of a file in qrels/, without .tsv.

  Raises:
    UserError: a missing or unreadable file; the line that does not fit; more than the limits of this file; no query.

  Source: Thakur et al., BEIR: A Heterogeneous Benchmark for Zero-shot Evaluation of Information Retrieval Models, 2021,
    arXiv 2104.08663.
  """
  root = Path(folder).expanduser()
  if not _SPLIT.fullmatch(split):
    raise UserError(f"evaluation.test: found {split!r}, expected the name of a file in {root / 'qrels'}, without .tsv")
  corpus = _texts(root / "corpus.jsonl", most=MAX_PASSAGES)
  queries = _texts(root / "queries.jsonl", most=MAX_QUERIES)
  judged = _judged(root / "qrels" / f"{split}.tsv", queries, corpus)
  if not judged:
    raise UserError(f"evaluation.source: {root / 'qrels' / split}.tsv has no score above 0, expected some")
  number = {name: place for place, name in enumerate(corpus)}
  query_texts, passage_texts = [queries[name] for name in judged], list(corpus.values())
  query_rows, query_cut = _rows(query_texts, passages, width=passages.cloze.query_length)
  rows, cut = _rows(passage_texts, passages, width=passages.cloze.block_length)
  return Search(
    name="queries",
    queries=query_rows,
    passages=rows,
    relevance=[{number[name]: score for name, score in answers.items()} for answers in judged.values()],
    query_texts=query_texts,
    passage_texts=passage_texts,
    cut=(query_cut, cut),
    same=np.array([number.get(name, -1) for name in judged]),
  )


def _texts(path: Path, *, most: int) -> dict[str, str]:
  """Returns id -> text, in the order of the lines."""
  found: dict[str, str] = {}
  for number, line in _lines(path):
    name, text = _text(line, where=f"{path}:{number}")
    if name in found:
      raise UserError(f"evaluation.source: {path}:{number}: found the _id {name[:40]!r} again, expected each once")
    if len(found) == most:
      raise UserError(f"evaluation.source: {path}: found more than {most:,} lines, expected at most that")
    found[name] = text
  return found


def _text(line: str, *, where: str) -> tuple[str, str]:
  try:
    found = json.loads(line)
  except (ValueError, RecursionError) as error:
    raise UserError(f"evaluation.source: {where}: no JSON ({str(error)[:100]})") from None
  parts = [found.get("_id"), found.get("title", ""), found.get("text")] if isinstance(found, dict) else [None]
  if not all(isinstance(part, str) for part in parts) or not parts[0]:
    raise UserError(
      f"evaluation.source: {where}: found {line.strip()[:60]!r}, expected an object with texts _id and text"
    )
  name, title, text = (part.encode("utf-8", "replace").decode() for part in parts)
  return name, f"{title} {text}".strip()


def _judged(path: Path, queries: dict[str, str], corpus: dict[str, str]) -> dict[str, dict[str, float]]:
  """Returns query -> passage -> score above 0."""
  found: dict[str, dict[str, float]] = {}
  for number, line in _lines(path):
    fields = line.rstrip("\r\n").split("\t")
    if number == 1 and tuple(fields) == _COLUMNS:
      continue
    where = f"evaluation.source: {path}:{number}"
    if len(fields) != len(_COLUMNS) or (score := _score(fields[2])) is None:
      raise UserError(f"{where}: found {line.strip()[:60]!r}, expected {', '.join(_COLUMNS)}, with tabs between")
    if number > MAX_JUDGED:
      raise UserError(f"{where}: found more than {MAX_JUDGED:,} lines, expected at most that")
    for name, known, file in ((fields[0], queries, "queries"), (fields[1], corpus, "corpus")):
      if name not in known:
        raise UserError(f"{where}: found {name[:40]!r}, expected an _id of {file}.jsonl")
    if score > 0 and fields[0] != fields[1]:
      found.setdefault(fields[0], {})[fields[1]] = score
  return found


def _score(text: str) -> float | None:
  try:
    score = float(text)
  except ValueError:
    return None
  return score if math.isfinite(score) else None


def _lines(path: Path) -> Iterator[tuple[int, str]]:
  """Yields (number from 1, line) of the lines with something in them."""
  if path.exists() and not path.is_file():  # a pipe would wait for ever
    raise UserError(f"evaluation.source: {path}: found no file, expected one")
  try:
    with open(path, "rb") as file:
      number = 0
      while line := file.readline(MAX_LINE + 1):
        number += 1
        if len(line) > MAX_LINE:
          raise UserError(f"evaluation.source: {path}:{number}: found more than {MAX_LINE:,} bytes, expected a line")
        if line.strip():
          yield number, line.decode("utf-8", "replace")
  except OSError as error:
    raise UserError(f"evaluation.source: {path}: {error.strerror}, expected a readable file") from None


def _rows(texts: Sequence[str], passages: Passages, *, width: int) -> tuple[np.ndarray, int]:
  """Returns (rows int32[n,width] of texts: bos if there is one, text, eos, padding 0; how many did not fit)."""
  tokenizer = passages.tokenizer
  start = [] if tokenizer.bos is None else [tokenizer.bos]
  room = width - len(start) - 1
  rows, cut = np.zeros((len(texts), width), np.int32), 0
  for row, ids in zip(rows, tokenizer.encode(texts), strict=True):
    line = [*start, *ids[:room], tokenizer.eos]
    row[: len(line)] = line
    cut += len(ids) > room
  return rows, cut
