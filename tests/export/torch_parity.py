"""What the parity tests of towers share: a peer's random weights, our model that holds them, and the way back."""

import jax
import jax.numpy as jnp
import numpy as np

from ssljax import tree
from ssljax.export import table


def randomised(torch, model, *, seed=0, scale=0.2):
  """The model with all its weights drawn from N(0, scale^2), norms around one: no zero or one hides a mix-up."""
  torch.manual_seed(seed)
  with torch.no_grad():
    for name, parameter in model.named_parameters():
      centre = 1.0 if "norm" in name.lower().replace("ln_", "norm") and name.endswith("weight") else 0.0
      parameter.copy_(centre + scale * torch.randn_like(parameter))
  return model.eval()


def weights(model):
  return {name: value.numpy() for name, value in model.state_dict().items()}


def load(module, lines, theirs, *inputs, leave=lambda name: False):
  """Our variables from a peer's arrays, after they went back bit by bit to what they were."""
  shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), *inputs))["params"]
  named = {name: leaf.shape for name, leaf in tree.named_leaves(shapes)}
  ours = table.to_ours(lines, theirs, named, leave=leave)
  back = table.to_theirs(lines, ours)
  kept = {name for name in theirs if not leave(name)}
  assert kept == set(back)
  for name in kept:
    np.testing.assert_array_equal(back[name], theirs[name], err_msg=name)
  return {"params": tree.map_named(lambda name, _: jnp.asarray(ours[name]), shapes)}


def close(found, expected, *, least, tolerance=1e-5):
  """Checks that two arrays agree, and that the expected one is large enough for that to mean something.

  Returns the largest difference, over the root mean square where that is more than 1.
  """
  found, expected = np.asarray(found, np.float64), expected.detach().numpy().astype(np.float64)
  assert found.shape == expected.shape and np.abs(expected).max() > least
  difference = np.abs(found - expected).max() / max(1.0, np.sqrt(np.mean(expected**2)))
  assert difference < tolerance, difference
  return difference
