# SPDX-License-Identifier: Apache-2.0
"""
Episodes of the reference world on disk, one folder of .npy files per scene.

Files, axes n episode, t frame: ``action`` (n, t, a) float32 leads from frame t to t + 1; every
other file has t + 1 frames: ``rgb`` (n, t, h, w, 3) uint8, ``depth`` (n, t, h, w) float16 metres,
``base_pose``, ``base_twist``, ``joint_position``, ``joint_velocity``, ``object_pose`` float32,
``contact`` uint8. ``static_*`` hold frames without robot and objects, for mapping.

    python -m lingbot_world_ros.training.dataset --out data --episodes 3200 --frames 32

With ``--every n`` only every n-th frame is kept, and no ``action``: pictures that differ more, for
the observation model alone.
"""
import argparse
from dataclasses import dataclass
import json
from multiprocessing import get_context
import os
from pathlib import Path
from typing import Any, Dict, Iterable, List, Optional, Sequence, Tuple

from lingbot_world_ros.actions.layout import robot_action_layout
from lingbot_world_ros.evaluation.command_sequences import command_sequence
from lingbot_world_ros.progress import progress_bar
from lingbot_world_ros.robots.load import load_robot
from lingbot_world_ros.robots.robot import Footprint, Robot
from lingbot_world_ros.worlds.scenes import get_scene, Scene, SCENES
import numpy as np

TRAINING_SEED = 1_000_000  # start states and commands of episode i use TRAINING_SEED + i
STATES = {'base_pose': 3, 'base_twist': 3, 'joint_position': 5, 'joint_velocity': 5}


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Generate episodes; see the module's text."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[1])
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--scenes', nargs='+', default=list(SCENES))
    parser.add_argument('--episodes', type=int, default=3200, help='per scene')
    parser.add_argument('--frames', type=int, default=32, help='steps per episode')
    parser.add_argument('--mapping-frames', type=int, default=600, help='static frames per scene')
    parser.add_argument('--no-images', action='store_true', help='states only')
    parser.add_argument('--size', type=int, nargs=2, metavar=('WIDTH', 'HEIGHT'),
                        help="of the images; by default that of the robot's camera")
    parser.add_argument('--every', type=int, default=1, help='keep one frame of so many')
    parser.add_argument('--workers', type=int, default=os.cpu_count())
    parser.add_argument('--first', type=int, default=0, help='number of the first episode')
    args = parser.parse_args(argv)
    robot = load_robot()
    if args.size:
        robot = robot.with_camera(robot.camera.resized(*args.size))
    kept = Kept(robot, args.frames, args.every, not args.no_images)
    num_mapping = 0 if args.no_images else args.mapping_frames
    for scene in args.scenes:
        make_scene_files(args.out / scene, scene, args.episodes, kept, num_mapping)
    jobs: List[tuple] = [
            (args.out / s, s, kept, args.first, a, min(a + 8, args.episodes))
            for a in range(0, args.episodes, 8) for s in args.scenes]
    jobs += [(args.out / s, s, robot, a, min(a + 25, num_mapping))
             for a in range(0, num_mapping, 25) for s in args.scenes]
    with get_context('spawn').Pool(args.workers) as pool:
        for _ in progress_bar(pool.imap_unordered(_run_job, jobs), total=len(jobs), unit='job',
                              mininterval=5.0):
            pass


@dataclass(frozen=True)
class Kept:
    """What is kept of each episode."""

    robot: Robot
    num_steps: int
    every: int  # frames of which one is kept
    images: bool

    @property
    def num_frames(self) -> int:
        """Frames of an episode in the files."""
        return self.num_steps // self.every + 1


