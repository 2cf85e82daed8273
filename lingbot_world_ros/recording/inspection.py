# SPDX-License-Identifier: Apache-2.0
"""
What a recording holds, what can be learned from it, what is missing and how to record that.

``inspect_recording`` returns plain data, ``as_text`` puts it on one screen.
"""
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
import shlex
from typing import Any, Dict, List, Mapping, Optional

from lingbot_world_ros.errors import shown, SpecError
from lingbot_world_ros.recording.align import (clock_of, default_size, make_plan, MAX_AGE_S, Plan)
from lingbot_world_ros.recording.lens_of_recording import Lens, lens_of
from lingbot_world_ros.recording.roles import CHOSEN, refusal
from lingbot_world_ros.recording.series import BACK_NS, Clock, Track, WALL_TIME_NS
from lingbot_world_ros.recording.sources import open_source, Source
from lingbot_world_ros.recording.survey import Survey, survey
import numpy as np

MAPPED, RECURRENT, NOTHING = 'mapped', 'recurrent', 'nothing'
SHOWN_TOPICS, SHOWN_NAMES = 24, 8
LONG_S = 10.0  # segments of this length are told apart
PAUSE_INTERVALS = 10  # longer is a pause, which a rate leaves out
USUAL = {'images': '/camera/image_raw', 'camera_info': '/camera/camera_info',
         'poses': '/odom', 'camera mount': '/tf_static', 'commands': '/cmd_vel',
         'depth': '/camera/aligned_depth_to_color/image_raw'}
WHY = {'images': 'there is nothing to learn a picture from',
       'commands': 'a world that is to be driven has to see what driving does',
       'poses': 'odometry, or /tf with odom -> base_link, tells where each picture was taken',
       'camera_info': 'the intrinsics of a calibrated camera say where pixels look',
       'camera mount': '/tf and /tf_static say where the camera sits on the robot',
       'depth': 'registered to the images, it gives the place its shape'}
NEEDS = {MAPPED: ('images', 'commands', 'poses', 'camera_info', 'camera mount', 'depth'),
         RECURRENT: ('images', 'commands')}
CHOICE_FLAGS = {role: f'--{role.replace("_", "-")}' for role in CHOSEN}


def inspect_recording(path: Path, topics: Optional[Mapping[str, str]] = None) -> Dict[str, Any]:
    """
    Read a recording once and tell about it.

    :param path: as ``open_source`` takes it
    :param topics: role -> topic instead of the one that would be chosen
    :return: plain data, as ``--json`` prints it
    :raises SpecError: it cannot be read
    """
    with open_source(Path(path)) as source:
        found = survey(source, topics or {}, everything=True)
        return _report(source, found)


def _report(source: Source, found: Survey) -> Dict[str, Any]:
    image = found.roles.get('image')
    has_images = image in found.tracks
    clock = clock_of(found) if has_images else None
    lens: Optional[Lens] = None
    plan: Optional[Plan] = None
    problem = '' if has_images else refusal(found.pictures)
    if has_images:
        lens = lens_of(found, image, default_size(*found.pictures[image].size_px))
        try:
            plan = make_plan(found, None, MAX_AGE_S, str(source.path))
        except SpecError as error:
            problem = str(error)
    received = [track.received_ns for track in found.tracks.values() if len(track)]
    start = min((int(times.min()) for times in received), default=0)
    end = max((int(times.max()) for times in received), default=0)
    has = _what_it_has(found, plan, lens)
    learn = next((way for way in (MAPPED, RECURRENT) if all(has[x] for x in NEEDS[way])), NOTHING)
    roles = {topic: role for role, topic in found.roles.topics.items()}
    return {
        'path': str(source.path), 'form': source.form, 'bytes': num_bytes(source.path),
        'start': datetime.fromtimestamp(start * 1e-9, timezone.utc).isoformat(
            timespec='seconds') if start > WALL_TIME_NS else None,
        'duration_s': (end - start) * 1e-9, 'messages': sum(len(t) for t in found.tracks.values()),
        'topics': [{'name': topic.name, 'type': topic.kind, 'role': roles.get(topic.name, ''),
                    'problem': topic.problem, 'damaged': found.damaged.get(topic.name, 0),
                    **timing(found.tracks.get(topic.name, Track()), clock)}
                   for topic in source.topics],
        'roles': {role: {'topic': topic, 'others': found.roles.others.get(role, []),
                         'flag': CHOICE_FLAGS.get(role, '')}
                  for role, topic in found.roles.topics.items()},
        'clock': {'stamps': 'headers' if clock.by_stamp else 'receipt',
                  'other_clock': clock.is_mapped, 'jumps': clock.num_jumps,
                  'out_of_order': clock.is_shuffled} if clock else None,
        'images': {**asdict(found.pictures[image]), 'topic': image} if has_images else None,
        'images_problem': problem,
        'camera': asdict(lens.camera) if lens and lens.camera else None,
        'camera_problem': lens.about.get('camera_left_out', '') if lens else '',
        'depth_problem': lens.about.get('depth_left_out', '') if lens else '',
        'frames': _frames(plan), 'has': has, 'learn': learn,
        'missing': missing(has), 'record': record_command(found, has)}


