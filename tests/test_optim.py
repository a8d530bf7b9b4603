import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from ssljax import optim, transforms
from ssljax.build import build
from ssljax.errors import UserError
from ssljax.schedules import linear

P, B = [[1.0, 2.0], [3.0, 4.0]], [1.0, -1.0]
GP, GB = [[0.1, -0.2], [0.3, 0.4]], [0.5, 0.5]
LAYERS = 3


def arrays(**leaves):
  return {key: jnp.asarray(value, jnp.float32) for key, value in leaves.items()}


def run(optimizer, params, gradients, steps=1):
  """Returns the parameters after `steps` steps with the same gradients, and the state."""
  transform = optimizer.transform

  def one(params, state, step):
    updates, state = transform.update(gradients, state, params, step=step)
    return optax.apply_updates(params, updates), state

  state = jax.jit(transform.init)(params)
  one = jax.jit(one)

  for step in range(steps):
    params, state = one(params, state, jnp.int32(step))
  return params, state


def random_tree(seed, depth=LAYERS):
  """A ViT in small: stacked blocks, embeddings, a final norm, a head."""
  rng = np.random.default_rng(seed)
  draw = lambda *shape: rng.normal(size=shape).astype(np.float32)
  blocks = {"mlp": {"kernel": draw(depth, 4, 6), "bias": draw(depth, 6)}, "norm": {"scale": draw(depth, 4)}}
  encoder = {
    "patch_embed": {"kernel": draw(5, 4)},
    "cls_token": draw(1, 4),
    "blocks": blocks,
    "norm": {"scale": draw(4)},
  }
  return {"encoder": encoder, "head": {"kernel": draw(4, 3), "bias": draw(3)}}


def unstack(tree):
  """The same parameters with each layer a leaf of its own, none of them under a stack."""
  blocks = tree["encoder"]["blocks"]
  layers = {f"layer{i}": jax.tree.map(lambda x, i=i: x[i], blocks) for i in range(LAYERS)}
  return {"encoder": {k: v for k, v in tree["encoder"].items() if k != "blocks"} | layers, "head": tree["head"]}


def close(found, expected, rtol=1e-5):
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-7), found, expected)


def test_lars_equals_mae_and_moco_v3():
  moved, _ = run(optim.lars(learning_rate=0.1, weight_decay=0.01), arrays(w=P, b=B), arrays(w=GP, b=GB))
  close(moved, dict(w=[[0.99989772, 2.00016737], [2.99969316, 3.99959088]], b=[0.95, -1.05]), rtol=1e-6)


@pytest.mark.parametrize("buffer", ["gradients", "steps"])
def test_lars_orders_differ_once_the_rate_moves(buffer):
  rate, momentum, trust, wd = linear(peak=1.0, end=0.0, total_steps=4), 0.9, 0.5, 0.1
  optimizer = optim.lars(learning_rate=rate, momentum=momentum, trust=trust, weight_decay=wd, buffer=buffer)
  moved, _ = run(optimizer, arrays(w=P, b=B), arrays(w=GP, b=GB), steps=3)
  w, b, mw, mb = np.array(P), np.array(B), 0.0, 0.0
  for lr in (1.0, 0.75, 0.5):
    gw, gb = np.array(GP) + wd * w, np.array(GB)
    gw = gw * trust * np.linalg.norm(w) / np.linalg.norm(gw)
    inside, outside = (lr, 1.0) if buffer == "steps" else (1.0, lr)
    mw, mb = momentum * mw + inside * gw, momentum * mb + inside * gb
    w, b = w - outside * mw, b - outside * mb
  close(moved, dict(w=w, b=b))


def test_lars_leaves_zero_parameters_and_zero_gradients_finite():
  moved, _ = run(optim.lars(learning_rate=0.1), arrays(w=np.zeros((2, 2)), v=P), arrays(w=GP, v=np.zeros((2, 2))))
  close(moved, dict(w=-0.1 * np.array(GP), v=P))


@pytest.mark.parametrize(
  ("smallest", "steps", "golden"),
  [
    (128, 1, [[0.9726138721, 2.0273861279], [2.9726138721, 3.9726138721]]),
    (128, 2, [[0.9453767805, 2.0546232195], [2.9453767805, 3.9453767805]]),
    (2, 1, [[0.9787867966, 2.03], [2.9715395011, 3.9731671843]]),
  ],
)
def test_adafactor_equals_t5x(smallest, steps, golden):
  optimizer = optim.adafactor(learning_rate=0.01, min_factored_dim=smallest)
  moved, _ = run(optimizer, arrays(w=P), arrays(w=GP), steps)
  close(moved, dict(w=golden), rtol=1e-6)


