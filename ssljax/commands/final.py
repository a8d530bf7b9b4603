"""The end of a run: the table beside its baselines, the pictures, the report."""

import pathlib
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Column, Table

from ssljax import distributed, rng, sharding, tree
from ssljax.commands import workdir as workdirs
from ssljax.data.captions import Captioner
from ssljax.data.duplicates import duplicates
from ssljax.evaluators.features import Features
from ssljax.evaluators.knn import nearest_rows
from ssljax.evaluators.retrieval import chance_of, ranked
from ssljax.report import page, pictures
from ssljax.training import state as states
from ssljax.training.evaluation import Measure, parameters
from ssljax.training.pair_evaluation import PairMeasure
from ssljax.training.run import Run
from ssljax.training.search_evaluation import SearchMeasure
from ssljax.training.text_evaluation import TextMeasure
from ssljax.types import TrainState
from ssljax.writer import FILE, read_metrics

_LOOKED_AT = 100_000  # pictures of a training set that are compared with the held-out ones at the end
_SHOWN, _NEAREST, _RETRIEVED = 10, 8, 5  # pictures a sheet; neighbours a query; pictures a caption
SEARCHED = {"chance": "chance", "bm25": "BM25", **{row: row for row in ("untrained", "trained")}}
SEARCHED["trained_bm25"] = "trained + BM25"
BASELINES = {"raw": "raw pixels", "untrained": "untrained", "trained": "trained"}


AnyMeasure = Measure | TextMeasure | SearchMeasure


def measure_of(run: Run) -> AnyMeasure | None:
  """Returns the evaluators of a run, of pictures, of a text model or of a retriever; None where its config has none."""
  if run.job.evaluation is None:
    return None
  if run.job.data.ict is not None:
    return SearchMeasure(run)
  if run.job.data.text is not None:
    return TextMeasure(run)
  return Measure(run) if run.captioner is None else PairMeasure(run)


def finish(run: Run, state: TrainState, measure: AnyMeasure | None, folder: pathlib.Path, *, begun: float) -> None:
  """Writes eval/final.json, summary.json, pictures/ and report.html, and prints the table and where they are.

  Args:
    run: what was trained.
    state: its last state.
    measure: the evaluators; None: there are none.
    folder: the work directory.
    begun: `time.time()` at the start of the command.
  """
  with jax.set_mesh(run.mesh):
    if measure is None or isinstance(measure, Measure):
      scores = _pictures(run, state, measure, folder) if run.job.data.pictures else {}
    else:
      scores = _search(run, state, measure) if isinstance(measure, SearchMeasure) else _text(run, state, measure)
  if not distributed.is_main():
    return
  scores |= _throughput(folder)
  workdirs.write_json(folder / "eval" / "final.json", scores)
  write_report(run, folder, begun=begun)
  show(scores)
  print(f"evaluation  {folder / 'eval' / 'final.json'}")
  print(f"report      {folder / 'report.html'}")
  print(f"checkpoint  {folder / 'checkpoints' / str(int(state.step))}")


def write_report(run: Run, folder: pathlib.Path, *, begun: float) -> None:
  """Writes summary.json (size, devices, seconds) and report.html; one process of a run does."""
  if not distributed.is_main():
    return
  devices = run.mesh.devices.flatten()
  summary = {"parameters": tree.size(run.like.params), "devices": f"{len(devices)} x {devices[0].device_kind}"}
  workdirs.write_json(folder / "summary.json", summary | {"seconds": round(time.time() - begun, 1)})
  page.write([folder], folder / "report.html")


def _pictures(run: Run, state: TrainState, measure: Measure | None, folder: pathlib.Path) -> dict[str, float]:
  """Returns flat scores beside their baselines, and draws what the report shows."""
  features = measure.features(state) if measure else None
  if isinstance(measure, PairMeasure) and distributed.is_main():
    _warn_of_duplicates(run, measure)
  scores = _beside_baselines(run, measure, features, state) if measure and features else {}
  draw(run, state, folder / "pictures", measure=measure, features=features)
  return scores


