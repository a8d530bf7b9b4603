"""DirectPred with a ResNet-18 on STL-10, the settings of the released code (Tian et al., arXiv 2102.06810).

  ssljax train --config=configs/directpred_resnet18.py --workdir=runs/directpred                 DirectPred
  ssljax train --config=configs/directpred_resnet18.py:direct_set --workdir=runs/direct_set      DirectSet (DirectCopy)

Data:      stl10 prepared by TFDS as ArrayRecord (pip install "ssljax[tfds]").
Hardware:  one GPU.
Number:    not yet measured.
Differs:   the 100,000 pictures without labels, the released code adds the 5,000 with; biases and normalisations are not
           decayed.
"""

import ml_collections


def get_config(predictor="direct_pred"):
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.steps = "100ep"
  config.data = dict(source="tfds:stl10", split="unlabelled", batch_size=128, image_size=96, threads=8)
  config.augment = dict(name="views.Views", recipe="simclr", size=96)
  config.objective = dict(
    name="direct_pred.DirectPred",
    encoder=dict(name="resnet.ResNet", depth=18, last_scale="one"),
    projector_hidden=512,
    projector_out=128,
    predictor=predictor,
    epsilon=0.01,
    every=1,
    correlation_decay=0.3,
    decay=0.996,
  )
  config.optimizer = dict(name="sgd", learning_rate=0.03, momentum=0.9, weight_decay=4e-4)
  config.checkpoint = dict(every=2000, keep=2)
  config.log_every = 50
  config.evaluation = dict(
    train="train",
    test="test",
    every=7820,
    batch_size=512,
    evals=dict(
      knn=dict(name="knn.KNN", k=20),
      linear_probe=dict(name="linear_probe.LinearProbe"),
      rankme=dict(name="rankme.RankMe"),
    ),
  )
  return config
