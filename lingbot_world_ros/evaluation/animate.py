# SPDX-License-Identifier: Apache-2.0
"""
Truth beside imagination as a moving picture: the same commands, open loop from the same start.

    python -m lingbot_world_ros.evaluation.animate --out docs/images/imagination.webp

Needs OpenCV 4.11 or later (WebP, GIF or PNG by the name's ending) and MuJoCo.
"""
import argparse
from pathlib import Path
from typing import Iterator, Optional, Sequence

import cv2
from lingbot_world_ros.engines.interface import WorldModel
from lingbot_world_ros.engines.registry import DEFAULT_ENGINE, make_world, TRUTH_ENGINE
from lingbot_world_ros.evaluation.command_sequences import command_sequence
from lingbot_world_ros.progress import progress_bar
import numpy as np

SCALE = 2  # picture pixels per image pixel and axis
SEED = 9_500_000  # disjoint from training, calibration and evaluation


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Write the animation; see the module's text."""
    parser = argparse.ArgumentParser(description='Animate truth beside imagination.')
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--seconds', type=float, default=8.0, help='per scene')
    parser.add_argument('--seed', type=int, default=SEED)
    args = parser.parse_args(argv)
    worlds = [make_world(TRUTH_ENGINE), make_world(DEFAULT_ENGINE)]
    frames = [frame for scene in progress_bar(worlds[1].spec.scenes, unit=' scenes')
              for frame in drive(worlds, scene, args.seed, args.seconds)]
    animation = cv2.Animation()
    animation.frames = [frame[..., ::-1].copy() for frame in frames]
    animation.durations = [round(1000 / worlds[1].spec.frame_rate_hz)] * len(frames)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwriteanimation(str(args.out), animation, [cv2.IMWRITE_WEBP_QUALITY, 60])


def drive(worlds: Sequence[WorldModel], scene: str, seed: int,
          seconds: float) -> Iterator[np.ndarray]:
    """Yield the pictures (h, w, 3) uint8 rgb of one scene."""
    rate = worlds[0].spec.frame_rate_hz
    rng = np.random.default_rng(seed)
    commands = command_sequence(worlds[0].spec.robot, int(seconds * rate), rng, rate)
    seen = [world.reset(scene, seed) for world in worlds]
    for t, command in enumerate(commands):
        yield picture([s.rgb[0, 0] for s in seen if s.rgb is not None],
                      [f'{scene}: simulator', f'{scene}: imagined, {t / rate:.1f} s'])
        seen = [world.step(command[None, None]) for world in worlds]


def picture(images: Sequence[np.ndarray], labels: Sequence[str]) -> np.ndarray:
    """Put enlarged images side by side under their labels."""
    columns = []
    for image, label in zip(images, labels):
        image = cv2.resize(image, None, fx=SCALE, fy=SCALE, interpolation=cv2.INTER_CUBIC)
        head = np.full((22, image.shape[1], 3), 24, np.uint8)
        cv2.putText(head, label, (6, 15), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (235, 235, 235), 1,
                    cv2.LINE_AA)
        columns.append(np.concatenate([head, image]))
    return np.concatenate(columns, 1)


if __name__ == '__main__':
    main()
