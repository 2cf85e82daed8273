# SPDX-License-Identifier: Apache-2.0
"""
What is done to the worlds: each scenario starts a program and drives it step by step.

A scenario says which program it starts, and is a function of a ``Stage`` that returns what was
recorded. What it does is done in sim time, so it does not matter how fast the machine is.
"""
from dataclasses import dataclass, field
import json
from math import inf, nan, pi
from pathlib import Path
import sys

from client import STATE_PAUSED, STATE_PLAYING, World
from geometry_msgs.msg import TwistStamped
import networks
import numpy as np
from ros_domain import Domain
from sim import environment, Program, verb_command

JOINTS = ('shoulder_pan_joint', 'shoulder_lift_joint', 'elbow_joint', 'wrist_joint',
          'gripper_joint')
PAN, LIFT, ELBOW, WRIST, GRIPPER = JOINTS
NO_DEPTH = ('scan', 'depth_camera_info', 'depth')
DEEP_QUEUE = 500  # of publishers: whatever a step makes waits for the client
QUEUES = ('/camera/image_raw', '/camera/camera_info', '/camera/image_raw/compressed',
          '/joint_states', '/odom', '/clock', '/world_status', '/action_embedding', '/tf')

SCENARIOS = {}


@dataclass
class Stage:
    """
    Where a scenario plays.

    ``tree`` is the checkout whose programs run, ``work`` a folder for what they write, ``shared``
    one that all scenarios of a recording share.
    """

    tree: Path
    work: Path
    shared: Path
    domain: int = None
    folders: list = field(default_factory=list)

    def environment(self) -> dict:
        """Return the environment of the programs."""
        return environment(self.tree, self.work, self.domain)

    def program(self, command) -> Program:
        """Start a program."""
        return Program(command, self.environment(), self.work)

    def checkpoint(self, name) -> Path:
        """Return the folder of a tiny checkpoint, written by whoever comes first."""
        return self.shared / name


@dataclass(frozen=True)
class Scenario:
    """What to do, and whether it belongs to the quick ones."""

    name: str
    act: object
    is_quick: bool = False
    needs: tuple = ()  # tiny checkpoints


def scenario(name, quick=False, needs=()):
    """Register a function under a name."""
    def register(act):
        SCENARIOS[name] = Scenario(name, act, quick, needs)
        return act
    return register


def play(stage, arguments, act, *, deep=True, depth=True, **options):
    """
    Run ``lingbot-world sim`` in stepped mode and act on its world.

    :param arguments: of ``sim``; a dictionary in it is parameters
    :param act: called with the World once its first frame is there
    :param deep: let publishers keep everything
    :param depth: the engine predicts depth
    :param options: of World
    :return: the record
    """
    command = sim_command(*arguments, deep=deep)
    without = tuple(options.pop('without', ())) + (() if depth else NO_DEPTH)
    with Domain() as stage.domain, stage.program(command) as program:
        world = World(stage.domain, folders=stage.folders, without=without, **options)
        record = finished(world, program, act)
    return record


def finished(world, program, act) -> dict:
    """
    Act on a world and end it.

    :param act: called with the world once its first frame is there
    :return: what was recorded; with an entry ``error`` if it could not be acted to the end
    """
    error = ''
    try:
        world.begin(program)
        act(world)
        record = world.end()
    except RuntimeError as problem:
        error = str(problem)
        record = world.end()
    finally:
        world.close()
    record['exit code'] = program.end()
    if error:
        record['error'] = error
    return record


def sim_command(*arguments, deep=True) -> list:
    """Return the command of ``lingbot-world sim``; dictionaries are parameters."""
    command = verb_command('sim', '--mode', 'stepped')
    if '--world' not in arguments:
        command += ['--seed', '0']  # the default may change; a later one holds
    for argument in arguments:
        if isinstance(argument, dict):
            for name, value in argument.items():
                text = value if isinstance(value, str) else json.dumps(value)
                command += ['--param', f'{name}:={text}']
        else:
            command.append(argument)
    if deep:
        command += ['--param', 'image_queue_depth:=100', '--param', 'step_timeout_s:=3600.0',
                    '--param', 'service_timeout_s:=600.0', '--ros-args']
        for topic in QUEUES:
            command += ['-p', f'qos_overrides.{topic}.publisher.depth:={DEEP_QUEUE}']
    return command


# Commands.

def base_commands(world):
    """Velocities of every kind: allowed, too fast, refused, sideways, silent."""
    world.step(times=3)
    world.drive(0.3, 0.0, 5)
    world.drive(0.3, 0.6, 5)
    world.drive(-0.2, -0.8, 5)
    world.drive(3.0, 9.0, 3)  # beyond the limits
    world.drive(-3.0, -9.0, 3)
    world.twist(nan, 0.0)
    world.step()
    world.twist(0.1, inf)
    world.step()
    world.twist(0.2, 0.1, y=0.3, z=-0.1, roll=0.2, pitch=0.4)
    world.step(2)
    world.twist(0.4, 0.2)
    world.step(times=12)  # falls silent after half a second
    world.twist(0.5, -0.3)
    world.step(10)
    world.step(times=2)