def _text(run: Run, state: TrainState, measure: TextMeasure) -> dict[str, float]:
  """Returns the trained model's flat scores, those of the untrained one, and the baseline's."""
  return _untrained(run, measure) | measure(state, when=("always", "once"))


def _search(run: Run, state: TrainState, measure: SearchMeasure) -> dict[str, float]:
  """Returns flat scores of random rankings, of BM25, of the untrained retriever and of the trained one."""
  return measure.baselines() | _untrained(run, measure) | measure.beside(state, row="trained")


def _beside_baselines(run: Run, measure: Measure, features: Features, state: TrainState) -> dict[str, float]:
  """Returns flat scores of raw pixels, of the untrained encoder of the same seed, and of the trained one."""
  raw = {f"raw/{key}": value for key, value in measure.raw().items()} if _wants_baselines(run) else {}
  trained = {f"trained/{key}": value for key, value in (measure.scores(features) | measure.more(state)).items()}
  return {key: float(value) for key, value in (raw | _untrained(run, measure) | trained).items()}


def _untrained(run: Run, measure: AnyMeasure) -> dict[str, float]:
  """Returns the flat scores of the untrained network of the same seed, where they are wanted."""
  if not _wants_baselines(run):
    return {}
  state = states.create(run.init, run.like, run.job.seed)
  return {f"untrained/{key}": value for key, value in measure(state).items()}


def _wants_baselines(run: Run) -> bool:
  return run.job.evaluation is not None and run.job.evaluation.baselines == "on"


def _throughput(folder: pathlib.Path) -> dict[str, float]:
  """Returns medians over the run's log lines; the first line, with its warm-up, is left out."""
  lines = [line for line in read_metrics(folder / FILE) if "train/examples_per_second" in line]
  lines = lines[1:] or lines
  keys = ("examples_per_second", "data_wait")
  return {f"train/{key}": float(np.median([line[f"train/{key}"] for line in lines])) for key in keys if lines}


def show(scores: Mapping[str, float]) -> None:
  """Prints the scores as a table: a row a representation (or model), a column an evaluator's number (or a group)."""
  console = Console(quiet=not distributed.is_main())
  if _is_text(scores):
    tables = [_bits(scores)]
  elif any(key.startswith("chance/") for key in scores):
    tables = _searched(scores)
  else:
    tables = [table for table in (_pairs(scores), _features(scores)) if table]
  for table in tables:
    console.print(table)
  if "train/examples_per_second" in scores:
    rate, wait = scores["train/examples_per_second"], 100 * scores["train/data_wait"]
    console.out(f"trained at {rate:.0f} examples/s, {wait:.1f} % of the time waiting for data", highlight=False)


def _is_text(scores: Mapping[str, float]) -> bool:
  return any(key.endswith("/bits_per_byte") for key in scores)


def _pairs(scores: Mapping[str, float]) -> Table | None:
  """Returns the table of retrieval both ways and of zero-shot classification, chance first; None without them."""
  trained = {key.partition("/")[2]: value for key, value in scores.items() if key.startswith("trained/")}
  columns = {key: chance_of(key) for key in trained if "_r@" in key}
  columns |= {"zero_shot": "zero_shot_chance"} if "zero_shot" in trained else {}
  names = {"i2t": "i → t", "t2i": "t → i"}  # image to text, text to image
  heads = [f"{names[key[:3]]}\nR{key[5:]}" if "_r@" in key else "zero-shot" for key in columns]
  table = Table(*(Column(head, no_wrap=True) for head in ("held out", *heads)))
  table.add_row("chance", *(_number(trained.get(chance)) for chance in columns.values()))
  for row in ("untrained", "trained"):
    if any(f"{row}/{key}" in scores for key in columns):
      table.add_row(BASELINES[row], *(_number(scores.get(f"{row}/{key}")) for key in columns))
  return table if columns else None


