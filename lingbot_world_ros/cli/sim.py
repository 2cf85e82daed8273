# SPDX-License-Identifier: Apache-2.0
"""
``lingbot-world sim``: both nodes in one process, with the same YAML as ``ros2 launch``.

Several worlds are as many processes, each with a namespace, clock, frames and seed of its own.
"""
import argparse
import os
from pathlib import Path
import re
import shlex
import shutil
import sys
import time
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, TYPE_CHECKING

from lingbot_world_ros.engines.registry import engine_entry, KEYS, TRUTH_ENGINE
from lingbot_world_ros.errors import quoted, SpecError
from lingbot_world_ros.output import outlive_output, told

if TYPE_CHECKING:
    from lingbot_world_ros.engines.interface import WorldSpec
    from lingbot_world_ros.evaluation.drive import OpenedDrive
    from lingbot_world_ros.nodes.action_encoder import ActionEncoderNode
    from lingbot_world_ros.nodes.recorded_driver import RecordedDriverNode
    from lingbot_world_ros.nodes.spinner import Spinner
    from lingbot_world_ros.nodes.world_model import WorldModelNode
    from lingbot_world_ros.processes import Companions
    from lingbot_world_ros.recording.drive import RecordedDrive
    from lingbot_world_ros.session.status import SessionStatus
    import numpy as np

NAME = 'sim'
HELP = 'start an imagined world and its ROS topics'
PAGE, TRUTH = 'page', 'truth'  # what may run beside a world
PAGE_PATIENCE_S = 20.0
LOCKSTEP = 'lockstep'
PATIENT_S = 3600.0  # wall time that a world waits for a command of a recording
STAGES = {'poses': 'Finding the recording in the place'}
# A name for a node, as launch gives one: here it is that of the world, or all would have it.
NODE_NAME = re.compile(r'^(?=__(?:node|name):=)')
OVERRIDES = ('engine', 'robot', 'isolate_engine', 'world', 'scene', 'start_image', 'prompt',
             *KEYS, 'camera_path', 'seed', 'mode', 'initial_state', 'speed')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """
    Describe the arguments.

    :param parser: argparse parser of this verb
    """
    from lingbot_world_ros.settings.parameters import PARAMS
    parser.add_argument('--profile', default='default', metavar='NAME|FILE',
                        help='parameter file: a name from config/ or a path (default: default)')
    for param in (PARAMS[name] for name in OVERRIDES):
        option = _option(param.name)
        kind: Dict[str, Any] = ({'action': 'store_const', 'const': 'true'} if param.kind is bool
                                else {'metavar': option.upper()})
        text = param.description
        if option == 'world':  # a path is for whoever starts it, not for clients
            text = text.replace('a name, or a ', 'a name, a path, or a ')
        parser.add_argument(f'--{option.replace("_", "-")}', help=text, **kind)
    parser.add_argument('--param', action='append', default=[], metavar='NAME:=VALUE',
                        help='any other parameter; may be repeated')
    parser.add_argument('--namespace', default='', help='prefix of all relative topic names')
    parser.add_argument('--view', action='store_true',
                        help='serve a page that shows the world and drives it')
    parser.add_argument('--open', action='store_true',
                        help='the same, and open it in a browser if there is a screen')
    parser.add_argument('--truth', nargs='?', const='', metavar='RECORDING',
                        help='run the MuJoCo reference world beside it, with the same actions; '
                        'with a recording: drive a learned --world as it was driven there, and '
                        'show the recording beside it')
    parser.add_argument('--truth-topic', action='append', default=[], metavar='ROLE:=TOPIC',
                        help='of that recording, in place of the one that would be chosen, with '
                        'the roles of "evaluate", for example image:=/camera/image_raw; may be '
                        'repeated')
    parser.add_argument('--worlds', type=int, default=1, metavar='N',
                        help='number of worlds, world_0, world_1 ..., each with its own '
                        'process, namespace, clock, frames and seed (default: 1)')
    parser.add_argument('--log-level', default='info',
                        choices=('debug', 'info', 'warn', 'error'), help='(default: info)')
    parser.add_argument('--duration', type=float, metavar='S',
                        help='stop after this many seconds of wall time')