def arm_commands(world):
    """Joint commands of every kind: positions, velocities, both, refused ones, arrays."""
    world.joints([PAN, ELBOW], position=[0.5, 1.4])
    world.step(times=10)
    world.joints([WRIST], velocity=[0.7])
    world.step(times=11)  # ends after half a second
    world.joints([LIFT, GRIPPER], position=[-0.6, 0.0], velocity=[0.3, 0.01])
    world.step(times=12)
    for names, position, effort in (
            ([PAN, WRIST, PAN], [0.0, 0.0, 0.1], []), (['tail_joint'], [0.0], []),
            ([PAN], [nan], []), ([PAN, LIFT], [0.1], []), ([PAN], [], [1.0]), ([], [], [])):
        world.joints(names, position=position, effort=effort)
        world.step()
    world.joints([PAN, LIFT, ELBOW], position=[5.0, -5.0, 5.0])  # beyond the limits
    world.step(times=8)
    world.joints([PAN], velocity=[-20.0])
    world.step(times=4)
    world.arm([0.1, -0.8, 1.0, 0.4, 0.02])
    world.step(times=10)
    for values in ([0.0, 0.0], [0.0, 0.0, 0.0, 0.0, inf]):
        world.arm(values)
        world.step()
    world.twist(0.3, 0.3)
    world.joints(JOINTS, velocity=[0.2, -0.1, 0.15, -0.3, 0.01])
    world.step(5)


def trajectories(world):
    """Trajectories of every kind, one after the other, over and into each other."""
    world.step()
    world.trajectory([PAN, ELBOW], [(0.4, [0.3, 1.3]), (0.9, [-0.2, 0.9])])
    world.step(times=16)
    world.trajectory([PAN, LIFT], [(0.3, [0.2, -0.7], [0.5, 0.2]),
                                   (0.8, [0.4, -0.9], [0.0, 0.0])])
    world.step(times=6)
    world.trajectory([PAN], [(0.5, [-0.5], [0.0], [0.0]), (0.9, [-0.3], [0.1], [0.2]),
                             (1.3, [-0.1], [0.0], [0.0])])  # takes the pan joint over
    world.step(times=22)
    world.trajectory([WRIST, GRIPPER], [(0.0, [0.1 * n, 0.03 - 0.004 * n])
                                        for n in range(1, 7)])  # a chunk without timing
    world.step(times=4)
    world.trajectory([WRIST, GRIPPER], [(0.0, [0.6 - 0.1 * n, 0.01 + 0.004 * n])
                                        for n in range(1, 7)])
    world.step(times=9)
    world.trajectory([ELBOW], [(1.0, [1.6])])
    world.step(times=5)
    world.trajectory([], [])  # all stop
    world.step(times=3)
    world.trajectory([LIFT, ELBOW], [(0.6, [-0.5, 0.8])], stamp_ns=world.sim_ns + 400_000_000)
    world.step(times=5)
    world.trajectory([LIFT], [(0.1, [-1.2]), (0.7, [-1.0])],
                     stamp_ns=world.sim_ns - 150_000_000)  # its first point is past
    world.step(times=14)
    for names, points, start_ns in (
            ([PAN], [(0.1, [0.0])], world.sim_ns - 900_000_000),  # over already
            ([PAN], [(0.5, [0.0]), (0.4, [0.1])], 0), ([PAN], [(0.5, [0.0], [0.3])], 0),
            (['tail_joint'], [(0.5, [0.0])], 0), ([PAN], [(0.5, [0.0, 1.0])], 0),
            ([PAN], [(0.5, [nan])], 0), ([PAN], [(0.5, [0.0])], world.sim_ns + 10**15)):
        world.trajectory(names, points, stamp_ns=start_ns)
        world.step()
    world.trajectory([PAN, WRIST], [(0.4, [9.0, -9.0])])  # beyond the limits
    world.step(times=3)
    world.joints([WRIST], position=[0.3])  # takes one joint out of it
    world.step(times=8)
    world.trajectory([PAN], [(2.0, [-0.8])])
    world.step(times=4)
    world.trajectory([PAN], [])  # this one stops
    world.step(2, times=2)


def mixed(world):
    """A bit of everything, for engines that take longer."""
    world.step()
    world.drive(0.3, 0.4, 3)
    world.joints([PAN, ELBOW], position=[0.4, 1.3])
    world.twist(0.2, -0.5)
    world.step(3, times=2)
    world.trajectory([LIFT, WRIST], [(0.2, [-0.7, 0.2]), (0.5, [-0.9, -0.2])])
    world.step(times=5)
    world.joints([PAN], velocity=[-0.6])
    world.step(2)
    world.put('robot', 2.5, 2.0, 0.7)
    world.drive(0.25, 0.1, 3)
    world.reset(stamp_ns=world.period_ns)
    world.set_parameter('seed', 5)
    world.reset(scope=2, stamp_ns=world.sim_ns + world.period_ns)
    world.drive(0.3, 0.2, 3)
    world.simulate(3)


# Engine room.

@scenario('room/drive', quick=True)
def room_drive(stage):
    """Base commands in the living room."""
    return play(stage, ['--engine', 'room'], base_commands)


@scenario('room/arm', quick=True)
def room_arm(stage):
    """Joint commands in the living room."""
    return play(stage, ['--seed', '3'], arm_commands)


@scenario('room/trajectories', quick=True)
def room_trajectories(stage):
    """Joint trajectories in the office."""
    return play(stage, ['--scene', 'office'], trajectories)


@scenario('room/workshop')
def room_workshop(stage):
    """Stamped velocities, also old and future ones, in the workshop, into what stands there."""
    def act(world):
        world.step(times=12)
        for age_ns in (0, 100_000_000, 450_000_000, 700_000_000, -300_000_000):
            world.twist(0.4, 0.3, stamp_ns=world.sim_ns - age_ns)
            world.step(times=8)
        world.drive(0.8, 0.0, 40)  # until something is in the way
        world.drive(-0.4, 1.5, 30)
        world.drive(0.8, 0.1, 30)
    return play(stage, ['--scene', 'workshop', '--param', 'cmd_vel_type:=twist_stamped'], act,
                cmd_vel_type=TwistStamped)


