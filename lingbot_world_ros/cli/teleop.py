# SPDX-License-Identifier: Apache-2.0
"""``lingbot-world teleop``: drive base and arm of a running world from the keyboard."""
import argparse
from contextlib import suppress
from math import inf, isfinite
import os
import shutil
import sys
import time
from typing import Sequence, TYPE_CHECKING

from lingbot_world_ros.output import outlive_output

if TYPE_CHECKING:
    from lingbot_world_ros.nodes.teleop import TeleopNode
    import numpy as np

NAME = 'teleop'
HELP = 'drive a running world from the keyboard, base and arm'
PERIOD_S = 1.0 / 20.0
QUIT_KEYS = ('x', 'escape', '\x03', '\x04')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """
    Describe the arguments.

    :param parser: argparse parser of this verb
    """
    parser.add_argument('--namespace', default='', help='namespace of the world')
    parser.add_argument('--robot', default='', metavar='NAME|FILE',
                        help='the robot of the world; one that steers like a car is '
                        'asked to turn only while it drives')


def run(args: argparse.Namespace) -> int:
    """
    Read keys and publish commands until x, Esc or Ctrl-C.

    :param args: parsed arguments
    :return: exit code
    :raises SpecError: no terminal, no such robot, or no world in this ROS domain
    """
    outlive_output()
    from lingbot_world_ros.errors import SpecError
    if not sys.stdin.isatty():
        raise SpecError('teleop reads keys, but standard input is not a terminal. Start it in '
                        'one, or publish cmd_vel and joint_command from a program.')
    from lingbot_world_ros.nodes.ros_environment import node_args
    from lingbot_world_ros.nodes.ros_process import end_ros, start_ros, wait_for_world
    from lingbot_world_ros.nodes.spinner import interrupt_on_signals, Spinner
    from lingbot_world_ros.nodes.teleop import TeleopNode
    from lingbot_world_ros.robots.load import load_robot
    max_curvature = load_robot(args.robot).drive.max_curvature if args.robot else inf
    start_ros(node_args(namespace=args.namespace, more=args.ros_args))
    try:
        with Spinner() as spinner:
            interrupt_on_signals()
            node = spinner.add(TeleopNode())
            wait_for_world(node, node.ready)
            print(_help(node.joint_names, strafes=node.lateral_mps > 0.0,
                        steers=isfinite(max_curvature)))
            _drive(node, max_curvature)
    finally:
        end_ros()
    return 0


def _help(joint_names: Sequence[str], strafes: bool, steers: bool) -> str:
    """Draw the keys."""
    from lingbot_world_ros.actions.keyboard import JOINT_KEYS
    sideways = 'left, right' if strafes else 'forward and left, forward and right'
    lines = ['base    w/s or up/down: forward, backward    a/d or left/right: turn left, right'
             f'{" while it drives" if steers else ""}', f'        q/e: {sideways}']
    for (more, less), name in zip(JOINT_KEYS, joint_names):
        lines.append(f'{"arm     " if len(lines) == 2 else "        "}{more}/{less}: {name} +/-')
    lines.append('speed   +/-: faster, slower    space: stop    x or Esc: quit')
    return '\n'.join(lines)


def _drive(node: 'TeleopNode', max_curvature: float) -> None:
    """Publish while keys are fresh, one zero when they are not any more, then nothing."""
    from lingbot_world_ros.actions.keyboard import KeyDrive, split_keys
    drive = KeyDrive(node.linear_mps, node.angular_radps, node.joint_speeds.tolist(),
                     node.lateral_mps, max_curvature)
    moving = (False, False)
    with _RawTerminal() as terminal:
        try:
            while True:
                keys = split_keys(terminal.read(PERIOD_S))
                if any(key in QUIT_KEYS for key in keys):
                    break
                now_s = time.monotonic()
                for key in keys:
                    drive.press(key, now_s)
                base, joints = drive.velocities(now_s)
                wanted = (any(base), bool(joints.any()))
                moving = (wanted[0] or moving[0], wanted[1] or moving[1])
                if moving[0]:  # known before it is sent: a signal may come right after
                    node.send_twist(*base)
                if moving[1]:
                    node.send_joints(joints)
                moving = wanted
                terminal.show(_asked(drive.scale, base, joints, node.lateral_mps > 0.0))
        finally:  # also where a signal ends it: not every robot stops by itself
            if moving[0]:
                node.send_twist(0.0, 0.0, 0.0)
            if moving[1]:
                node.send_joints(joints * 0.0)
            node.part()


def _asked(scale: float, base: Sequence[float], joints: 'np.ndarray', strafes: bool) -> str:
    """Say what the keys ask for, on a line that fits into 79 columns with five joints."""
    v_x, v_y, w_z = base
    sideways = f'{v_y:+.2f} ' if strafes else ''
    moving = '  joints ' + ' '.join(f'{v:+.2f}' for v in joints) if len(joints) else ''
    return f'speed {scale:.0%}  base {v_x:+.2f} {sideways}m/s {w_z:+.2f} rad/s{moving}'


class _RawTerminal:
    """Keys as they are pressed, without echo; the terminal is as before on the way out."""

    def __enter__(self) -> '_RawTerminal':
        import termios
        import tty
        self._fd = sys.stdin.fileno()
        self._before = termios.tcgetattr(self._fd)
        tty.setraw(self._fd, termios.TCSANOW)
        return self

    def __exit__(self, *_: object) -> None:
        import termios
        with suppress(termios.error):  # it may be closed
            termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)
        print()

    def read(self, timeout_s: float) -> str:
        """Return the characters that arrive within one period, after waiting it out."""
        import select
        end_s, text = time.monotonic() + timeout_s, ''
        while (left_s := end_s - time.monotonic()) > 0.0:
            if select.select([self._fd], [], [], left_s)[0]:
                try:
                    sent = os.read(self._fd, 64)
                except OSError:
                    sent = b''
                if not sent:
                    return text + QUIT_KEYS[-1]  # the terminal is gone
                text += sent.decode(errors='ignore')
        return text

    def show(self, line: str) -> None:
        """Replace the status line."""
        sys.stdout.write(f'\r{line[:shutil.get_terminal_size().columns - 1]}\x1b[K')
        sys.stdout.flush()
