"""Topology preservation against torch's KL divergence, and what it must not see."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from slow_contrastive import unit

from ssljax.losses.distillation import topology_losses

DRAW = np.random.default_rng(0).normal
TODAY, BEFORE = [[unit(DRAW(size=(6, width))) for _ in range(2)] for width in (4, 3)]
losses = jax.jit(topology_losses)


def slow(image, text, image_before, text_before, temperature):
  """The released code's lines, in float64: KLDivLoss(batchmean) of log-softmaxes, the diagonal at -1000."""

  def kl(x, y, x_before, y_before, same):
    today, before = (torch.tensor(a @ b.T) for a, b in ((x, y), (x_before, y_before)))
    if same:
      place = torch.arange(len(x)).unsqueeze(-1)
      today, before = today.scatter(1, place, -1000), before.scatter(1, place, -1000)
    log, target = torch.log_softmax(today / temperature, dim=1), torch.softmax(before / temperature, dim=1)
    return float(torch.nn.KLDivLoss(reduction="batchmean")(log, target))

  cross = kl(image, text, image_before, text_before, False) + kl(text, image, text_before, image_before, False)
  same = kl(image, image, image_before, image_before, True) + kl(text, text, text_before, text_before, True)
  return cross / 2, same / 2


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_equals_the_released_code(temperature):
  found = losses(*map(jnp.float32, [*TODAY, *BEFORE]), temperature=temperature)
  np.testing.assert_allclose(found, slow(*TODAY, *BEFORE, temperature), rtol=1e-5)


def test_nothing_is_lost_where_nothing_moved_or_all_turned_together():
  turn = np.linalg.qr(DRAW(size=(4, 4)))[0]
  for image, text in (TODAY, [x @ turn for x in TODAY]):
    np.testing.assert_allclose(losses(*map(jnp.float32, [image, text, *TODAY]), temperature=0.1), 0, atol=1e-6)
  turned = [TODAY[0], TODAY[1] @ turn]  # one modality alone: the relations across it change
  cross, same = losses(*map(jnp.float32, [*turned, *TODAY]), temperature=0.1)
  assert float(cross) > 0.1 and abs(float(same)) < 1e-5


def test_gradients_are_finite_and_go_to_today_alone():
  total = lambda *features: sum(topology_losses(*features, temperature=0.05))
  image, text, *before = jax.grad(total, argnums=(0, 1, 2, 3))(*map(jnp.float32, [*TODAY, *BEFORE]))
  assert all(bool(jnp.isfinite(g).all()) and float(jnp.abs(g).max()) > 1e-3 for g in (image, text))
  assert all(float(jnp.abs(g).max()) == 0 for g in before)