def test_adafactor_absolute_step_does_not_see_the_size_of_the_parameter():
  optimizer = optim.adafactor(learning_rate=0.01, step_size="absolute")
  moved, _ = run(optimizer, arrays(w=np.array(P) * 7), arrays(w=GP))
  close(moved, dict(w=np.array(P) * 7 - 0.01 * np.sign(GP)))


def torch_run(make, params, gradients, steps=4):
  leaves = [torch.nn.Parameter(torch.tensor(p)) for p in params]
  optimizer = make(leaves)
  for _ in range(steps):
    for leaf, gradient in zip(leaves, gradients, strict=True):
      leaf.grad = torch.tensor(gradient)
    optimizer.step()
  return [leaf.detach().numpy() for leaf in leaves]


DTYPES = ("float32", "bfloat16")


def test_adamw_equals_torch():
  keys = dict(lr=0.01, betas=(0.9, 0.95), eps=1e-6, weight_decay=0.1)
  expected = torch_run(lambda leaves: torch.optim.AdamW(leaves, **keys), [P], [GP])
  optimizer = optim.adamw(learning_rate=0.01, b1=0.9, b2=0.95, eps=1e-6, weight_decay=0.1)
  moved, _ = run(optimizer, arrays(w=P), arrays(w=GP), 4)
  close(moved, dict(w=expected[0]))


def test_bfloat16_moments_are_half_as_large_and_move_nearly_the_same():
  runs = [run(optim.adamw(learning_rate=0.01, moment_dtype=d), arrays(w=P), arrays(w=GP), 4) for d in DTYPES]
  moments = [sorted(leaf.dtype.name for leaf in jax.tree.leaves(state) if leaf.ndim) for _, state in runs]
  assert moments == [["float32", "float32"], ["bfloat16", "float32"]]
  moved = [np.asarray(params["w"]) - P for params, _ in runs]
  np.testing.assert_allclose(moved[1], moved[0], rtol=0.02)
  assert np.any(moved[1] != moved[0])


@pytest.mark.parametrize("acceleration", ["none", "nesterov"])
def test_sgd_equals_torch(acceleration):
  keys = dict(lr=0.1, momentum=0.9, weight_decay=0.1, nesterov=acceleration == "nesterov")
  expected = torch_run(lambda leaves: torch.optim.SGD(leaves, **keys), [P], [GP])
  optimizer = optim.sgd(learning_rate=0.1, momentum=0.9, weight_decay=0.1, acceleration=acceleration)
  moved, _ = run(optimizer, arrays(w=P), arrays(w=GP), 4)
  close(moved, dict(w=expected[0]))


@pytest.mark.parametrize(
  "optimizer",
  [
    optim.lars(learning_rate=0.1, weight_decay=0.01),
    optim.adafactor(learning_rate=0.1, min_factored_dim=4, weight_decay=0.01),
    optim.adamw(learning_rate=0.1, weight_decay=0.01, clip=0.5, clip_by="parameter"),
    optim.sgd(learning_rate=0.1, weight_decay=0.01, clip=0.5, clip_by="parameter"),
  ],
)
def test_a_stack_is_as_many_parameters(optimizer):
  params, gradients = random_tree(0), random_tree(1)
  stacked, _ = run(optimizer, params, gradients, 2)
  separate, _ = run(optimizer, unstack(params), unstack(gradients), 2)
  close(unstack(stacked), separate)


def test_only_matrices_are_decayed_and_no_decay_spares_more():
  params = random_tree(0)
  zeros = jax.tree.map(np.zeros_like, params)
  optimizer = optim.adamw(learning_rate=1.0, weight_decay=0.5, no_decay=("cls_token",))
  moved, _ = run(optimizer, params, zeros)
  ratio = {name: float(np.mean(new / old)) for (name, new), (_, old) in zip(named(moved), named(params), strict=True)}
  decayed = {"encoder/patch_embed/kernel", "encoder/blocks/mlp/kernel", "head/kernel"}
  assert ratio == pytest.approx({name: 0.5 if name in decayed else 1.0 for name in ratio})


def named(tree):
  return [("/".join(k.key for k in path), np.asarray(leaf)) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]


