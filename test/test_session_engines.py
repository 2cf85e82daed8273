# SPDX-License-Identifier: Apache-2.0
"""Sessions over the real engines: servo lag, and the same bytes twice."""
import hashlib
import logging

from lingbot_world_ros.actions.command_spec import CommandCounts, CommandSpec
from lingbot_world_ros.actions.commands import CommandBuffer
from lingbot_world_ros.actions.embedding import CarriedCamera, encode
from lingbot_world_ros.engines.registry import make_world
from lingbot_world_ros.robots.load import load_robot
from lingbot_world_ros.session.observer import SessionObserver
from lingbot_world_ros.session.session import Session
from lingbot_world_ros.session.spec import SessionSpec
from lingbot_world_ros.worlds.definition import WorldDefinition
from needs import need_engine
import numpy as np
import pytest
from waiting import PATIENCE_S, wait_for

ROBOT = load_robot()

ENGINES = ('reference', 'room')


class Frames(SessionObserver):
    """Keeps all frames."""

    def __init__(self):
        self.frames = []

    def on_frame(self, frame):
        self.frames.append(frame)


def play(engine, commands, num_steps, seed=1):
    """Run an engine paused, step by step, with ``commands(buffer)`` given once."""
    need_engine(engine)
    world = make_world(engine)
    robot, spec = world.spec.robot, world.spec
    command_spec = CommandSpec(spec.action, robot.joint_names, tuple(robot.joint_array('low')),
                               tuple(robot.joint_array('high')), 0.5)
    buffer = CommandBuffer(command_spec)
    commands(buffer)
    camera = CarriedCamera(robot.camera, robot.camera.T_base_optical)
    seen = Frames()
    session = Session(world, SessionSpec(mode='stepped'), observers=[seen],
                      log=logging.getLogger('test'))
    session.start(WorldDefinition(spec.scenes[0], spec.scenes[0], seed)).result(PATIENCE_S)
    wait_for(lambda: session.status.state == 'paused', 'the pause')
    session.set_embedding(encode(
        buffer.targets(0, 0, 1, spec.frame_period_ns), command_spec, camera,
        seen.frames[0].joint_position, sequence=1, stamp_ns=0, period_s=1 / spec.frame_rate_hz,
        counts=CommandCounts(accepted=1)))
    session.advance(num_steps).result(PATIENCE_S)
    session.close()
    return seen.frames


@pytest.mark.parametrize('engine', ENGINES)
def test_joints_settle_on_their_positions_without_overshoot(engine):
    goals = {'shoulder_pan_joint': -0.2, 'elbow_joint': 0.9, 'gripper_joint': 0.01}
    frames = play(engine, lambda b: b.joints(list(goals), list(goals.values()), [], 0),
                  num_steps=20)
    names = ROBOT.joint_names
    for name, goal in goals.items():
        path = np.array([f.joint_position[names.index(name)] for f in frames])
        tolerance = 0.01 * abs(goal - path[0]) + 1e-3
        assert path[-1] == pytest.approx(goal, abs=tolerance), name
        beyond = (path - goal) * np.sign(goal - path[0])
        assert beyond.max() < 2 * tolerance, name


@pytest.mark.parametrize('engine', ENGINES)
def test_same_seed_scene_and_commands_give_the_same_bytes(engine):
    def digest():
        frames = play(engine, lambda b: (b.twist([0.3, 0, 0], [0, 0, 0.4], 0),
                                         b.joints(['wrist_joint'], [], [0.5], 0)),
                      num_steps=10)
        return hashlib.sha256(b''.join(f.rgb.tobytes() for f in frames)).hexdigest()
    assert digest() == digest()