def _option(name: str) -> str:
    """Return what a parameter is called on the command line, without dashes."""
    return name.rpartition('.')[2]


def run(args: argparse.Namespace) -> int:
    """
    Run the world until it is asked to end or the duration is over.

    :param args: parsed arguments
    :return: exit code
    :raises SpecError: profile, parameter, scene, weights or ROS domain cannot be used
    """
    outlive_output()
    started_s = time.monotonic()
    from lingbot_world_ros.settings.profiles import load_profile
    args.ros_args = [NODE_NAME.sub('world_model:', arg) for arg in args.ros_args]
    values = load_profile(args.profile)
    overrides = _overrides(args, values)
    _check_truth(args.truth == '')
    if args.truth_topic and not args.truth:
        raise SpecError('--truth-topic is for a recording; add --truth with one.')
    if args.truth:
        overrides = _in_lockstep(args, overrides)
        opened = _opened(Path(args.truth), _topics(args.truth_topic), {**values, **overrides})
        overrides['lockstep_commands'] = opened.drive.messages_per_frame
        return _run_world(args, overrides, time.monotonic(), opened)
    if args.worlds != 1:
        return _run_worlds(args, values, overrides)
    return _run_world(args, overrides, started_s)


def _run_world(args: argparse.Namespace, overrides: Mapping[str, Any], started_s: float,
               opened: Optional['OpenedDrive'] = None) -> int:
    """Run one world, by itself or as a recording was driven."""
    from lingbot_world_ros.nodes.pair import make_pair
    from lingbot_world_ros.nodes.parameters import as_overrides
    from lingbot_world_ros.nodes.ros_environment import node_args
    from lingbot_world_ros.nodes.ros_process import end_process, end_ros, INTERRUPTED, start_ros
    from lingbot_world_ros.nodes.spinner import interrupt_on_signals, Spinner, stop_on_signals
    from lingbot_world_ros.processes import Companions
    from lingbot_world_ros.progress import show_until_end
    from lingbot_world_ros.settings.profiles import params_file
    with params_file(args.profile) as file:
        start_ros(node_args(file, args.namespace,
                            ['--log-level', args.log_level, *args.ros_args]))
    code = 0
    try:
        with Companions(_companions(args, overrides)) as companions, Spinner() as spinner:
            interrupt_on_signals()
            driver = opened and _begin_drive(opened.drive, spinner, overrides)
            world, encoder = make_pair(opened and opened.make_world, [driver] if driver else [],
                                       parameter_overrides=as_overrides(overrides))
            spinner.add(world)
            spinner.add(encoder)
            stop_on_signals(spinner)
            world.on_quit = spinner.stop
            first_image_s = time.monotonic() - started_s
            world.refuse_second_clock(spinner)
            if world.session is None:
                _tell_how_to_activate(world)
            else:
                _introduce(world, encoder, first_image_s)
            if driver is not None:
                print(told('Repeats', driver.introduction))
            page = (companions.first_line(PAGE, PAGE_PATIENCE_S) if PAGE in companions.names
                    else '')
            print(f'Ctrl-C ends.\n\n{page}\n' if page else 'Ctrl-C ends.', flush=True)
            show_until_end(spinner, lambda: _tell(world, companions, driver), args.duration,
                           kind=lambda: (*_kind(world), driver and driver.has_ended))
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BaseException:
        end_ros()
        raise
    return end_process(code)


def _check_truth(is_wanted: bool) -> None:
    """Refuse a truth that could not start, before anything else does."""
    from lingbot_world_ros.paths import pip_install
    missing = engine_entry(TRUTH_ENGINE).missing() if is_wanted else ()
    if missing:
        raise SpecError(f'--truth needs the Python package {" and ".join(missing)}: make sim '
                        f'EXTRAS=reference ARGS=--truth in a checkout, else '
                        f'{pip_install(*missing)}.')