def _searched(scores: Mapping[str, float]) -> list[Table]:
  """Returns the tables of retrieval among texts, one a task; what needs no model comes first."""
  found = [key.partition("/")[2] for key in scores if key.startswith("chance/")]
  tables = []
  for task in dict.fromkeys(key.rpartition("_")[0] for key in found):
    columns = [key for key in found if key.rpartition("_")[0] == task]
    heads = [key.removeprefix(f"{task}_").replace("r@", "R@").replace("ndcg", "nDCG") for key in columns]
    table = Table(f"{task}, held out", *heads)
    for row, name in SEARCHED.items():
      if any(key.startswith(f"{row}/") for key in scores):
        table.add_row(name, *(_number(scores.get(f"{row}/{column}")) for column in columns))
    tables.append(table)
  return tables


def _features(scores: Mapping[str, float]) -> Table | None:
  found = dict.fromkeys(key.split("/")[1] for key in scores if key.split("/")[0] in BASELINES)
  found = [name for name in found if "@" not in name and not name.startswith("zero_shot")]
  # What extends another's name ("linear_probe_l2") is a detail of it, for the file.
  columns = [column for column in found if not any(column.startswith(f"{other}_") for other in found)]
  table = Table("features", *(column.replace("_", " ") for column in columns))
  for row, name in BASELINES.items():
    if any(f"{row}/{column}" in scores for column in columns):
      table.add_row(name, *(_number(scores.get(f"{row}/{column}")) for column in columns))
  return table if columns else None


def _bits(scores: Mapping[str, float]) -> Table:
  """Returns the table of held-out bits per byte: the n-gram knows no denoisers, so its one number is in each column."""
  groups = [key.split("/")[0] for key in scores if key.endswith("/bits_per_byte") and key.count("/") == 1]
  groups = [group for group in groups if group != "ngram"]
  table = Table("bits per byte, held out", *groups)
  if "ngram/bits_per_byte" in scores:
    table.add_row("byte n-gram", *([_number(scores["ngram/bits_per_byte"])] * len(groups)))
  for row, name in {"untrained/": "untrained", "": "trained"}.items():
    if f"{row}{groups[0]}/bits_per_byte" in scores:
      table.add_row(name, *(_number(scores.get(f"{row}{group}/bits_per_byte")) for group in groups))
  return table


def _number(value: float | None) -> str:
  if value is None:
    return "-"
  return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def draw(
  run: Run, state: TrainState, folder: pathlib.Path, *, measure: Measure | None, features: Features | None
) -> None:
  """Writes the pictures of the report: augmented views, what the objective shows, nearest neighbours."""
  _save(views(run), folder, "1_views", caption="Augmented views: what the model is trained on")
  params, key = parameters(state), rng.use_key(state.rng, rng.SHOW)
  source = measure.test if measure else run.source
  host = source.read(np.linspace(0, len(source) - 1, _SHOWN).astype(np.int64)).arrays
  index = np.stack([np.zeros(_SHOWN), np.arange(_SHOWN)], axis=-1).astype(np.uint32)
  show_one = jax.jit(lambda p, s, batch: run.objective.show(p, s, run.augment.evaluate(batch), rng=key))
  for number, (name, images) in enumerate(show_one(params, state.objective_state, host | {"index": index}).items()):
    sheet = pictures.grid(distributed.to_host(run.augment.restore(images)), columns=name.split(" | "))
    _save(sheet, folder, f"2_objective_{number}", caption=name.replace(" | ", ", "))
  if measure and features and features.num_classes:
    sheet = _neighbours(measure, features)
    caption = "Ten test queries and their nearest training pictures; framed green where the class is the same"
    _save(sheet, folder, "3_neighbours", caption=caption)
  if isinstance(measure, PairMeasure):
    draw_retrieval(measure, state, folder)


def _warn_of_duplicates(run: Run, measure: PairMeasure) -> None:
  """Prints how many held-out pictures were trained on; a set too large to be read again is not looked at."""
  if len(run.source) > _LOOKED_AT:
    return
  if found := duplicates(run.source, measure.test):
    first = found[0]
    print(
      f"warning: {len(found)} of {len(measure.test)} held-out pictures are in the training set too, such as "
      f"{first.test_name} (it is {first.train_name})"
    )


