import html.parser
import json

import numpy as np
import pytest

from ssljax.errors import UserError
from ssljax.report import page, pictures

HOSTILE = '<script>alert("x")</script>'
CONFIG = {
  "data": {"source": "embedded:photos", "batch_size": 64},
  "objective": {"name": "mae.MAE", "encoder": {"name": "vit.ViT", "variant": "Ti"}},
  "steps": 40,
}


def make(directory, *, steps=40, final=None, config=CONFIG, picture=None, summary=None):
  """A work directory with plausible curves."""
  directory.mkdir(parents=True)
  (directory / "config.json").write_text(json.dumps(config))
  rows = [
    {"step": s, "train/loss": 1 / s, "train/data_wait": 0.02, "train/learning_rate": 1e-3} for s in range(1, steps)
  ]
  rows += [{"step": s, "eval/knn": 0.4 + s / 400, "eval/rankme": 8.0} for s in range(10, steps + 1, 10)]
  (directory / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
  if final:
    (directory / "eval").mkdir()
    (directory / "eval" / "final.json").write_text(json.dumps(final))
  if summary:
    (directory / "summary.json").write_text(json.dumps(summary))
  if picture:
    pictures.save(pictures.grid(np.zeros((1, 2, 8, 8, 3))), directory / "pictures", "views", caption=picture)
  return directory


class Reader(html.parser.HTMLParser):
  """Collects tags, text of table cells, and every address; checks that tags are closed."""

  VOID = ("meta", "img", "br")

  def __init__(self, text):
    super().__init__()
    self.tags, self.cells, self.addresses, self.open = [], [], [], []
    self.feed(text)
    assert not self.open

  def handle_starttag(self, tag, attrs):
    self.tags.append(tag)
    self.addresses += [value for name, value in attrs if name in ("src", "href", "data", "action")]
    if tag not in self.VOID:
      self.open.append(tag)
    if tag in ("td", "th"):
      self.cells.append("")

  def handle_startendtag(self, tag, attrs):
    self.tags.append(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    if self.open and ("td" in self.open or "th" in self.open):
      self.cells[-1] += data


FINAL = {
  "raw/knn": 0.3,
  "untrained/knn": 0.25,
  "trained/knn": 0.5125,
  "trained/rankme": 9.7,
  "trained/linear_probe_l2": 1e-3,
}


def test_one_run(tmp_path):
  summary = {"parameters": 5_720_000, "devices": "8 x TPU v5e", "seconds": 3725}
  run = make(tmp_path / "run", final=FINAL, picture="Views of a picture", summary=summary)
  out = page.write([run], tmp_path / "sub" / "report.html")
  text = out.read_text(encoding="utf-8")
  found = Reader(text)
  assert {"MAE", "ViT Ti", "embedded:photos", "64", "40", "5.72 M", "8 x TPU v5e", "1 h 2 min"} <= set(found.cells)
  assert {"30.0 %", "25.0 %", "51.2 %", "9.7"} <= set(found.cells)
  assert "kNN accuracy 51.2 % (raw pixels 30.0 %, untrained 25.0 %)" in text
  assert found.tags.count("svg") == 5 and found.tags.count("img") == 1
  assert "Views of a picture" in text


def test_self_contained(tmp_path):
  """No script, and no address but data URLs: the page opens without a network."""
  found = Reader(page.render([make(tmp_path / "run", final=FINAL, picture="p")]))
  assert not {"script", "link", "iframe", "object"} & set(found.tags)
  assert found.addresses and all(address.startswith("data:image/png;base64,") for address in found.addresses)


def test_everything_from_a_run_is_escaped(tmp_path):
  config = {"objective": {"name": HOSTILE, "encoder": HOSTILE}, "data": {"source": HOSTILE}, "steps": HOSTILE}
  final = {"raw/" + HOSTILE: 1.0, "trained/x_l2" + HOSTILE: 1.0, HOSTILE: 2.0, "trained/" + HOSTILE + "_l2": 1}
  summary = {"parameters": HOSTILE, "devices": HOSTILE, "seconds": 10**400}
  directory = tmp_path / "<b>run"
  runs = [make(directory, config=config, final=final, summary=summary, picture=HOSTILE), make(tmp_path / "other")]
  text = page.render(runs)
  assert "<script" not in text and "<b>run" not in text
  assert "&lt;script&gt;" in text


def test_missing_parts_are_said(tmp_path):
  run = make(tmp_path / "run")
  (run / "metrics.jsonl").write_text("")
  text = page.render([run])
  for sentence in ("No final evaluation yet", "No metrics yet", "No pictures yet"):
    assert sentence in text
  assert "svg" not in Reader(text).tags


def test_a_collapse_is_told_and_marked(tmp_path):
  runs = [make(tmp_path / name) for name in ("falls", "stays")]
  for run, ranks in zip(runs, ([16, 1, 1], [16, 17, 18]), strict=True):
    rows = [
      {
        "step": 10 * n,
        "health/embedding_rankme": rank,
        "health/embedding_feature_std": 0.1,
        "health/collapse": float(rank == 1 and n > 1),
      }
      for n, rank in enumerate(ranks)
    ]
    with (run / "metrics.jsonl").open("a") as file:
      file.writelines(json.dumps(row) + "\n" for row in rows)
  text = page.render(runs)
  line = "step 20: collapse: embedding RankMe 1, 6 % of its best (16 at step 0)"
  assert text.count('<p class="alarm">') == 1 and f"falls: {line}" in text
  assert "RankMe, embedding" in text and text.count('<line class="mark run0"') == 2  # in the charts of its two measures
  assert 'class="mark run1"' not in text and ": collapse: " not in page.render(runs[1:])


def test_runs_are_overlaid(tmp_path):
  runs = [make(tmp_path / "a", final=FINAL), make(tmp_path / "b", steps=20), make(tmp_path / "c")]
  text = page.render(runs)
  assert all(f'class="curve run{i}"' in text for i in range(3))
  assert "20 of 40" in Reader(text).cells and "no final evaluation yet" in Reader(text).cells
  assert Reader(text).tags.count("svg") == 5


def test_not_finite_is_said(tmp_path):
  run = make(tmp_path / "run", final={"trained/rankme": float("nan"), "trained/knn": float("nan")})
  with (run / "metrics.jsonl").open("a") as lines:
    lines.write('{"step": 50, "train/loss": null}\n')
  text = page.render([run])
  assert "the loss is not finite on 1 of 44 lines" in text
  assert Reader(text).cells.count("not finite") == 2


def test_user_errors(tmp_path):
  run = make(tmp_path / "run")
  with pytest.raises(UserError, match=r"found no config\.json"):
    page.render([tmp_path])
  with pytest.raises(UserError, match="twice"):
    page.render([run, run / ".." / "run"])
  with pytest.raises(UserError, match="cannot write"):
    page.write([run], run / "config.json" / "report.html")


@pytest.mark.parametrize(
  ("seconds", "text"), [(45, "45 s"), (725, "12 min 5 s"), (12000, "3 h 20 min"), (float("inf"), "inf s")]
)
def test_duration(seconds, text):
  assert page.duration(seconds) == text


@pytest.mark.parametrize(
  ("count", "text"), [(950, "950"), (12_345, "12.3 k"), (85_800_000, "85.8 M"), (1.2e9, "1.2 G")]
)
def test_number_of(count, text):
  assert page.number_of(count) == text
