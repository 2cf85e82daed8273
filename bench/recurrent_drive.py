# SPDX-License-Identifier: Apache-2.0
"""
Judge a recurrent world: held-out pictures, what it says of what it does not know, a long drive.

    python -m bench.recurrent_drive --world worlds/track --recording drive --foreign elsewhere

Prints JSON: the numbers of ``evaluate`` on the last pieces of the recording; how well uncertainty
tells true pictures of another place, and a robot that stands still, from the held-out drive (area
under the ROC curve); and the sharpness along minutes of free driving under commands of the
recording, of which ``--out`` gets pictures, with the same under steering to one side.
"""
import argparse
import json
from pathlib import Path
import tempfile
from typing import Any, Dict, List, Sequence

from bench.machine import describe
import cv2
from lingbot_world_ros.evaluation.learned import evaluate_learned, spread_starts
from lingbot_world_ros.evaluation.metrics import area_under_roc, gradient_magnitude
from lingbot_world_ros.evaluation.recurrent_world import RecurrentWorld
from lingbot_world_ros.models.recurrent.runtime import RecurrentModel
from lingbot_world_ros.recording.align import align
from lingbot_world_ros.recording.aligned import AlignedRecording, is_aligned, load_aligned
from lingbot_world_ros.worlds.learned import MEAN_PICTURE
import numpy as np

STARTS = 64
FREE = 20  # frames after which uncertainty is compared
SHOWN_EVERY_S, COLUMNS = 10.0, 6
SHARP_EVERY = 50  # frames


def main() -> None:
    """Run; see the module's text."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[1])
    parser.add_argument('--world', type=Path, required=True)
    parser.add_argument('--recording', type=Path, required=True, help='that taught it')
    parser.add_argument('--held-out', type=int, default=4, help='last long pieces, not learned')
    parser.add_argument('--foreign', type=Path, help='recording of another place')
    parser.add_argument('--minutes', type=float, default=5.0, help='of free driving')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--out', type=Path, default=Path('bench/out/recurrent_drive'))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    model = RecurrentModel(args.world)
    with tempfile.TemporaryDirectory() as folder:
        ours = read(args.recording, model, Path(folder) / 'ours')
        pieces = [p for p in ours.segments if p[1] - p[0] >= 100][-args.held_out:]
        mean = cv2.imread(str(args.world / MEAN_PICTURE))
        told: Dict[str, Any] = {'machine': describe(), 'world': model.about['name'],
                                'seed': args.seed}
        told['held_out'] = evaluate_learned(
            RecurrentWorld(model), ours, pieces=pieces, seed=args.seed,
            mean_rgb=None if mean is None else mean[..., ::-1])['horizons']
        begins = spread_starts(pieces, model.num_context + FREE, STARTS, args.seed)
        known = uncertainty(model, ours, begins)
        told['stopped_auroc'] = {h: auroc(rows, known[h]) for h, rows in
                                 uncertainty(model, ours, begins, stopped=True).items()}
        if args.foreign:
            foreign = read(args.foreign, model, Path(folder) / 'foreign')
            there = spread_starts(foreign.segments, model.num_context + FREE, STARTS, args.seed)
            told['foreign_auroc'] = {h: auroc(rows, known[h]) for h, rows in
                                     uncertainty(model, foreign, there).items()}
        told['free'] = {name: free(model, ours, args, sides, name) for name, sides in
                        (('as recorded', None), ('left', 1.0), ('right', -1.0))}
    print(json.dumps(told, indent=2))


def read(path: Path, model: RecurrentModel, folder: Path) -> AlignedRecording:
    """Bring a recording to rate and size of a world."""
    if is_aligned(path):
        return load_aligned(path)
    return align([path], folder, rate_hz=model.rate_hz, size=(model.width_px, model.height_px))[0]


def auroc(odd: np.ndarray, known: np.ndarray) -> float:
    """Return how well higher values tell the odd ones."""
    return float(area_under_roc(np.concatenate([odd, known]),
                                np.arange(len(odd) + len(known)) < len(odd)))


def uncertainty(model: RecurrentModel, recording: AlignedRecording, begins: np.ndarray,
                stopped: bool = False) -> Dict[int, np.ndarray]:
    """Return what the world expects after its true frames, and ``FREE`` frames on, (n,) each."""
    assert recording.action is not None
    world = RecurrentWorld(model)
    world.reset_from(recording, begins, 0)
    out = {} if stopped else {0: world.draw()[1]}
    last = begins + model.num_context - 1
    for frame in range(FREE):
        sent = np.asarray(recording.action[last + frame], np.float32)
        world.step(np.zeros_like(sent) if stopped else sent)
    return {**out, FREE: world.draw()[1]}


def free(model: RecurrentModel, recording: AlignedRecording, args: argparse.Namespace,
         side: Any, name: str) -> Dict[str, Any]:
    """Drive on under commands of the recording; return sharpness and brightness on the way."""
    assert recording.action is not None
    begin, end = max(recording.segments, key=lambda piece: piece[1] - piece[0])
    frames = round(args.minutes * 60 * model.rate_hz) if side is None else FREE * 3
    state, rng = model.start(args.seed), np.random.default_rng(args.seed)
    shown: List[np.ndarray] = []
    sharp, expected = [], []
    true = float(np.mean(gradient_magnitude(recording.rgb[begin:end:37])))
    every = round(SHOWN_EVERY_S * model.rate_hz) if side is None else FREE // 2
    for frame in range(frames):
        sent = np.array(recording.action[begin + frame % (end - begin)], np.float32)
        if side is not None and 'angular_z' in model.action_names:
            sent[list(model.action_names).index('angular_z')] = side
        state = model.step(state, sent[None], rng)
        if frame % SHARP_EVERY == 0 or (frame + 1) % every == 0:
            rgb, doubt = model.draw(state)
            sharp.append(float(gradient_magnitude(rgb)[0]) / true)
            expected.append(float(doubt[0]))
            if (frame + 1) % every == 0:
                shown.append(rgb[0])
    cv2.imwrite(str(args.out / f'free_{name.replace(" ", "_")}.png'), sheet(shown)[..., ::-1])
    return {'frames': frames, 'sharpness_first': float(np.mean(sharp[:3])),
            'sharpness_p5': float(np.percentile(sharp, 5)),
            'sharpness_mean': float(np.mean(sharp)),
            'sharpness_last': float(np.mean(sharp[-3:])),
            'expected_mean': float(np.mean(expected))}


def sheet(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Put pictures into rows."""
    blank = np.zeros_like(pictures[0])
    filled = [*pictures, *[blank] * (-len(pictures) % COLUMNS)]
    return np.concatenate([np.concatenate(filled[i:i + COLUMNS], 1)
                           for i in range(0, len(filled), COLUMNS)])


if __name__ == '__main__':
    main()
