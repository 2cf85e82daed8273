# SPDX-License-Identifier: Apache-2.0
"""How a session is doing. Plain data, no ROS."""
from dataclasses import dataclass
from typing import Optional, Tuple

from lingbot_world_ros.actions.command_spec import CommandCounts
from lingbot_world_ros.session.states import Fault, Mode, State
import numpy as np


@dataclass(frozen=True)
class SessionStatus:
    """
    How a session is doing; times are wall time, rates over the last second.

    ``actions`` (T, A) float32 drove the newest step, None after a reset; ``anchor`` is what was
    set from outside since the step before; ``digest`` sums up all frames since the reset. All
    three as in WorldStatus.msg. ``prompt`` is the one the newest step was made with;
    ``images_anchored`` counts images put in since the reset, without which what follows cannot be
    made again.
    """

    state: State
    mode: Mode
    scene: str = ''
    seed: int = 0
    world: str = ''
    world_text: str = ''
    stamp_ns: int = 0
    step: int = 0
    frame: int = 0
    embedding_sequence: int = 0
    actions: Optional[np.ndarray] = None
    anchor: Tuple[float, ...] = ()
    digest: str = ''
    frame_rate_hz: float = 0.0
    real_time_factor: float = 0.0
    step_duration_s: float = 0.0
    command_latency_s: float = 0.0
    uncertainty: float = 0.0
    calibrated: bool = True
    contact: float = 0.0
    prompt: str = ''
    images_anchored: int = 0
    late_frames: int = 0
    lockstep_timeouts: int = 0
    rejected_embeddings: int = 0
    counts: CommandCounts = CommandCounts()
    fault: Fault = Fault.NONE
    recoveries: int = 0
    message: str = ''
