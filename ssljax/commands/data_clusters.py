"""`ssljax data clusters`: k-means on the features of a run's training pictures, for batches of different clusters."""

import argparse
import pathlib
from typing import Any

import numpy as np

from ssljax import runtime
from ssljax.commands import workdir as workdirs
from ssljax.errors import UserError


def run(options: argparse.Namespace) -> int:
  """Returns the exit code of `ssljax data clusters`; the clusters go to the file --out."""
  folder, step = workdirs.split_step(options.workdir, "--workdir")
  out = pathlib.Path(options.out)
  if not out.parent.is_dir() or out.suffix != ".npz":
    raise UserError(f"--out: found {out}, expected a .npz file in a folder that exists")
  try:
    from sklearn.cluster import KMeans
  except ImportError as error:
    raise UserError('data clusters: needs scikit-learn, pip install "ssljax[data]"') from error
  runtime.start(cpu_devices=options.cpu_devices)

  from ssljax.commands import evaluate
  from ssljax.data import clusters

  assembled, _, state = evaluate.restored(folder, step, None, "--workdir")
  data = assembled.job.data
  if not data.pictures or assembled.job.stream:
    raise UserError(f"--workdir: {folder} was not trained on one set of pictures, expected one that was")
  if not 2 <= options.clusters <= len(assembled.source):
    raise UserError(
      f"--clusters: found {options.clusters}, expected 2 to {len(assembled.source)}, the records there are"
    )
  features = _features(assembled, state)
  labels = KMeans(options.clusters, n_init=1, random_state=assembled.job.seed).fit_predict(features)
  clusters.save(out, labels, source=data.source, split=data.split)
  sizes = np.bincount(labels)
  print(f"{out}: {len(labels):,} records in {len(sizes)} clusters of {sizes.min():,} to {sizes.max():,}")
  return 0


def _features(assembled: Any, state: Any) -> np.ndarray:
  """Returns the embeddings f32[N,D] of all training records in the source's order; of a corrupt one those of black."""
  import jax

  from ssljax import sharding
  from ssljax.data.pipeline import epoch
  from ssljax.training.evaluation import parameters

  place, rows = sharding.batch_sharding(assembled.mesh), []
  with jax.set_mesh(assembled.mesh):
    for batch in epoch(assembled.source, assembled.job.data.batch_size):
      arrays = jax.device_put(batch.arrays, place)
      found = assembled.encode(parameters(state), state.objective_state, arrays)["embedding"]
      rows.append(np.asarray(found))
  return np.concatenate(rows)[: len(assembled.source)]
