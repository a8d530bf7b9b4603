import jax
import jax.numpy as jnp
import numpy as np

from ssljax import tree
from ssljax.models.heads import MLPHead

X = np.random.default_rng(0).normal(size=(6, 5)).astype("float32")


def names(head):
  shapes = jax.eval_shape(lambda: head.init(jax.random.key(0), X))["params"]
  return {name: leaf.shape for name, leaf in tree.named_leaves(shapes)}


def test_simclr_projector_has_norms_everywhere_and_no_bias_at_the_end():
  assert names(MLPHead(out=3, layers=3, last_norm="scale")) == {
    "fc1/kernel": (5, 5),
    "bn1/scale": (5,),
    "bn1/bias": (5,),
    "fc2/kernel": (5, 5),
    "bn2/scale": (5,),
    "bn2/bias": (5,),
    "fc3/kernel": (5, 3),
    "bn3/scale": (3,),
  }


def test_predictor_has_no_output_norm():
  assert set(names(MLPHead(hidden=8, out=3))) == {"fc1/kernel", "bn1/scale", "bn1/bias", "fc2/kernel"}
  plain = names(MLPHead(hidden=8, out=3, norm="none", last_bias="present"))
  assert set(plain) == {"fc1/kernel", "fc1/bias", "fc2/kernel", "fc2/bias"}
  assert "bn2/scale" not in names(MLPHead(hidden=8, out=3, last_norm="plain"))


def test_training_output_by_the_formula(random_variables):
  head = MLPHead(hidden=8, out=3, last_norm="scale")
  variables = random_variables(head, X)
  p = variables["params"]
  out, moved = jax.jit(lambda v: head.apply(v, X, train=True, mutable=["batch_stats"]))(variables)
  norm = lambda x: (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)
  hidden = X.astype(np.float64) @ p["fc1"]["kernel"]
  z = np.maximum(norm(hidden) * p["bn1"]["scale"] + p["bn1"]["bias"], 0)
  np.testing.assert_allclose(out, norm(z @ p["fc2"]["kernel"]) * p["bn2"]["scale"], rtol=1e-3, atol=1e-5)
  old = variables["batch_stats"]["bn1"]["mean"]
  np.testing.assert_allclose(
    moved["batch_stats"]["bn1"]["mean"], 0.9 * old + 0.1 * hidden.mean(0), rtol=1e-4, atol=1e-6
  )


def test_evaluation_uses_running_statistics(random_variables):
  head = MLPHead(hidden=8, out=3)
  variables = random_variables(head, X)
  variables["batch_stats"] = jax.tree.map(lambda leaf: jnp.abs(leaf) + 0.5, variables["batch_stats"])
  run = jax.jit(lambda x: head.apply(variables, x))
  np.testing.assert_allclose(run(X)[:1], jax.jit(lambda x: head.apply(variables, x))(X[:1]), rtol=1e-5, atol=1e-6)


def test_gelu_and_init_std():
  head = MLPHead(hidden=64, out=64, norm="none", activation="gelu", init_std=0.02)
  variables = head.init(jax.random.key(0), jnp.zeros((1, 64)))
  np.testing.assert_allclose(variables["params"]["fc2"]["kernel"].std(), 0.02, rtol=0.05)
  x = jnp.full((1, 64), 2.0)
  z = x @ variables["params"]["fc1"]["kernel"]
  expected = jax.nn.gelu(z, approximate=False) @ variables["params"]["fc2"]["kernel"]
  np.testing.assert_allclose(head.apply(variables, x), expected, rtol=1e-4, atol=1e-6)


def test_a_hidden_layer_is_what_the_next_one_reads(random_variables):
  head = MLPHead(hidden=8, out=3, layers=3, last_norm="scale")
  variables = random_variables(head, X)
  p = variables["params"]
  old = {name: {"mean": s["mean"], "var": np.square(s["var"])} for name, s in variables["batch_stats"].items()}
  variables = {"params": p, "batch_stats": old}
  norm = lambda x, name: (x - old[name]["mean"]) / np.sqrt(old[name]["var"] + 1e-5) * p[name]["scale"] + p[name]["bias"]
  first = np.maximum(norm(X @ p["fc1"]["kernel"], "bn1"), 0)
  np.testing.assert_allclose(head.apply(variables, X, stop=1), first, rtol=1e-3, atol=1e-5)
  second = np.maximum(norm(first @ p["fc2"]["kernel"], "bn2"), 0)
  np.testing.assert_allclose(head.apply(variables, X, stop=2), second, rtol=1e-3, atol=1e-5)
  assert head.apply(variables, X).shape == (6, 3)
