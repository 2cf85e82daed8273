# SPDX-License-Identifier: Apache-2.0
"""
A recording with pictures, depth and poses -> a world of the place it was made in.

What takes long is kept in a work folder, and a second call goes on from there. The world itself
is written at the end, as a whole. Axes: n frame, h w image, j joint.
"""
from dataclasses import asdict, dataclass, field
from pathlib import Path
import shutil
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.geometry import se2, se3
from lingbot_world_ros.geometry.camera import MountedCamera
from lingbot_world_ros.models.mapped.network import (MapOfPlace, MappedRenderer,
                                                     MapSpec)
from lingbot_world_ros.models.mapped.registration import Points, register, upright_points
from lingbot_world_ros.models.mapped.runtime import FREE, GRAPH, MAP, OCCUPIED, UNKNOWN
from lingbot_world_ros.models.mapped.surfaces import body_mask, main_direction
from lingbot_world_ros.models.room.lens import COARSE
from lingbot_world_ros.models.room.renderer import camera_tensors, pack_atlas, Renderer
from lingbot_world_ros.models.room.runtime import WEIGHTS
from lingbot_world_ros.recording.aligned import AlignedRecording
from lingbot_world_ros.recording.columns import commands_of, joints_of
from lingbot_world_ros.recording.mount import levelled, mounted_camera
from lingbot_world_ros.robots.load import load_robot
from lingbot_world_ros.robots.robot import Robot
from lingbot_world_ros.training.mapped.export import export_place, shipped_network
from lingbot_world_ros.training.mapped.fit import (ARM_NEAR, arm_near, held_out_psnr, MapFit,
                                                   run_fit, Views)
from lingbot_world_ros.training.mapped.fusion import fuse, Fused, Grid, grid_for, MARGIN_M
from lingbot_world_ros.training.mapped.motion_fit import fit_motion, MotionFit
from lingbot_world_ros.training.pause import Pause
import numpy as np
from safetensors.numpy import save_file
from scipy.ndimage import distance_transform_edt
import torch

KEY_RATE_HZ = 5.0  # of views that are registered
FUSED_FRAMES = 400
HELD_OUT_S = (30.0, 60.0)  # at the end, at least and at most
HELD_OUT_SHARE = 0.15
MIN_FRAMES = 300
PLAN_LOW_M, PLAN_HIGH_M = 0.08, 1.3  # heights in which things stand in the way
MIN_VOXELS = 2  # of a column that is in the way
START_EVERY_S = 2.0
FOOTPRINT_M = (0.08, 0.25)  # where nobody says: as the way it drove allows, within this
BODY_SPREAD = (12.0, 30.0)  # of a brightness over time: less is the body, more is not
Say = Callable[[str, int, int], None]


@dataclass
class Learned:
    """What came out before it is written."""

    name: str
    place: MapOfPlace
    fit: MapFit
    grid: Grid
    fused: Fused
    camera: MountedCamera
    robot: Optional[Robot]
    has_arm: bool
    poses: np.ndarray  # (n, 3) in the scene
    motion: MotionFit
    radius_m: float  # of the footprint
    body: Optional[np.ndarray]  # (h, w, 4) uint8, drawn over every picture
    held_out: np.ndarray
    train: np.ndarray
    numbers: Dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LearnSpec:
    """What a user may choose."""

    name: str
    minutes: float = 8.0  # of computing on one core, for the map
    seed: int = 0
    robot: str = ''  # '' takes what the recording says
    footprint_m: float = 0.0  # 0: given by the robot, or estimated
    network: Path = WEIGHTS


