# SPDX-License-Identifier: Apache-2.0
"""
Recordings of a user's robot -> a world of the place that they were made in, or of what it saw.

What the recording has decides which: with depth and poses a *mapped* world, with pictures and
commands alone a *recurrent* one.
"""
from dataclasses import dataclass
import json
from pathlib import Path
import shutil
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

import cv2
from lingbot_world_ros.engines.learned.mapped import MappedWorld
from lingbot_world_ros.environment import environment
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.evaluation.learned import mean_picture
from lingbot_world_ros.recording.align import align
from lingbot_world_ros.recording.aligned import AlignedRecording, is_aligned, load_aligned
from lingbot_world_ros.robots.load import load_robot
from lingbot_world_ros.training import learn_recurrent
from lingbot_world_ros.training.learn_recurrent import picture_size
from lingbot_world_ros.training.mapped import measure
from lingbot_world_ros.training.mapped.folder import card, write_about, write_robot
from lingbot_world_ros.training.mapped.learn import (camera_entry, check_recording, joint_follow,
                                                     learn_place, Learned, LearnSpec, write_place)
from lingbot_world_ros.training.work_folder import check_out, PART, REQUEST, WorkFolder
from lingbot_world_ros.worlds.learned import MEAN_PICTURE
import numpy as np

KINDS = ('mapped', 'recurrent')
PLACE_RATE_HZ = 15.0
FILES = ('map.safetensors', 'renderer.onnx', 'robot.yaml', 'robot.urdf', MEAN_PICTURE)
MIN_PSNR_DB, MIN_GAP_DB = 20.0, 0.5
PICTURES = 6  # of the strip
LIMITS = (
    'What could be moved in the place is not known, and stays where it was.',
    'Places that the recording never saw are guesses; uncertainty tells of them.',
    'Contact is that of a round footprint with the map; nothing is pushed.')
Say = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Wanted:
    """What the user asks for."""

    out: Path
    name: str = ''  # '' is that of the folder
    kind: str = ''  # '' is what the recording allows
    minutes: float = 8.0
    rate_hz: float = 0.0  # 0: chosen
    robot: str = ''
    footprint_m: float = 0.0
    licence: str = ''
    seed: int = 0
    anyway: bool = False  # keep a world that is worse than the bars
    topics: Mapping[str, str] = ()  # type: ignore[assignment]


def learn(paths: Sequence[Path], wanted: Wanted,
          say: Say = lambda what, done, total: None) -> Dict[str, Any]:
    """
    Learn a world.

    Called again with the same folder after it was interrupted, it goes on.

    :param paths: recordings
    :param wanted: where to, and how
    :param say: called with what is done, and how much of it
    :return: content of the ``world.yaml`` that was written
    :raises SpecError: the folder exists, a recording cannot be used, or the world is not good
        enough to be kept; what was computed is kept beside the folder
    """
    check_out(wanted.out)
    if wanted.robot:
        load_robot(wanted.robot)  # refused now, not after an hour
    with WorkFolder(wanted.out) as work:
        about = _learn(paths, wanted, work, say)
        work.delete()
    return about


def _learn(paths: Sequence[Path], wanted: Wanted, held: WorkFolder, say: Say) -> Dict[str, Any]:
    """Learn in a work folder that this process holds."""
    out, work, name = wanted.out, held.path, wanted.name or wanted.out.name
    check_out(out)  # another process may just have made it
    recordings, kind = _aligned(paths, wanted, held, say)
    if kind == 'mapped':
        _check_place(recordings)
    part = out.with_name(f'{out.name}{PART}')
    shutil.rmtree(part, ignore_errors=True)
    try:
        if kind == 'mapped':
            spec = LearnSpec(name, wanted.minutes, wanted.seed, wanted.robot, wanted.footprint_m)
            about = _write(part, learn_place(recordings[0], spec, work, say), recordings[0],
                           wanted, paths)
            _check_good(about, wanted)
        else:
            about = _pictures(part, name, wanted, paths, work, say)
        part.rename(out)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return about


