"""The learning-rate schedule: warm-up, flat, decay (Hu et al. 2024, "MiniCPM", call it WSD)."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """Linear from 0 to 1 over `warmup` steps, 1 for `flat`, linear to 0 over `decay`."""

    warmup: int
    flat: int
    decay: int

    @property
    def steps(self) -> int:
        return self.warmup + self.flat + self.decay

    @property
    def phase_ends(self) -> tuple[int, int, int]:
        """Steps done when each phase is over."""
        return self.warmup, self.warmup + self.flat, self.steps

    def factor(self, step: int) -> float:
        """Multiplier of the peak learning rate at `step`, counted from 0."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        if step < self.warmup + self.flat:
            return 1.0
        return (self.steps - step) / self.decay

    def phase(self, step: int) -> str:
        """`warmup`, `flat` or `decay`."""
        if step < self.warmup:
            return "warmup"
        return "flat" if step < self.warmup + self.flat else "decay"