def test_layer_decay_equals_mae_fine_tuning():
  depth, decay = 12, 0.65
  params = random_tree(0, depth)
  params["decoder"] = {"blocks": {"kernel": jnp.ones((2, 3, 3))}}
  params["encoder"]["norm_pre"] = {"scale": jnp.ones(3)}
  optimizer = optim.sgd(learning_rate=1.0, momentum=0.0, layer_decay=decay)
  moved, _ = run(optimizer, jax.tree.map(np.zeros_like, params), jax.tree.map(np.ones_like, params))
  scale = {name: -np.asarray(leaf) for name, leaf in named(moved)}
  np.testing.assert_allclose(scale["encoder/patch_embed/kernel"], 0.003697, rtol=1e-3)
  for name in ("encoder/cls_token", "encoder/norm_pre/scale"):
    np.testing.assert_allclose(scale[name], decay**13, rtol=1e-5)
  np.testing.assert_allclose(scale["encoder/blocks/mlp/kernel"][:, 0, 0], decay ** np.arange(12.0, 0, -1), rtol=1e-5)
  np.testing.assert_allclose(scale["encoder/blocks/mlp/bias"][-2:, 0], [0.4225, 0.65], rtol=1e-6)
  for name in ("encoder/norm/scale", "head/kernel", "head/bias", "decoder/blocks/kernel"):
    np.testing.assert_array_equal(scale[name], 1.0)


def test_multipliers_scale_step_and_decay_and_zero_freezes():
  params, gradients = arrays(slow=P, fast=P, frozen=P), arrays(slow=GP, fast=GP, frozen=GP)
  keys = dict(learning_rate=0.1, weight_decay=0.1)
  moved, _ = run(optim.adamw(**keys, lr_multipliers=(("slow", 0.5), ("frozen", 0.0), (".", 1.0))), params, gradients)
  np.testing.assert_array_equal(moved["frozen"], params["frozen"])
  np.testing.assert_allclose(moved["slow"] - params["slow"], 0.5 * (moved["fast"] - params["fast"]), atol=3e-7)


def test_rules_give_parameters_learning_rates_of_their_own():
  """The rate falls to 0 in four steps, but not the predictor's; both are scaled with the batch."""
  rules = (("^predictor", 0.5), ("other", linear(peak=0.1, end=0.3, total_steps=4)))
  rate = linear(peak=1.0, end=0.0, total_steps=4)
  optimizer = optim.sgd(learning_rate=rate, lr_rules=rules, momentum=0.0, scale="linear", batch_size=512)
  params, ones = (arrays(encoder=[x], predictor=[x], other=[x]) for x in (0.0, 1.0))
  transform = optimizer.transform
  for step, encoder, other in ((0, 2.0, 0.2), (3, 0.5, 0.5)):
    updates, _ = transform.update(ones, transform.init(params), params, step=step)
    close(updates, dict(encoder=[-encoder], predictor=[-1.0], other=[-other]))
  assert float(optimizer.learning_rate(3)) == pytest.approx(0.5)


def test_what_is_held_stands_still_and_then_moves_as_if_it_never_had():
  params, gradients = arrays(prototypes=P, free=P), arrays(prototypes=GP, free=GP)
  optimizer = optim.adamw(learning_rate=0.1, weight_decay=0.1, hold=(("prototypes", 2),), clip=0.1, clip_by="parameter")
  still, _ = run(optimizer, params, gradients, steps=2)
  np.testing.assert_array_equal(still["prototypes"], params["prototypes"])
  assert float(jnp.abs(still["free"] - params["free"]).min()) > 0.1
  moved, _ = run(optimizer, params, gradients, steps=3)
  alone = run(optim.adamw(learning_rate=0.1), arrays(w=np.zeros((2, 2))), arrays(w=GP))[0]["w"]
  close(moved["prototypes"] - params["prototypes"], alone - 0.1 * 0.1 * params["prototypes"], rtol=1e-4)


def test_clip_by_global_and_by_parameter_norm():
  params, gradients = arrays(a=np.zeros(2), b=np.zeros(2)), arrays(a=[30.0, 40.0], b=[0.3, 0.4])
  everything, _ = run(optim.sgd(learning_rate=1.0, clip=1.0), params, gradients)
  each, _ = run(optim.sgd(learning_rate=1.0, clip=1.0, clip_by="parameter"), params, gradients)
  norm = np.hypot(50, 0.5)
  close(everything, dict(a=-np.array([30, 40]) / norm, b=-np.array([0.3, 0.4]) / norm))
  close(each, dict(a=[-0.6, -0.8], b=[-0.3, -0.4]), rtol=1e-6)


