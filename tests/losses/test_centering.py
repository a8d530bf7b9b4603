"""The centre of a teacher's scores: DINO's numbers, microbatches, and the same with Sinkhorn."""

import jax.numpy as jnp
import numpy as np
import pytest

from ssljax.errors import UserError
from ssljax.losses.centering import Centering
from ssljax.losses.clustering import sinkhorn
from ssljax.losses.self_distillation import dino_loss


def sines(*shape, offset=1.0, function=np.sin):
  return jnp.asarray(function(np.arange(np.prod(shape)) + offset).reshape(shape), jnp.float32)


def by_image(x, views):
  """Rows of one view after the other as [B,V,...]."""
  return jnp.moveaxis(x.reshape(views, -1, *x.shape[1:]), 0, 1)


def test_dinos_loss_and_the_centre_after_it():
  """DINOLoss(out 6, 4 crops, temperatures 0.04 and 0.1) of two images: the released code's numbers."""
  centering = Centering()
  student, teacher = by_image(sines(8, 6), 4), by_image(sines(4, 6, offset=1.5, function=np.cos), 2)
  targets, state = centering(centering.init(6), teacher, temperature=0.04)
  assert float(dino_loss(student, targets, temperature=0.1)) == pytest.approx(17.2783730396, rel=1e-5)
  np.testing.assert_array_equal(state["center"], 0)
  expected = [0.0452027, -0.04594108, -0.09484685, -0.05655086, 0.03373773, 0.09300801]
  after = centering.moved(state)
  np.testing.assert_allclose(after["center"], expected, rtol=1e-5, atol=1e-7)
  assert float(after["rows"]) == 0 and float(jnp.abs(after["sum"]).max()) == 0


def test_microbatches_see_one_centre_and_move_it_once():
  centering, scores = Centering(decay=0.5), sines(6, 3)
  start = centering.init(3) | {"center": sines(3, offset=5.0)}
  whole, state = centering(start, scores, temperature=0.2)
  first, between = centering(start, scores[:2], temperature=0.2)
  second, after = centering(between, scores[2:], temperature=0.2)
  np.testing.assert_allclose(jnp.concatenate([first, second]), whole, rtol=1e-5)
  np.testing.assert_allclose(centering.moved(after)["center"], centering.moved(state)["center"], rtol=1e-5)
  np.testing.assert_allclose(centering.moved(state)["center"], 0.5 * start["center"] + 0.5 * scores.mean(0), rtol=1e-5)


def test_rows_that_do_not_count_move_nothing():
  centering, scores = Centering(), sines(2, 2, 3)
  counted = jnp.asarray([[True, False], [False, True]])
  _, state = centering(centering.init(3), scores, temperature=0.2, counted=counted)
  np.testing.assert_allclose(centering.moved(state)["center"], 0.1 * scores[counted].mean(0), rtol=1e-5)
  held = centering.init(3) | {"center": jnp.ones(3)}
  np.testing.assert_array_equal(centering.moved(held)["center"], 1)


def test_sinkhorn_takes_all_views_of_the_batch_together():
  centering, scores = Centering(kind="sinkhorn"), sines(4, 2, 3)
  found, state = centering({}, scores, temperature=0.3)
  expected = sinkhorn(scores.reshape(8, 3), epsilon=0.3, iterations=3)
  np.testing.assert_allclose(found.reshape(8, 3), expected, rtol=1e-6)
  assert centering.init(3) == state == centering.moved(state) == {}


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (dict(kind="mean"), "centering mean"),
    (dict(decay=1.0), "center_decay 1.0, expected"),
    (dict(iterations=0), "sinkhorn_iterations 0, expected at least 1"),
  ],
)
def test_bad_options_are_named(options, message):
  with pytest.raises(UserError, match=message):
    Centering(**options)