def _in_lockstep(args: argparse.Namespace, overrides: Mapping[str, Any]) -> Dict[str, Any]:
    """Let a world make a step for each command of a recording, and begin with its first piece."""
    if overrides.get('mode', LOCKSTEP) != LOCKSTEP:
        raise SpecError(f'--truth with a recording drives in {LOCKSTEP}, one step for each of its '
                        'commands; leave --mode out.')
    if args.worlds != 1:
        raise SpecError('--truth with a recording drives one world; leave --worlds out.')
    return {'seed': 0, 'lockstep_timeout_s': PATIENT_S, **overrides, 'mode': LOCKSTEP}


def _topics(given: Sequence[str]) -> Dict[str, str]:
    """Read which topics of a recording are chosen, by role."""
    from lingbot_world_ros.cli.inspect import ROLES
    topics = {}
    for text in given:
        role, found, topics[role] = text.partition(':=')
        if not found or role not in ROLES:
            raise SpecError(f'--truth-topic {quoted(text)}: give ROLE:=TOPIC, the role being one '
                            f'of {", ".join(ROLES)}.')
    return topics


def _opened(recording: Path, topics: Mapping[str, str],
            values: Mapping[str, Any]) -> 'OpenedDrive':
    """Find a recording in a learned world, before anything starts."""
    from lingbot_world_ros.settings.parameters import engine_options
    from lingbot_world_ros.settings.robot_parameters import with_robot
    from lingbot_world_ros.worlds.learned import learned_folder, read_learned
    folder = learned_folder(values['world'])
    if folder is None:
        raise SpecError('--truth with a recording is for a learned world; add --world with the '
                        'folder of one.')
    engine_options(with_robot(values))  # refuses what such a world does not take
    about = read_learned(folder)
    from tempfile import TemporaryDirectory

    from lingbot_world_ros.evaluation.drive import open_drive
    from lingbot_world_ros.progress import Stages
    from lingbot_world_ros.recording.align import aligned_like
    # Its files stay readable, mapped into memory, when the folder is gone.
    with TemporaryDirectory(prefix='lingbot_world_') as work, Stages(STAGES) as stages:
        return open_drive(folder, aligned_like(recording, about, Path(work) / 'aligned', topics),
                          stages)


def _begin_drive(drive: 'RecordedDrive', spinner: 'Spinner',
                 overrides: Mapping[str, Any]) -> 'RecordedDriverNode':
    """Start what follows the world in the recording, and what drives it."""
    from lingbot_world_ros.nodes.follower import FollowerNode
    from lingbot_world_ros.nodes.parameters import as_overrides
    from lingbot_world_ros.nodes.recorded_driver import RecordedDriverNode
    from lingbot_world_ros.recording.drive import RecordedWorld
    given = as_overrides(overrides)
    spinner.add(FollowerNode(lambda: RecordedWorld(drive), parameter_overrides=given))
    return spinner.add(RecordedDriverNode(drive, parameter_overrides=given))


def _companions(args: argparse.Namespace,
                overrides: Mapping[str, Any]) -> Dict[str, Sequence[str]]:
    """Return the commands of what runs beside the world, by name."""
    from lingbot_world_ros.nodes.ros_environment import namespace_args
    from lingbot_world_ros.settings.profiles import assignments
    namespace_args(args.namespace)  # a mistake in it is told once
    same = ['--profile', args.profile, '--namespace', args.namespace, *assignments(overrides),
            *args.ros_args]
    commands: Dict[str, List[str]] = {}
    if args.view or args.open:
        commands[PAGE] = ['view', *(['--open'] if args.open else []), *same]
    if args.truth == '':
        commands[TRUTH] = ['follow', '--reset', *same]
    return {name: [sys.executable, '-m', 'lingbot_world_ros.cli', *command]
            for name, command in commands.items()}


