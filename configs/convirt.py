"""ConVIRT: a ResNet-50 and a BERT that comes pretrained, its first half frozen.

  ssljax import --config=configs/convirt.py --format=huggingface --from=BERT --workdir=runs/convirt_start
  ssljax train  --config=configs/convirt.py --from=runs/convirt_start --workdir=runs/convirt

Recipe:    Zhang et al., arXiv 2010.00747: two-layer heads to 512 numbers, the largest of the text's tokens number by
           number, temperature 0.1, three quarters of the loss from images to texts; embeddings and the first six layers
           of BERT stay; batch 32, Adam at 1e-4 with decay 1e-6, a million steps at most, pictures of 224 pixels.
           Not the paper's: the rate stays (there it is halved when validation stalls), the image tower starts at random
           (there from ImageNet), captions are taken whole (there a sentence of a report), and of the augmentations
           there is the crop alone: captions say left and right.
Data:      a line a picture, {"image": PATH, "captions": [...]}, as `pairs:FILE.jsonl`; BERT, a folder with a BertModel
           of Hugging Face in BERT-base's size (the paper's is ClinicalBERT, 28,996 pieces), and its tokenizer.json.
Hardware:  not run.
Number:    not yet measured.
"""

import ml_collections

VOCABULARY, LENGTH, STEPS = 28_996, 100, 1_000_000
FROZEN = [
  ("params/text/encoder/(token_embedder|pos_embed|type_embed|norm_pre)", "freeze"),
  ("params/text/encoder/blocks/[0-5]/", "freeze"),
]


def get_config():
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.steps = STEPS
  config.data = dict(source="pairs:/data/pairs.jsonl", split="train", batch_size=32, image_size=256, threads=8)
  config.data.captions = dict(tokenizer="tokenizer.json", length=LENGTH)
  config.augment = dict(name="views.Views", recipe="clip", size=224, crop_scale=(0.6, 1.0), normalize="imagenet")
  config.objective = dict(
    name="convirt.ConVIRT",
    model=dict(
      name="dual.DualEncoder",
      image=dict(name="dual.Tower", width=512, layers=2, encoder=dict(name="resnet.ResNet", depth=50)),
      text=dict(
        name="dual.Tower",
        width=512,
        layers=2,
        encoder=dict(name="bert.Bert", vocab_size=VOCABULARY, pooling="max"),
      ),
      initial_scale=None,
    ),
    temperature=0.1,
    image_weight=0.75,
  )
  config.init = FROZEN
  config.optimizer = dict(name="adamw", learning_rate=dict(name="constant", value=1e-4), weight_decay=1e-6)
  config.checkpoint = dict(every=5000, keep=2)
  config.log_every = 20
  config.evaluation = dict(
    test="test",
    every=5000,
    evals=dict(retrieval=dict(name="retrieval.Retrieval")),
  )
  return config
