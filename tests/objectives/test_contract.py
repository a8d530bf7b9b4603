"""What every objective promises the trainer. A new file in objectives/ needs one tiny config here."""

import json
import pathlib
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ssljax import sharding, tree
from ssljax.build import build, names

BATCH, SIZE = 16, 8
VIT = dict(name="vit.ViT", variant="Ti", width=16, depth=2, heads=2, patch=4, image_size=SIZE)
TEXT = dict(vocab_size=40, length=6, width=16, depth=2, heads=2)
TOWERS = dict(
  name="dual.DualEncoder",
  image=dict(name="dual.Tower", encoder=VIT, width=8),
  text=dict(name="dual.Tower", encoder=dict(name="text_tower.TextTower") | TEXT, width=8),
)
# SigLIP's own: attention pooling, no projection of images; a bias that leaves the pairs something to say.
SIGMOID_TOWERS = TOWERS | dict(
  image=dict(name="dual.Tower", encoder=VIT | dict(pooling="map", cls_token="none"), width=None),
  text=dict(name="dual.Tower", encoder=dict(name="bert.Bert", pooling="mean") | TEXT, width=16, bias="present"),
  initial_scale=10.0,
  initial_bias=-1.0,
)
CLASSIFIER = dict(name="classify.Classifier", encoder=VIT, num_classes=5, head_std=1.0, smoothing=0.1)
TINY = {
  "autoencoder.DenoisingAutoencoder": dict(encoder=dict(name="conv_autoencoder.ConvEncoder", widths=(4, 6)), noise=0.1),
  "barlow_twins.BarlowTwins": dict(encoder=VIT, projector_layers=1, projector_out=20),
  "byol.BYOL": dict(encoder=VIT, projector_hidden=16, projector_out=8),
  "classify.Classifier": {key: value for key, value in CLASSIFIER.items() if key != "name"},
  "clip.CLIP": dict(model=TOWERS),
  "clip.SigLIP": dict(model=SIGMOID_TOWERS),
  "convirt.ConVIRT": dict(model=TOWERS | dict(initial_scale=None), temperature=0.5),
  "ctp.CTP": dict(objective=dict(name="clip.CLIP", model=TOWERS), queue=24, temperature=0.5),
  "direct_pred.DirectPred": dict(encoder=VIT, projector_hidden=16, projector_out=8),
  "dino.DINO": dict(encoder=VIT, prototypes=12, head_hidden=16, head_bottleneck=8, teacher_temperature=0.2),
  "distill.Distill": dict(student=CLASSIFIER, teacher=CLASSIFIER, temperature=2.0, label_weight=0.25),
  "ibot.iBOT": dict(
    encoder=VIT | dict(mask_token="learnt"),
    prototypes=12,
    head_hidden=16,
    head_bottleneck=8,
    teacher_temperature=0.2,
    heads="separate",
    masks="stratified",
    mask_share=(0.3, 0.6),
    koleo=0.1,
    centering="sinkhorn",
  ),
  "ict.ICT": dict(encoder=dict(name="bert.Bert") | TEXT, towers="two", width=8),
  "lwf.LwF": dict(objective=dict(name="mae.MAE", encoder=VIT, decoder_width=16, decoder_depth=1, decoder_heads=2)),
  "mae.MAE": dict(encoder=VIT, decoder_width=16, decoder_depth=1, decoder_heads=2),
  "moco.MoCo": dict(encoder=VIT, projector_out=8, queue=32),
  "moco_v3.MoCoV3": dict(encoder=VIT, projector_hidden=16, projector_out=8),
  "multi_task.MultiTask": dict(
    encoder=VIT,
    tasks=dict(rotation=dict(name="rotnet.RotNet"), simclr=dict(name="simclr.SimCLR", projector_out=8)),
    weights=dict(simclr=0.5),
  ),
  # Batch statistics are what couples its examples most.
  "obow.OBoW": dict(encoder=dict(name="tiny_crops:Convolution"), words=32),
  "rotnet.RotNet": dict(encoder=VIT),
  "sie.SIE": dict(
    encoder=VIT,
    equivariant=6,
    projector_hidden=16,
    projector_out=8,
    projector_layers=1,
    invariance=1,
    equivariance=1,
    variance=1,
    covariance=0.1,
  ),
  "simclr.SimCLR": dict(encoder=VIT, projector_out=8),
  "simsiam.SimSiam": dict(encoder=VIT, projector_width=16, predictor_hidden=8),
  "sla.SLA": dict(encoder=VIT, num_classes=5),
  "slip.SLIP": dict(
    image_text=dict(name="clip.CLIP", model=TOWERS), projector_hidden=16, projector_out=8, temperature=0.5
  ),
  "swav.SwAV": dict(encoder=VIT, projector_hidden=16, projector_out=8, prototypes=6, temperature=0.5, queue=32),
  "tips.TIPS": dict(
    encoder=VIT | dict(registers=1, mask_token="learnt"),
    text=TOWERS["text"] | dict(width=16),
    captions="two",
    prototypes=12,
    head_hidden=16,
    head_bottleneck=8,
    initial_scale=4.0,
    teacher_temperature=0.5,
  ),
  "ul2.UL2": dict(
    model=dict(name="t5.T5", vocab_size=40, width=16, depth=2, heads=2, head_width=8, hidden=24, dropout=0.1)
  ),
  "vicreg.VICReg": dict(encoder=VIT, projector_hidden=16, projector_out=8, invariance=1, variance=1, covariance=0.04),
}
# One of each kind: a mesh of all three axes is enough for the others, compilations are what the suite's time goes to.
ON_EVERY_MESH = ("clip.CLIP", "mae.MAE", "simclr.SimCLR", "ul2.UL2")
VIEWS = {"slip.SLIP": 3}  # of an example, where not 2
LOSS_KEY = jax.random.key(7)
COLLECTIVES = ("all-to-all", "collective-permute", "all-gather", "all-reduce", "reduce-scatter")
GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "collectives.json"


