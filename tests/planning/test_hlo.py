"""Programs read, and how often their parts run, against programs made by hand."""

from hlo_texts import KNOWN, LOOPS, program

from ssljax.planning import hlo, traffic, trips


def test_shapes():
  bf16, flag, *_ = hlo.shapes("(bf16[8,128]{1,0:T(8,128)(2,1)S(1)}, pred[3]{0}, /*index=2*/s32[]{:S(2)})")
  assert (bf16.dtype, bf16.dims, bf16.space, bf16.bytes) == ("bf16", (8, 128), 1, 2048)
  assert (flag.bytes, flag.space) == (3, 0)
  assert [shape.bytes for shape in hlo.shapes("(f8e4m3fn[4], s4[10], u32[], token[])")] == [4, 5, 4, 0]


def test_instructions():
  module = hlo.parse(LOOPS)
  assert module.entry.name == "main.1" and len(module.computations) == 6
  fusion = module.entry.root
  assert (fusion.opcode, fusion.operands, fusion.called) == ("fusion", ("x.4", "w.4"), ("fused",))
  body = module.computations["inner_body"]
  assert body.root.operands == ("next", "x", "w") and len(body.root.shapes) == 3
  assert [i.name for i in body.users["x"]] == ["y", "out"]
  assert [p.name for p in module.computations["fused"].parameters] == ["a", "b"]


def test_loops_run_their_turns():
  turns = trips.count(hlo.parse(LOOPS.replace("KNOWN", KNOWN)))
  # 1, 3, 5 stay below 7: three turns in each of four.
  assert turns.executed == {"main.1": 1, "outer_body": 4, "inner_body": 12}
  assert turns.fused == {"fused": 1} and turns.unknown == ()


def test_a_loop_of_unknown_length_counts_once_and_is_named():
  turns = trips.count(hlo.parse(LOOPS.replace(", KNOWN", "")))
  assert turns.executed["inner_body"] == 3 and turns.unknown == ("outer",)


def test_a_bound_that_is_no_constant_is_unknown():
  text = LOOPS.replace("KNOWN", KNOWN).replace("%seven = s32[] constant(7)", "%seven = s32[] negate(%n.1)")
  assert trips.count(hlo.parse(text)).unknown == ("inner",)


def test_what_another_core_does_at_the_same_time():
  other = """
%other (a: f32[4]) -> f32[4] {
  %a = f32[4]{0} parameter(0)
  ROOT %sum = f32[4]{0} all-reduce(%a), channel_id=1
}, execution_thread="sparsecore"
"""
  start = '%s = ((f32[4]), (f32[4])) call-start(%p0), async_execution_thread="sparsecore", to_apply=%other'
  text = program(start, "%y = f32[4]{0} call-done(%s)", parameters=["f32[4]"], computations=other)
  turns = trips.count(hlo.parse(text))
  assert turns.executed == {"main": 1, "other": 1}
  assert traffic.count(hlo.parse(text), turns) == 2 * 16  # the sum's own, not the call's
