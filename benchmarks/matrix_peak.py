"""The fastest that a product of matrices runs: what a model's speed is measured against."""

import time
from collections.abc import Callable, Sequence

_RUNS = 3


def matrix_sizes(device: str) -> tuple[int, ...]:
    """Sizes at which multiplications are all that limits a 'cpu', or an accelerator."""
    return (1024, 2048, 3072) if device == 'cpu' else (4096, 8192, 16384)


def fastest_product(product: Callable[[int], Callable[[], object]], sizes: Sequence[int]) -> float:
    """Floating-point operations a second of the fastest of several products.

    Matrices are of random numbers: equal ones cost a GPU less energy, and so less of its clock.

    Args:
      product: of a size N, what multiplies two N x N matrices and waits for the result.
      sizes: to try.
    """
    rates = []
    for size in sizes:
        run = product(size)
        run()  # compiles
        for _ in range(_RUNS):
            begin = time.perf_counter()
            run()
            rates.append(2 * size**3 / (time.perf_counter() - begin))
    return max(rates)
