"""Settings of consistency training."""

import dataclasses
from typing import Annotated

from m2l_jax.consistency.auxiliary import AuxiliarySchedule
from m2l_jax.consistency.noise import DENSITIES, SCHEDULES, IndexDensity, StepSchedule
from m2l_jax.interface.errors import InputError


@dataclasses.dataclass(frozen=True)
class ConsistencyConfig:
    """Consistency training's constants.

    Attributes:
      density: of the noise index.
      schedule: of Δ, the distance between student and teacher.
      huber_scale: c of the pseudo-Huber loss over √n.
      least_weight: lower limit of the loss's weight 1/(σ - σ'), which is 0.0125 at σ = 80 with
        Δ = 1, and above 100 at low noise; 0: none.
      auxiliary: weight of a loss that is not the paper's; none by default.
      unquantised: share of the crops whose latents are not rounded, drawn for each crop; of models
        with the bottleneck 'fsq' alone.
    """

    density: Annotated[IndexDensity, DENSITIES]
    schedule: Annotated[StepSchedule, SCHEDULES]
    huber_scale: float
    least_weight: float = 0.0
    auxiliary: AuxiliarySchedule = dataclasses.field(default_factory=AuxiliarySchedule)
    unquantised: float = 0.0  # missing from old checkpoints

    def __post_init__(self):
        if self.huber_scale <= 0:
            raise InputError(f'config.consistency.huber_scale={self.huber_scale} must be above 0')
        if self.least_weight < 0:
            raise InputError(
                f'config.consistency.least_weight={self.least_weight} must be 0 or more'
            )
        if not 0 <= self.unquantised <= 1:
            raise InputError(
                f'config.consistency.unquantised={self.unquantised} must be from 0 to 1'
            )