def _check_place(recordings: Sequence[AlignedRecording]) -> None:
    """Refuse recordings that no place can be learned from."""
    if len(recordings) > 1:
        raise SpecError(f'A place is learned from one recording; {len(recordings)} were given. '
                        'Give the longest one.')
    check_recording(recordings[0])


def _pictures(part: Path, name: str, wanted: Wanted, paths: Sequence[Path], work: Path,
              say: Say) -> Dict[str, Any]:
    """Learn a world of pictures and commands."""
    spec = learn_recurrent.RecurrentSpec(name, wanted.minutes, wanted.seed, ', '.join(
        Path(p).name for p in paths), wanted.licence)
    folders = ([Path(path) for path in paths] if all(is_aligned(path) for path in paths)
               else sorted((work / 'aligned').iterdir()))
    about = learn_recurrent.learn_recurrent(folders, spec, work, part, say)
    problem = learn_recurrent.problem(about)
    if problem and not wanted.anyway:
        raise SpecError(f'This world is not good enough: {problem}. Train it for longer '
                        '(--minutes); --anyway keeps the world as it is.')
    (part / 'README.md').write_text(card(about, table(about)))
    return about


def kind_of(recordings: Sequence[AlignedRecording]) -> str:
    """
    Choose a kind of world.

    :param recordings: what there is
    :return: ``mapped`` where a place can be learned, else ``recurrent``
    """
    try:
        for recording in recordings:
            check_recording(recording)
    except SpecError:
        return 'recurrent'
    return 'mapped'


def _aligned(paths: Sequence[Path], wanted: Wanted, held: WorkFolder,
             say: Say) -> Tuple[List[AlignedRecording], str]:
    """Align the recordings, or take those of an attempt before; and choose the kind of world."""
    if all(is_aligned(path) for path in paths):
        given = [load_aligned(path) for path in paths]
        return given, wanted.kind or kind_of(given)
    request = json.dumps([[str(Path(p).resolve()) for p in paths], wanted.kind, wanted.rate_hz,
                          sorted(dict(wanted.topics).items()), wanted.robot, wanted.seed])
    topics, folder = dict(wanted.topics), held.path / 'aligned'
    kept = held.path / REQUEST
    if kept.exists() and kept.read_text() == request:
        made = [load_aligned(path) for path in sorted(folder.iterdir())]
        return made, wanted.kind or kind_of(made)
    held.clear()
    rate: Optional[float] = wanted.rate_hz or None
    made = align(paths, folder, rate_hz=rate, topics=topics, say=_part_of(say, 'alignment'))
    kind, size = wanted.kind or kind_of(made), None
    if kind == 'recurrent':
        size = picture_size(made[0])
    elif not rate and made[0].rate_hz > 1.3 * PLACE_RATE_HZ:
        rate = PLACE_RATE_HZ
    if size or rate != (wanted.rate_hz or None):
        shutil.rmtree(folder)
        made = align(paths, folder, rate_hz=rate, size=size, topics=topics,
                     say=_part_of(say, 'realignment'))
    kept.write_text(request)
    return made, kind


def _part_of(say: Say, what: str) -> Callable[[int, int], None]:
    """Return what tells of one part."""
    return lambda done, total: say(what, done, total)