@scenario('room/isolated', quick=True)
def room_isolated(stage):
    """A bit of everything with the engine in a process of its own."""
    return play(stage, ['--isolate-engine', '--scene', 'living_room'], mixed)


@scenario('room/mixed')
def room_mixed(stage):
    """The same without."""
    return play(stage, ['--scene', 'living_room'], mixed)


@scenario('room/isolated_arm')
def room_isolated_arm(stage):
    """Joint commands with the engine in a process of its own."""
    return play(stage, ['--isolate-engine', '--scene', 'office', '--seed', '4'], arm_commands)


@scenario('room/resets', quick=True)
def room_resets(stage):
    """Resets of every scope, seeds, states, and the services of std_srvs."""
    def act(world):
        first = world.period_ns
        world.drive(0.3, 0.5, 4)
        for scope in (0, 1, 2, 3, 4, 7, 255):
            world.drive(0.3, 0.5, 3)
            shown = {2: world.sim_ns + first, 4: None}.get(scope, first)
            if scope == 4:  # nothing was spawned
                world.sim('ResetSimulation', scope=scope)
            else:
                world.reset(scope, shown)
            world.step()
        world.sim('ResetSimulation', scope=8)
        world.sim('ResetSimulation', scope=65)
        for seed in (1, 2, 1):
            world.set_parameter('seed', seed)
            world.step()
            world.reset()
            world.drive(0.2, 0.1, 2)
        world.set_parameter('seed', -1)
        world.set_parameter('seed', 'one')
        world.new_frame(lambda: world.trigger('reset'))
        for state in (1, 0, 2, 3 + 1, 5, 77):
            if state == 0:
                world.new_frame(lambda: world.sim('SetSimulationState', state={'state': 0}))
            else:
                world.sim('SetSimulationState', state={'state': state})
            world.state()
            world.step()
        world.pause(True)
        world.pause(False)
        world.trigger('step')
        world.wait_for_frame(world.sim_ns + first)
        world.drive(0.1, 0.0, 2)
        world.step(0)
    return play(stage, [], act)


@scenario('room/teleports')
def room_teleports(stage):
    """Robot and objects put elsewhere, also where they cannot be; what the frames do then."""
    def act(world):
        world.drive(0.3, 0.3, 3)
        world.put('robot', 4.6, 0.75, pi / 2)
        world.drive(0.3, 0.0, 3)
        world.put('robot', 2.7, 2.0, 1.2, twist=(0.2, 0.1, 0.3))
        world.step(times=3)
        world.put('robot', 0.5, 0.2, 0.4, frame='odom')
        world.step(times=2)
        world.put('robot', 0.0, 0.0, 0.0, frame='odom', twist=(0.3, 0.0, 0.0))
        world.step(times=2)
        for name in ('ball', 'pouf', 'toy_box'):
            world.put(name, 3.6, 1.4, 0.5)
            world.drive(0.2, -0.4, 2)
        world.put('ball', 3.0, 1.6, twist=(1.0, 0.0, 0.0))
        world.put('robot', 40.0, 2.0)
        world.put('robot', 2.7, 3.6)  # the sofa
        world.put('robot', 2.0, 2.0, frame='map')
        world.put('robot', nan, 2.0)
        world.put('nobody', 2.0, 2.0)
        world.put('robot', 2.0, 2.0, twist=(9.0, 0.0, 0.0))
        world.put('robot', 2.0, 2.0, set_pose=False)
        world.sim('SetEntityState', entity='robot', set_pose=True, state={
            'pose': {'position': {'x': 2.0, 'y': 2.0, 'z': 1.0}, 'orientation': {'w': 1.0}}})
        world.sim('SetEntityState', entity='robot', set_pose=True, state={
            'pose': {'position': {'x': 2.0, 'y': 2.0},
                     'orientation': {'x': 0.5, 'y': 0.5, 'z': 0.5, 'w': 0.5}}})
        world.drive(0.3, 0.1, 5)
        ask_everything(world)
        world.reset()
        world.drive(0.3, 0.1, 2)
    return play(stage, ['--seed', '1'], act)


def ask_everything(world):
    """Call every service that only tells."""
    world.sim('GetSimulatorFeatures')
    world.sim('GetSimulationState')
    world.sim('GetCurrentWorld')
    world.sim('GetAvailableWorlds')
    world.sim('GetEntities')
    world.sim('GetEntitiesStates')
    world.sim('GetNamedPoses')
    for name in ('robot', 'ball', 'nobody', 'bal'):
        world.sim('GetEntityState', entity=name)
        world.sim('GetEntityInfo', entity=name)


