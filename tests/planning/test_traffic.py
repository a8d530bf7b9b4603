"""Bytes moved by kernels made by hand."""

from hlo_texts import program

from ssljax.planning import hlo, traffic, trips


def count(*lines, parameters=(), computations=""):
  module = hlo.parse(program(*lines, parameters=parameters, computations=computations))
  return traffic.count(module, trips.count(module))


def test_a_kernel_reads_its_operands_and_writes_its_result():
  assert count("%y = f32[4,8]{1,0} add(%p0, %p1)", parameters=["f32[4,8]", "f32[4,8]"]) == 3 * 128


def test_names_and_steering_are_free():
  lines = (
    "%t = (f32[4,8]{1,0}) tuple(%p0)",
    "%g = f32[4,8]{1,0} get-tuple-element(%t), index=0",
    "%b = f32[32]{0} bitcast(%g)",
    '%y = f32[32]{0} custom-call(), custom_call_target="AllocateBuffer"',
  )
  assert count(*lines, parameters=["f32[4,8]"]) == 0


def test_what_stays_on_the_chip_is_free():
  lines = (
    "%c = (f32[64]{0:S(1)}, f32[64]{0}, u32[]{:S(2)}) copy-start(%p0)",
    "%d = f32[64]{0:S(1)} copy-done(%c)",
    "%y = f32[64]{0:S(1)} negate(%d)",
  )
  assert count(*lines, parameters=["f32[64]"]) == 256  # read once, into the chip


def test_a_slice_fetched_ahead_is_read_once():
  lines = (
    "%s = (f32[8,16]{1,0}, f32[2,16]{1,0:S(1)}, s32[]{:S(2)}) slice-start(%p0), slice={[0:2], [0:16]}",
    "%y = f32[2,16]{1,0:S(1)} slice-done(%s)",
  )
  assert count(*lines, parameters=["f32[8,16]"]) == 128


LAYER = """%layer (stack: f32[12,4,8], n: s32[], x: f32[4,8]) -> f32[4,8] {
  %stack = f32[12,4,8]{2,1,0} parameter(0)
  %n = s32[] parameter(1)
  %x = f32[4,8]{1,0} parameter(2)
  %zero = s32[] constant(0)
  %mine = f32[1,4,8]{2,1,0} dynamic-slice(%stack, %n, %zero, %zero), dynamic_slice_sizes={1,4,8}
  %flat = f32[4,8]{1,0} bitcast(%mine)
  ROOT %sum = f32[4,8]{1,0} add(%flat, %x)
}
"""


def test_a_loop_over_layers_reads_its_own_layers_part():
  line = "%y = f32[4,8]{1,0} fusion(%p0, %p1, %p2), kind=kLoop, calls=%layer"
  parameters = ["f32[12,4,8]", "s32[]", "f32[4,8]"]
  assert count(line, parameters=parameters, computations=LAYER) == 128 + 4 + 128 + 128


UPDATE = """%update (stack: f32[12,4,8], new: f32[4,8], n: s32[]) -> f32[12,4,8] {
  %stack = f32[12,4,8]{2,1,0} parameter(0)
  %new = f32[4,8]{1,0} parameter(1)
  %n = s32[] parameter(2)
  %zero = s32[] constant(0)
  %row = f32[1,4,8]{2,1,0} bitcast(%new)
  ROOT %kept = f32[12,4,8]{2,1,0} dynamic-update-slice(%stack, %row, %n, %zero, %zero)
}
"""


def test_an_update_in_place_writes_the_update():
  line = "%y = f32[12,4,8]{2,1,0} fusion(%p0, %p1, %p2), kind=kLoop, calls=%update"
  parameters = ["f32[12,4,8]", "f32[4,8]", "s32[]"]
  assert count(line, parameters=parameters, computations=UPDATE) == 128 + 4 + 128


def test_results_that_stay_on_the_chip_are_not_written():
  both = """%both (a: f32[16]) -> (f32[16], f32[16]) {
  %a = f32[16]{0} parameter(0)
  %n = f32[16]{0} negate(%a)
  %e = f32[16]{0} exponential(%a)
  ROOT %t = (f32[16]{0}, f32[16]{0}) tuple(%n, %e)
}
"""
  line = "%y = (f32[16]{0:S(1)}, f32[16]{0}) fusion(%p0), kind=kLoop, calls=%both"
  assert count(line, parameters=["f32[16]"], computations=both) == 64 + 64