def test_every_objective_is_here():
  assert sorted(TINY) == names("objectives")


def make_batch(keys, views=2):
  """Leaves an augmented batch may have, those of `keys` and the position in the stream."""
  draw = np.random.default_rng(0).normal
  leaves = {
    "image": lambda: draw(size=(BATCH, SIZE, SIZE, 3)),
    "views": lambda: draw(size=(BATCH, views, SIZE, SIZE, 3)),
    "transforms": lambda: np.concatenate([np.ones((BATCH, views, 4)), draw(size=(BATCH, views, 7))], axis=-1),
    "local_views": lambda: draw(size=(BATCH, 2, SIZE // 2, SIZE // 2, 3)),
  }
  index = np.stack([np.zeros(BATCH), np.arange(BATCH)], axis=1).astype(np.uint32)
  found = {key: jnp.asarray(leaves[key](), jnp.float32) for key in keys if key in leaves}
  numbers = jnp.arange(BATCH, dtype=jnp.int32)
  others = packed_text() | plain_text() | {"task": numbers % 2, "label": numbers % 5}
  return found | {key: value for key, value in others.items() if key in keys} | {"index": jnp.asarray(index)}


def plain_text():
  """Texts of random ids: captions, and queries with their blocks."""
  draw = np.random.default_rng(1).integers
  length = TEXT["length"]
  shapes = {"text": (length,), "texts": (2, length), "query": (4,), "block": (length,)}
  return {key: jnp.asarray(draw(0, 40, (BATCH, *shape)), jnp.int32) for key, shape in shapes.items()}


def packed_text(length=12):
  """Rows of two examples of different sizes and some padding."""
  generator = np.random.default_rng(0)
  first, second = generator.integers(2, 6, (2, BATCH, 1))
  place = np.arange(length)
  segments = np.where(place < first, 1, np.where(place < first + second, 2, 0))
  positions = np.where(segments == 2, place - first, place * (segments == 1))
  tokens = [generator.integers(1, 40, (BATCH, length)) * (segments > 0) for _ in range(2)]
  leaves = {"inputs": tokens[0], "input_segments": segments, "input_positions": positions, "targets": tokens[1]}
  leaves |= {"target_segments": segments, "target_positions": positions, "prefix": (positions == 0) & (segments > 0)}
  leaves |= {"target_group": generator.integers(0, 3, (BATCH, length)), "target_bytes": 3 * (segments > 0)}
  return {key: jnp.asarray(value, jnp.int32) for key, value in leaves.items()}


def train_like_step(objective):
  """What the trainer does with an objective, the optimiser left out."""

  def step(params, state, batch):
    def loss(params):
      out = objective.loss(params, state, batch, rng=LOSS_KEY, step=jnp.int32(3))
      return out.loss, out

    (_, out), gradients = jax.value_and_grad(loss, has_aux=True)(params)
    return out, gradients, objective.post_update(params, out.state, step=jnp.int32(3))

  return step


@pytest.fixture(scope="module", params=sorted(TINY))
def tiny(request):
  """One objective, initialised, with its compiled step and that step's result."""
  objective = build({"name": request.param} | TINY[request.param], "objectives", where="objective")
  batch = make_batch(objective.batch_keys, views=VIEWS.get(request.param, 2))
  params, state = jax.jit(objective.init)(jax.random.key(0), batch)
  function = train_like_step(objective)
  step = jax.jit(function)
  return types.SimpleNamespace(
    objective=objective, batch=batch, params=params, state=state, function=function, step=step,
    result=step(params, state, batch),
  )  # fmt: skip


def shapes(pytree):
  return jax.tree.map(lambda x: (x.shape, x.dtype), pytree)


def close(found, expected, rtol=1e-4, atol=1e-5):
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), found, expected)


