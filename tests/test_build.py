"""Sections become objects; mistakes become one line."""

import dataclasses
from typing import Literal

import pytest
from flax import linen as nn

from ssljax import build, schedules
from ssljax.errors import UserError, nearest
from ssljax.models.vit import ViT
from ssljax.objectives.mae import MAE
from ssljax.types import Objective

ENCODER = {"name": "vit.ViT", "variant": "Ti", "patch": 8, "image_size": 32}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner:
  size: int = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outer:
  inner: Inner
  encoder: nn.Module | None = None
  objective: Objective | None = None
  rate: float | schedules.Schedule = 1.0
  mode: Literal["a", "b"] = "a"
  pair: tuple[float, float] | None = None
  rules: tuple[tuple[str, float], ...] = ()
  batch_size: int = 0


def make(**values):
  return build.construct(Outer, {"inner": {}, **values}, where="outer", batch_size=8)


def test_sections_nest_by_annotation():
  outer = make(inner={"size": 3}, encoder=ENCODER, rate={"name": "constant", "value": 0.5})
  assert outer.inner.size == 3 and isinstance(outer.encoder, ViT) and outer.encoder.patch == 8
  assert float(outer.rate(7)) == 0.5 and outer.batch_size == 8


def test_an_objective_within_an_objective():
  outer = make(objective={"name": "mae.MAE", "encoder": ENCODER, "decoder_depth": 1})
  assert isinstance(outer.objective, MAE) and outer.objective.encoder.patch == 8
  assert make(objective=outer.objective).objective is outer.objective


def test_json_types_become_python_types():
  outer = make(pair=[1, 2.5], rules=[["bias", 2]], rate=3)
  assert outer.pair == (1, 2.5) and outer.rules == (("bias", 2),) and outer.rate == 3


def test_none_is_the_choice_of_that_name():
  outer = make(encoder={**ENCODER, "remat": None})
  assert outer.encoder.remat == "none"
  with pytest.raises(UserError, match=r"outer.mode: found None \(NoneType\), expected"):
    make(mode=None)


def test_names_from_anywhere():
  assert build.resolve(f"{__name__}:Outer", "objectives", where="objective") is Outer
  assert build.resolve("mae.MAE", "objectives", where="objective") is MAE


def test_what_a_config_can_name():
  assert {"mae.MAE", "simclr.SimCLR"} <= set(build.names("objectives"))
  assert {"infinite", "cosine", "wsd"} <= set(build.names("schedules"))
  assert {"adamw", "lars"} <= set(build.names("optim"))
  assert build.names("augment") == ["identity.Identity", "stages.Stages", "views.Views"]
  models, evaluators = set(build.names("models")), set(build.names("evaluators"))
  assert {"vit.ViT", "resnet.ResNet", "t5.T5"} <= models and not {"layers.Dense", "branch.Branch"} & models
  assert {"knn.KNN", "class_incremental.TEEN"} <= evaluators and "collapse.Alarm" not in evaluators


@pytest.mark.parametrize(
  ("values", "message"),
  [
    ({"mod": "a"}, r"outer: unknown key mod \(did you mean mode\?.*valid: encoder, inner"),
    ({"batch_size": 4}, "unknown key batch_size"),
    ({"mode": "c"}, r"outer.mode: unknown value c \(.*valid: a, b\)"),
    ({"inner": {"sise": 1}}, r"outer.inner: unknown key sise \(did you mean size\?"),
    ({"inner": {"size": 1.5}}, r"outer.inner.size: found 1.5 \(float\), expected int"),
    ({"inner": {"size": True}}, "expected int"),
    ({"rate": "fast"}, r"outer.rate: found 'fast' \(str\), expected float or Schedule"),
    ({"rate": {"name": "cosin"}}, r"outer.rate.name: nothing is called cosin \(did you mean cosine\?"),
    ({"rate": {"name": "cosine", "peak": 1.0}}, "outer.rate.total_steps: missing, expected int"),
    (
      {"encoder": {**ENCODER, "name": "vit.ViTT"}},
      r"outer.encoder.name: nothing is called vit.ViTT \(did you mean vit.ViT\?",
    ),
    ({"objective": {"name": "mae.MAE"}}, "outer.objective.encoder: missing, expected Module"),
    ({"objective": {"name": "mae.Mae"}}, r"outer.objective.name: nothing is called mae.Mae \(did you mean mae.MAE\?"),
    ({"objective": ENCODER}, r"outer.objective.name: nothing is called vit.ViT \(.*valid: .*mae.MAE"),
    ({"encoder": {**ENCODER, "image_size": 30}}, "outer.encoder: .*30.*8"),
    ({"pair": [1]}, r"outer.pair: found \[1\] \(list\), expected tuple\[float, float\] or none"),
  ],
)
def test_mistakes_are_named(values, message):
  with pytest.raises(UserError, match=message) as error:
    make(**values)
  assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["nothing.MAE", "mae.", "mae.Mae", "no_such_module_x:Mine", f"{__name__}:Outers"])
def test_unknown_names_list_the_valid_ones(name):
  with pytest.raises(UserError, match=r"objective.name: nothing is called .*valid: "):
    build.build({"name": name}, "objectives", where="objective")


def test_a_section_without_a_name():
  with pytest.raises(UserError, match="objective: found 3, expected a section with a name, one of "):
    build.build(3, "objectives", where="objective")


def test_nearest_guesses():
  assert nearest("lr", ["learning_rate"]) == "lr (valid: learning_rate)"
  assert nearest("temprature", ["temperature", "seed"]).startswith("temprature (did you mean temperature?")
