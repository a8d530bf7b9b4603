"""Durations, what counts as another run, and sections read from plain dicts."""

from ssljax.training.config import differences, flatten, resolve_durations


def test_durations_become_steps_wherever_they_stand():
  config = {"steps": "2ep", "optimizer": {"learning_rate": {"warmup_steps": "1e3ex"}}, "list": ["1ep", "text"], "n": 3}
  resolved = resolve_durations(config, batch_size=100, num_examples=5000)
  assert resolved == {
    "steps": 100, "optimizer": {"learning_rate": {"warmup_steps": 10}}, "list": [50, "text"], "n": 3,
  }  # fmt: skip


def test_differences_leave_out_what_is_only_watched():
  old = {"steps": 5, "seed": 1, "log_every": 1, "data": {"workers": 0, "source": "a"}, "evaluation": {"every": 3}}
  new = {"steps": 9, "seed": 2, "log_every": 7, "data": {"workers": 2, "source": "b"}, "evaluation": None}
  assert differences(old, new) == ["data.source ('a' -> 'b')", "seed (1 -> 2)"]
  watched = {**old, "health": {"every": 5, "alarm": {"action": "stop"}}}
  assert differences(old, watched) == []
  assert differences(watched, {**old, "health": {"examples": 9}}) == ["health.examples (None -> 9)"]
  assert differences(old, {**old, "extra": {"deep": 1}}) == ["extra.deep (None -> 1)"]
  assert flatten({"a": {"b": 1}, "c": 2}) == {"a.b": 1, "c": 2}
