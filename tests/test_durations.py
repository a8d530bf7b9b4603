import pytest

from ssljax.durations import to_steps
from ssljax.errors import UserError


@pytest.mark.parametrize(
  ("value", "steps"),
  [
    (100, 100),
    ("100", 100),
    (" 100 ", 100),
    ("1e4", 10000),
    ("1e6ex", 7813),
    ("40ep", 15625),
    ("0.5ep", 196),
    ("0ep", 0),
  ],
)
def test_to_steps_rounds_up(value, steps):
  assert to_steps(value, batch_size=128, num_examples=50_000) == steps


def test_large_durations_are_exact():
  assert to_steps("300ep", batch_size=4096, num_examples=1_281_167) == -(-300 * 1_281_167 // 4096)
  assert to_steps("13e9ex", batch_size=7, num_examples=None) == -(-13_000_000_000 // 7)


@pytest.mark.parametrize(
  "value", ["", "ten", "10 steps", "-5", "1e-3ep", "ep", "5epochs", "nan", "1e999ex", -3, 1.5e-4, None]
)
def test_bad_text_is_named(value):
  with pytest.raises(UserError, match=r"duration: found .*expected"):
    to_steps(value, batch_size=128, num_examples=10)


def test_epochs_need_an_end():
  with pytest.raises(UserError, match="no end"):
    to_steps("4ep", batch_size=128, num_examples=None)