def learn_place(recording: AlignedRecording, spec: LearnSpec, work: Path,
                say: Say = lambda what, done, total: None) -> Learned:
    """
    Learn a place.

    :param recording: with depth, poses, camera and where it is mounted
    :param spec: what the user chose
    :param work: folder for what takes long; kept, to go on from
    :param say: called with what is done, and how much of it
    :return: the world, not yet written
    :raises SpecError: the recording lacks something, or nothing came of it
    """
    check_recording(recording)
    torch.set_num_threads(1)  # two collapse when another process is busy
    torch.manual_seed(spec.seed)
    work.mkdir(parents=True, exist_ok=True)
    began, num = time.process_time(), recording.num_frames
    view = _set_up(recording, spec)
    held = held_out_frames(num, recording.rate_hz)
    train = np.arange(0, num - len(held))
    numbers: Dict[str, Any] = {'frames': num, 'seconds': num / recording.rate_hz,
                               'camera_levelled_by_deg': _rounded_deg(view.tilt_rad)}
    poses, size = in_scene(_registered(view, work, say, numbers), view)
    grid = grid_for(size)
    T = se3.pose_from_se2(poses) @ view.mounts
    some = train[::max(1, len(train) // FUSED_FRAMES)]
    fused = fuse(grid, lambda k: (view.seen(int(some[k])), T[some[k]]), len(some), view.camera,
                 lambda done, total: say('surfaces', done, total))
    numbers['cpu_s_before_fit'] = round(time.process_time() - began, 1)
    fit, picture = _fit_of(view, poses, fused, grid)
    _run(fit, train, spec, work, say, numbers)
    return _learned(view, spec, fit, fused, grid, picture, held, train, numbers)


@dataclass(frozen=True)
class _View:
    """A recording, and what is known of the camera and of the robot in its pictures."""

    recording: AlignedRecording
    mounts: np.ndarray  # (n or 1, 4, 4) T_base_optical, levelled
    tilt_rad: float  # by which they were wrong
    body: np.ndarray  # (h, w) bool: the robot itself, wherever it is still
    network: Renderer
    robot: Optional[Robot]
    camera: MountedCamera
    tensors: Dict[str, torch.Tensor]  # of the camera
    joints: Optional[np.ndarray]  # (n, j) of an arm that is drawn
    arm: '_ArmMask'

    def seen(self, i: int) -> np.ndarray:
        """Return the depth of a frame without the robot, (h, w) metres."""
        assert self.recording.depth is not None
        return np.where(self.body | self.arm.at(i), 0.0, np.asarray(self.recording.depth[i]))

    def mount(self, i: int) -> np.ndarray:
        """Return T_base_optical of a frame, (4, 4)."""
        return self.mounts[0] if len(self.mounts) == 1 else self.mounts[i]

    def upright(self, i: int) -> Points:
        """Return the walls that a frame sees."""
        return upright_points(self.seen(i), self.camera, self.mount(i), self.body)


def _set_up(recording: AlignedRecording, spec: LearnSpec) -> _View:
    """Look at the camera and the robot."""
    assert recording.depth is not None and recording.T_base_optical is not None
    some = np.linspace(0, recording.num_frames - 1, 90).astype(int)
    body = body_mask(np.asarray(recording.depth[some]))
    mounts, tilt = levelled(recording, np.asarray(recording.T_base_optical), body)
    network = shipped_network(spec.network)
    robot = load_robot(spec.robot) if spec.robot else None
    camera = mounted_camera(recording, mounts)
    tensors = camera_tensors(camera)
    has_arm = (robot is not None and robot.arm is not None and len(mounts) == 1
               and set(robot.joint_names) <= set(recording.joint_names))
    joints = joints_of(recording, robot) if has_arm else None
    return _View(recording, mounts, tilt, body, network, robot, camera, tensors, joints,
                 _ArmMask(network, tensors, joints))


def _fit_of(view: _View, poses: np.ndarray, fused: Fused, grid: Grid) -> Tuple[MapFit, np.ndarray]:
    """Prepare the fit, and the picture of what of the robot stays where it is."""
    recording, network = view.recording, view.network
    place = MapOfPlace(fused.sdf, grid.voxel_m, network.spec.plane_channels, MapSpec())
    has_arm = view.joints is not None
    own = view.body & ~view.arm.ever()  # an arm that is drawn is no part of it
    picture = body_picture(recording, own)
    mask = ~(own & (picture[..., 3] > 127)) if has_arm else ~own
    views = Views(recording.rgb, recording.depth, poses, view.mounts, mask, view.joints,
                  recording.rate_hz)
    return MapFit(views, place, MappedRenderer(network, MapSpec()), view.tensors,
                  has_arm), picture


def _learned(view: _View, spec: LearnSpec, fit: MapFit, fused: Fused, grid: Grid,
             picture: np.ndarray, held: np.ndarray, train: np.ndarray,
             numbers: Dict[str, Any]) -> Learned:
    """Learn how the base follows commands, and sum up."""
    recording, poses, robot = view.recording, fit.poses(), view.robot
    motion = fit_motion(poses, commands_of(recording), recording.segments, recording.rate_hz)
    scores = held_out_psnr(fit, held[::max(1, len(held) // 60)])
    numbers['held_out_psnr_db'] = round(float(np.mean(scores)), 2)
    numbers['held_out_psnr_p10_db'] = round(float(np.percentile(scores, 10)), 2)
    numbers['picture_lag_ms'] = round(1e3 * float(fit.corrections.lag_s.detach()), 2)
    numbers['motion_error'] = {f'{s:g} s': {'position_m': round(e[0], 4),
                                            'yaw_deg': _rounded_deg(e[1])}
                               for s, e in motion.error.items()}
    radius = spec.footprint_m or (robot.footprint.radius_m if robot else narrowest(
        fit.place, fused, grid, poses))
    return Learned(spec.name, fit.place, fit, grid, fused, view.camera, robot,
                   view.joints is not None, poses, motion, radius,
                   picture if (picture[..., 3] > 127).any() else None, held, train, numbers)


def _rounded_deg(angle_rad: float) -> float:
    return round(float(np.rad2deg(angle_rad)), 3)


class _ArmMask:
    """Where the arm is that the network draws, frame by frame; nowhere, if there is none."""

    def __init__(self, network: Renderer, camera: Dict[str, torch.Tensor],
                 joints: Optional[np.ndarray]) -> None:
        self._network, self._camera, self._joints = network, camera, joints
        self._nothing = np.zeros(camera['optical_rays'].shape[1:], bool)

    def at(self, i: int) -> np.ndarray:
        """Return the pixels near the arm, (h, w) bool."""
        if self._joints is None:
            return self._nothing
        return arm_near(self._network, self._camera, self._joints[i:i + 1])[0].numpy() > ARM_NEAR

    def ever(self) -> np.ndarray:
        """Return the pixels near the arm in any frame, of some all over the recording."""
        if self._joints is None:
            return self._nothing
        some = np.linspace(0, len(self._joints) - 1, 100).astype(int)
        return np.logical_or.reduce([self.at(int(i)) for i in some])


def check_recording(recording: AlignedRecording) -> None:
    """
    Refuse what a place cannot be learned from.

    :param recording: aligned
    :raises SpecError: names everything that is missing, and how to record it
    """
    missing = [told for value, told in (
        (recording.depth, 'a registered depth image'), (recording.base_pose, 'odometry or TF'),
        (recording.camera, 'camera_info'), (recording.T_base_optical, 'TF from base to camera'),
        (recording.action, 'velocity commands')) if value is None]
    if missing:
        raise SpecError(f'{recording.name}: a place cannot be learned without '
                        f'{", ".join(missing)}; "lingbot-world inspect" says how to record it.')
    if recording.num_frames < MIN_FRAMES:
        raise SpecError(f'{recording.name} has {recording.num_frames} frames, too few for a '
                        f'place; drive for four to five minutes (at least {MIN_FRAMES} frames).')
    width, height = recording.size_px
    if width % COARSE or height % COARSE:
        raise SpecError(f'{recording.name}: pictures of {width}x{height}; both have to be '
                        f'multiples of {COARSE}. Align it again in another size.')


def held_out_frames(num_frames: int, rate_hz: float) -> np.ndarray:
    """Return the frames at the end that nothing learns from."""
    low, high = (int(s * rate_hz) for s in HELD_OUT_S)
    return np.arange(num_frames - min(max(int(HELD_OUT_SHARE * num_frames), min(
        low, num_frames // 4)), high), num_frames)


def _registered(view: _View, work: Path, say: Say, numbers: Dict[str, Any]) -> np.ndarray:
    """Correct the poses, or take them over where they are those of a map."""
    recording = view.recording
    odometry = np.asarray(recording.base_pose, np.float64)
    if len(recording.segments) > 1 and recording.pose_frame != 'map':
        begin, end = max(recording.segments, key=lambda s: s[1] - s[0])
        if end - begin < 0.8 * recording.num_frames:
            raise SpecError(f'{recording.name} has {len(recording.segments)} stretches with gaps '
                            'between them; drive a place in one go, or record TF from map.')
    kept = work / 'poses.npy'
    if kept.exists():
        poses = np.load(kept)
        if poses.shape == odometry.shape:
            return poses
    if recording.pose_frame == 'map':
        return odometry
    every = max(1, int(round(recording.rate_hz / KEY_RATE_HZ)))
    found = register(odometry, view.upright, every,
                     lambda done, total: say('poses', done, total))
    numbers['registration_residual_mm'] = round(1e3 * float(np.median(found.residual_m)), 2) \
        if len(found.residual_m) else None
    numbers['views_not_registered'] = found.num_lost
    np.save(kept, found.pose)
    return found.pose


def in_scene(poses: np.ndarray, view: _View) -> Tuple[np.ndarray, np.ndarray]:
    """
    Turn a place so that its walls are along x and y, and put its lowest corner to the origin.

    :param poses: (n, 3)
    :param view: the recording
    :return: (n, 3) poses in the scene, and its size (3,) metres
    """
    points, normals = [], []
    for i in range(0, len(poses), max(1, len(poses) // 150)):
        found = view.upright(i)
        xy = poses[i, :2] + se2.rotated(found.xyz[:, :2], poses[i, 2])
        points.append(np.column_stack([xy, found.xyz[:, 2]]))
        normals.append(se2.rotated(found.normal, poses[i, 2]))
    cloud = np.concatenate(points)
    if len(cloud) < 500:
        raise SpecError(f'{view.recording.name}: next to no walls in the depth images; look at '
                        'them, and at TF from base to camera, with "lingbot-world inspect".')
    angle, _ = main_direction(np.concatenate(normals))
    turned = np.column_stack([se2.rotated(cloud[:, :2], -angle), cloud[:, 2]])
    way = se2.rotated(poses[:, :2], -angle)
    low = np.minimum(np.percentile(turned[:, :2], 0.2, 0), way.min(0) - 0.3)
    high = np.maximum(np.percentile(turned[:, :2], 99.8, 0), way.max(0) + 0.3)
    top = float(np.clip(np.percentile(turned[:, 2], 99.8), 1.0, 4.0))
    return (np.column_stack([way - low, poses[:, 2] - angle]),
            np.array([*(high - low), top]))


def _run(fit: MapFit, train: np.ndarray, spec: LearnSpec, work: Path, say: Say,
         numbers: Dict[str, Any]) -> None:
    """Fit, or go on fitting."""
    path, used_s, step = work / 'checkpoint.pt', 0.0, 0
    budget_s = 60.0 * spec.minutes
    if path.exists():
        saved = torch.load(path, weights_only=True)
        try:
            for name, part in fit.parts.items():
                part.load_state_dict(saved[name])
            used_s, step = saved['used_s'], saved['step']
        except (KeyError, ValueError, RuntimeError):
            used_s, step = 0.0, 0  # of another recording
    next_save = [used_s / budget_s + 0.1]
    say('map', int(1000 * min(used_s / budget_s, 1.0)), 1000)

    def on_step(progress: float, number: int) -> None:
        say('map', int(1000 * min(progress, 1.0)), 1000)
        if progress >= next_save[0] or pause.is_asked:
            next_save[0] = progress + 0.1
            state = {name: part.state_dict() for name, part in fit.parts.items()}
            torch.save({**state, 'used_s': progress * budget_s, 'step': number},
                       work / 'checkpoint.tmp')
            (work / 'checkpoint.tmp').replace(path)
        pause.take()

    with Pause() as pause:
        numbers['steps'] = run_fit(fit, train, budget_s, time.process_time, spec.seed, on_step,
                                   used_s, step)
    numbers['cpu_s_of_fit'] = budget_s


def floor_plan(sdf: np.ndarray, seen: np.ndarray, voxel_m: float, height_m: float,
               driven: np.ndarray, radius_m: float) -> Tuple[np.ndarray, np.ndarray]:
    """
    Look at a grid from above; where the robot has been, nothing stands.

    :param sdf: (x, y, z) metres
    :param seen: (x, y, z) bool
    :param voxel_m: between corners
    :param height_m: of the robot: what hangs higher is not in its way
    :param driven: (n, 2) where its middle was, scene frame
    :param radius_m: of what was under it then
    :return: (y, x) uint8 of ``OCCUPIED``, ``FREE``, ``UNKNOWN``; (y, x) metres to what is occupied
    """
    z = np.arange(sdf.shape[2]) * voxel_m - MARGIN_M
    band = (z > PLAN_LOW_M) & (z < max(height_m, PLAN_LOW_M + voxel_m))
    solid = (sdf[:, :, band] < 0.25 * voxel_m).sum(2) >= MIN_VOXELS  # less is a speck of noise
    known = seen[:, :, band].any(2)
    been = np.ones_like(solid)
    i, j = np.rint((driven + MARGIN_M) / voxel_m).astype(int).T
    been[np.clip(i, 0, len(been) - 1), np.clip(j, 0, been.shape[1] - 1)] = False
    been = distance_transform_edt(been, voxel_m) < radius_m
    solid, known = solid & ~been, known | been
    plan = np.where(solid, OCCUPIED, np.where(known, FREE, UNKNOWN)).astype(np.uint8).T
    outside = distance_transform_edt(~solid, voxel_m)
    inside = distance_transform_edt(solid, voxel_m)
    clearance = np.where(solid, 0.5 * voxel_m - inside, outside - 0.5 * voxel_m).T
    # The file takes memory as it lies.
    return np.ascontiguousarray(plan), np.ascontiguousarray(clearance, np.float32)


def write_place(learned: Learned, folder: Path) -> None:
    """
    Write the files of a world, but for what is measured with them.

    :param learned: what came out
    :param folder: new
    """
    folder.mkdir(parents=True)
    place, grid = learned.place, learned.grid
    sdf = place.sdf.detach().numpy()
    robot = learned.robot
    height = robot.footprint.height_m if robot else PLAN_HIGH_M
    plan, clearance = floor_plan(sdf, learned.fused.seen, grid.voxel_m, height,
                                 learned.poses[:, :2], learned.radius_m)
    every = max(1, int(START_EVERY_S * learned.fit.views.rate_hz))
    starts = learned.poses[learned.train][::every]
    joints = (learned.fit.views.joints[learned.train][::every]
              if learned.fit.views.joints is not None
              else np.zeros((len(starts), len(robot.joints) if robot else 0)))
    with torch.no_grad():
        tensors = place.tensors()
    seen = torch.from_numpy(learned.fused.seen.astype(np.float32))
    # Corners lie in the middle of the plan's cells.
    origin = -MARGIN_M - 0.5 * grid.voxel_m
    over = {} if learned.body is None else {'body': learned.body}
    save_file({**over, 'sdf': sdf.astype(np.float16),
               'seen': learned.fused.seen.astype(np.float16),
               'grid': tensors['grid'].numpy(),
               **{name: tensors[name].half().numpy() for name in tensors if 'plane' in name},
               'plan': plan, 'clearance': clearance.astype(np.float16),
               'plan_origin': np.array([origin, origin, grid.voxel_m]),
               'starts': np.ascontiguousarray(starts),
               'poses': np.ascontiguousarray(learned.poses),
               'start_joints': np.asarray(joints, np.float64)}, folder / MAP)
    (folder / MAP).chmod(folder.stat().st_mode & 0o666)  # others may read it, as the folder
    export_place(learned.fit.renderer, {**tensors, 'seen': pack_atlas(seen)},
                 camera_tensors(learned.camera), learned.has_arm, folder / GRAPH)


def narrowest(place: MapOfPlace, fused: Fused, grid: Grid, poses: np.ndarray) -> float:
    """
    Guess the footprint of a robot of which nobody says it: it fitted everywhere it was.

    :param place: fitted
    :param fused: what was seen
    :param grid: of both
    :param poses: (n, 3) in the scene
    :return: radius, metres
    """
    plan, clearance = floor_plan(place.sdf.detach().numpy(), fused.seen, grid.voxel_m, PLAN_HIGH_M,
                                 poses[:, :2], FOOTPRINT_M[0])
    i, j = np.rint((poses[:, :2] + MARGIN_M) / grid.voxel_m).astype(int).T
    near = clearance[np.clip(j, 0, len(plan) - 1), np.clip(i, 0, plan.shape[1] - 1)]
    return float(np.clip(np.percentile(near, 0.5), *FOOTPRINT_M))


def body_picture(recording: AlignedRecording, body: np.ndarray) -> np.ndarray:
    """
    Picture the robot's own body, which is in every frame at the same place.

    :param recording: with pictures
    :param body: (h, w) where it may be
    :return: (h, w, 4) uint8 red, green, blue, and how much of a pixel is the body
    """
    some = np.asarray(recording.rgb[np.linspace(0, recording.num_frames - 1, 60).astype(int)],
                      np.float32)
    spread_ = some.std(0).mean(-1)
    share = np.clip((BODY_SPREAD[1] - spread_) / (BODY_SPREAD[1] - BODY_SPREAD[0]), 0.0, 1.0)
    return np.ascontiguousarray(np.concatenate(
        [np.median(some, 0), 255.0 * (share * body)[..., None]], -1) + 0.5).astype(np.uint8)


def joint_follow(recording: AlignedRecording, robot: Optional[Robot]) -> List[float]:
    """
    Find how quickly joints follow velocities.

    :param recording: with joint positions, and velocities commanded
    :param robot: whose joints
    :return: share of the way to a commanded velocity that is made in a frame, one for each joint
    """
    out: List[float] = []
    for joint in robot.joints if robot else ():
        name = f'{joint.name}.velocity'
        if recording.action is None or name not in recording.action_names \
                or recording.joint_position is None:
            out.append(float(1.0 - np.exp(-1.0 / (recording.rate_hz * max(joint.lag_s, 1e-3)))))
            continue
        q = np.asarray(recording.joint_position)[:, recording.joint_names.index(joint.name)]
        u = np.asarray(recording.action)[:, recording.action_names.index(name)]
        v = np.diff(q) * recording.rate_hz
        change, room = v[1:] - v[:-1], u[1:-1] - v[:-1]
        inside = (q[2:] > joint.low + 1e-3) & (q[2:] < joint.high - 1e-3)
        power = float((room[inside] ** 2).sum())
        out.append(float(np.clip((change[inside] * room[inside]).sum() / power, 0.05, 1.0))
                   if power > 1e-9 else 1.0)
    return out


def camera_entry(camera: MountedCamera) -> Dict[str, Any]:
    """Write a camera as ``world.yaml`` has it."""
    return {name: [float(v) for v in value] if isinstance(value, tuple) else value
            for name, value in asdict(camera).items()}


def remove(folder: Path) -> None:
    """Take a folder away that was not finished."""
    shutil.rmtree(folder, ignore_errors=True)