@scenario('room/questions')
def room_questions(stage):
    """What the services tell, with filters of every kind."""
    def act(world):
        ask_everything(world)
        world.drive(0.4, 0.5, 6)
        world.sim('GetEntitiesStates')
        for expression in ('ro', '^b', 'o.*x$', '(ball|robot)', '[a-c]', 'x{2,', '(', '.',
                           'a' * 300, '^.{4,5}$', '[[:alpha:]]+_', 'b(al)*l', 'a|e|i', '\\.', ''):
            world.sim('GetEntities', filters={'filter': expression})
        for tags, mode in ((['robot'], 0), (['arm', 'movable'], 0), (['arm', 'movable'], 1),
                           (['nonsense'], 0)):
            tags_filter = {'tags': tags, 'filter_mode': mode}
            world.sim('GetEntities', filters={'tags': tags_filter})
            world.sim('GetNamedPoses', tags=tags_filter)
            world.sim('GetAvailableWorlds', filter=tags_filter)
        world.sim('GetNamedPoses', tags={'tags': ['navigation_goal', 'spawn'], 'filter_mode': 1})
        world.sim('GetAvailableWorlds', filter={'tags': ['office']}, offline_only=True)
        world.sim('GetAvailableWorlds', additional_sources=['file:///nowhere'])
        world.sim('GetAvailableWorlds', additional_sources=['file:///nowhere'],
                  continue_on_error=True)
        world.sim('GetEntities', filters={'categories': [{'category': 1}]})
        world.sim('GetEntities', filters={'categories': [{'category': 0}, {'category': 4}]})
        for kind, points in ((3, [(3.0, 2.0, 0.0), (1.5, 0.0, 0.0)]), (3, [(0.0, 0.0, 0.0)]),
                             (1, [(3.0, 3.0, 1.0), (0.0, 0.0, 0.0)]),
                             (2, [(0.0, 0.0, 0.0)] * 3), (0, []), (9, [])):
            world.sim('GetEntitiesStates', filters={'bounds': {
                'type': kind, 'points': [dict(zip('xyz', p)) for p in points]}})
    return play(stage, ['--seed', '2'], act)


WORLD_TEXT = """
name: rainy_living_room
scene: living_room
seed: 9
start_pose: {x_m: 2.7, y_m: 2.0, yaw_rad: 1.0}
joints: {elbow_joint: 1.2, shoulder_pan_joint: -0.3}
named_poses:
  - name: goal
    description: here
    tags: [navigation_goal]
    pose: {x_m: 3.0, y_m: 2.0, yaw_rad: 0.5}
description: The living room on a rainy day.
tags: [indoor, wet]
"""


@scenario('room/worlds')
def room_worlds(stage):
    """Worlds by name, URI and text, good and bad, and none at all."""
    def act(world):
        world.drive(0.3, 0.2, 2)
        for uri in ('office', 'living_room_reach', 'workshop_slalom', 'office_doorway',
                    'package://lingbot_world_ros/config/worlds/workshop.yaml'):
            world.load(uri)
            world.drive(0.3, 0.3, 3)
            world.sim('GetCurrentWorld')
            world.sim('GetEntities')
        world.load(text=WORLD_TEXT)
        world.drive(0.3, 0.3, 4)
        world.sim('GetCurrentWorld')
        world.sim('GetNamedPoses')
        world.reset(2, world.sim_ns + world.period_ns)
        world.drive(0.3, -0.3, 2)
        world.load(text='scene: workshop\nprompt: it rains')
        world.drive(0.3, -0.3, 2)
        for text in ('', '{', 'scene: attic', 'scene: office\nseed: -1', 'scen: office',
                     'scene: office\nstart_pose: {x_m: 50.0, y_m: 0.0, yaw_rad: 0.0}',
                     'scene: office\njoints: {tail_joint: 1.0}', '- a\n- b',
                     'scene: office\nimages: [a.png]', 'scene: office\nseed: one',
                     'scene: office\njoints: {elbow_joint: 9.0}', '<sdf/>',
                     'scene: office\ncamera: {width_px: 3}', 'scene: *a'):
            world.sim('LoadWorld', world_resource={'resource_string': text})
        for uri in ('cellar', 'file:///etc/passwd', 'package://nowhere/a.yaml', 'living_rom',
                    'world.sdf', 'world.usd', 'https://example.org/a.yaml',
                    'package://lingbot_world_ros/../a.yaml'):
            world.sim('LoadWorld', world_resource={'uri': uri})
        world.sim('LoadWorld', fail_on_unsupported_element=True,
                  world_resource={'resource_string': 'scene: office\nprompt: it rains'})
        world.step(times=2)
        world.sim('UnloadWorld')
        world.sim('UnloadWorld')
        world.state()
        ask_everything(world)
        world.sim('ResetSimulation')
        world.step()
        world.sim('SetSimulationState', state={'state': STATE_PAUSED})
        world.load('office')
        world.drive(0.2, 0.2, 3)
    return play(stage, [], act)


@scenario('room/start_worlds')
def room_start_worlds(stage):
    """Worlds, start poses and seeds that are named on the command line."""
    (stage.work / 'own.yaml').write_text(WORLD_TEXT)
    records = {}
    for name, arguments in {
            'reach': ['--world', 'living_room_reach', '--seed', '7'],
            'own': ['--world', str(stage.work / 'own.yaml'), '--seed', '4'],
            'state': ['--scene', 'office', '--seed', '12', {'reset_time_policy': 'monotonic',
                                                            'entity_name': 'mover'}]}.items():
        def act(world, name=name):
            world.drive(0.3, 0.4, 3)
            world.reset(stamp_ns=world.sim_ns + world.period_ns if name == 'state' else None)
            world.sim('ResetSimulation', scope=1)
            if name != 'state':
                world.wait_for_frame(world.period_ns)
            world.drive(-0.1, 0.4, 2)
            world.sim('GetEntities')
            world.sim('GetCurrentWorld')
        records[name] = play(stage, arguments, act)
    return {'parts': records}


@scenario('room/lockstep')
def room_lockstep(stage):
    """One step per command, and per two commands."""
    records = {}
    for commands in (1, 2):
        def act(world, commands=commands):
            def drive(x, yaw):
                for _ in range(commands):
                    world.twist(x, yaw)
                world.wait_for_frame(world.sim_ns + world.period_ns, STATE_PLAYING)
            for n in range(6):
                drive(0.3, 0.1 * n)
            for n in range(3):
                for _ in range(commands):
                    world.joints([PAN], position=[0.1 * n])
                world.wait_for_frame(world.sim_ns + world.period_ns, STATE_PLAYING)
            world.pause(True)
            world.wait(lambda: world.status.state == STATE_PAUSED, 'a pause')
            world.step(times=2)
            world.new_frame(lambda: world.sim('ResetSimulation'))
            world.pause(False)
            drive(0.2, 0.0)
            drive(0.2, 0.2)
        records[f'{commands} per step'] = play(
            stage, ['--mode', 'lockstep', {'lockstep_timeout_s': 3600.0,
                                           'lockstep_commands': commands}], act)
    return {'parts': records}


