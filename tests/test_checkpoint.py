"""Checkpoints come back bit for bit, a damaged one is noticed, another shape is refused by name."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax import sharding
from ssljax.checkpoint import Checkpoints, CorruptCheckpoint
from ssljax.errors import UserError
from ssljax.types import TrainState

CONFIG = {"seed": 1}


def state(width=40):
  params = {"a": {"kernel": jax.random.normal(jax.random.key(1), (30, width))}, "b": jnp.arange(3.0)}
  return TrainState(jnp.int32(3), params, {"mu": params["b"]}, {}, jax.random.key(0))


def like(tree, devices=8):
  place = sharding.replicated(sharding.make_mesh(devices=jax.devices()[:devices]))
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), jax.eval_shape(lambda: tree))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
  folder = tmp_path_factory.mktemp("run") / "checkpoints"
  store = Checkpoints(folder, keep=2)
  for step in (1, 2, 3):
    store.save(step, state(), config=CONFIG)
  store.close()
  return folder


@pytest.fixture
def copied(written, tmp_path):
  folder = tmp_path / "checkpoints"
  for file in written.rglob("*"):
    if file.is_file():
      target = folder / file.relative_to(written)
      target.parent.mkdir(parents=True, exist_ok=True)
      target.write_bytes(file.read_bytes())
  return folder


def largest(folder: pathlib.Path):
  return max((file for file in folder.rglob("*") if file.is_file()), key=lambda file: file.stat().st_size)


def equal(a, b):
  words = lambda x: np.asarray(jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x)
  return all((words(x) == words(y)).all() for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_the_newest_are_kept_and_come_back_on_another_number_of_devices(written):
  store = Checkpoints(written, keep=2)
  assert store.steps() == [2, 3] and store.meta(3)["config"] == CONFIG
  for devices in (8, 1):
    step, restored = store.restore_latest(like(state(), devices))
    assert step == 3 and equal(restored, state()) and len(restored.step.sharding.device_set) == devices
  store.close()


# Orbax leaves futures of the reads that failed to an event loop it has closed; Python notes that at collection.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("damage", ["flip", "truncate", "delete"])
def test_damage_is_noticed_and_the_one_before_is_taken(copied, damage):
  data = copied / "3" / "state" / "d"
  file = largest(data if data.is_dir() else copied / "3" / "state")
  content = bytearray(file.read_bytes())
  if damage == "flip":
    content[len(content) // 2] ^= 4
  if damage == "delete":
    file.unlink()
  else:
    file.write_bytes(content[: len(content) // 2] if damage == "truncate" else content)
  store, lines = Checkpoints(copied, keep=2), []
  with pytest.raises(CorruptCheckpoint):
    store.restore(3, like(state()))
  step, restored = store.restore_latest(like(state()), warn=lines.append)
  assert step == 2 and equal(restored, state())
  assert len(lines) == 1 and "/3" in lines[0] and "trying the checkpoint before it" in lines[0]
  store.set_aside_after(2)
  assert store.steps() == [2] and (copied / "3.corrupt").is_dir()
  store.save(3, state(), config=CONFIG)
  store.close()
  assert store.steps() == [2, 3]


def test_a_flipped_bit_names_the_leaf(copied):
  store = Checkpoints(copied, keep=2)
  meta = store.meta(3)
  wrong = {**meta, "checksums": {**meta["checksums"], "params/b": [0, 0]}}
  store.meta = lambda step: wrong
  with pytest.raises(CorruptCheckpoint, match=r"checksum differs in params/b$"):
    store.restore(3, like(state()))
  store.close()


def test_another_shape_is_named(written):
  store = Checkpoints(written, keep=2)
  other = like(state(width=7)).replace(objective_state={"queue": like(state()).params["b"]})
  with pytest.raises(
    UserError, match=r"a/kernel found float32\[30, 40\] expected float32\[30, 7\]; objective_state/queue is missing"
  ):
    store.restore(3, other)
  with pytest.raises(UserError, match="params/b is not expected"):
    store.restore(3, like(state()).replace(params={"a": like(state()).params["a"]}))
  store.close()
