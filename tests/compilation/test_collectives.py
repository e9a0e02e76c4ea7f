from m2l_jax.compilation.collectives import Collective, find_collectives

PROGRAM = """
ENTRY %main (p: f32[8]) -> f32[8] {
  %all-reduce.1 = (f32[2,3]{1,0:T(8,128)S(3)}, bf16[4]{0:T(128)(2,1)}) all-reduce(%a, %b)
  %all-reduce.2 = f32[]{:T(128)} all-reduce(%c), channel_id=2
  %get-tuple-element.1 = f32[2,3]{1,0} get-tuple-element(%all-reduce.1), index=0
  %all-gather-start.1 = (f32[4]{0}, f32[16]{0}) all-gather-start(%d), dimensions={0}
  %all-gather-done.1 = f32[16]{0} all-gather-done(%all-gather-start.1)
  ROOT %reduce-scatter.1 = s32[5]{0} reduce-scatter(%e), dimensions={0}
}
"""


def test_operations_are_counted_with_the_bytes_of_their_results():
    assert find_collectives(PROGRAM) == [
        Collective('all-gather', 1, 64, 1),
        Collective('all-reduce', 2, 24 + 8 + 4, 0),
        Collective('reduce-scatter', 1, 20, 0),
    ]