def test_abstract_init_equals_real_init(tiny):
  abstract = jax.eval_shape(tiny.objective.init, jax.random.key(0), tiny.batch)
  assert shapes(abstract) == shapes((tiny.params, tiny.state))
  assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(tiny.params))


def test_state_keeps_its_tree_through_loss_and_post_update(tiny):
  out, _, (params, state) = tiny.result
  assert shapes(out.state) == shapes(tiny.state)
  assert shapes((params, state)) == shapes((tiny.params, tiny.state))


def test_loss_and_gradient_are_finite(tiny):
  out, gradients, after = tiny.result
  assert out.loss.shape == () and out.loss.dtype == jnp.float32
  for name, leaf in tree.named_leaves((out, gradients, after)):
    assert bool(jnp.isfinite(leaf).all()), name
  assert any(bool(jnp.any(leaf != 0)) for leaf in jax.tree.leaves(gradients))


def test_metrics_are_scalars_in_groups(tiny):
  for name, value in tiny.result[0].metrics.items():
    assert value.shape == () and name.count("/") == 1, name


def test_what_the_optimiser_must_not_move_is_in_the_state(tiny):
  held = [name for name, _ in tree.named_leaves(tiny.params)]
  assert not [name for name in held if any(word in name for word in ("teacher", "queue", "center", "batch_stats"))]


def test_order_of_the_batch_does_not_matter(tiny):
  order = np.random.default_rng(1).permutation(BATCH)
  out, gradients, _ = tiny.step(tiny.params, tiny.state, jax.tree.map(lambda x: x[order], tiny.batch))
  close((out.loss, gradients), (tiny.result[0].loss, tiny.result[1]))


def place(tiny, mesh):
  """The state as the trainer lays it, and the compiled step on it."""
  held = {"params": tiny.params, "objective_state": tiny.state}
  placed = sharding.state_sharding(mesh, held, fsdp_min_size=64)
  held = jax.device_put(held, placed)
  batch = jax.device_put(tiny.batch, sharding.batch_sharding(mesh))
  where = (sharding.replicated(mesh), placed["params"], (placed["params"], placed["objective_state"]))
  with jax.set_mesh(mesh):
    jitted = jax.jit(tiny.function, out_shardings=where)
    compiled = jitted.lower(held["params"], held["objective_state"], batch).compile()
  return compiled, compiled(held["params"], held["objective_state"], batch)


