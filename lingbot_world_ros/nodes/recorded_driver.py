# SPDX-License-Identifier: Apache-2.0
"""
Node ``recorded_driver``: sends a world the commands of a recording, one for each of its frames.

The world is in lockstep, so each frame answers one command, however busy the machine is.
"""
from threading import Lock
from typing import Any, List

from lingbot_world_ros.nodes.command_publishers import CommandPublishers
from lingbot_world_ros.nodes.parameters import declare
from lingbot_world_ros.recording.drive import RecordedDrive
from lingbot_world_ros.session.frame import Frame
from lingbot_world_ros.session.observer import SessionObserver
from lingbot_world_ros.session.status import SessionStatus
from lingbot_world_ros.settings.parameters import PARAMS
from rclpy.clock import Clock, ClockType
from rclpy.node import Node

USED = ('topics.cmd_vel', 'topics.joint_command', 'speed')
FASTEST_S = 0.001  # between two commands
MAX_TOLD = 8  # pieces


class RecordedDriverNode(Node, SessionObserver):
    """
    Sends a command when a frame is there and a frame period of wall time has passed.

    It observes the session of the world in its process, and touches nothing but topics. A reset
    begins a piece of the recording, which piece the seed says; at its end the world waits.
    """

    def __init__(self, drive: RecordedDrive, **node_args: Any):
        """
        Wait for a world.

        :param drive: what was commanded
        :param node_args: for ``rclpy.node.Node``
        :raises SpecError: a parameter cannot be used
        """
        super().__init__('recorded_driver', **node_args)
        self.params = declare(self, [PARAMS[name] for name in USED])
        self._drive = drive
        self._commands = CommandPublishers(self, self.params.topics.cmd_vel,
                                           self.params.topics.joint_command)
        self._lock = Lock()  # guards what is below
        self._seed = self._index = 0  # frames since the reset
        self._is_asked = self._is_due = self._is_heard = self._is_over = False
        speed = self.params.speed
        period_s = 1.0 / (drive.spec.frame_rate_hz * speed) if speed else FASTEST_S
        self.create_timer(max(period_s, FASTEST_S), self.on_due,
                          clock=Clock(clock_type=ClockType.STEADY_TIME))

    def destroy_node(self) -> None:
        """Send nothing any more: the world may still show a frame."""
        with self._lock:
            self._is_over = True
        super().destroy_node()

    @property
    def has_ended(self) -> bool:
        """Whether the newest frame is the last one of its piece."""
        first, end = self._drive.piece(self._seed)
        return first + self._index >= end

    @property
    def introduction(self) -> List[str]:
        """What it drives, in words and lines that may be broken between them."""
        recording, pieces = self._drive.recording, self._drive.pieces
        seconds = [f'{(end - first) / recording.rate_hz:.1f}' for first, end in pieces]
        return [f'the recording {recording.name},',
                f'{len(pieces)} {"piece" if len(pieces) == 1 else "pieces"} of '
                f'{", ".join(seconds[:MAX_TOLD])} s;', 'seed 0 is the first']

    @property
    def text(self) -> str:
        """How far it is, for people."""
        first, end = self._drive.piece(self._seed)
        rate_hz = self._drive.spec.frame_rate_hz
        if self.has_ended:
            return 'the recording has ended, a reset begins it again'
        return f'{self._index / rate_hz:.1f} of {(end - first) / rate_hz:.1f} s recorded'

    # What the world shows, in the thread of its worker

    def on_reset(self, status: SessionStatus) -> None:
        """Begin the piece of a seed."""
        with self._lock:
            self._seed, self._index, self._is_asked = status.seed, 0, False

    def on_mode(self, status: SessionStatus) -> None:
        """Say it again: commands were forgotten."""
        with self._lock:
            self._is_asked = self._index > 0

    def on_frame(self, frame: Frame) -> None:
        """Answer with the command that was in force from that frame on."""
        with self._lock:
            self._index, self._is_asked = frame.index, True
            self._send()

    def on_due(self) -> None:
        """Send what is due; a period has passed."""
        with self._lock:
            self._is_heard = self._is_heard or self._commands.look()
            self._is_due = True
            self._send()

    def _send(self) -> None:
        """Send the command of the newest frame, once; call it with the lock held."""
        if self._is_over or self.has_ended or not (self._is_asked and self._is_due
                                                   and self._is_heard):
            return
        self._is_asked = self._is_due = False
        first, _ = self._drive.piece(self._seed)
        told = self._drive.commanded(first + self._index - 1)
        if told.velocities:
            self._commands.joint_velocities(told.velocities, told.velocities.values())
        elif told.positions:
            self._commands.joint_positions(told.positions, told.positions.values())
        self._commands.twist(*told.twist.tolist())
