# SPDX-License-Identifier: Apache-2.0
"""How a session runs its world."""
from dataclasses import dataclass

from lingbot_world_ros.errors import SpecError, unknown_name
from lingbot_world_ros.session.states import Mode, State, TimePolicy

INITIAL_STATES = (State.PLAYING, State.PAUSED, State.STOPPED)


@dataclass(frozen=True)
class SessionSpec:
    """
    How a world runs; words may be given as their text.

    ``speed`` is sim seconds per wall second, 0 for as fast as the engine goes. An embedding older
    than ``action_timeout_s`` of wall time counts as silence: the robot is told to stand still.
    ``clock_rate_hz`` is ticks of the clock per sim second, 0 for one per frame.
    """

    mode: Mode = Mode.REALTIME
    initial_state: State = State.PLAYING
    reset_time_policy: TimePolicy = TimePolicy.ZERO
    speed: float = 1.0
    clock_rate_hz: float = 100.0
    action_timeout_s: float = 0.5
    lockstep_commands: int = 1
    lockstep_timeout_s: float = 1.0
    step_timeout_s: float = 10.0
    entity_name: str = 'robot'

    def __post_init__(self) -> None:
        """Refuse values no session can run with."""
        for name, known in (('mode', Mode), ('initial_state', INITIAL_STATES),
                            ('reset_time_policy', TimePolicy)):
            if getattr(self, name) not in tuple(known):
                raise unknown_name(name, getattr(self, name), known)
            words = {word.value: word for word in known}
            object.__setattr__(self, name, words[getattr(self, name)])  # given as text, too
        if not self.speed >= 0.0:
            raise SpecError(f'speed={self.speed} must be 0 (as fast as possible) or more.')
        for name in ('action_timeout_s', 'lockstep_timeout_s', 'step_timeout_s'):
            if not getattr(self, name) > 0.0:
                raise SpecError(f'{name}={getattr(self, name)} must be more than 0.')