def _write(part: Path, learned: Learned, recording: AlignedRecording, wanted: Wanted,
           paths: Sequence[Path]) -> Dict[str, Any]:
    """Write the folder, measure the world in it, and write what came out."""
    write_place(learned, part)
    write_robot(part, recording, learned.camera, learned.robot, learned.radius_m)
    mean = mean_picture(recording, [(0, len(learned.train))])
    cv2.imwrite(str(part / MEAN_PICTURE), mean[..., ::-1])
    motion = learned.motion.motion
    about: Dict[str, Any] = {
        'kind': 'mapped', 'name': learned.name, 'rate_hz': float(recording.rate_hz),
        'camera': camera_entry(learned.camera),
        'motion': {'gain': list(motion.gain), 'follow': list(motion.follow),
                   'delay_frames': motion.delay_frames, 'is_steered': motion.is_steered,
                   'growth': list(motion.growth)},
        'joint_follow': joint_follow(recording, learned.robot),
        'uncertainty': measure.UNTRAINED,
        'data': {'recording': ', '.join(Path(p).name for p in paths),
                 'seconds': round(recording.num_frames / recording.rate_hz, 1),
                 'frames': recording.num_frames, 'licence': wanted.licence,
                 'actions': list(recording.action_names)},
        'numbers': {}, 'limits': list(LIMITS), 'made_by': environment()}
    write_about(part, about, FILES)
    world = MappedWorld(part)
    rows = measure.rollouts(world, learned, recording, learned.held_out)
    shuffled = measure.rollouts(world, learned, recording, learned.held_out, shuffled=True)
    about['uncertainty'] = measure.calibrate(rows + shuffled, np.asarray(
        recording.rgb[::max(1, recording.num_frames // 96)]))
    about['numbers'] = {**learned.numbers, 'rollouts': measure.summary(rows, shuffled)}
    write_about(part, about, FILES)
    measure.strip(world, learned, recording, part / 'strip.png', PICTURES)
    (part / 'README.md').write_text(card(about, table(about)))
    return about


def table(about: Mapping[str, Any]) -> List[Tuple[str, str]]:
    """
    Put the numbers of a world into words.

    :param about: content of ``world.yaml``
    :return: name and value of each
    """
    numbers = about['numbers']
    if about['kind'] == 'recurrent':
        return learn_recurrent.rows(dict(about))
    rows = [('pictures from known poses, end of the recording (held out)',
             f'{numbers["held_out_psnr_db"]:.1f} dB, 10th percentile '
             f'{numbers["held_out_psnr_p10_db"]:.1f} dB')]
    for horizon, told in numbers['rollouts'].items():
        if horizon != '0':
            rows.append((f'driven for {horizon} frames by commands alone',
                         f'{told["psnr_db"]:.1f} dB (copying the first picture '
                         f'{told["copy_first_db"]:.1f}, commands of another time '
                         f'{told["shuffled_db"]:.1f}); {100 * told["position_m"]:.1f} cm, '
                         f'{told["yaw_deg"]:.2f} deg'))
    motion = about['motion']
    rows.append(('how it follows commands',
                 f'gain {motion["gain"][0]:.3f} forward, {motion["gain"][2]:.3f} turning; delay '
                 f'{motion["delay_frames"]} frames'
                 + ('; steered like a car' if motion['is_steered'] else '')))
    if numbers.get('registration_residual_mm') is not None:
        rows.append(('views against the map', f'{numbers["registration_residual_mm"]:.1f} mm, '
                     f'{numbers["views_not_registered"]} views not registered'))
    rows.append(('pictures behind depth', f'{numbers["picture_lag_ms"]:.1f} ms'))
    return rows


def _check_good(about: Mapping[str, Any], wanted: Wanted) -> None:
    """Refuse a world that shows nothing, or does not heed its commands."""
    numbers = about['numbers']
    last = numbers['rollouts'][str(max(measure.HORIZONS))]
    gap = last['psnr_db'] - last['shuffled_db']
    problem: Optional[str] = None
    if numbers['held_out_psnr_db'] < MIN_PSNR_DB:
        problem = (f'pictures of the end of the recording come out at '
                   f'{numbers["held_out_psnr_db"]:.1f} dB (at least {MIN_PSNR_DB:g})')
    elif gap < MIN_GAP_DB:
        problem = (f'commands of another time lead to pictures only {gap:.1f} dB worse (at '
                   f'least {MIN_GAP_DB:g}): it does not heed its commands')
    if problem and not wanted.anyway:
        raise SpecError(f'This world is not good enough: {problem}. Look at the recording with '
                        '"lingbot-world inspect"; --anyway keeps the world as it is.')
