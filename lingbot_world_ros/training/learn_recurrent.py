# SPDX-License-Identifier: Apache-2.0
"""
Recordings of pictures and commands -> a recurrent world: held out, trained, exported, measured.

The end of what was recorded teaches nothing, and the world is measured on it.
"""
from dataclasses import dataclass
import json
from pathlib import Path
from typing import Any, Callable, Dict, List, Sequence, Tuple

from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.evaluation.learned import evaluate_learned, mean_picture
from lingbot_world_ros.evaluation.recurrent_world import RecurrentWorld
from lingbot_world_ros.models.recurrent.runtime import RecurrentModel
from lingbot_world_ros.recording.aligned import ABOUT, AlignedRecording, load_aligned
from lingbot_world_ros.training import export_recurrent, train_recurrent
from lingbot_world_ros.training.recurrent_data import MIN_PIECE, split_drives
from lingbot_world_ros.worlds.learned import FILE, MEAN_PICTURE
from PIL import Image
import yaml

WIDTH_PX, SIDE_STEP_PX = 128, 16  # of pictures
HELD_OUT_SHARE, HELD_OUT_PIECES = 0.15, 4
JUDGED_FRAMES, MIN_GAP_DB = 20, 0.3  # by which a world is kept or not
DRAWERS = (('world', 'imagined'), ('shuffled', 'commands of another time'),
           ('copy_last', 'copying the last picture'), ('mean_picture', 'the mean picture'))
LIMITS = ('There is no pose, depth, scan or map: only pictures that follow commands.',
          'Pictures are of where the recording was; another place is flagged by uncertainty.',
          'Details soften within a second; for how long it stays close, see what was measured.')
Say = Callable[[str, int, int], None]


@dataclass(frozen=True)
class RecurrentSpec:
    """What a user may choose."""

    name: str
    minutes: float
    seed: int
    source: str
    licence: str


def picture_size(recording: AlignedRecording) -> Tuple[int, int]:
    """Return the size in which such a world learns the pictures of a recording."""
    width, height = recording.size_px
    side = max(1, round(height * WIDTH_PX / width / SIDE_STEP_PX))
    return WIDTH_PX, SIDE_STEP_PX * side


def learn_recurrent(folders: Sequence[Path], spec: RecurrentSpec, work: Path, out: Path,
                    say: Say) -> Dict[str, Any]:
    """
    Learn a world, or go on learning it.

    :param folders: of aligned recordings, in the order in which they were made
    :param spec: what the user chose
    :param work: folder for weights and curve; kept, to go on from
    :param out: folder of the world, new
    :param say: called with what is done, and how much of it
    :return: content of ``world.yaml``, with what was measured under ``numbers``
    :raises SpecError: recordings that do not fit together, or are too short
    """
    num_held_out = _hold_out(folders)
    recordings = [load_aligned(folder) for folder in folders]
    drives = split_drives(recordings, num_held_out)
    told = [str(folder) for folder in folders]
    shared = ['--recording', *told, '--held-out', str(num_held_out), '--seed', str(spec.seed)]
    say('training', 0, 1)
    train_recurrent.main([*shared, '--out', str(work / 'run'), '--minutes', str(spec.minutes)])
    say('export', 0, 1)
    export_recurrent.main([*shared, '--run', str(work / 'run'), '--out', str(out), '--name',
                           spec.name, '--source', spec.source, '--licence', spec.licence])
    mean = mean_picture(recordings[0], [(a, b) for a, b in drives.training
                                        if b <= recordings[0].num_frames])
    Image.fromarray(mean).save(out / MEAN_PICTURE)
    last = recordings[-1]
    first = sum(r.num_frames for r in recordings[:-1])
    pieces = [(a - first, b - first) for a, b in drives.held_out if a >= first]
    results = evaluate_learned(RecurrentWorld(RecurrentModel(out)), last, pieces=pieces,
                               mean_rgb=mean, seed=spec.seed, say=say)
    about = yaml.safe_load((out / FILE).read_text())
    about['numbers'] = results['horizons']
    about['limits'] = list(LIMITS)
    about['data'] = {'recording': ', '.join(about['recordings']), 'licence': spec.licence,
                     'frames': about['trained_frames'] + about['held_out_frames'],
                     'seconds': round(sum(r.num_frames for r in recordings) / last.rate_hz, 1)}
    (out / FILE).write_text(yaml.safe_dump(about, sort_keys=False, allow_unicode=True))
    return about


def _hold_out(folders: Sequence[Path]) -> int:
    """Say how many of the last pieces are held out; a drive in one piece is cut for that."""
    recordings = [load_aligned(folder) for folder in folders]
    long = [piece for r in recordings for piece in r.segments if piece[1] - piece[0] >= MIN_PIECE]
    if len(long) > HELD_OUT_PIECES:
        return HELD_OUT_PIECES
    if len(long) > 1:
        return 1
    if not long:
        raise SpecError(f'No stretch of {MIN_PIECE} frames without a gap; record a drive in one '
                        'go, of several minutes.')
    path = Path(folders[-1]) / ABOUT
    told = json.loads(path.read_text())
    begin, end = max(told['segments'], key=lambda piece: piece[1] - piece[0])
    border = end - max(int(HELD_OUT_SHARE * (end - begin)), MIN_PIECE)
    if border - begin < MIN_PIECE:
        raise SpecError(f'{recordings[-1].name} is too short to learn from one part and be '
                        'measured on another; record several minutes.')
    told['segments'] = [[begin, border], [border, end]]
    path.write_text(json.dumps(told, indent=2) + '\n')
    return 1


def rows(about: Dict[str, Any]) -> List[Tuple[str, str]]:
    """
    Put the numbers of a world into words.

    :param about: content of ``world.yaml``
    :return: name and value of each
    """
    out = []
    for horizon, told in about['numbers'].items():
        psnr = ', '.join(f'{words} {told[name]["psnr"][0]:.1f}' for name, words in DRAWERS
                         if name in told)
        sharp = told['world']['sharpness'][0]
        out.append((f'free for {horizon} frames', f'PSNR [dB]: {psnr}; sharpness {sharp:.2f} of '
                    'the recording'))
    for name, told in about['delays'].items():
        out.append((f'pictures follow {name}', f'after {told["lag_frames"]} frames'
                    if told['found'] else 'not seen in the pictures'))
    return out


def problem(about: Dict[str, Any]) -> str:
    """
    Look whether a world heeds its commands.

    :param about: content of ``world.yaml``
    :return: why it is not good enough, '' if it is
    """
    told = about['numbers'].get(JUDGED_FRAMES) or about['numbers'].get(str(JUDGED_FRAMES))
    if told is None or told['shuffling_costs_db'][0] >= MIN_GAP_DB:
        return ''
    return (f'commands of another time lead to pictures only '
            f'{told["shuffling_costs_db"][0]:.1f} dB worse after {JUDGED_FRAMES} frames (at least '
            f'{MIN_GAP_DB:g}): it does not heed its commands')
