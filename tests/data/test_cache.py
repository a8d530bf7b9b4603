import pytest

from ssljax.data import cache
from ssljax.errors import UserError


def test_it_lies_where_the_variable_says(tmp_path, monkeypatch):
  monkeypatch.setenv("SSLJAX_CACHE", str(tmp_path))
  assert cache.root() == tmp_path
  monkeypatch.delenv("SSLJAX_CACHE")
  assert cache.root().parts[-2:] == (".cache", "ssljax")


def test_the_first_to_finish_wins(tmp_path):
  def build(aside, text):
    (aside / "file").write_text(text)

  def late(aside):
    cache.cached(tmp_path / "key", lambda other: build(other, "first"))
    build(aside, "second")

  assert (cache.cached(tmp_path / "key", late) / "file").read_text() == "first"
  assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
  (tmp_path / "file").touch()
  with pytest.raises(UserError, match=r"cache: cannot write to .*file .*expected a writable folder in \$SSLJAX_CACHE"):
    cache.cached(tmp_path / "file" / "key", lambda aside: None)


def test_an_error_of_what_is_read_is_not_blamed_on_the_cache(tmp_path):
  with pytest.raises(FileNotFoundError, match="nowhere"):
    cache.cached(tmp_path / "cache" / "key", lambda aside: open(tmp_path / "nowhere").close())


def test_keys_tell_values_apart():
  assert len({cache.key("a", 1), cache.key("a", "1"), cache.key("a1"), cache.key("a", 2), cache.key("\udcff")}) == 5