def check_mesh(tiny, sizes, key, monkeypatch):
  """The step on a mesh of sizes (data, fsdp, tensor) equals that on one device and has the golden collectives."""
  monkeypatch.setattr(sharding, "platform", lambda: "tpu")  # layers rolled, as accelerators have them
  mesh = sharding.make_mesh(**dict(zip(("data", "fsdp", "tensor"), sizes, strict=True)))
  compiled, (out, gradients, after) = place(tiny, mesh)
  assert float(out.loss) == pytest.approx(float(tiny.result[0].loss), rel=1e-5)
  close((gradients, after), tiny.result[1:])
  text = compiled.as_text()
  count = {name: text.count(f" {name}(") + text.count(f" {name}-start(") for name in COLLECTIVES}
  assert count["all-to-all"] == 0, count
  check_golden(f"{key}-{'x'.join(map(str, sizes))}", count)


def test_all_axes_equal_one_device_with_the_golden_collectives(tiny, request, monkeypatch):
  check_mesh(tiny, (2, 2, 2), request.node.callspec.id, monkeypatch)


@pytest.mark.parametrize("tiny", ON_EVERY_MESH, indirect=True)
@pytest.mark.parametrize("sizes", [(8, 1, 1), (1, 8, 1)], ids=["data", "fsdp"])
def test_one_axis_equals_one_device_with_the_golden_collectives(tiny, sizes, request, monkeypatch):
  check_mesh(tiny, sizes, request.node.callspec.params["tiny"], monkeypatch)


def check_golden(key, count):
  """Compares with golden/collectives.json, of one version of jax; a missing entry is written."""
  held = json.loads(GOLDEN.read_text()) if GOLDEN.is_file() else {"jax": jax.__version__}
  if held["jax"] != jax.__version__:
    return
  if key not in held:
    GOLDEN.write_text(json.dumps(held | {key: count}, indent=1, sort_keys=True) + "\n")
  assert held.get(key, count) == count


def test_accumulation_is_exact_through_weight_or_the_coupling_is_real(tiny):
  """The trainer refuses to accumulate where `couples_examples` says so: it must say so exactly where halves differ."""
  halves = [jax.tree.map(lambda x, i=i: x[i::2], tiny.batch) for i in range(2)]
  first = tiny.step(tiny.params, tiny.state, halves[0])
  results = [first, tiny.step(tiny.params, first[0].state, halves[1])]  # the state goes on: what a queue holds by then
  weights = np.array([float(out.weight) for out, _, _ in results])
  mean = lambda a, b: (weights[0] * a + weights[1] * b) / weights.sum()
  found = jax.tree.map(mean, *((out.loss, gradients) for out, gradients, _ in results))
  if tiny.objective.couples_examples:
    difference = jax.tree.map(jnp.subtract, found[1], tiny.result[1])
    assert float(optax.tree.norm(difference) / optax.tree.norm(tiny.result[1])) > 1e-2
  else:
    close(found, (tiny.result[0].loss, tiny.result[1]))


def test_encode_takes_what_is_to_be_encoded_alone_and_each_for_itself(tiny):
  key = next((key for key in ("inputs", "query") if key in tiny.batch), "image")
  batch = {"image": make_batch(("image",))["image"]} if key == "image" else tiny.batch
  encode = jax.jit(tiny.objective.encode)
  found = encode(tiny.params, tiny.state, batch)
  assert found["embedding"].ndim == 2 and all(len(value) == BATCH for value in found.values())
  times, plus = (lambda x: x.at[1:].set(x[1:] * 3)), (lambda x: x.at[1:].set(jnp.minimum(x[1:] + 1, 39)))
  change = times if key == "image" else plus
  mixed = encode(tiny.params, tiny.state, {**batch, key: change(batch[key])})
  close(jax.tree.map(lambda x: x[0], mixed), jax.tree.map(lambda x: x[0], found))
  assert float(jnp.abs(mixed["embedding"][1] - found["embedding"][1]).max()) > 1e-3