def _run_worlds(args: argparse.Namespace, values: Mapping[str, Any],
                overrides: Mapping[str, Any]) -> int:
    """Run this command once per world, each with what keeps it apart from the others."""
    from lingbot_world_ros.nodes.ros_environment import namespace_args
    from lingbot_world_ros.processes import run_together
    from lingbot_world_ros.settings.profiles import assignments
    from lingbot_world_ros.settings.several_worlds import world_parameters
    commands = {}
    namespace_args(args.namespace)  # a mistake in it is told once
    for index in range(max(1, args.worlds)):
        namespace, apart = world_parameters(index, args.worlds, {**values, **overrides},
                                            args.namespace)
        command = [sys.executable, '-m', 'lingbot_world_ros.cli', NAME,
                   '--profile', args.profile, '--log-level', args.log_level,
                   '--namespace', namespace, *assignments({**overrides, **apart})]
        command += [f'--{name}' for name, is_there in (
            ('view', args.view), ('open', args.open), ('truth', args.truth == '')) if is_there]
        if args.duration is not None:
            command += ['--duration', str(args.duration)]
        commands[namespace] = command + args.ros_args
    return run_together(commands)


def _overrides(args: argparse.Namespace, profile: Mapping[str, Any]) -> Dict[str, Any]:
    """Check parameters given on the command line; they win over the profile."""
    from lingbot_world_ros.settings.parameters import PARAMS
    from lingbot_world_ros.settings.profiles import read_assignments
    given = {name: getattr(args, _option(name)) for name in OVERRIDES}
    values = {**{name: PARAMS[name].read(text, 'command line') for name, text in given.items()
                 if text is not None}, **read_assignments(args.param)}
    world_path = {**profile, **values}.get('world_path', '')
    return {**values, **_world_file(args.world, world_path)}


def _world_file(given: str, world_path: str) -> Dict[str, str]:
    """Let a path name a world file: who types it may read its folder; or a learned world."""
    from lingbot_world_ros.worlds.learned import learned_folder, learned_names
    folder = learned_folder(given or '')
    if folder is not None:
        return {'world': given if given in learned_names() else str(folder)}
    if not given or '://' in given:
        return {}
    if not given.endswith(('.yaml', '.yml')):
        if '/' in given:
            raise SpecError(f'--world {quoted(given)}: ' + (
                'that folder is no learned world; give one that "lingbot-world learn" wrote.'
                if os.path.isdir(os.path.expanduser(given)) else 'there is no such folder.'))
        return {}
    path = Path(os.path.expanduser(given)).absolute()
    if not os.path.isfile(path):  # also where the name cannot be one
        raise SpecError(f'--world {quoted(given)}: there is no such file. Give a path, a URI or '
                        'the name of a world.')
    if ':' in str(path.parent):
        raise SpecError(f'--world {quoted(given)}: a folder in its path has a colon in its name, '
                        'which separates folders in world_path; rename it.')
    return {'world': path.as_uri(),
            'world_path': ':'.join(filter(None, (world_path, str(path.parent))))}


def _tell_how_to_activate(world: 'WorldModelNode') -> None:
    from lingbot_world_ros.nodes.ros_environment import domain_id
    name = world.get_fully_qualified_name()
    print(f'World      not configured (autostart is false), ROS domain {domain_id()}\n'
          f'Start it   ros2 lifecycle set {name} configure    (loads the engine)\n'
          f'           ros2 lifecycle set {name} activate')