@scenario('room/modes')
def room_modes(stage):
    """Modes and other parameters that are changed while the world runs."""
    def act(world):
        world.drive(0.3, 0.3, 3)
        world.set_parameter('mode', 'realtime')
        world.state()
        world.step(times=2)
        world.twist(0.2, 0.2)
        world.step(2)
        world.set_parameter('mode', 'fast')
        world.set_parameter('lockstep_timeout_s', 3600.0)
        world.set_parameter('mode', 'lockstep')
        world.step()
        world.sim('SetSimulationState', state={'state': STATE_PLAYING})
        for n in range(3):
            world.twist(0.3, 0.1 * n)
            world.wait_for_frame(world.sim_ns + world.period_ns, STATE_PLAYING)
        world.set_parameter('mode', 'stepped')
        world.wait(lambda: world.status.state == STATE_PAUSED, 'a pause')
        world.sim('SetSimulationState', state={'state': STATE_PLAYING})
        world.set_parameter('jpeg_quality', 40)
        world.step(times=2)
        world.set_parameter('jpeg_quality', 400)
        world.set_parameter('cmd_timeout_s', 0.2, 'action_encoder')
        world.twist(0.4, 0.4)
        world.step(times=6)
        world.set_parameter('policy_frequency', 30.0, 'action_encoder')
        world.trajectory([PAN], [(0.0, [0.1 * n]) for n in range(1, 6)])
        world.step(times=6)
        world.set_parameter('policy_frequency', -3.0, 'action_encoder')
        world.set_parameter('scene', 'office')
        world.set_parameter('nonsense', 1)
        world.set_parameter('frames.base', 'b')
        world.set_parameter('speed', 2.0)
        world.step(times=2)
    return play(stage, [{'cmd_timeout_s': 0.4}], act)


@scenario('room/limits')
def room_limits(stage):
    """Limits of speed and acceleration, of base and joints."""
    def act(world):
        world.drive(1.0, 2.0, 6)
        world.drive(-1.0, -2.0, 6)
        world.step(times=12)
        world.joints(JOINTS, position=[0.8, -1.3, 1.8, -0.8, 0.0])
        world.step(times=12)
        world.joints([PAN, ELBOW], velocity=[-1.5, -1.5])
        world.step(times=10)
        world.trajectory([PAN, LIFT], [(0.2, [0.9, -0.5]), (0.4, [-0.9, -1.4])])
        world.drive(0.4, 0.5, 8)
        world.joints([WRIST], position=[0.9], velocity=[0.4])
        world.step(2, times=4)
        world.reset()
        world.drive(0.5, 0.5, 3)
    return play(stage, [{
        'limits.linear_velocity_mps': 0.45, 'limits.linear_acceleration_mps2': 0.9,
        'limits.angular_velocity_radps': 0.8, 'limits.angular_acceleration_radps2': 1.7,
        'limits.joint_acceleration': 3.0}], act)


@scenario('room/description')
def room_description(stage):
    """A robot description with tighter joints, and velocities on the array topic."""
    text = (stage.tree / 'config' / 'robots' / 'room.urdf').read_text()
    path = stage.work / 'robot.urdf'
    path.write_text(text.replace('velocity="1.5"', 'velocity="0.6"').replace(
        'upper="1.2"', 'upper="0.5"'))

    def act(world):
        world.step()
        world.joints([PAN, ELBOW], position=[1.0, 1.9])
        world.step(times=10)
        world.arm([0.3, 0.2, -0.4, 0.5, -0.01])
        world.step(times=10)
        world.trajectory([PAN, WRIST], [(0.3, [-0.9, 0.9])])
        world.step(times=8)
    return play(stage, [{'robot_description': str(path), 'arm_commands_interface': 'velocity',
                         'policy_frequency': 20.0}], act)


CALIBRATION = """
image_width: 200
image_height: 140
camera_name: head
camera_matrix: {rows: 3, cols: 3, data: [180.0, 0, 97.0, 0, 178.0, 71.0, 0, 0, 1]}
distortion_model: MODEL
distortion_coefficients: {rows: 1, cols: COLS, data: [DATA]}
rectification_matrix: {rows: 3, cols: 3, data: [1, 0, 0, 0, 1, 0, 0, 0, 1]}
projection_matrix: {rows: 3, cols: 4, data: [170.0, 0, 98.0, 0, 0, 171.0, 70.0, 0, 0, 0, 1, 0]}
"""
LENSES = {'plumb_bob': (-0.12, 0.03, 0.002, -0.001, 0.004),
          'rational_polynomial': (0.05, -0.02, 0.001, 0.001, 0.01, 0.08, -0.01, 0.005),
          'equidistant': (0.02, -0.01, 0.003, -0.001)}


@scenario('room/cameras')
def room_cameras(stage):
    """The camera shown with other lenses, fields of view and sizes."""
    def act(world):
        world.drive(0.2, 0.3, 3)
    given = {'cut': {'field_of_view_deg': 60.0, 'image_width': 100, 'image_height': 80}}
    for model, data in LENSES.items():
        path = stage.work / f'{model}.yaml'
        path.write_text(CALIBRATION.replace('MODEL', model).replace('COLS', str(len(data)))
                        .replace('DATA', ', '.join(map(str, data))))
        given[model] = {'camera_info_url': path.as_uri()}
    given['plumb_bob'].update(image_width=90, image_height=60)
    return {'parts': {name: play(stage, [parameters], act)
                      for name, parameters in given.items()}}


