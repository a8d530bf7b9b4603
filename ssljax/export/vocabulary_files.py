"""The vocabulary of a run beside its weights: files that AutoTokenizer loads, compared with the run's own ids."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ssljax.data.vocabulary import Vocabulary
from ssljax.export import fast_tokenizer
from ssljax.export.huggingface import quiet

CHARACTERS = 2000  # of a text that both sides tokenise
_AUTO = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


class Written(NamedTuple):
  """What lies in the folder.

  Attributes:
    loads: whether AutoTokenizer gives the ids of the run.
    says: the same in words, for the command and the card.
  """

  loads: bool
  says: str


def write(folder: pathlib.Path, vocabulary: Vocabulary, texts: Sequence[str], *, ends: bool) -> Written:
  """Returns what was written: files for AutoTokenizer, or the tokenizer's own file where they would give other ids.

  Args:
    folder: where config.json is already, which AutoTokenizer reads too.
    vocabulary: the run's.
    texts: real ones, to compare.
    ends: whether the tokenizer ends a text with eos.
  """
  reason = fast_tokenizer.misfit(vocabulary.tokenizer)
  if reason is None:
    _save(folder, vocabulary, ends)
    texts = [text[:CHARACTERS] for text in texts]
    reason = difference(folder, vocabulary, texts, ends=ends)
  if reason is not None:
    return _without(folder, vocabulary, reason)
  _write_ids(folder, vocabulary, _AUTO[0])
  return Written(True, f"AutoTokenizer gives the ids of the run (compared on {len(texts)} texts)")


def write_own(folder: pathlib.Path, vocabulary: Vocabulary) -> Written:
  """Returns what was written without AutoTokenizer: the tokenizer's own file, which bytes do not have."""
  tokenizer = vocabulary.tokenizer
  if tokenizer.file:
    (folder / tokenizer.file).write_bytes(tokenizer.data)
  _write_ids(folder, vocabulary, tokenizer.file)
  return Written(False, f"the pieces are those of {tokenizer.file}" if tokenizer.file else "the pieces are bytes")


def write_config(folder: pathlib.Path, ids: Mapping[str, int]) -> None:
  """Writes the ids of special tokens into config.json and generation_config.json, by their names there."""
  config = folder / "config.json"
  _write_json(config, json.loads(config.read_text("utf-8")) | ids)
  _write_json(folder / "generation_config.json", ids)


def difference(folder: pathlib.Path, vocabulary: Vocabulary, texts: Sequence[str], *, ends: bool) -> str | None:
  """Returns where AutoTokenizer gives other ids than the vocabulary, None where it gives the same.

  A text that spells a special token, which the vocabulary takes for text, is read with `split_special_tokens`.
  """
  import transformers

  with quiet():
    try:
      theirs = transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # the libraries raise plain Exception
      return f"AutoTokenizer does not load it ({str(error).strip().splitlines()[0]})"
  for name, number in names(vocabulary).items():
    if theirs(name, add_special_tokens=False).input_ids != [number]:
      return f"{name} is not {number}"
  special = theirs.all_special_tokens
  for row, (text, ids) in enumerate(zip(texts, vocabulary.tokenizer.encode(texts), strict=True)):
    given = theirs(text, split_special_tokens=any(name in text for name in special)).input_ids
    if given != [*ids.tolist(), *([vocabulary.eos] if ends else [])]:
      return f"text {row} of the run gets other ids"
  return None


def names(vocabulary: Vocabulary) -> dict[str, int]:
  """Returns the ids of mode tokens and sentinels by name, in ascending order."""
  found = {name: vocabulary.mode(name) for name in vocabulary.modes}
  found |= {f"<extra_id_{span}>": vocabulary.last_sentinel - span for span in range(vocabulary.sentinels)}
  return dict(sorted(found.items(), key=lambda item: item[1]))


def _save(folder: pathlib.Path, vocabulary: Vocabulary, ends: bool) -> None:
  import tokenizers
  import transformers

  made, added = fast_tokenizer.convert(vocabulary.tokenizer), list(names(vocabulary))
  made.add_special_tokens([tokenizers.AddedToken(name, special=True, normalized=False) for name in added])
  eos = made.id_to_token(vocabulary.eos)
  if ends:
    made.post_processor = tokenizers.processors.TemplateProcessing(
      single=["$A", eos], pair=["$A", eos, "$B", eos], special_tokens=[(eos, vocabulary.eos)]
    )
  unknown = next((name for name in ("<unk>", "[UNK]") if made.token_to_id(name) is not None), None)
  fast = transformers.PreTrainedTokenizerFast(
    tokenizer_object=made,
    pad_token=made.id_to_token(vocabulary.tokenizer.pad),
    eos_token=eos,
    unk_token=unknown,
    extra_special_tokens=added,
    clean_up_tokenization_spaces=False,
  )
  fast.save_pretrained(str(folder))
  _write_json(folder / "special_tokens_map.json", fast.special_tokens_map)


def _without(folder: pathlib.Path, vocabulary: Vocabulary, reason: str) -> Written:
  """Returns what is left where there is nothing for AutoTokenizer; it is to raise, not to guess from config.json."""
  for name in _AUTO:
    (folder / name).unlink(missing_ok=True)
  found = write_own(folder, vocabulary)
  _write_json(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"})
  return Written(False, f"nothing for AutoTokenizer: {reason}; {found.says}")


def _write_ids(folder: pathlib.Path, vocabulary: Vocabulary, file: str) -> None:
  ids = names(vocabulary)
  content: dict[str, Any] = {"tokenizer": file or "bytes", "pad": vocabulary.tokenizer.pad, "eos": vocabulary.eos}
  content["modes"] = {name: ids[name] for name in vocabulary.modes}
  content["sentinels"] = {name: ids[name] for name in reversed(ids) if name not in vocabulary.modes}
  _write_json(folder / "vocabulary.json", content)


def _write_json(file: pathlib.Path, content: Mapping[str, Any]) -> None:
  file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
