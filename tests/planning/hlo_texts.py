"""Small programs as XLA prints them, made by hand, whose every number can be added up on paper."""

# A loop of 3 turns inside one of 4: 12 products of [2,8] x [8,4], and one outside.
LOOPS = """HloModule loops, is_scheduled=true

%inner_body (state: (s32[], f32[2,8], f32[8,4])) -> (s32[], f32[2,8], f32[8,4]) {
  %state = (s32[]{:T(128)}, f32[2,8]{1,0:T(8,128)S(1)}, /*index=2*/f32[8,4]{1,0}) parameter(0)
  %n = s32[]{:T(128)} get-tuple-element(%state), index=0
  %x = f32[2,8]{1,0:T(8,128)S(1)} get-tuple-element(%state), index=1
  %w = f32[8,4]{1,0} get-tuple-element(%state), index=2
  %two = s32[] constant(2)
  %next = s32[] add(%n, %two)
  %y = f32[2,4]{1,0} dot(%x, %w), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT %out = (s32[], f32[2,8], /*index=2*/f32[8,4]) tuple(%next, %x, /*index=2*/%w)
}

%inner_condition (state.1: (s32[], f32[2,8], f32[8,4])) -> pred[] {
  %state.1 = (s32[], f32[2,8], f32[8,4]) parameter(0)
  %n.1 = s32[] get-tuple-element(%state.1), index=0
  %seven = s32[] constant(7)
  ROOT %less = pred[] compare(%n.1, %seven), direction=LT
}

%outer_body (state.2: (s32[], f32[2,8], f32[8,4])) -> (s32[], f32[2,8], f32[8,4]) {
  %state.2 = (s32[], f32[2,8], f32[8,4]) parameter(0)
  %x.2 = f32[2,8]{1,0} get-tuple-element(%state.2), index=1
  %w.2 = f32[8,4]{1,0} get-tuple-element(%state.2), index=2
  %one = s32[] constant(1)
  %copied = s32[] copy(%one)
  %start = (s32[], f32[2,8], f32[8,4]) tuple(%copied, %x.2, %w.2)
  ROOT %inner = (s32[], f32[2,8], f32[8,4]) while(%start), condition=%inner_condition, body=%inner_body
}

%outer_condition (state.3: (s32[], f32[2,8], f32[8,4])) -> pred[] {
  %state.3 = (s32[], f32[2,8], f32[8,4]) parameter(0)
  ROOT %yes = pred[] constant(true)
}

%fused (a: f32[2,8], b: f32[8,4]) -> f32[2,4] {
  %a = f32[2,8]{1,0} parameter(0)
  %b = f32[8,4]{1,0} parameter(1)
  ROOT %product = f32[2,4]{1,0} dot(%a, %b), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

ENTRY %main.1 (x.4: f32[2,8], w.4: f32[8,4]) -> f32[2,4] {
  %x.4 = f32[2,8]{1,0} parameter(0), metadata={op_name="x (first)"}
  %w.4 = f32[8,4]{1,0} parameter(1)
  %zero = s32[] constant(0)
  %start.4 = (s32[], f32[2,8], f32[8,4]) tuple(%zero, %x.4, %w.4)
  %outer = (s32[], f32[2,8], f32[8,4]) while(%start.4), condition=%outer_condition, body=%outer_body, KNOWN
  ROOT %fusion = f32[2,4]{1,0} fusion(%x.4, %w.4), kind=kOutput, calls=%fused
}
"""
KNOWN = 'backend_config={"known_trip_count":{"n":"4"},"other":{"a":"b"}}'


def program(*lines, parameters=(), computations=""):
  """Returns a program whose entry has these parameters' types and these lines; the last is its result."""
  made = [f"  %p{n} = {kind} parameter({n})" for n, kind in enumerate(parameters)]
  body = [*made, *(f"  {line}" for line in lines[:-1]), f"  ROOT {lines[-1]}"]
  return "HloModule made\n\n" + computations + "\nENTRY %main (p: f32[]) -> f32[] {\n" + "\n".join(body) + "\n}\n"
