import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from t5_from_torch import t5_params

from ssljax import tree
from ssljax.errors import UserError
from ssljax.models.t5 import SIZES, T5

TINY = {"vocab_size": 30, "variant": "small", "width": 16, "depth": 2, "heads": 2, "head_width": 6, "hidden": 24}
RNG = np.random.default_rng(0)
# Row 0 holds two examples and padding, row 1 one example without padding on the decoder's side.
BATCH = {
  "inputs": RNG.integers(3, 30, (2, 8)),
  "targets_in": RNG.integers(3, 30, (2, 6)),
  "input_segments": np.array([[1, 1, 1, 2, 2, 2, 2, 0], [1, 1, 1, 1, 1, 1, 0, 0]]),
  "target_segments": np.array([[1, 1, 2, 2, 2, 0], [1, 1, 1, 1, 1, 1]]),
}
KEYS = jax.random.split(jax.random.key(7), 2)


def call(model, params, batch, keys=None):
  segments = {key: batch[key] for key in ("input_segments", "target_segments")}
  return model.apply({"params": params}, batch["inputs"], batch["targets_in"], **segments, keys=keys)


RUN = jax.jit(call, static_argnums=0)


def gradient(model, params, keys=None):
  return jax.jit(jax.value_and_grad(lambda p: jnp.sum(jnp.sin(call(model, p, BATCH, keys)))))(params)


def arguments(batch):
  return (batch["inputs"], batch["targets_in"]), {key: batch[key] for key in ("input_segments", "target_segments")}


@pytest.fixture(scope="module")
def params(random_variables):
  inputs, segments = arguments(BATCH)
  return random_variables(T5(**TINY), *inputs, **segments)["params"]


@pytest.fixture(scope="module")
def logits(params):
  return RUN(T5(**TINY), params, BATCH)


def abstract_params(**options):
  inputs, segments = arguments(BATCH)
  return jax.eval_shape(lambda: T5(**options).init(jax.random.key(0), *inputs, **segments))["params"]


def test_names_and_shapes(params):
  attention = lambda name: (
    {f"{name}/{part}/kernel": (2, 16, 12) for part in ("query", "key", "value")} | {f"{name}/out/kernel": (2, 12, 16)}
  )
  mlp = {"mlp/wi_0/kernel": (2, 16, 24), "mlp/wi_1/kernel": (2, 16, 24), "mlp/wo/kernel": (2, 24, 16)}
  norms = lambda *names: {f"pre_{name}_layer_norm/scale": (2, 16) for name in (*names, "mlp")}
  encoder = attention("attention") | mlp | norms("attention")
  decoder = attention("self_attention") | attention("encoder_decoder_attention") | mlp
  decoder |= norms("self_attention", "cross_attention")
  stacks = {"encoder": encoder, "decoder": decoder}
  expected = {"token_embedder/embedding": (30, 16), "logits_dense/kernel": (16, 30)}
  for stack, leaves in stacks.items():
    expected |= {f"{stack}/blocks/{name}": shape for name, shape in leaves.items()}
    expected |= {f"{stack}/relpos_bias/rel_embedding": (2, 32), f"{stack}/{stack}_norm/scale": (16,)}
  assert {name: leaf.shape for name, leaf in tree.named_leaves(params)} == expected


def count(variant, vocab_size):
  width, depth, heads, head_width, hidden = SIZES[variant]
  attention, mlp = 4 * width * heads * head_width, 3 * width * hidden
  encoder, decoder = attention + mlp + 2 * width, 2 * attention + mlp + 3 * width
  return depth * (encoder + decoder) + 2 * (32 * heads + width) + 2 * vocab_size * width


# Hugging Face's t5-v1_1-small and -base have these numbers of parameters; UL2 says 20 billion.
@pytest.mark.parametrize(("variant", "total"), [("small", 76_961_152), ("base", 247_577_856), ("20b", 19_591_209_984)])
def test_parameter_counts(variant, total):
  size = tree.size(abstract_params(vocab_size=32128, variant=variant))
  assert size == count(variant, 32128) == total
  tied = tree.size(abstract_params(vocab_size=32128, variant=variant, head="tied"))
  assert size - tied == 32128 * T5(32128, variant).features