@pytest.mark.parametrize(
  ("keys", "expected"),
  [
    (dict(learning_rate=0.3, scale="linear"), 4.8),
    (dict(learning_rate=1.2, scale="sqrt"), 0.075 * 4096**0.5),
    (dict(learning_rate=1.5e-4, scale="linear"), 0.0024),
    (dict(learning_rate=4e-3, scale="sqrt", base_batch_size=1024), 0.008),
    (dict(learning_rate=0.3), 0.3),
  ],
)
def test_learning_rate_scales_with_the_batch(keys, expected):
  optimizer = optim.sgd(**keys, batch_size=4096, momentum=0.0)
  assert float(optimizer.learning_rate(0)) == pytest.approx(expected, rel=1e-6)
  moved, _ = run(optimizer, arrays(w=[0.0]), arrays(w=[1.0]))
  assert float(moved["w"][0]) == pytest.approx(-expected, rel=1e-6)


def test_rate_and_decay_follow_the_step_that_is_given():
  rate, decay = linear(peak=1.0, end=0.0, total_steps=10), linear(peak=0.0, end=1.0, total_steps=10)
  optimizer = optim.sgd(learning_rate=rate, weight_decay=decay, momentum=0.0)
  params, zero = arrays(w=[[2.0]]), arrays(w=[[0.0]])
  updates, _ = optimizer.transform.update(zero, optimizer.transform.init(params), params, step=4)
  assert float(updates["w"][0, 0]) == pytest.approx(-0.6 * 0.4 * 2)
  assert (float(optimizer.learning_rate(4)), float(optimizer.weight_decay(4))) == pytest.approx((0.6, 0.4))
  with pytest.raises(TypeError, match="step"):
    optimizer.transform.update(zero, optimizer.transform.init(params), params)


def test_ema_averages_the_new_parameters_in_float32():
  params = {"w": jnp.asarray([4.0], jnp.bfloat16)}
  _, state = run(optim.sgd(learning_rate=1.0, momentum=0.0, ema=0.75), params, {"w": jnp.ones((1,), jnp.bfloat16)}, 2)
  average = transforms.ema_params(state)["w"]
  assert average.dtype == jnp.float32 and float(average[0]) == 0.75 * (0.75 * 4 + 0.25 * 3) + 0.25 * 2
  _, without = run(optim.sgd(learning_rate=1.0), params, params)
  assert transforms.ema_params(without) is None


@pytest.mark.parametrize(
  ("keys", "message"),
  [
    (dict(learning_rate=-1.0), r"optimizer\.learning_rate: found -1.0"),
    (dict(learning_rate=float("nan")), r"optimizer\.learning_rate: found nan"),
    (dict(weight_decay=-0.1), r"optimizer\.weight_decay: found -0.1"),
    (dict(clip=-1.0), r"optimizer\.clip: found -1.0"),
    (dict(ema=1.0), r"optimizer\.ema: found 1.0"),
    (dict(scale="linear"), r"optimizer\.scale: linear needs batch_size"),
    (dict(no_decay=("tokens",)), r"optimizer\.no_decay: 'tokens' is found in no parameter"),
    (dict(lr_rules=(("tokens", 0.1),)), r"optimizer\.lr_rules: 'tokens' is found in no parameter"),
    (dict(lr_rules=(("w", -0.1),)), r"optimizer\.lr_rules: found -0.1"),
    (dict(lr_multipliers=(("(", 1.0),)), r"optimizer\.lr_multipliers: '\(' is no regular expression"),
    (dict(hold=(("prototypes", 3),)), r"optimizer\.hold: 'prototypes' is found in no parameter"),
    (dict(layer_decay=0.65), r"optimizer\.layer_decay: no parameter is under encoder/blocks/"),
  ],
)
def test_mistakes_are_named(keys, message):
  with pytest.raises(UserError, match=message):
    optim.adamw(**dict(learning_rate=0.1) | keys).transform.init(arrays(w=P))


@pytest.mark.parametrize("name", ["adamw", "sgd", "lars", "adafactor"])
def test_every_optimiser_is_built_from_a_config_section(name):
  section = dict(
    name=name,
    learning_rate=dict(name="cosine", peak=1e-3, warmup_steps=2, total_steps=10),
    weight_decay=0.05,
    no_decay=["token"],
    lr_rules=[["head/bias", dict(name="constant", value=0.1)]],
    lr_multipliers=[["head", 2]],
    hold=[["head", 1]],
    layer_decay=0.75,
    clip=1,
    scale="linear",
    ema=0.999,
  )
  optimizer = build(section, "optim", where="optimizer", batch_size=512)
  assert isinstance(optimizer, optim.Optimizer) and dataclasses.is_dataclass(optimizer)
  assert float(optimizer.learning_rate(2)) == pytest.approx(2e-3)
  moved, state = run(optimizer, random_tree(0), random_tree(1), 2)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((moved, state)))
