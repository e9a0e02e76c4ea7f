"""Flags of XLA for the processes of tests; unlike `conftest`, importing this sets none."""

# Compiling takes half as long without the compiler's emitters of fusions by MLIR.
QUICK_FLAGS = '--xla_cpu_use_fusion_emitters=false'


def fake_devices(count: int) -> str:
    """XLA's flags of a process with several devices."""
    return f'{QUICK_FLAGS} --xla_force_host_platform_device_count={count}'