def test_initial_statistics():
  model = T5(**TINY | {"depth": 1, "width": 128, "heads": 4, "head_width": 16, "hidden": 64})
  inputs, segments = arguments(BATCH)
  params = jax.jit(lambda key: model.init(key, *inputs, **segments))(jax.random.key(0))["params"]
  block = params["decoder"]["blocks"]
  std = lambda part, product: np.std(block[part][product]["kernel"])
  for attention in ("self_attention", "encoder_decoder_attention"):
    np.testing.assert_allclose(std(attention, "query"), 1 / np.sqrt(128 * 16), rtol=0.05)
    np.testing.assert_allclose(std(attention, "key"), 1 / np.sqrt(128), rtol=0.05)
  np.testing.assert_allclose(std("mlp", "wi_0"), 1 / np.sqrt(128), rtol=0.05)
  np.testing.assert_allclose(std("mlp", "wo"), 1 / np.sqrt(64), rtol=0.05)
  np.testing.assert_allclose(params["token_embedder"]["embedding"].std(), 1.0, rtol=0.05)
  np.testing.assert_array_equal(params["encoder"]["encoder_norm"]["scale"], 1.0)


def test_layers_and_stacks_start_different(params):
  inputs, segments = arguments(BATCH)
  params = jax.jit(lambda key: T5(**TINY).init(key, *inputs, **segments))(jax.random.key(1))["params"]
  kernels = [params[s]["blocks"]["mlp"]["wo"]["kernel"] for s in ("encoder", "decoder")]
  assert not np.allclose(kernels[0][0], kernels[0][1]) and not np.allclose(kernels[0], kernels[1])


@pytest.mark.parametrize(
  ("key", "places", "moved"),
  [
    ("inputs", (0, 1), [(0, 0), (0, 1)]),  # an input of example 1 reaches its targets alone
    ("inputs", (0, 5), [(0, 2), (0, 3), (0, 4)]),
    ("inputs", (0, 7), []),  # padding reaches nothing but padding
    ("targets_in", (0, 2), [(0, 2), (0, 3), (0, 4)]),
    ("targets_in", (1, 3), [(1, 3), (1, 4), (1, 5)]),  # causal
  ],
)
def test_a_token_moves_the_logits_of_its_own_segment_alone(params, logits, key, places, moved):
  batch = BATCH | {key: BATCH[key].copy()}
  batch[key][places] = batch[key][places] % 27 + 3 if batch[key][places] % 27 + 3 != BATCH[key][places] else 3
  changed = np.abs(RUN(T5(**TINY), params, batch) - logits).max(-1) > 0
  changed[BATCH["target_segments"] == 0] = False
  assert {tuple(map(int, place)) for place in np.argwhere(changed)} == set(moved)


def alone(row, segment):
  """The batch of one example, cut out of its row, and where its targets were."""
  inputs, targets = BATCH["input_segments"][row] == segment, BATCH["target_segments"][row] == segment
  batch = {"inputs": BATCH["inputs"][row][inputs][None], "targets_in": BATCH["targets_in"][row][targets][None]}
  segments = {"input_segments": "inputs", "target_segments": "targets_in"}
  return batch | {key: np.ones_like(batch[of]) for key, of in segments.items()}, targets


@pytest.mark.parametrize(("row", "segment"), [(0, 1), (0, 2), (1, 1)])
def test_packed_examples_equal_the_same_examples_alone(params, logits, row, segment):
  batch, places = alone(row, segment)
  np.testing.assert_allclose(RUN(T5(**TINY), params, batch)[0], logits[row][places], rtol=1e-4, atol=1e-5)


def test_targets_without_inputs_see_no_others(params):
  batch = BATCH | {"input_segments": np.where(BATCH["input_segments"] == 2, 1, BATCH["input_segments"])}
  other = batch | {"inputs": BATCH["inputs"][:, ::-1]}
  outs = [RUN(T5(**TINY), params, b)[0, 2:5] for b in (batch, other)]
  assert np.all(np.isfinite(outs[0]))
  np.testing.assert_array_equal(outs[0], outs[1])


@pytest.fixture(scope="module")
def unrolled(params):
  return gradient(T5(**TINY, dropout=0.3), params, KEYS)


@pytest.mark.parametrize("options", [{"remat": "full"}, {"unroll": 1, "remat": "dots"}], ids=str)
def test_rolled_and_rematerialised_equal_unrolled(params, unrolled, options):
  other = gradient(T5(**TINY, dropout=0.3, **options), params, KEYS)
  np.testing.assert_allclose(other[0], unrolled[0], rtol=1e-4)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), other[1], unrolled[1])