def draw_retrieval(measure: PairMeasure, state: TrainState, folder: pathlib.Path) -> None:
  """Writes 4_retrieval.png: held-out captions, evenly spread, and the pictures nearest to each."""
  features = measure.pairs(state).first()
  chosen = np.linspace(0, len(features.texts) - 1, min(_SHOWN, len(features.texts))).astype(np.int64)
  found = ranked(features.texts[chosen], features.images, k=_RETRIEVED)
  _, images_of = features.relevant()
  hits = np.array(
    [[image in images_of[text] for image in row] for text, row in zip(chosen, found.tolist(), strict=True)]
  )
  images = measure.test.read(found.ravel()).arrays["image"]
  sheet = pictures.retrieved(
    [features.captions[text] for text in chosen], images.reshape(*found.shape, *images.shape[1:]), hits
  )
  caption = "Held-out captions and the pictures nearest to each; framed green where the caption is that picture's"
  _save(sheet, folder, "4_retrieval", caption=caption)


def views(run: Run, *, rows: int = _SHOWN) -> Any:
  """Returns a sheet of the first training pictures: the canvas, every view made of it, and its caption if there is one.

  A caption is shown as the model gets it: its tokens as text, and how many they are.

  A recipe of one view shows three of the draws it makes of a picture over the epochs.
  """
  size = max(rows, sharding.batch_devices(run.mesh))
  host = {key: value[:size] for key, value in run.stream.batch(0).arrays.items()}
  augment = jax.jit(run.augment)
  seed_key = rng.use_key(jax.random.key(run.job.seed), rng.AUGMENT)
  cells = [host["image"][:, None] / np.float32(255)]
  for draw in range(3 if run.augment.produces == ("image",) else 1):
    made = augment(rng.example_keys(seed_key, host["index"] + np.uint32([draw, 0])), host)
    for key in run.augment.produces:
      images = distributed.to_host(run.augment.restore(made[key]))
      cells.append(images if images.ndim == 5 else images[:, None])
  names = ["picture"] + [f"view {n + 1}" for n in range(sum(cell.shape[1] for cell in cells[1:]))]
  return pictures.grid(_same_size(cells)[:rows], columns=names, notes=_captions(run, host)[:rows])


def _captions(run: Run, host: Mapping[str, np.ndarray]) -> list[str]:
  if run.captioner is None:
    return []
  rows = host[run.captioner.section.key]
  rows = rows if rows.ndim == 3 else rows[:, None]
  return [" | ".join(_caption(run.captioner, ids) for ids in each) for each in rows]


def _caption(captioner: Captioner, ids: np.ndarray) -> str:
  end = int((ids == captioner.end).argmax()) + 1
  return f"{captioner.decode(ids)} [{end} of {len(ids)} tokens]"


def _same_size(cells: list[np.ndarray]) -> np.ndarray:
  """Returns image arrays [B,V,h,w,3] of several sizes side by side, the smaller ones enlarged by repetition."""
  side = max(cell.shape[2] for cell in cells)
  where = [np.arange(side) * cell.shape[2] // side for cell in cells]
  return np.concatenate([cell[:, :, w][:, :, :, w] for cell, w in zip(cells, where, strict=True)], axis=1)


def _save(sheet: Any, folder: pathlib.Path, name: str, *, caption: str) -> None:
  if distributed.is_main():
    pictures.save(sheet, folder, name, caption=caption)


def _neighbours(measure: Measure, features: Features) -> Any:
  queries = np.linspace(0, len(features.test_x) - 1, _SHOWN).astype(np.int64)
  rows = distributed.to_host(nearest_rows(features.train_x, features.test_x[queries], k=_NEAREST))
  found = measure.train.read(rows.ravel()).arrays["image"]
  same = features.train_y[rows] == features.test_y[queries][:, None]
  return pictures.neighbours(
    measure.test.read(queries).arrays["image"], found.reshape(*rows.shape, *found.shape[1:]), same
  )