PROFILES = {
    'isaac_sim': ({'image': 'rgb', 'camera_info': 'camera_info', 'compressed': 'rgb/compressed',
                   'depth': 'depth'}, ('depth_camera_info',), ''),
    'gazebo': ({'image': 'camera', 'camera_info': 'camera_info',
                'compressed': 'camera/compressed', 'depth': 'depth_camera', 'scan': 'lidar'},
               ('depth_camera_info',), '/gzserver'),
    'nav2': ({}, (), ''),
    'moveit': ({'joint_states': 'isaac_joint_states', 'joint_command': 'isaac_joint_commands',
                'robot_description': 'engine_robot_description'}, (), '')}


@scenario('room/profiles')
def room_profiles(stage):
    """The profiles that stand in for simulators, and names and frames of one's own."""
    def act(world):
        world.drive(0.3, 0.3, 4)
        world.joints([PAN], position=[0.3])
        world.step(times=3)
        world.sim('ResetSimulation', scope=1)
        world.quiet()
        world.sim_ns = world.streams['odom'].stamp
        world.step()
        is_monotonic = world.sim('ResetSimulation', scope=1).result.result == 0
        world.quiet()
        world.reset(0, world.streams['odom'].stamp + world.period_ns if is_monotonic else None)
        world.step(times=2)
        ask_everything(world)
    records = {}
    for name, (names, without, prefix) in PROFILES.items():
        records[name] = play(stage, ['--profile', name], act, names=names, without=without,
                             prefix=prefix)
    names = {'image': 'front/rgb', 'odom': 'wheel_odom', 'cmd_vel': 'drive', 'clock': '/own/clock',
             'joint_command': 'to_joints', 'tf': '/own/tf', 'depth': 'front/depth/image',
             'depth_camera_info': 'front/depth/camera_info'}
    frames = {'frame_prefix': 'robot_1/', 'frames.odom': 'o', 'frames.base': 'b',
              'frames.camera': 'c', 'frames.optical': 'lens', 'service_prefix': 'sim'}
    topics = {f'topics.{key}': name for key, name in names.items() if key != 'depth_camera_info'}
    records['own names'] = play(stage, [{**frames, **topics}, '--namespace', 'here'], act,
                                names=names, namespace='here', prefix='/here/sim')
    records['little'] = play(
        stage, [{'publish_clock': False, 'publish_tf': False, 'clock_rate_hz': 0.0,
                 'scan_min_height_m': 0.3, 'scan_max_height_m': 0.8, 'scan_max_range_m': 2.5}],
        act, without=('clock', 'tf', 'tf_static'))
    return {'parts': records}


@scenario('room/two_worlds')
def room_two_worlds(stage):
    """Two worlds side by side."""
    command = sim_command('--worlds', '2', '--scene', 'office', deep=False)
    records = {}
    with Domain() as stage.domain, stage.program(command) as program:
        worlds = []
        try:
            for index in range(2):
                namespace = f'world_{index}'
                worlds.append(World(stage.domain, folders=stage.folders, namespace=namespace,
                                    names={'clock': 'clock'}, without=('tf', 'tf_static')))
            for world in worlds:
                world.begin(program)
            for n in range(4):
                for index, world in enumerate(worlds):
                    world.twist(0.3, 0.2 - 0.4 * index)
                    world.step()
            worlds[0].reset()
            for world in worlds:
                world.joints([PAN], position=[0.2])
                world.step(times=3)
                world.sim('GetSimulatorFeatures')
                world.sim('GetEntitiesStates')
            for index, world in enumerate(worlds):
                records[f'world_{index}'] = world.end()
        finally:
            for world in worlds:
                world.close()
        records['world_0']['exit code'] = program.end()
    return {'parts': records}


@scenario('room/separate')
def room_separate(stage):
    """Both nodes in processes of their own, over topics."""
    scripts = stage.tree / 'scripts'
    arguments = ['--ros-args', '-p', 'mode:=stepped', '-p', 'cmd_vel_type:=twist',
                 '-p', 'scene:=workshop', '-p', 'seed:=0']
    with Domain() as stage.domain, \
            stage.program([sys.executable, str(scripts / 'world_model'), *arguments]) as model, \
            stage.program([sys.executable, str(scripts / 'action_encoder'), *arguments]):
        # How often the encoder sends, and what it counts by, goes by the wall.
        world = World(stage.domain, folders=stage.folders, left_out=('action_embedding',))
        world.streams['world_status'].leave_out('embedding_sequence')
        try:
            world.begin(model)

            def step(times=1):
                for _ in range(times):
                    count = world.streams['action_embedding'].count
                    world.wait(lambda: world.streams['action_embedding'].count > count + 2,
                               'embeddings')
                    world.step()
            step(2)
            for n in range(4):
                world.twist(0.3, 0.1 * n)
                step()
            step(10)
            world.joints([PAN, ELBOW], position=[0.3, 1.5])
            step(4)
            world.trajectory([LIFT], [(0.2, [-0.7]), (0.4, [-1.0])])
            step(8)
            world.twist(nan)
            step()
            world.reset()
            world.twist(0.2, 0.2)
            step(2)
            record = world.end()
        finally:
            world.close()
        record['exit code'] = model.end()
    return record