def test_gradients_are_finite_and_reach_everything(unrolled):
  assert all(np.all(np.isfinite(leaf)) and np.any(leaf) for leaf in jax.tree.leaves(unrolled[1]))


def test_dropout_follows_the_row_and_needs_keys(params, logits):
  model = T5(**TINY, dropout=0.3)
  out = RUN(model, params, BATCH, KEYS)
  assert not np.allclose(out, logits, atol=1e-2)
  turned = RUN(model, params, {key: value[::-1] for key, value in BATCH.items()}, KEYS[::-1])
  np.testing.assert_allclose(turned[::-1], out, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(RUN(model, params, BATCH), logits, rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(RUN(T5(**TINY), params, BATCH, KEYS), logits, rtol=1e-5, atol=1e-5)


def test_bfloat16_operands_stay_near_float32(params, logits):
  out = RUN(T5(**TINY, dtype="bfloat16"), params, BATCH)
  assert out.dtype == jnp.float32
  assert 1e-4 < np.abs(out - logits).max() < 0.1


def test_tied_head_reads_the_embedding(params, logits):
  untied = params | {"logits_dense": {"kernel": params["token_embedder"]["embedding"].T / 4}}
  tied = {key: value for key, value in params.items() if key != "logits_dense"}
  expected = RUN(T5(**TINY), untied, BATCH)
  np.testing.assert_allclose(RUN(T5(**TINY, head="tied"), tied, BATCH), expected, rtol=1e-4, atol=1e-5)


def test_encode_and_decode_are_the_two_halves(params, logits):
  model, variables = T5(**TINY), {"params": params}
  apply = jax.jit(model.apply, static_argnames="method")
  encoded = apply(variables, BATCH["inputs"], BATCH["input_segments"], method="encode")
  assert encoded.shape == (2, 8, model.features)
  segments = BATCH["input_segments"], BATCH["target_segments"]
  out = apply(variables, encoded, BATCH["targets_in"], *segments, method="decode")
  np.testing.assert_allclose(out, logits, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def torch_t5():
  torch = pytest.importorskip("torch")
  with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from transformers import T5Config, T5ForConditionalGeneration
  config = T5Config(
    vocab_size=30,
    d_model=16,
    d_kv=6,
    d_ff=24,
    num_layers=2,
    num_heads=2,
    feed_forward_proj="gated-gelu",
    tie_word_embeddings=False,
    dropout_rate=0.0,
  )
  torch.manual_seed(0)
  model = T5ForConditionalGeneration(config).eval()
  # The library ties the head whatever the config says; released checkpoints of version 1.1 are untied.
  model.lm_head.weight = torch.nn.Parameter(torch.randn(30, 16))
  for parameter in model.parameters():
    parameter.data = torch.randn_like(parameter) * 0.3
  return model


def test_logits_equal_those_of_hugging_face(torch_t5):
  torch = pytest.importorskip("torch")
  rng = np.random.default_rng(1)
  inputs, targets = rng.integers(3, 30, (2, 40)), rng.integers(3, 30, (2, 36))
  mask = np.arange(40)[None] < np.array([[40], [27]])
  inputs = np.where(mask, inputs, 0)
  with torch.no_grad():
    expected = torch_t5(
      input_ids=torch.tensor(inputs), attention_mask=torch.tensor(mask), decoder_input_ids=torch.tensor(targets)
    ).logits.numpy()
  weights = {name: value.numpy() for name, value in torch_t5.state_dict().items()}
  batch = {"inputs": inputs, "targets_in": targets, "input_segments": mask.astype("int32")}
  out = RUN(T5(**TINY), t5_params(weights, depth=2), batch | {"target_segments": np.ones_like(targets)})
  assert np.abs(expected).max() > 1
  np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"variant": "smal"}, "did you mean small"),
    ({"head": "tie"}, "did you mean tied"),
    ({"heads": 0}, "heads 0, expected 1 or more"),
    ({"vocab_size": 0}, "vocab_size 0"),
    ({"dropout": 1.0}, "dropout 1.0"),
  ],
)
def test_mistakes_fail_at_construction(options, message):
  with pytest.raises(UserError, match=message):
    T5(**TINY | options)