def _introduce(world: 'WorldModelNode', encoder: 'ActionEncoderNode',
               first_image_s: float) -> None:
    """Say what runs and how to drive it."""
    from lingbot_world_ros.nodes.probe import answered_names
    from lingbot_world_ros.nodes.ros_environment import domain_id
    session, sensors = world.session, world.sensors
    assert session is not None and sensors is not None  # the node is active
    spec, status = session.world.spec, session.status
    twist = encoder.cmd_vel.msg_type.__name__
    motion = 'linear: {x: 0.2}, angular: {z: 0.3}'
    if twist == 'TwistStamped':
        motion = f'twist: {{{motion}}}'
    topic = encoder.cmd_vel.topic_name
    joints = encoder.resolve_topic_name(world.params.topics.joint_command)
    namespace = encoder.get_namespace().strip('/')
    teleop = _teleop_command() + (f' --namespace {namespace}' if namespace else '')
    teleop += f' --robot {shlex.quote(world.params.robot)}' if world.params.robot else ''
    print(f'First image after {first_image_s:.1f} s.')
    print(told('World', [
        f'{spec.engine} ({spec.model}),', f'scene {status.scene}, seed {status.seed},',
        f'{spec.camera.width_px}x{spec.camera.height_px} at {spec.frame_rate_hz:g} Hz,',
        f'ROS domain {domain_id()}']))
    print(told('Publishes', sensors.topics))
    print(told('Listens', [f'{topic} takes {twist},', *(
        name for name in _heard(spec, world, encoder) if name != topic)]))
    print(told('Answers', [*answered_names(world), encoder.trajectories.full_name]))
    print(f'Drive it   {teleop}    (keyboard, in a second terminal)')
    if shutil.which('ros2'):  # not part of a .venv
        print(f'           ros2 topic pub -r 10 {topic} geometry_msgs/msg/{twist} "{{{motion}}}"')
        for joint in spec.joints[:1]:
            print(f'           ros2 topic pub -1 {joints} sensor_msgs/msg/JointState '
                  f'"{{name: [{joint.name}], position: [0.5]}}"')


def _heard(spec: 'WorldSpec', world: 'WorldModelNode',
           encoder: 'ActionEncoderNode') -> List[str]:
    """Return the names of the topics that are listened to and of use."""
    topics = world.params.topics
    names = [listener.topic_name for listener in encoder.command_listeners]
    names += [world.resolve_topic_name(topics.prompt)] if spec.takes_text else []
    return names + ([world.resolve_topic_name(topics.anchor_image)] if spec.takes_images else [])


def _teleop_command() -> str:
    """Return what starts teleop from the user's shell, however this process was started."""
    if shutil.which('lingbot-world'):
        return 'lingbot-world teleop'
    script = os.path.join(sys.prefix, 'bin', 'lingbot-world')
    if os.path.exists(script):
        return f'{os.path.relpath(script)} teleop'
    return 'ros2 run lingbot_world_ros teleop'


def _tell(world: 'WorldModelNode', companions: 'Companions',
          driver: Optional['RecordedDriverNode']) -> str:
    """Say how the world is doing, and first what has ended beside it."""
    for name, code in companions.ended():
        print(f'\nThe {name} has ended, exit code {code}; the world continues without it.')
    session = world.session
    if session is None:
        return 'not configured'
    line = status_line(session.status, session.latencies_s())
    return line if driver is None else f'{driver.text} | {line}'


def _kind(world: 'WorldModelNode') -> Tuple[str, ...]:
    """Return what of it a log shall have at once when it changes; a number does not count."""
    if world.session is None:
        return ()
    status = world.session.status
    return status.state, re.sub(r'\d+', '0', status.message or status.counts.message)


def status_line(status: 'SessionStatus', latencies_s: 'np.ndarray') -> str:
    """
    Put how a world is doing into one line that fits a small terminal where there is no problem.

    :param status: of the session
    :param latencies_s: (n,) command-to-frame latencies, seconds, possibly none
    :return: state, sim time, problem if any, frame rate, real-time factor, median latency,
        uncertainty
    """
    import numpy as np
    numbers = [f'{status.frame_rate_hz:.1f} Hz', f'real time x{status.real_time_factor:.2f}',
               f'latency {np.median(latencies_s) * 1e3:.0f} ms' if len(latencies_s)
               else 'no new command']
    if not np.isnan(status.uncertainty):  # NaN: the engine does not estimate it
        numbers.append(f'uncertainty {status.uncertainty:.3f}')
    # What a narrow terminal cuts off is at the end, and a problem is not to be cut.
    parts = [f'{status.state} {status.stamp_ns * 1e-9:.2f} s',
             status.message or status.counts.message, ', '.join(numbers)]
    return ' | '.join(filter(None, parts))
