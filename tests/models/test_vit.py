import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax import tree
from ssljax.errors import UserError
from ssljax.models.attention_pool import AttentionPool
from ssljax.models.positions import sincos_2d
from ssljax.models.vit import ViT

TINY = {"variant": "Ti", "width": 16, "depth": 2, "heads": 2, "patch": 4, "image_size": 16}
IMAGES = jax.random.normal(jax.random.key(0), (2, 16, 16, 3))


def apply(vit, variables, images, keep=None):
  return jax.jit(lambda v, x, k: vit.apply(v, x, keep=k))(variables, images, keep)


def abstract_params(**options):
  vit = ViT(**options)
  images = jnp.zeros((1, vit.image_size, vit.image_size, vit.channels))
  return jax.eval_shape(lambda: vit.init(jax.random.key(0), images))["params"]


# timm's counts without a head; sincos positions are no parameters.
@pytest.mark.parametrize(
  ("variant", "patch", "count"),
  [("Ti", 16, 5_524_416), ("S", 16, 21_665_664), ("B", 16, 85_798_656), ("L", 16, 303_301_632), ("H", 14, 630_764_800)],
)
def test_parameter_counts(variant, patch, count):
  size = tree.size(abstract_params(variant=variant, patch=patch, positions="learnt"))
  width = ViT(variant=variant, patch=patch).features
  assert size == count
  without = tree.size(abstract_params(variant=variant, patch=patch))
  assert size - without == (1 + (224 // patch) ** 2) * width


def test_layer_scale_adds_two_vectors_a_block():
  base = tree.size(abstract_params(**TINY))
  assert tree.size(abstract_params(**TINY, layer_scale=1e-5)) - base == 2 * 2 * 16


def test_names_are_those_of_timm():
  names = [name for name, _ in tree.named_leaves(abstract_params(**TINY, positions="learnt"))]
  outer = {"blocks", "cls_token", "norm/bias", "norm/scale", "pos_embed", "patch_embed/proj/bias"}
  assert {name if "blocks" not in name else "blocks" for name in names} == outer | {"patch_embed/proj/kernel"}


def test_what_the_towers_of_clip_and_siglip_add_and_leave_out():
  names = lambda **options: {name for name, _ in tree.named_leaves(abstract_params(**TINY, **options))}
  plain = names()
  assert names(patch_bias="absent", pre_norm="present") ^ plain == {
    "patch_embed/proj/bias", "norm_pre/scale", "norm_pre/bias"
  }  # fmt: skip
  pool = names(pooling="map") - plain
  parts = {"/".join(name.split("/")[1:-1]) for name in pool if not name.endswith("latent")}
  assert "attn_pool/latent" in pool and parts == {"q", "kv", "proj", "norm", "mlp/fc1", "mlp/fc2"}


def test_map_pooling_sees_the_normed_tokens_and_the_activation_reaches_both_mlps(random_variables):
  vit = ViT(**TINY | {"depth": 1}, pooling="map", cls_token="none", activation="quick_gelu")
  variables = random_variables(vit, IMAGES)
  out = apply(vit, variables, IMAGES)
  pool = AttentionPool(2, 64, activation="quick_gelu")
  expected = jax.jit(pool.apply)({"params": variables["params"]["attn_pool"]}, out["tokens"])
  np.testing.assert_allclose(out["embedding"], expected, rtol=1e-5, atol=1e-6)
  exact = apply(vit.clone(activation="gelu"), variables, IMAGES)
  assert np.abs(exact["tokens"] - out["tokens"]).max() > 1e-4


def test_registers_and_the_mask_token(random_variables):
  vit = ViT(**TINY | {"depth": 1}, registers=2, mask_token="learnt", pooling="mean")
  names = lambda v: {name for name, _ in tree.named_leaves(jax.eval_shape(v.init, jax.random.key(0), IMAGES)["params"])}
  assert names(vit) - names(vit.clone(registers=0, mask_token="absent")) == {"reg_token", "mask_token"}
  variables, mask = random_variables(vit, IMAGES), jnp.arange(16)[None] < jnp.array([[3], [0]])
  run = jax.jit(lambda images, mask: vit.apply(variables, images, mask=mask))
  found, plain = run(IMAGES, mask), run(IMAGES, None)
  assert found["registers"].shape == (2, 2, 16) and found["tokens"].shape == (2, 16, 16)
  np.testing.assert_allclose(found["embedding"], found["tokens"].mean(axis=1), rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(found["tokens"][1], plain["tokens"][1], rtol=1e-4, atol=1e-5)
  assert float(jnp.abs(found["tokens"][0] - plain["tokens"][0]).max()) > 1e-3
  changed = run(IMAGES.at[0, :4, :12].add(1.0), mask)  # the three hidden patches
  np.testing.assert_allclose(changed["tokens"], found["tokens"], rtol=1e-4, atol=1e-5)
  with pytest.raises(UserError, match="mask_token absent, expected learnt"):
    jax.eval_shape(lambda: ViT(**TINY).init(jax.random.key(0), IMAGES, mask=mask))
  with pytest.raises(UserError, match="registers -1, expected 0 or more"):
    ViT(**TINY, registers=-1)


def test_patch_dropout_keeps_a_share_of_the_patches_by_example(random_variables):
  vit = ViT(**TINY | {"depth": 1}, patch_dropout=0.7)
  variables, keys = random_variables(vit, IMAGES), jax.random.split(jax.random.key(3), 2)
  run = jax.jit(lambda images, keys: vit.apply(variables, images, keys=keys))
  found = run(IMAGES, keys)
  assert found["tokens"].shape == (2, 4, 16)  # int(16 * 0.3)
  swapped = run(IMAGES[::-1], keys[::-1])
  np.testing.assert_allclose(swapped["cls"][::-1], found["cls"], rtol=1e-4, atol=1e-5)
  other = run(IMAGES, jax.random.split(jax.random.key(4), 2))
  assert float(jnp.abs(other["cls"] - found["cls"]).max()) > 1e-4
  assert apply(vit, variables, IMAGES)["tokens"].shape == (2, 16, 16)  # without keys there is none
  given = jax.eval_shape(lambda: vit.apply(variables, IMAGES, keep=jnp.zeros((2, 9), jnp.int32), keys=keys))
  assert given["tokens"].shape == (2, 9, 16)
  with pytest.raises(UserError, match=r"patch_dropout 1\.0, expected a share"):
    ViT(**TINY, patch_dropout=1.0)


def test_pre_norm_is_after_the_positions(random_variables):
  vit = ViT(**TINY | {"depth": 1}, positions="learnt", pre_norm="present", patch_bias="absent")
  params = random_variables(vit, IMAGES)["params"]
  shifted = {**params, "pos_embed": params["pos_embed"] * 3 + 1, "cls_token": params["cls_token"] * 3}
  shifted["patch_embed"] = jax.tree.map(lambda leaf: leaf * 3, params["patch_embed"])
  outs = [apply(vit, {"params": p}, IMAGES)["embedding"] for p in (params, shifted)]  # scale and shift fall out
  np.testing.assert_allclose(*outs, rtol=1e-4, atol=1e-4)


def test_initial_statistics():
  vit = ViT(variant="Ti", depth=1, patch=8, image_size=32)
  params = jax.jit(vit.init)(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))["params"]
  qkv, embed = params["blocks"]["attn"]["qkv"], params["patch_embed"]["proj"]
  for kernel, fan in ((qkv["kernel"], 192 + 3 * 192), (embed["kernel"], 8 * 8 * 3 + 192)):
    bound = np.sqrt(6 / fan)
    assert 0.99 * bound < np.abs(kernel).max() <= bound
    np.testing.assert_allclose(kernel.std(), bound / np.sqrt(3), rtol=0.02)
  np.testing.assert_allclose(params["cls_token"].std(), 0.02, rtol=0.2)
  assert not np.any(qkv["bias"]) and not np.any(embed["bias"])


def test_patch_embedding_equals_the_convolution(random_variables):
  vit = ViT(**TINY | {"depth": 1}, cls_token="none", pooling="mean")
  variables = random_variables(vit, IMAGES)
  params = jax.tree.map(jnp.zeros_like, variables["params"])  # a block of zeros is the identity
  params["patch_embed"] = variables["params"]["patch_embed"]
  params["norm"]["scale"] = jnp.ones(16)
  kernel = params["patch_embed"]["proj"]["kernel"].reshape(4, 4, 3, 16)
  x = jax.lax.conv_general_dilated(IMAGES, kernel, (4, 4), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
  x = x.reshape(2, 16, 16) + params["patch_embed"]["proj"]["bias"] + sincos_2d((4, 4), 16)
  x = (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-6)
  np.testing.assert_allclose(apply(vit, {"params": params}, IMAGES)["tokens"], x, rtol=1e-4, atol=1e-5)


def test_learnt_positions_move_the_cls_token_too(random_variables):
  vit = ViT(**TINY | {"depth": 1}, positions="learnt")
  params = random_variables(vit, IMAGES)["params"]
  moved = {**params, "pos_embed": params["pos_embed"] + 1.5 * (np.arange(17) == 0)[:, None]}
  added = {**params, "cls_token": params["cls_token"] + 1.5}
  outputs = [apply(vit, {"params": p}, IMAGES)["cls"] for p in (moved, added, params)]
  np.testing.assert_allclose(outputs[0], outputs[1], rtol=1e-5, atol=1e-5)
  assert not np.allclose(outputs[0], outputs[2])


@pytest.mark.parametrize("positions", ["sincos", "learnt"])
def test_keep_equals_a_gather_of_the_full_embedding(positions, random_variables):
  vit = ViT(**TINY | {"depth": 1}, positions=positions)
  params = random_variables(vit, IMAGES)["params"]
  params["blocks"] = jax.tree.map(jnp.zeros_like, params["blocks"])  # no mixing: tokens are embeddings, normed
  keep = jnp.array([[3, 1, 15, 8], [0, 2, 7, 14]])
  full = apply(vit, {"params": params}, IMAGES)["tokens"]
  kept = apply(vit, {"params": params}, IMAGES, keep=keep)["tokens"]
  np.testing.assert_allclose(kept, jnp.stack([full[0][keep[0]], full[1][keep[1]]]), rtol=1e-5, atol=1e-5)


def test_keeping_all_in_another_order_is_a_permutation(random_variables):
  vit = ViT(**TINY, pooling="mean")
  variables = random_variables(vit, IMAGES)
  keep = jnp.stack([jax.random.permutation(jax.random.key(n), 16) for n in range(2)])
  full, kept = apply(vit, variables, IMAGES), apply(vit, variables, IMAGES, keep=keep)
  np.testing.assert_allclose(kept["embedding"], full["embedding"], rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(kept["cls"], full["cls"], rtol=1e-4, atol=1e-5)


def test_outputs_and_pooling(random_variables):
  vit = ViT(**TINY | {"depth": 1}, pooling="mean", cls_token="none")
  outputs = apply(vit, random_variables(vit, IMAGES), IMAGES)
  assert set(outputs) == {"embedding", "tokens"} and outputs["tokens"].shape == (2, 16, 16)
  np.testing.assert_allclose(outputs["embedding"], outputs["tokens"].mean(1), rtol=1e-6)
  vit = ViT(**TINY | {"depth": 1})
  outputs = apply(vit, random_variables(vit, IMAGES), IMAGES)
  np.testing.assert_array_equal(outputs["embedding"], outputs["cls"])
  assert vit.features == 16 == outputs["embedding"].shape[-1]


def test_sincos_takes_other_sizes_and_learnt_refuses(random_variables):
  other = jax.eval_shape(lambda: ViT(**TINY).init_with_output(jax.random.key(0), jnp.zeros((1, 8, 12, 3))))
  assert other[0]["tokens"].shape == (1, 6, 16)
  learnt = ViT(**TINY, positions="learnt")
  with pytest.raises(UserError, match=r"\(2, 2\) patches, expected \(4, 4\)"):
    apply(learnt, random_variables(learnt, IMAGES), jnp.zeros((1, 8, 8, 3)))


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"image_size": 30, "patch": 8}, "30 pixels.*patch=8"),
    ({"variant": "Bi"}, "did you mean B"),
    ({"heads": 5}, "width 768.*heads=5"),
    ({"cls_token": "none"}, "pooling"),
    ({"width": 18, "heads": 2}, "width 18"),
    ({"activation": "quickgelu"}, "did you mean quick_gelu"),
  ],
)
def test_mistakes_fail_at_construction(options, message):
  with pytest.raises(UserError, match=message):
    ViT(**options)


def test_images_with_other_channels_are_named():
  with pytest.raises(UserError, match=r"1 channels.*channels=3"):
    ViT(**TINY).init(jax.random.key(0), jnp.zeros((1, 16, 16, 1)))