def make_scene_files(folder: Path, scene: str, episodes: int, kept: Kept,
                     mapping_frames: int) -> None:
    """Create the (still empty) arrays of one scene and ``about.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    robot, n, t = kept.robot, episodes, kept.num_frames
    h, w = robot.camera.height_px, robot.camera.width_px
    arrays: Dict[str, Tuple[Tuple[int, ...], type]] = {
        name: ((n, t, size), np.float32) for name, size in STATES.items()}
    arrays['object_pose'] = ((n, t, len(get_scene(scene).movables), 3), np.float32)
    arrays['contact'] = ((n, t), np.uint8)
    if kept.every == 1:
        arrays['action'] = ((n, kept.num_steps, len(robot_action_layout(robot).dims)), np.float32)
    if kept.images:
        arrays['rgb'] = ((n, t, h, w, 3), np.uint8)
        arrays['depth'] = ((n, t, h, w), np.float16)
    if mapping_frames:
        arrays['static_depth'] = ((mapping_frames, h, w), np.float32)
        arrays['static_pose'] = ((mapping_frames, 3), np.float32)
    for name, (shape, dtype) in arrays.items():
        np.lib.format.open_memmap(folder / f'{name}.npy', 'w+', dtype, shape)
    (folder / 'about.json').write_text(json.dumps(
        {'scene': scene, 'episodes': episodes, 'frames': kept.num_steps, 'every': kept.every,
         'seed': TRAINING_SEED}))


def load_scene(folder: Path, names: Optional[Iterable[str]] = None) -> Dict[str, np.ndarray]:
    """
    Open the arrays of one scene without reading them.

    :param folder: ``<dataset>/<scene>``
    :param names: which files; by default all that are there
    :return: name -> memory-mapped array
    """
    names = names or [p.stem for p in sorted(Path(folder).glob('*.npy'))]
    return {name: np.load(Path(folder) / f'{name}.npy', mmap_mode='r') for name in names}


_SIMS: Dict[str, Any] = {}  # scene name -> ReferenceScene of this worker process


def _sim(scene: str, robot: Robot) -> Any:
    from lingbot_world_ros.engines.reference.engine import ReferenceScene
    if scene not in _SIMS:
        _SIMS[scene] = ReferenceScene(get_scene(scene), robot)
    return _SIMS[scene]


def _run_job(job: tuple) -> None:
    if len(job) == 5:
        return _mapping_frames(*job)
    return _episodes(*job)


def _episodes(folder: Path, scene: str, kept: Kept, first: int, begin: int, end: int) -> None:
    sim = _sim(scene, kept.robot)
    out = {p.stem: np.load(p, mmap_mode='r+') for p in folder.glob('*.npy')
           if not p.stem.startswith('static_')}
    for i in range(begin, end):
        seed = TRAINING_SEED + first + i
        commands = command_sequence(sim.robot, kept.num_steps, np.random.default_rng([seed, 7]))
        if 'action' in out:
            out['action'][i] = commands
        sim.set_state(get_scene(scene).start_state(seed, sim.robot))
        for step in range(kept.num_steps + 1):
            if step:
                sim.step(commands[step - 1])
            t, left_out = divmod(step, kept.every)
            if left_out:
                continue
            for name in (*STATES, 'object_pose', 'contact'):
                out[name][i, t] = getattr(sim, name)
            if kept.images:
                out['rgb'][i, t], out['depth'][i, t] = sim.render()


def _mapping_frames(folder: Path, scene: str, robot: Robot, begin: int, end: int) -> None:
    """Depth without robot and objects from random places, for the signed distance grid."""
    sim = _sim(scene, robot)
    depth = np.load(folder / 'static_depth.npy', mmap_mode='r+')
    pose = np.load(folder / 'static_pose.npy', mmap_mode='r+')
    for i in range(begin, end):
        state = get_scene(scene).start_state(TRAINING_SEED - 1 - i, sim.robot)
        state.base_pose[:2] = _near_walls(get_scene(scene), sim.robot.footprint,
                                          np.random.default_rng(i))
        sim.set_state(state)
        pose[i] = sim.base_pose
        depth[i] = sim.render(groups=(0,), supersampling=1)[1]


def _near_walls(scene: Scene, footprint: Footprint, rng: np.random.Generator) -> np.ndarray:
    """A place the base can reach, up to touching the furniture; (2,) metres."""
    while True:
        xy = rng.uniform((0.0, 0.0), scene.size_m)
        if scene.clearance_m(xy, footprint.height_m) > footprint.radius_m - 0.02:
            return xy


if __name__ == '__main__':
    main()