@scenario('room/realtime')
def room_realtime(stage):
    """Playing in real time, without commands: the frames are known, only their pace is not."""
    num_frames = 30

    def act(world):
        world.drive(0.3, 0.4, 3)
        world.set_parameter('mode', 'realtime')
        until_ns = world.sim_ns + num_frames * world.period_ns
        world.sim('SetSimulationState', state={'state': STATE_PLAYING})
        world.wait(lambda: all(world.streams[key].stamp >= until_ns
                               for key in ('odom', 'image', 'scan', 'joint_states')), 'frames')
        for key in world.streams:
            world.streams[key].stop_at(until_ns)
        world.sim('SetSimulationState', state={'state': STATE_PAUSED})
    return play(stage, [], act, left_out=('clock', 'world_status', 'real_time_factor',
                                          'action_embedding'))


@scenario('room/lifecycle')
def room_lifecycle(stage):
    """The states of a managed node."""
    command = sim_command({'autostart': False}, '--scene', 'office')
    with Domain() as stage.domain, stage.program(command) as program:
        world = World(stage.domain, folders=stage.folders)
        try:
            world.sim('GetSimulatorFeatures')
            world.sim('GetSimulationState')
            world.lifecycle('activate')
            world.lifecycle('configure')
            world.sim('GetSimulationState')
            world.lifecycle('activate')
            world.begin(program)
            world.drive(0.3, 0.3, 3)
            world.lifecycle('deactivate')
            world.sim('StepSimulation', steps=1)
            world.lifecycle('activate')
            world.step(times=3)
            world.lifecycle('deactivate')
            world.lifecycle('cleanup')
            world.sim('GetEntities')
            world.lifecycle('configure')
            world.new_frame(lambda: world.lifecycle('activate'))
            world.drive(0.3, 0.1, 3)
            record = world.end()
        finally:
            world.close()
        record['exit code'] = program.end()
    return record


# Engine reference.

@scenario('reference/mixed', quick=True)
def reference_mixed(stage):
    """A bit of everything in the reference world."""
    return play(stage, ['--engine', 'reference'], mixed)


@scenario('reference/isolated')
def reference_isolated(stage):
    """The same with the engine in a process of its own, elsewhere."""
    return play(stage, ['--engine', 'reference', '--isolate-engine', '--scene', 'workshop'], mixed)


@scenario('reference/office')
def reference_office(stage):
    """Driving into things, objects put elsewhere, other worlds and lenses."""
    def act(world):
        world.drive(0.8, 0.3, 12)
        world.drive(-0.4, -1.0, 5)
        for name in ('parcel', 'bin', 'stool'):
            world.put(name, 4.6, 2.5, 0.4)
            world.step()
        world.put('robot', 5.3, 2.5, pi)
        world.drive(0.8, 0.0, 8)
        ask_everything(world)
        world.load('living_room_reach')
        world.joints(JOINTS, position=[0.2, -0.9, 0.5, 0.3, 0.0])
        world.step(times=6)
        world.load(text=WORLD_TEXT)
        world.step(times=2)
    return play(stage, ['--engine', 'reference', '--scene', 'office',
                        {'field_of_view_deg': 60.0, 'image_width': 200, 'image_height': 120}], act)


@scenario('reference/truth')
def reference_truth(stage):
    """The reference world beside the imagined one, doing the same."""
    from nav_msgs.msg import Odometry
    from sensor_msgs.msg import CameraInfo, CompressedImage, Image, JointState
    from std_msgs.msg import Float32
    command = sim_command('--truth', '--scene', 'living_room')
    with Domain() as stage.domain, stage.program(command) as program:
        world = World(stage.domain, folders=stage.folders)
        for key, kind, name in (
                ('truth_odom', Odometry, 'odom'), ('truth_joints', JointState, 'joint_states'),
                ('truth_info', CameraInfo, 'camera/camera_info'),
                ('truth_compressed', CompressedImage, 'camera/image_raw/compressed'),
                ('truth_image', Image, 'camera/image_raw')):
            world.listen(key, kind, f'reference/{name}')
        for name in ('image_error', 'position_error'):
            world.listen(name, Float32, f'reference/{name}')
        try:
            world.begin(program)
            world.wait(lambda: world.streams['truth_odom'].stamp == world.period_ns, 'the truth',
                       120.0)
            world.quiet(1.0)
            for stream in world.streams.values():
                stream.forget()
            world.sim_ns = world.streams['odom'].stamp
            for n in range(8):
                world.twist(0.4, 0.1 * n)
                world.step()
                world.wait(lambda: world.streams['truth_image'].stamp == world.sim_ns, 'the truth')
            world.joints([PAN], position=[0.4])
            for n in range(4):
                world.step()
                world.wait(lambda: world.streams['truth_image'].stamp == world.sim_ns, 'the truth')
            record = world.end()
        finally:
            world.close()
        record['exit code'] = program.end()
    return record


# Engine lingbot_world.

TINY = {'lingbot.device': 'cpu', 'lingbot.precision': 'fp32', 'lingbot.height_px': 64,
        'lingbot.width_px': 96}


def lingbot(stage, *arguments, checkpoint='causal', **parameters):
    """Return the arguments of ``sim`` for a tiny checkpoint."""
    return ['--profile', 'lingbot_world_fast', '--checkpoint', str(stage.checkpoint(checkpoint)),
            {**TINY, 'lingbot.cache_dir': str(stage.work / 'cache'), **parameters}, *arguments]


