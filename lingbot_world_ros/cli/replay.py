# SPDX-License-Identifier: Apache-2.0
"""``lingbot-world replay``: make a recorded world happen again, to verify it or to watch it."""
import argparse
from functools import partial
from pathlib import Path
import threading
import time
from typing import Any, Callable, Optional, Sequence, Set, Tuple, TYPE_CHECKING

from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.output import outlive_output, told

if TYPE_CHECKING:
    from lingbot_world_ros.engines.interface import WorldModel
    from lingbot_world_ros.nodes.spinner import Spinner
    from lingbot_world_ros.progress import StatusLine
    from lingbot_world_ros.recording.recorded import Segment
    from lingbot_world_ros.recording.replay import RecordedActions
    from lingbot_world_ros.session.session import Session

NAME = 'replay'
HELP = 'replay a recorded world: verify it byte by byte, or watch it'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """
    Describe the arguments.

    :param parser: argparse parser of this verb
    """
    parser.add_argument('recording', type=Path, help='folder or .mcap file')
    parser.add_argument('--verify', action='store_true',
                        help='as fast as possible and without ROS: compare all frames with the '
                        'recorded digests; exit code 0: the same, 1: different, 2: unknown')
    parser.add_argument('--namespace', default='',
                        help='namespace of the world, if several were recorded')
    parser.add_argument('--speed', type=float, default=1.0,
                        help='sim seconds per wall second when watching; 0: as fast as '
                        'possible (default: 1)')
    parser.add_argument('--profile', default='default', metavar='NAME|FILE',
                        help='parameter file with settings for the engine (default: default)')
    parser.add_argument('--param', action='append', default=[], metavar='NAME:=VALUE',
                        help='setting for the engine, for example lingbot.checkpoint:=FOLDER; may '
                        'be repeated')
    parser.add_argument('--world-path', default='', metavar='DIR[:DIR]',
                        help='folders with the start images of the recording')


def run(args: argparse.Namespace) -> int:
    """
    Replay until the recording ends.

    :param args: parsed arguments
    :return: exit code
    :raises SpecError: the recording cannot be read or not be replayed here
    """
    from lingbot_world_ros.recording.bag import require_rosbags
    require_rosbags()
    from lingbot_world_ros.recording.recorded import read_recording
    segments = read_recording(args.recording, args.namespace)
    sizes = [segment.world.size for segment in segments if segment.num_frames]
    make_engine = engine_maker(args.profile, args.param, *sizes[:1])
    if args.verify:
        return verify_segments(segments, make_engine=make_engine, world_path=args.world_path)
    return watch(segments, args, make_engine)


def engine_maker(profile: str = 'default', assignments: Sequence[str] = (),
                 size: Tuple[int, int] = (0, 0)) -> Callable[[str], 'WorldModel']:
    """
    Say how engines are made.

    :param profile: name or path of a parameter file
    :param assignments: texts like ``'lingbot.checkpoint:=/models/fast'``
    :param size: width and height that was drawn in, whatever a profile wants to be shown; 0 is
        not known
    :return: function from an engine's name to the engine
    :raises SpecError: a parameter cannot be used
    """
    from lingbot_world_ros.engines.registry import make_world
    from lingbot_world_ros.progress import Loading
    from lingbot_world_ros.settings.parameters import engine_options
    from lingbot_world_ros.settings.profiles import DEFAULT_PROFILE, load_profile, read_assignments
    drawn = {} if not all(size) else {'image_width': size[0], 'image_height': size[1],
                                      'field_of_view_deg': 0.0, 'camera_info_url': ''}
    values = {**load_profile(DEFAULT_PROFILE), **load_profile(profile), **drawn,
              **read_assignments(assignments)}
    return lambda name: make_world(name, **engine_options({**values, 'engine': name}, Loading()))


def verify_segments(segments: Sequence['Segment'], **options: Any) -> int:
    """
    Compare everything and print what came of it.

    :param segments: from ``read_recording``
    :param options: for ``recording.replay.verify``
    :return: exit code
    """
    from lingbot_world_ros.progress import Progress
    from lingbot_world_ros.recording.replay import DIFFERS, UNVERIFIABLE, verify
    started_s, num_frames = time.monotonic(), 0
    outcomes: Set[str] = set()
    total = sum(segment.num_frames for segment in segments)
    with Progress('frames', {'comparing': total}) as progress:
        for verdict in verify(segments, tell=partial(progress.add, 'comparing'), **options):
            progress.clear()
            segment = verdict.segment
            print(f'Segment {segment.number} ({segment.world.scene}, seed {segment.seed}, '
                  f'{segment.last_step} steps): {verdict.outcome}, {verdict.num_frames} frames '
                  f'are equal{": " + verdict.text if verdict.text else "."}', flush=True)
            outcomes.add(verdict.outcome)
            num_frames += verdict.num_frames
    took_s = time.monotonic() - started_s
    print(f'{num_frames} frames are the same, byte by byte; compared in {took_s:.1f} s.')
    if not num_frames and UNVERIFIABLE in outcomes:
        print('A recording that begins with a reset can be compared: "lingbot-world record '
              '--reset".')
    return 1 if DIFFERS in outcomes else 2 if UNVERIFIABLE in outcomes else 0