def num_bytes(path: Path) -> int:
    """Return the size of a file, or of all files in a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob('*') if file.is_file())


def timing(track: Track, clock: Optional[Clock]) -> Dict[str, Any]:
    """
    Tell how regularly the messages of a topic came.

    :param track: of the topic
    :param clock: of the recording, None takes headers where they are sane
    :return: ``count``, ``rate_hz`` between pauses, median and 95th percentile of the interval,
        largest gap and how often time goes back
    """
    if clock is not None:
        times = clock.times(track)
        time_ns, stretch = times.time_ns, times.stretch
    else:
        time_ns = track.stamp_ns if track.is_stamped else track.received_ns
        stretch = np.concatenate([[0], np.cumsum(np.diff(time_ns) < -BACK_NS)])[:len(time_ns)]
    steps = np.diff(time_ns)[np.diff(stretch) == 0] * 1e-9
    about: Dict[str, Any] = {'count': len(track), 'rate_hz': None, 'interval_p50_s': None,
                             'interval_p95_s': None, 'largest_gap_s': None,
                             'jumps': int(stretch[-1] - stretch[0]) if len(stretch) else 0}
    if len(steps) and steps.sum() > 0.0:
        p50, p95 = np.percentile(steps, (50, 95)).tolist()
        usual = steps[steps <= PAUSE_INTERVALS * p50] if p50 else steps
        about.update(rate_hz=len(usual) / float(usual.sum()), interval_p50_s=p50,
                     interval_p95_s=p95, largest_gap_s=float(steps.max()))
    return about


def _what_it_has(found: Survey, plan: Optional[Plan], lens: Optional[Lens]) -> Dict[str, bool]:
    """Tell which of what learning needs is there."""
    commands = bool(len(found.command) or found.joints(found.joint_command))
    if plan is None:  # no image, so nobody knows what it would be seen with
        return {'images': False, 'commands': commands,
                'poses': bool(len(found.odometry) or found.tree.base()),
                'camera_info': bool(found.infos), 'camera mount': bool(found.tree.frames),
                'depth': bool(found.roles.get('depth'))}
    has_depth = plan.depth is not None and lens is not None and lens.takes_depth
    return {'images': True, 'commands': commands, 'poses': 'base_pose' in plan.arrays,
            'camera_info': bool(lens and lens.camera),
            'camera mount': 'T_base_optical' in plan.arrays or plan.T_base_optical is not None,
            'depth': has_depth}


def _frames(plan: Optional[Plan]) -> Optional[Dict[str, Any]]:
    """Tell what aligning would make."""
    if plan is None:
        return None
    lengths = [end - begin for begin, end in plan.segments]
    return {'rate_hz': plan.rate_hz, 'count': len(plan.image), 'segments': len(lengths),
            'longest_s': max(lengths) / plan.rate_hz, 'pose_frame': plan.pose_frame,
            'long_segments': sum(length >= LONG_S * plan.rate_hz for length in lengths),
            'camera_moves': 'T_base_optical' in plan.arrays,
            'action_names': list(plan.action_names), 'joint_names': list(plan.joint_names),
            **plan.about}


def missing(has: Mapping[str, bool]) -> List[Dict[str, str]]:
    """
    List what is not there.

    :param has: what is
    :return: what, why it matters, which ways of learning need it
    """
    return [{'what': what, 'why': WHY[what],
             'for': ' and '.join(way for way in NEEDS if what in NEEDS[way])}
            for what, is_there in has.items() if not is_there]


def record_command(found: Survey, has: Mapping[str, bool]) -> str:
    """
    Return the command that records everything, with the names of this robot where known.

    :param found: in the recording
    :param has: what it has
    :return: one line for a shell
    """
    roles = found.roles
    if not found.form.startswith('rosbag2'):  # its topics are none of a robot
        return 'ros2 bag record -s mcap ' + ' '.join([*USUAL.values(), '/tf'])
    names: List[str] = [roles.get(role) for role in (
        'image', 'camera_info', 'depth', 'scan', 'odometry', 'joint_states', 'command',
        'joint_command') if roles.get(role)]
    names += [USUAL[what] for what, is_there in has.items() if not is_there]
    if not (has['poses'] and has['camera mount']) or roles.get('tf'):
        names.append('/tf')
    names += ['/tf_static'] + ([roles.get('clock')] if roles.get('clock') else [])
    return 'ros2 bag record -s mcap ' + ' '.join(shlex.quote(x) for x in dict.fromkeys(names))


def as_text(report: Mapping[str, Any]) -> str:
    """
    Write the report for a person.

    :param report: from ``inspect_recording``
    :return: lines
    """
    start = f', {report["start"]}' if report['start'] else ''
    lines = [f'{shown(report["path"])}: {report["form"]}, {_size_text(report["bytes"])}, '
             f'{report["duration_s"]:.1f} s, {report["messages"]} messages{start}', '']
    lines += _topic_lines(report['topics']) + ['']
    lines += _choice_lines(report['roles'])
    lines += _clock_lines(report['clock'])
    lines += _picture_lines(report)
    return '\n'.join(lines + _learn_lines(report))


def _size_text(num: float) -> str:
    for unit in ('bytes', 'kB', 'MB'):
        if num < 1000:
            return f'{num:.3g} {unit}' if unit != 'bytes' else f'{num} bytes'
        num /= 1000
    return f'{num:.3g} GB'


def _topic_lines(topics: List[Dict[str, Any]]) -> List[str]:
    if not topics:
        return ['It has no topics.']
    ranked = sorted(topics, key=lambda t: (not t['role'], not t['count'], t['name']))
    told, rest = ranked[:SHOWN_TOPICS], ranked[SHOWN_TOPICS:]
    width = min(44, max(len(topic['name']) for topic in told))
    kinds = min(30, max(len(_short(topic['type'])) for topic in told))
    lines = [f'{"topic":{width}s}  {"type":{kinds}s}  {"count":>7s} {"Hz":>6s} {"p50":>6s} '
             f'{"p95":>6s} {"gap":>6s}  role']
    for topic in told:
        notes = [topic['role'] or '-']
        if topic['jumps']:
            notes.append(f'time goes back {topic["jumps"]}x')
        if topic['damaged']:
            notes.append(f'{topic["damaged"]} damaged')
        if topic['problem']:
            notes.append(f'cannot be read: {shown(topic["problem"], 80)}')
        times = ' '.join(f'{_seconds(topic[key]):>6s}' for key in (
            'interval_p50_s', 'interval_p95_s', 'largest_gap_s'))
        rate = '' if topic['rate_hz'] is None else f'{topic["rate_hz"]:.1f}'
        lines.append(f'{shown(topic["name"], 44):{width}s}  '
                     f'{_short(topic["type"])[:kinds]:{kinds}s}  {topic["count"]:7d} {rate:>6s} '
                     f'{times}  {", ".join(notes)}')
    if rest:
        lines.append(f'and {len(rest)} more without a role (--json lists them)')
    return lines


def _short(kind: str) -> str:
    return kind.replace('/msg/', '/')


def _seconds(value: Optional[float]) -> str:
    if value is None:
        return ''
    return f'{1e3 * value:.0f}ms' if value < 1.0 else f'{value:.1f}s'


def _choice_lines(roles: Mapping[str, Any]) -> List[str]:
    """Say between which topics was chosen."""
    lines = []
    for role, about in roles.items():
        if about['others'] and about['flag']:
            others = ', '.join(shown(name, 60) for name in about['others'][:4])
            more = len(about['others']) - 4
            lines.append(f'Of several topics for {role.replace("_", " ")}, '
                         f'{shown(about["topic"], 60)} is taken; {about["flag"]} names another: '
                         f'{others}{f" and {more} more" if more > 0 else ""}.')
    return lines


def _clock_lines(clock: Optional[Mapping[str, Any]]) -> List[str]:
    if clock is None:
        return []
    parts = ['Times are those of headers' if clock['stamps'] == 'headers' else
             'Times are those of receipt, as headers are not stamped by one clock that moves']
    if clock['other_clock']:
        parts.append("their clock is not the recorder's (sim time)")
    if clock['jumps']:
        parts.append(f'time goes back {clock["jumps"]}x, and each time a new segment begins')
    if clock['out_of_order']:
        parts.append('messages are stored in the wrong order and are sorted')
    return [f'{"; ".join(parts)}.']


def _picture_lines(report: Mapping[str, Any]) -> List[str]:
    images, frames, lines = report['images'], report['frames'], []
    if images:
        width, height = images['size_px']
        lines.append(f'Images: {width}x{height}, {images["encoding"]}, frame '
                     f'{images["frame"] or "not named"}.')
    if frames:
        lines.append(
            f'Aligned: {frames["count"]} frames at {frames["rate_hz"]:.4g} Hz in '
            f'{_segments(frames)}, the longest {frames["longest_s"]:.1f} s; '
            f'{frames["images_missing"]} images missing, {frames["frames_repeated"]} frames '
            f'repeated, {frames["images_unused"]} images unused.')
        if frames['frames_left_out']:
            lines.append(f'{frames["frames_left_out"]} frames left out, which lack a pose or a '
                         'command.')
        if frames.get('poses_left_out'):
            lines.append(f'Poses are left out: {frames["poses_left_out"]}.')
        if frames['action_names']:
            names = frames['action_names']
            more = len(names) - SHOWN_NAMES
            lines.append(f'Commands: {", ".join(names[:SHOWN_NAMES])}'
                         f'{f" and {more} more" if more > 0 else ""}.')
        if frames['pose_frame']:
            moves = ', the camera moves on the robot' if frames['camera_moves'] else ''
            lines.append(f'Poses: in {frames["pose_frame"]}{moves}.')
    problems = (('images_problem', 'Images'), ('camera_problem', 'The camera'),
                ('depth_problem', 'Depth'))
    return lines + [f'{what} cannot be used: {report[key].rstrip(".")}.'
                    for key, what in problems if report[key]]


def _segments(frames: Mapping[str, Any]) -> str:
    if frames['segments'] == 1:
        return '1 segment'
    return f'{frames["segments"]} segments ({frames["long_segments"]} of {LONG_S:g} s or more)'


def _learn_lines(report: Mapping[str, Any]) -> List[str]:
    ways = {MAPPED: 'a mapped world (depth, poses and commands: minutes of stable pictures)',
            RECURRENT: 'a recurrent world (pictures and commands alone: seconds to tens of '
            'seconds)',
            NOTHING: 'nothing yet'}
    lines = ['', f'Can be learned: {ways[report["learn"]]}.']
    if report['missing']:
        lines.append('Missing:')
        width = max(len(one['what']) for one in report['missing'])
        lines += [f'  {one["what"]:{width}s}  for {one["for"]}: {one["why"]}'
                  for one in report['missing']]
        lines.append(f'Record: {report["record"]}')
    return lines
