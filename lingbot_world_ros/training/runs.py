# SPDX-License-Identifier: Apache-2.0
"""What every training run shares: a time budget, a curve on disk, checkpoints to resume from."""
import csv
import math
import os
from pathlib import Path
import time
from typing import Any, Callable

import torch

WARMUP, FLOOR = 0.02, 0.02  # of the learning rate: share of the time, share of the highest


class Run:
    """
    A training run in a folder: ``checkpoint.pt`` to resume from, ``curve.csv`` to look at.

    Progress is the share of the time budget that is used; it survives an interruption.
    """

    def __init__(self, folder: Path, minutes: float, stop_after: float = 1e9,
                 clock: Callable[[], float] = time.monotonic, **parts: Any):
        """
        Open or resume a run.

        :param folder: where its files are
        :param minutes: budget of training time, all attempts together
        :param stop_after: minutes of this attempt, then it pauses
        :param clock: seconds; ``time.process_time`` where others use the machine too
        :param parts: name -> module, optimiser or anything with (load_)state_dict
        """
        self.folder, self.budget_s, self.parts = Path(folder), 60.0 * minutes, parts
        self.step, self._used_s, self._clock, self._since = 0, 0.0, clock, clock()
        self._pause_s = 60.0 * stop_after
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / 'checkpoint.pt'
        if path.exists():
            saved = torch.load(path, map_location='cpu', weights_only=True)
            self.step, self._used_s = saved['step'], saved['used_s']
            for name, part in parts.items():
                part.load_state_dict(saved[name])

    @property
    def used_s(self) -> float:
        """Seconds of training so far."""
        return self._used_s + self._clock() - self._since

    @property
    def progress(self) -> float:
        """Share of the budget that is used, 0..1."""
        return min(1.0, self.used_s / self.budget_s)

    @property
    def active(self) -> bool:
        """Whether neither the budget nor this attempt's time is used up."""
        return self.progress < 1.0 and self._clock() - self._since < self._pause_s

    def save(self) -> None:
        """Write the checkpoint; a crash while writing leaves the one before."""
        state = {name: part.state_dict() for name, part in self.parts.items()}
        state.update(step=self.step, used_s=self.used_s)
        torch.save(state, self.folder / 'checkpoint.tmp')
        os.replace(self.folder / 'checkpoint.tmp', self.folder / 'checkpoint.pt')

    def log(self, **values: Any) -> None:
        """Append a row to the curve."""
        path = self.folder / 'curve.csv'
        row = {'step': self.step, 'minutes': round(self.used_s / 60, 3),
               **{k: round(float(v), 5) for k, v in values.items()}}
        new = not path.exists()
        with path.open('a', newline='') as file:
            writer = csv.DictWriter(file, row)
            if new:
                writer.writeheader()
            writer.writerow(row)


def cosine(progress: float) -> float:
    """Learning-rate factor: linear warm-up, then a cosine down to ``FLOOR``."""
    if progress < WARMUP:
        return max(progress / WARMUP, 0.05)
    return FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * (progress - WARMUP)
                                                     / (1 - WARMUP)))


@torch.no_grad()
def update_average(average: torch.nn.Module, model: torch.nn.Module, keep: float) -> None:
    """Exponential moving average of the weights; what is shipped."""
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - keep)
