# SPDX-License-Identifier: Apache-2.0
"""How a session runs its world."""
from dataclasses import dataclass

from lingbot_world_ros.errors import SpecError, unknown_name
from lingbot_world_ros.session.status import LOCKSTEP, PAUSED, PLAYING, REALTIME, STEPPED, STOPPED


@dataclass(frozen=True)
class SessionSpec:
    """
    How a world runs.

    ``speed`` is sim seconds per wall second, 0 for as fast as the engine goes. An embedding older
    than ``action_timeout_s`` of wall time counts as silence: the robot is told to stand still.
    ``clock_rate_hz`` is ticks of the clock per sim second, 0 for one per frame.
    """

    mode: str = REALTIME
    initial_state: str = PLAYING
    reset_time_policy: str = 'zero'
    speed: float = 1.0
    clock_rate_hz: float = 0.0
    action_timeout_s: float = 0.5
    lockstep_commands: int = 1
    lockstep_timeout_s: float = 1.0
    step_timeout_s: float = 10.0
    entity_name: str = 'robot'

    def __post_init__(self):
        """Refuse values no session can run with."""
        for name, known in (('mode', (REALTIME, STEPPED, LOCKSTEP)),
                            ('initial_state', (PLAYING, PAUSED, STOPPED)),
                            ('reset_time_policy', ('zero', 'monotonic'))):
            if getattr(self, name) not in known:
                raise unknown_name(name, getattr(self, name), known)
        if not self.speed >= 0.0:
            raise SpecError(f'speed={self.speed} must be 0 (as fast as possible) or more.')
        for name in ('action_timeout_s', 'lockstep_timeout_s', 'step_timeout_s'):
            if not getattr(self, name) > 0.0:
                raise SpecError(f'{name}={getattr(self, name)} must be more than 0.')