def picture(height, width):
    """Return an image with something in each corner, (h, w, 3) uint8."""
    v, u = np.mgrid[:height, :width]
    return np.stack([255 * u // width, 255 * v // height, (u * v) % 256], -1).astype(np.uint8)


def imagined(world):
    """Drive, change the prompt, put in an image, move the arm, start over."""
    world.twist(0.5, 0.3)
    world.step()
    world.joints([PAN, ELBOW], position=[0.4, 1.4])
    world.publish('prompt', prompt('rain at night'))
    world.wait(lambda: world.status.prompt == 'rain at night', 'the prompt')
    world.twist(-0.3, -0.4)
    world.step()
    world.image(picture(48, 64))
    world.wait(lambda: world.status.images_anchored == 1, 'the image')
    world.trajectory([LIFT], [(0.5, [-0.6]), (1.2, [-1.0])])
    world.step(2)
    world.put('robot', 1.0, 0.5, 0.3)
    world.twist(0.4, 0.0)
    world.step()
    ask_everything(world)
    world.reset()
    world.twist(0.4, 0.2)
    world.step()
    world.set_parameter('seed', 3)
    world.reset(2, world.sim_ns + world.period_ns)
    world.simulate(2)


def prompt(text):
    """Return a prompt as a message."""
    from std_msgs.msg import String
    return String(data=text)


@scenario('lingbot_world/stream', quick=True, needs=('causal',))
def lingbot_stream(stage):
    """A tiny checkpoint streamed."""
    return play(stage, lingbot(stage, '--prompt', 'a quiet street'), imagined, depth=False)


@scenario('lingbot_world/isolated', needs=('causal',))
def lingbot_isolated(stage):
    """Some of the same with the engine in a process of its own."""
    def act(world):
        world.twist(0.5, 0.3)
        world.step()
        world.publish('prompt', prompt('rain at night'))
        world.wait(lambda: world.status.prompt == 'rain at night', 'the prompt')
        world.image(picture(48, 64))
        world.wait(lambda: world.status.images_anchored == 1, 'the image')
        world.step()
        world.reset()
        world.step()
    return play(stage, lingbot(stage, '--isolate-engine', '--prompt', 'a quiet street'), act,
                depth=False)


@scenario('lingbot_world/camera_path', needs=('causal_v2',))
def lingbot_camera_path(stage):
    """Version 2 along a camera path, by keys and from a file, with other sizes of everything."""
    def act(world):
        world.step(times=2)
        world.twist(0.4, 0.1)  # refused: the camera follows its path
        world.step()
        world.set_parameter('mode', 'lockstep')
        world.set_parameter('mode', 'stepped')
        world.step()
        world.reset()
        world.step()
    poses = np.tile(np.eye(4), (40, 1, 1))
    poses[:, 0, 3] = 0.1 * np.sin(np.arange(40) / 7.0)
    poses[:, 2, 3] = 0.04 * np.arange(40)
    turn = 0.02 * np.arange(40)
    poses[:, 0, 0] = poses[:, 2, 2] = np.cos(turn)
    poses[:, 0, 2], poses[:, 2, 0] = np.sin(turn), -np.sin(turn)
    np.save(stage.work / 'poses.npy', poses)
    records = {}
    for name, arguments, parameters in (
            ('keys', ['--camera-path', 'keys:w-12,wl-20,none-5,ja-9'],
             {'lingbot.chunk_latents': 2, 'lingbot.window_latents': 7, 'lingbot.sink_latents': 1,
              'lingbot.step_indices': '0,500', 'lingbot.shift': 3.0}),
            ('file', ['--camera-path', str(stage.work), '--scene', 'office_view'],
             {'camera_path_metres_per_unit': 0.5, 'lingbot.cache_in_8_bits': True,
              'lingbot.keep_films': False, 'lingbot.field_of_view_deg': 60.0})):
        records[name] = play(stage, lingbot(stage, *arguments, checkpoint='causal_v2',
                                            **parameters), act, depth=False)
    return {'parts': records}


@scenario('lingbot_world/start', needs=('causal',))
def lingbot_start(stage):
    """Start images, worlds with images, a camera on a link, the tiny decoder, 16 bits."""
    from PIL import Image
    Image.fromarray(picture(90, 160)).save(stage.work / 'start.png')
    networks.write_tiny_decoder(stage.work / 'taew2_1.pth')
    (stage.work / 'own.yaml').write_text(
        'scene: image\nimages: [start.png]\nprompt: a quiet room\ncamera: {width_px: 160, '
        'height_px: 90, fx_px: 70, fy_px: 70, cx_px: 80, cy_px: 45}\n')

    def act(world):
        world.twist(0.5, 0.3)
        world.joints([PAN, LIFT], position=[0.4, -0.7])
        world.step()
        world.load('workshop_view')
        world.sim('GetCurrentWorld')
        world.sim('GetAvailableWorlds')
        world.image(picture(30, 40)[..., ::-1].copy(), 'bgr8')
        world.wait(lambda: world.status.images_anchored == 1, 'the image')
        world.image(picture(30, 40)[..., 0].copy(), 'mono8')
        world.wait(lambda: world.status.images_anchored == 2, 'the image')
        world.step()
        world.reset()
    given = {
        'start image': (
            ['--start-image', str(stage.work / 'start.png'), '--prompt', 'a street'],
            {'image_width': 64, 'image_height': 64, 'lingbot.precision': 'bf16',
             'lingbot.tiny_decoder': str(stage.work / 'taew2_1.pth')}),
        'own world': (['--world', str(stage.work / 'own.yaml')], {}),
        'camera on the arm': (['--scene', 'office_view'], {
            'robot_description': str(stage.tree / 'config' / 'robots' / 'room.urdf'),
            'camera_link': 'hand_link', 'lingbot.metres_per_world_unit': 0.5})}
    return {'parts': {
        name: play(stage, lingbot(stage, *arguments, **parameters), act, depth=False)
        for name, (arguments, parameters) in given.items()}}