def watch(segments: Sequence['Segment'], args: argparse.Namespace,
          make_engine: Optional[Callable[[str], 'WorldModel']] = None) -> int:
    """
    Publish everything on the topics of a world, at the speed asked for.

    :param segments: from ``read_recording``
    :param args: parsed arguments
    :param make_engine: makes an engine by its name, None for one without options
    :return: exit code
    :raises SpecError: ROS does not start, or the engine cannot be made here
    """
    outlive_output()
    from lingbot_world_ros.nodes.parameters import as_overrides
    from lingbot_world_ros.nodes.ros_environment import node_args
    from lingbot_world_ros.nodes.ros_process import end_ros, start_ros
    from lingbot_world_ros.nodes.spinner import Spinner, stop_on_signals
    from lingbot_world_ros.nodes.world_model import WorldModelNode
    from lingbot_world_ros.progress import StatusLine
    from lingbot_world_ros.recording.replay import definition_of, RecordedActions
    from lingbot_world_ros.session.states import Mode, State, TimePolicy
    from lingbot_world_ros.settings.profiles import params_file, read_assignments
    playable = [segment for segment in segments if segment.num_frames]
    if not playable:
        problems = '; '.join(segment.problem for segment in segments)
        print(f'Nothing can be replayed: {problems}.')
        return 2
    first = playable[0]
    playable = [s for s in playable if s.world.engine == first.world.engine]
    engine = (make_engine or engine_maker())(first.world.engine)
    encoder = RecordedActions(engine.spec)
    own = {'engine': first.world.engine, 'scene': first.world.scene, 'seed': first.seed,
           'speed': args.speed, 'mode': Mode.REALTIME.value, 'autostart': True,
           'initial_state': State.STOPPED.value, 'isolate_engine': False,
           'reset_time_policy': TimePolicy.ZERO.value}
    given = read_assignments(args.param)
    for name in given:
        if name in own:
            raise SpecError(f'--param {name}:= is not for a replay, which sets {name} itself'
                            f'{"; use --speed" if name == "speed" else ""}.')
    values = {**given, **own}
    with params_file(args.profile) as file:
        start_ros(node_args(file, args.namespace, args.ros_args))
    try:
        with Spinner() as spinner:
            stop_on_signals(spinner)
            node = spinner.add(WorldModelNode(
                world=lambda: engine, encoder=encoder, observers=[encoder],
                definition=definition_of(first, engine.spec, args.world_path),
                parameter_overrides=as_overrides(values)))
            node.refuse_second_clock(spinner)
            session, sensors = node.session, node.sensors
            assert session is not None and sensors is not None  # autostart made it active
            print(f'{told("Publishes", sensors.topics)}\nCtrl-C ends.', flush=True)
            status = StatusLine()
            for segment in playable:
                if not _show(segment, session, encoder, spinner, status, args.world_path):
                    break
    finally:
        end_ros()
    return 0


def _show(segment: 'Segment', session: 'Session', encoder: 'RecordedActions',
          spinner: 'Spinner', status: 'StatusLine', world_path: str) -> bool:
    """Let one segment happen again in real time; False when it is time to end."""
    from lingbot_world_ros.recording.replay import blocks, definition_of, set_anchors, set_prompt
    over = threading.Event()

    def pause() -> None:  # called after the last step of a block, before the next one
        session.pause().add_done_callback(lambda _: over.set())

    encoder.on_last = pause
    session.load(definition_of(segment, session.world.spec, world_path)).result()
    num_steps = len(segment.steps)
    for block in blocks(segment.steps):
        set_anchors(session, block[0].anchors)
        set_prompt(session, block[0].prompt)
        over.clear()
        encoder.put(block)
        session.play().result()
        told_s = time.monotonic()
        while not over.wait(0.05):
            if spinner.wait(0.0):
                status.end()
                return False
            if time.monotonic() - told_s >= 1.0:
                told_s = time.monotonic()
                status.show(f'Segment {segment.number}: step {session.status.step} of '
                            f'{num_steps}', segment.number)
    status.end()
    same = not segment.steps or session.status.digest == segment.steps[-1].digest
    print(f'Segment {segment.number}: {num_steps} steps, '
          f'{"the same as" if same else "not what was"} recorded'
          + (f'; {segment.problem}.' if segment.problem else '.'), flush=True)
    return True
