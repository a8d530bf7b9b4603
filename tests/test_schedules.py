import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax import schedules
from ssljax.errors import UserError

# The released code's defaults at T = 1000: warm-up 50, cooldown ends at 150, constant until 800, total 1000.
TASK = dict(
  peak=1e-3, constant=1e-4, minimum=1e-5, warmup_steps=50, cooldown_steps=100, anneal_start=800, anneal_steps=200
)
STEPS = [0, 25, 50, 51, 100, 150, 500, 800, 801, 850, 1000]


def values(schedule, steps):
  return np.asarray(jax.jit(schedule)(jnp.asarray(steps, jnp.int32)))


def test_infinite_equals_the_released_code():
  golden = [0, 5e-4, 1e-3, 9.99778e-4, 5.5e-4, 1e-4, 1e-4, 1e-4, 9.88553e-5, 5.62341e-5, 1e-5]
  np.testing.assert_allclose(values(schedules.infinite(**TASK), STEPS), golden, rtol=1e-5)


def test_infinite_cooldown_shapes_equal_the_released_code():
  np.testing.assert_allclose(values(schedules.infinite(**TASK, cooldown="linear"), [51]), [9.91e-4], rtol=1e-5)
  golden = [9.400367e-4, 4.00234e-4, 2.375302e-4, 1.534543e-4, 1e-4]
  np.testing.assert_allclose(
    values(schedules.infinite(**TASK, cooldown="inverse_sqrt"), [51, 75, 100, 125, 150]), golden, rtol=1e-5
  )


def test_infinite_later_tasks_neither_warm_up_nor_cool_down():
  later = schedules.infinite(**TASK | dict(warmup_steps=0, cooldown_steps=0))
  np.testing.assert_allclose(values(later, [0, 400, 800, 850]), [1e-4, 1e-4, 1e-4, 5.62341e-5], rtol=1e-5)


def test_the_trunk_is_constant_for_ever_and_a_branch_leaves_it_only_at_the_anneal():
  trunk = {key: value for key, value in TASK.items() if not key.startswith("anneal")}
  far = schedules.infinite(**trunk)
  np.testing.assert_array_equal(values(far, [150, 10**6, 10**7, 2**31 - 1]), np.float32(1e-4))
  start = 10**9 + 1  # float32 has no such integer
  branch = schedules.infinite(**trunk, anneal_start=start, anneal_steps=4)
  steps = np.append(np.arange(0, 10**7, 9973), start)
  np.testing.assert_array_equal(values(far, steps), values(branch, steps))
  expected = 1e-4 * 0.1 ** (np.arange(6).clip(0, 4) / 4)
  np.testing.assert_allclose(values(branch, start + np.arange(6)), expected, rtol=1e-6)


def test_long_phases_are_accurate_far_from_zero():
  total, warmup = 10**7, 10**4
  steps = np.array([warmup + 1, 5 * 10**6 + 1, 9_999_000, 9_999_999])
  p = (steps - warmup) / (total - warmup)
  expected = np.sin(0.5 * np.pi * (1 - p)) ** 2  # float64
  found = values(schedules.cosine(peak=1.0, warmup_steps=warmup, total_steps=total), steps)
  np.testing.assert_allclose(found[:2], expected[:2], rtol=1e-6)
  np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize(
  ("shape", "golden"),
  [
    ("linear", [0.01, 0.505, 1, 1, 0.75, 0.5, 0.25, 0.005]),
    ("cosine", [0.01, 0.505, 1, 1, 0.853553, 0.5, 0.146447, 0.000062]),
    ("sqrt", [0.01, 0.505, 1, 1, 0.5, 0.292893, 0.133975, 0.002503]),
    ("square", [0.01, 0.505, 1, 1, 0.9375, 0.75, 0.4375, 0.009975]),
  ],
)
def test_wsd_equals_the_released_code(shape, golden):
  schedule = schedules.wsd(peak=1.0, start=0.01, warmup_steps=100, shape=shape, anneal_start=800, anneal_steps=200)
  steps = [0, 50, 100, 799, 850, 900, 950, 999]
  np.testing.assert_allclose(values(schedule, steps), golden, rtol=1e-4, atol=5e-7)


def test_cosine_equals_dino_after_its_warmup():
  golden = [1, 0.97286168, 0.89472, 0.775, 0.62814168, 0.47185832, 0.325, 0.20528, 0.12713832, 0.1]
  found = values(schedules.cosine(peak=1.0, end=0.1, warmup_steps=3, total_steps=12), range(13))
  np.testing.assert_allclose(found[:3], [0, 1 / 3, 2 / 3], rtol=1e-6)  # DINO's reaches the peak one step early
  np.testing.assert_allclose(found[3:], golden, rtol=1e-5)


def test_cosine_may_rise_as_a_teacher_decay_does():
  golden = [0.996, 0.99609789, 0.99638197, 0.99682443, 0.99738197, 0.998]
  rising = schedules.cosine(peak=0.996, end=1.0, total_steps=10)
  np.testing.assert_allclose(values(rising, range(6)), golden, rtol=1e-6)
  np.testing.assert_allclose(values(rising, [9, 10, 99]), [0.99990211, 1, 1], rtol=1e-6)


def test_linear():
  found = values(schedules.linear(peak=0.04, end=0.07, total_steps=30), [0, 10, 30, 31])
  np.testing.assert_allclose(found, [0.04, 0.05, 0.07, 0.07], rtol=1e-6)


