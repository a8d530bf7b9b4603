"""The search, on a made-up device: a row takes so many bytes, and recomputing costs time."""

import pytest

from ssljax.planning import fit, variants
from ssljax.planning.estimate import Estimate
from ssljax.planning.roofline import Roofline

ROW = {"none": 30, "dots": 12, "full": 3}
SLOWER = {"none": 1.0, "dots": 1.1, "full": 1.4}


def device(room, asked):
  def estimate(remat, rows):
    asked.append((remat, rows))
    needed = ROW[remat] * rows
    roofline = Roofline(compute=SLOWER[remat] * (1 + rows), memory=0.0, interconnect=0.0)
    return Estimate(fits=needed <= room, limit=room, needed=needed, roofline=roofline)

  return estimate


@pytest.mark.parametrize("start", [1, 4, 8, 64])
def test_the_largest_batch_of_each(start):
  asked = []
  found = fit.search(device(100, asked), list(ROW), rows=start)
  assert [one.rows for one in found] == [2, 8, 32]
  assert all(one.estimate.fits and one.estimate.needed == ROW[one.remat] * one.rows for one in found)
  assert len(asked) == len(set(asked)) <= 12  # nothing is compiled twice


def test_a_choice_begins_where_the_one_before_ended():
  asked = []
  fit.search(device(100, asked), list(ROW), rows=2)
  tried = {remat: [rows for name, rows in asked if name == remat] for remat in ROW}
  assert tried == {"none": [2, 4], "dots": [4, 8, 16], "full": [16, 32, 64]}


def test_the_best_has_the_highest_rate():
  found = fit.search(device(100, []), list(ROW), rows=8)
  rates = {remat: rows / (SLOWER[remat] * (1 + rows)) for remat, rows in (("none", 2), ("dots", 8), ("full", 32))}
  assert [one.rate for one in found] == pytest.approx(list(rates.values()))
  assert fit.best(found).remat == max(rates, key=rates.get) == "dots"


def test_nothing_fits():
  found = fit.search(device(2, []), list(ROW), rows=4)
  assert [(one.rows, one.rate) for one in found] == [(0, 0.0)] * 3 and fit.best(found) is None


def test_unbounded_memory_ends_too():
  (one,) = fit.search(device(2**60, []), ["full"], rows=3)
  assert fit.MOST_ROWS / 2 < one.rows <= fit.MOST_ROWS


def test_remat_is_set_where_a_model_knows_it():
  section = {"name": "lwf.LwF", "objective": {"name": "mae.MAE", "encoder": {"name": "vit.ViT", "remat": "dots"}}}
  changed = variants.with_remat(section, "full")
  assert changed["objective"]["encoder"] == {"name": "vit.ViT", "remat": "full"} and "remat" not in changed["objective"]
  assert section["objective"]["encoder"]["remat"] == "dots" and variants.remat_of(section) == "dots"
  resnet = {"name": "simclr.SimCLR", "encoder": {"name": "resnet.ResNet"}}
  assert variants.with_remat(resnet, "full") == resnet and variants.remat_of(resnet) is None
  for encoder in ({}, {"remat": None}):
    assert variants.remat_of({"name": "mae.MAE", "encoder": {"name": "vit.ViT"} | encoder}) == "none"


def test_the_method_as_it_is_written():
  section = {"name": "simclr.SimCLR", "pairs": "ring", "encoder": {"name": "vit.ViT", "remat": "full"}}
  assert variants.plain(section) == section | {"pairs": "dense", "encoder": {"name": "vit.ViT", "remat": "none"}}


def test_rows_become_a_batch():
  config = {"data": {"batch_size": 64, "source": "x"}, "accumulate": 2}
  assert variants.with_rows(config, 3, devices=8)["data"] == {"batch_size": 48, "source": "x"}
  assert config["data"]["batch_size"] == 64
