import pytest

from ssljax.cli import main
from ssljax.data.tokenizer import open_tokenizer


@pytest.fixture
def source(tmp_path, monkeypatch):
  monkeypatch.setenv("SSLJAX_CACHE", str(tmp_path / "cache"))
  words = ["seven", "wizards", "brew", "strong", "coffee", "near", "wide", "rivers"]
  (tmp_path / "a.txt").write_text("\n".join(f"{a} {b}\n\t{c}" for a in words for b in words for c in words))
  return f"--source=text:{tmp_path}/a.txt"


def test_a_vocabulary_is_written_and_measured(source, tmp_path, capsys):
  out = tmp_path / "tiny.model"
  assert main(["data", "tokenizer", source, "--vocab-size=280", f"--out={out}", "--split=all"]) == 0
  assert f"{out}: 280 pieces, " in (line := capsys.readouterr().out) and "bytes a token" in line
  tokenizer, text = open_tokenizer(str(out)), (tmp_path / "a.txt").read_text()
  assert f"{len(text) / len(tokenizer.encode([text])[0]):.2f} bytes a token on {len(text):,} bytes of all" in line
  assert tokenizer.size == 280


def test_mistakes_are_one_line(source, tmp_path, capsys):
  for wrong, says in (
    (["--vocab_size=10"], "--vocab_size: found 10"),
    (["--vocab_size=300", "--max_bytes=0"], "--max_bytes: found 0"),
    (["--vocab_size=300", "--split=tests"], "unknown split tests (did you mean test?"),
  ):
    assert main(["data", "tokenizer", source, f"--out={tmp_path}/x.model", "--split=all", *wrong]) == 2
    assert says in (error := capsys.readouterr().err) and error.count("\n") == 1
  assert not (tmp_path / "x.model").exists()


def test_the_list_shows_text(capsys):
  assert main(["data", "list"]) == 0
  out = capsys.readouterr().out
  assert "embedded:python" in out and "PSF-2.0" in out and "text:GLOB" in out
  assert main(["list", "sources"]) == 0
  assert "text:" in capsys.readouterr().out