def test_repeated_cosine_starts_every_cycle_anew():
  once = schedules.cosine(peak=1.0, end=0.1, warmup_steps=5, total_steps=20)
  again = schedules.repeated_cosine(peak=1.0, end=0.1, warmup_steps=5, cycle_steps=20)
  np.testing.assert_array_equal(values(again, range(60)), np.tile(values(once, range(20)), 3))
  assert [again.phase(step) for step in (0, 5, 19, 20, 25)] == ["warmup", "decay", "decay", "warmup", "decay"]


def test_a_staircase_steps_at_its_boundaries():
  """RotNet's on CIFAR-10, an epoch a step, and one with a warm-up."""
  rotnet = schedules.staircase(peak=0.1, factor=0.2, boundaries=(60, 120, 160))
  np.testing.assert_allclose(
    values(rotnet, [0, 59, 60, 119, 120, 160, 10**6]), [0.1, 0.1, 0.02, 0.02, 4e-3, 8e-4, 8e-4]
  )
  warm = schedules.staircase(peak=1.0, factor=0.5, boundaries=(6,), warmup_steps=4)
  np.testing.assert_allclose(values(warm, [0, 2, 4, 5, 6]), [0, 0.5, 1, 1, 0.5])


def test_rsqrt_equals_t5():
  found = values(schedules.rsqrt(peak=0.01, warmup_steps=10_000), [0, 9_999, 10_000, 40_000, 10**6])
  np.testing.assert_allclose(found, [0.01, 0.01, 0.01, 0.005, 0.001], rtol=1e-6)


def test_rsqrt_with_a_linear_warmup():
  found = values(schedules.rsqrt(peak=0.01, warmup_steps=100, warmup="linear"), [0, 50, 100, 400])
  np.testing.assert_allclose(found, [0, 0.005, 0.01, 0.005], rtol=1e-6)


def test_phase_names_by_boundary():
  schedule = schedules.infinite(**TASK)
  names = [schedule.phase(step) for step in (0, 49, 50, 149, 150, 799, 800, 5000)]
  assert names == ["warmup"] * 2 + ["cooldown"] * 2 + ["constant"] * 2 + ["anneal"] * 2
  assert schedules.infinite(**TASK | dict(warmup_steps=0)).phase(0) == "cooldown"


@pytest.mark.parametrize(
  "schedule",
  [
    schedules.infinite(**TASK),
    schedules.wsd(peak=1e-3, warmup_steps=50, anneal_start=300, anneal_steps=100),
    schedules.cosine(peak=1e-3, warmup_steps=20, total_steps=400),
    schedules.rsqrt(peak=1e-3, warmup_steps=30),
  ],
)
def test_values_do_not_jump_between_phases(schedule):
  found = values(schedule, range(1100))
  assert np.abs(np.diff(found)).max() < 1.01e-3 / 9 and found.min() >= 0 and found.dtype == np.float32


def test_host_call_array_call_and_times_agree():
  schedule = schedules.infinite(**TASK)
  many = values(schedule, STEPS)
  np.testing.assert_array_equal([float(schedule(step)) for step in STEPS], many)
  np.testing.assert_allclose(values(schedule.times(0.5).times(4.0), STEPS), 2 * many, rtol=1e-6)
  assert schedule(jnp.int32(3)).shape == () and schedule(jnp.zeros((2, 3), jnp.int32)).shape == (2, 3)


def test_of_takes_numbers_and_schedules():
  schedule = schedules.linear(peak=1.0, total_steps=2)
  assert schedules.Schedule.of(schedule) is schedule
  assert float(schedules.Schedule.of(0.3)(10**7)) == np.float32(0.3)


@pytest.mark.parametrize(
  ("change", "key"),
  [
    (dict(warmup_steps=-1), "warmup_steps"),
    (dict(cooldown_steps=-1), "cooldown_steps"),
    (dict(minimum=0.0), "minimum"),
    (dict(minimum=2e-4), "minimum"),
    (dict(constant=2e-3), "constant"),
    (dict(peak=math.nan), "peak"),
    (dict(peak=math.inf), "peak"),
    (dict(anneal_steps=None), "anneal_steps"),
    (dict(anneal_start=None), "anneal_start"),
    (dict(anneal_start=149), "anneal_start"),
    (dict(anneal_steps=0), "anneal_steps"),
  ],
)
def test_infinite_names_the_bad_key(change, key):
  with pytest.raises(UserError, match=f"schedule: .*{key} is"):
    schedules.infinite(**TASK | change)


@pytest.mark.parametrize(
  ("make", "key"),
  [
    (lambda: schedules.cosine(peak=1.0, warmup_steps=10, total_steps=10), "total_steps"),
    (lambda: schedules.cosine(peak=-1.0, total_steps=10), "peak"),
    (lambda: schedules.linear(peak=1.0, end=-1.0, total_steps=10), "end"),
    (lambda: schedules.repeated_cosine(peak=1.0, warmup_steps=9, cycle_steps=9), "cycle_steps"),
    (lambda: schedules.rsqrt(peak=1.0, warmup_steps=0), "warmup_steps"),
    (lambda: schedules.staircase(peak=1.0, factor=0.1, boundaries=(4, 4)), "boundaries"),
    (lambda: schedules.staircase(peak=1.0, factor=0.1, boundaries=(4,), warmup_steps=4), "boundaries"),
    (lambda: schedules.staircase(peak=1.0, factor=-0.1, boundaries=(4,)), "factor"),
    (lambda: schedules.wsd(peak=1.0, warmup_steps=10, anneal_start=9, anneal_steps=1), "anneal_start"),
    (lambda: schedules.wsd(peak=1.0, warmup_steps=-1), "warmup_steps"),
  ],
)
def test_others_name_the_bad_key(make, key):
  with pytest.raises(UserError, match=f"schedule: {key} is"):
    make()
