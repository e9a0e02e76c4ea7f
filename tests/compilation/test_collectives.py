import pytest

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


# As for a v5e, where other work goes on during the all-gather.
ASYNCHRONOUS = """
%fused_computation.5 (p: f32[64,128]) -> (f32[64,128], f32[1024,128], u32[]) {
  %all-gather.6 = f32[1024,128]{1,0:T(8,128)} all-gather(%p), channel_id=1, frontend_attributes={chain_id="0"}
}
%async_collective_fusion.12 (p: f32[64,128]) -> f32[1024,128] {
  %all-gather.8 = f32[1024,128]{1,0:T(8,128)S(1)} all-gather(%p), channel_id=1, frontend_attributes={chain_id="0"}
}
ENTRY %main (p: f32[64,128]) -> f32[1024,128] {
  %permute = (f32[1024]{0}, f32[1024]{0}, u32[]{:S(2)}, u32[]{:S(2)}) collective-permute-start(%q), channel_id=2
  %all-reduce.9 = f32[8]{0} all-reduce(%r), channel_id=3
  %all-reduce.10 = f32[8]{0} all-reduce(%s), channel_id=3
}
"""  # noqa: E501


def test_an_asynchronous_operation_counts_once():
    assert find_collectives(ASYNCHRONOUS) == [
        Collective('all-gather', 1, 4 * 1024 * 128, 1),
        Collective('collective-permute', 1, 4096, 1),
        Collective('all-reduce', 2, 64, 0),
    ]


@pytest.mark.parametrize(
    ('kind', 'sent'),
    [('all-reduce', 150), ('all-gather', 75), ('reduce-scatter', 300), ('collective-permute', 100)],
)
def test_a_ring_of_four_sends(kind, sent):
    assert Collective(kind, 1, 100, 0).sent(4) == sent
