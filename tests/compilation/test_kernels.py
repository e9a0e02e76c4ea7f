import pytest

from m2l_jax.compilation.kernels import count_kernels

# In the form that XLA writes for an H100, shortened.
PROGRAM = """
HloModule jit_step, is_scheduled=true

%fused_select (p0: bf16[2,8,4], p1: f32[4]) -> bf16[2,8,4] {
  %p0 = bf16[2,8,4]{2,1,0} parameter(0)
  %p1 = f32[4]{0} parameter(1)
  %b = f32[2,8,4]{2,1,0} broadcast(%p1), dimensions={2}
  %c = f32[2,8,4]{2,1,0} convert(%p0)
  %m = f32[2,8,4]{2,1,0} multiply(%c, %b)
  ROOT %r = bf16[2,8,4]{2,1,0} convert(%m)
}

%fused_slice (q0: f32[1000], q1: s32[]) -> bf16[8] {
  %q0 = f32[1000]{0} parameter(0)
  %q1 = s32[] parameter(1)
  %c0 = bf16[1000]{0} convert(%q0)
  ROOT %s = bf16[8]{0} dynamic-slice(%c0, %q1), dynamic_slice_sizes={8}
}

%fused_update (u0: f32[1000], u1: f32[8], u2: s32[]) -> f32[1000] {
  %u0 = f32[1000]{0} parameter(0)
  %u1 = f32[8]{0} parameter(1)
  %u2 = s32[] parameter(2)
  %v = f32[8]{0} negate(%u1)
  ROOT %w = f32[1000]{0} dynamic-update-slice(%u0, %v, %u2)
}

%gemm (g0: bf16[16,4], g1: bf16[4,6]) -> f32[16,6] {
  %g0 = bf16[16,4]{1,0} parameter(0)
  %g1 = bf16[4,6]{1,0} parameter(1)
  ROOT %d = f32[16,6]{1,0} dot(%g0, %g1), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

%fused_reduce (h0: f32[16,6]) -> (f32[6], f32[6]) {
  %h0 = f32[16,6]{1,0} parameter(0)
  %z = f32[] constant(0)
  %e = f32[6]{0} reduce(%h0, %z), dimensions={0}, to_apply=%add
  %f = f32[6]{0} negate(%e)
  ROOT %g = (f32[6]{0}, f32[6]{0}) tuple(%e, %f)
}

%body (state: f32[8]) -> f32[8] {
  %state = f32[8]{0} parameter(0)
  ROOT %copied = f32[8]{0} copy(%state)
}

ENTRY %main (x: bf16[2,8,4], gain: f32[4], vector: f32[1000], at: s32[]) -> f32[1000] {
  %x = bf16[2,8,4]{2,1,0} parameter(0)
  %gain = f32[4]{0} parameter(1)
  %vector = f32[1000]{0} parameter(2)
  %at = s32[] parameter(3)
  %scaled = bf16[2,8,4]{2,1,0} fusion(%x, %gain), kind=kLoop, calls=%fused_select
  %bias = bf16[8]{0} fusion(%vector, %at), kind=kLoop, calls=%fused_slice
  %bitcast.1 = bf16[16,4]{1,0} bitcast(%scaled)
  %w = bf16[4,6]{1,0} constant({...})
  %product = f32[16,6]{1,0} fusion(%bitcast.1, %w), kind=kCustom, calls=%gemm
  %sums = (f32[6]{0}, /*index=1*/f32[6]{0}) fusion(%product), kind=kInput, calls=%fused_reduce
  %sum = f32[6]{0} get-tuple-element(%sums), index=0
  %image = bf16[1,10,10,4]{3,2,1,0} constant({...})
  %taps = bf16[6,3,3,4]{3,2,1,0} constant({...})
  %conv = (bf16[1,10,10,6]{3,2,1,0}, u8[0]{0}) custom-call(%image, %taps, %bias), window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$convBiasActivationForward"
  %out = bf16[1,10,10,6]{3,2,1,0} get-tuple-element(%conv), index=0
  %back = (bf16[6,3,3,4]{3,2,1,0}, u8[0]{0}) custom-call(%image, %out), window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$convBackwardFilter"
  %fmha = (bf16[2,8,4]{2,1,0}, u8[0]{0}) custom-call(%x, %x, %x), custom_call_target="__cudnn$fmhaSoftmax"
  %loop = f32[8]{0} while(%start), condition=%more, body=%body
  %all-reduce-start = f32[8]{0} all-reduce-start(%loop), channel_id=1, to_apply=%add
  %all-reduce-done = f32[8]{0} all-reduce-done(%all-reduce-start)
  ROOT %new = f32[1000]{0} fusion(%vector, %all-reduce-done, %at), kind=kLoop, calls=%fused_update
}
"""  # noqa: E501


def test_each_kernel_counts_once_by_its_kind():
    assert count_kernels(PROGRAM).counts == {
        'fusion': 2,  # scaled, new
        'convolution': 2,
        'layout': 2,  # bias, the loop's copy
        'matrix product': 1,
        'reduction': 1,
        'attention': 1,
        'collective': 1,
    }


def test_traffic_is_what_a_kernel_needs_of_its_arrays():
    size = 2 * 8 * 4 * 2  # of x in bytes
    image, taps, out = 400 * 2, 216 * 2, 600 * 2
    assert count_kernels(PROGRAM).traffic == {
        # read and written, and the gain; the update is read and written in place, and its index
        'fusion': size + size + 16 + 8 * 4 + 8 * 4 + 4,
        'convolution': (image + taps + 16 + out) + (image + out + taps),
        # 8 of the 1000 numbers, their place, and the result; 8 numbers copied
        'layout': 8 * 4 + 4 + 8 * 2 + 2 * 8 * 4,
        'matrix product': size + 24 * 2 + 96 * 4,
        'reduction': 96 * 4 + 2 * 6 * 4,
        'attention': 4 * size,
        'collective': 2 * 8 * 4,
    }


def test_operations_are_those_of_convolutions_and_products():
    convolution = 2 * 100 * 6 * 9 * 4  # as many forward as for the kernel's gradient
    assert count_kernels(PROGRAM).flops == 2 * convolution + 2 * 16 * 4 * 6


def test_a_gradient_of_a_convolutions_input_counts_as_the_convolution():
    program = """
ENTRY %main (d: bf16[1,10,10,6], k: bf16[6,3,3,4]) -> bf16[1,10,10,4] {
  %d = bf16[1,10,10,6]{3,2,1,0} parameter(0)
  %k = bf16[6,3,3,4]{3,2,1,0} parameter(1)
  ROOT %r = (bf16[1,10,10,4]{3,2,1,0}, u8[0]{0}) custom-call(%d, %k), dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$convBackwardInput"
}
"""  # noqa: E501
    assert count_kernels(program).flops == pytest.approx(2 * 100 * 6 * 9 * 4)
