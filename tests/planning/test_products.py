"""Operations of products against counts by hand and, for convolutions, a loop over every pixel."""

import itertools

import pytest
from hlo_texts import KNOWN, LOOPS, program

from ssljax.planning import hlo, products, trips


def count(text):
  module = hlo.parse(text)
  return products.count(module, trips.count(module))


def test_loops_and_fusions():
  found = count(LOOPS.replace("KNOWN", KNOWN))
  assert found.operations == 13 * 2 * 2 * 8 * 4
  assert found.work == {"bfloat16": 0, "float32": found.operations}


def test_a_product_with_batches():
  line = "%y = f32[5,2,4]{2,1,0} dot(%p0, %p1), lhs_batch_dims={0}, lhs_contracting_dims={2}, rhs_batch_dims={0}"
  found = count(program(line, parameters=["bf16[5,2,8]", "bf16[5,8,4]"]))
  assert found.operations == found.work["bfloat16"] == 5 * 2 * 2 * 8 * 4


@pytest.mark.parametrize(
  ("attribute", "times"),
  [
    ("operand_precision={highest,highest}", 6),
    ("operand_precision={high,high}", 3),
    ("algorithm=dot_tf32_tf32_f32", 1),
  ],
)
def test_passes_count_as_work_not_as_operations(attribute, times):
  line = f"%y = f32[2,4]{{1,0}} dot(%p0, %p1), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}, {attribute}"
  found = count(program(line, parameters=["f32[2,8]", "f32[8,4]"]))
  assert (found.operations, found.work["float32"]) == (128, 128 * times)


def test_operands_rounded_by_the_algorithm():
  line = "%y = f32[2,4]{1,0} dot(%p0, %p1), lhs_contracting_dims={1}, rhs_contracting_dims={0}, "
  found = count(program(line + "algorithm=dot_bf16_bf16_f32", parameters=["f32[2,8]", "f32[8,4]"]))
  assert found.work == {"bfloat16": 128, "float32": 0}


def slow(length, window, out, stride, pad, stretch, gap):
  """Products of one spatial dimension that meet a real pixel: every output, every tap."""
  meets = 0
  for place, tap in itertools.product(range(out), range(window)):
    at = place * stride + tap * gap - pad
    meets += any(at == pixel * stretch for pixel in range(length))
  return meets


def test_a_convolution_with_padding():
  line = (
    "%y = f32[2,4,4,16]{3,2,1,0} convolution(%p0, %p1), window={size=3x3 stride=2x2 pad=1_1x1_1}, "
    "dim_labels=b01f_01io->b01f"
  )
  meets = slow(8, 3, 4, 2, 1, 1, 1)
  assert meets == 11  # of 12: the first window hangs over the edge
  assert count(program(line, parameters=["f32[2,8,8,3]", "f32[3,3,3,16]"])).operations == 2 * 2 * 3 * 16 * meets**2


def test_a_gradient_of_a_strided_convolution():
  line = (
    "%y = f32[2,8,8,3]{3,2,1,0} convolution(%p0, %p1), window={size=3x3 pad=1_2x1_2 lhs_dilate=2x2 rhs_reversal=1x1}, "
    "dim_labels=b01f_01oi->b01f"
  )
  meets = slow(4, 3, 8, 1, 1, 2, 1)
  assert count(program(line, parameters=["f32[2,4,4,16]", "f32[3,3,3,16]"])).operations == 2 * 2 * 3 * 16 * meets**2


def test_groups_and_dilated_windows():
  line = (
    "%y = f32[2,6,8]{2,1,0} convolution(%p0, %p1), window={size=3 rhs_dilate=2 pad=1_1}, dim_labels=b0f_0io->b0f, "
    "feature_group_count=4"
  )
  expected = 2 * 2 * 1 * 8 * slow(8, 3, 6, 1, 1, 1, 2)
  assert count(program(line, parameters=["f32[2,8,4]", "f32[3,1,8]"])).operations == expected


def test_batched_products_as_a_tpu_writes_them():
  """Rows of a batch become windows over an input stretched so that each window meets one row."""
  line = (
    "%y = bf16[32,16,197,197]{2,3,1,0:T(8,128)(2,1)S(1)} convolution(%p0, %p1), "
    "window={size=32x16 stride=31x15 lhs_dilate=32x16}, dim_labels=01fb_0o1i->01bf"
  )
  parameters = ["bf16[32,16,64,197]{3,2,1,0}", "bf16[32,197,16,64]{3,2,1,0}"]
  assert count(program(line, parameters=parameters)).operations == 2 * 32 * 16 * 197 * 197 * 64


def test_a_library_product():
  line = (
    '%y = (bf16[2,4]{1,0}, s8[1024]{0}) custom-call(%p0, %p1), custom_call_target="__cublas$gemm", '
    'backend_config={"gemm_backend_config":{"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"],'
    '"rhs_contracting_dimensions":["0"]}}}'
  )
  assert count(program(line, parameters=["bf16[2,8]", "bf16[8,4]"])).operations == 2 * 2 * 8 * 4


def test_library_convolutions_and_their_gradients_do_the_same_work():
  picture, kernel, out = "f32[2,8,8,3]", "f32[3,3,3,16]", "f32[2,4,4,16]"
  forms = {
    "__cudnn$convForward": (picture, kernel, out),
    "__cudnn$convBackwardInput": (out, kernel, picture),
    "__cudnn$convBackwardFilter": (picture, out, kernel),
  }
  found = []
  for target, (a, b, result) in forms.items():
    line = (
      f"%y = ({result}{{3,2,1,0}}, u8[0]{{0}}) custom-call(%p0, %p1), window={{size=3x3 stride=2x2 pad=1_1x1_1}}, "
      f'dim_labels=b01f_01io->b01f, custom_call_target="{target}"'
    )
    found.append(count(program(line, parameters=[a, b])).operations)
  assert found == [2 * 2 * 3 * 16 * 11**2] * 3


def test_hand_written_kernels_are_named():
  line = '%y = f32[2,4]{1,0} custom-call(%p0), custom_call_target="tpu_custom_call"'
  found = count(program(line, parameters=["f32[2,8]"]))
  assert found.operations == 0 and found.opaque == ("y",)
