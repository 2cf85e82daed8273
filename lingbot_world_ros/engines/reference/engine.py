# SPDX-License-Identifier: Apache-2.0
"""
The reference world: MuJoCo behind the same interface as the learned worlds.

Training data, ground truth, and a classical simulator to put next to the imagined one.
Deterministic by scene, seed and actions. Rendering is headless (EGL, else OSMesa).
"""
import atexit
from dataclasses import replace
import os
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple, Union
import weakref

import cv2
from lingbot_world_ros.actions.layout import robot_action_layout
from lingbot_world_ros.engines.interface import (Capabilities, Observation, Rows, Scenes, Seeds,
                                                 Start, State, WorldModel, WorldSpec)
from lingbot_world_ros.engines.rows import (check_actions, check_state, chosen_rows, row_starts,
                                            rows_for, side_by_side, with_rows)
from lingbot_world_ros.errors import shown, SpecError
from lingbot_world_ros.geometry import se2
from lingbot_world_ros.geometry.camera import MountedCamera
from lingbot_world_ros.robots.load import load_robot
from lingbot_world_ros.robots.robot import Robot
from lingbot_world_ros.worlds.scenes import get_scene, Scene, SCENES, StartState
import numpy as np

if 'MUJOCO_GL' not in os.environ and not os.environ.get('DISPLAY'):
    os.environ['MUJOCO_GL'] = 'egl'

NO_DRAWING = ('The reference world cannot draw ({}). It needs OpenGL without a screen: install '
              'libegl1 and libgl1-mesa-dri, and set MUJOCO_GL=egl.')

try:
    import mujoco  # noqa: E402, I100, I202  reads MUJOCO_GL when imported
except (AttributeError, OSError, RuntimeError) as error:  # of the OpenGL it asks for
    raise SpecError(NO_DRAWING.format(error)) from error

from lingbot_world_ros.engines.reference.mjcf import (HEAD, scene_mjcf,  # noqa: E402, I100
                                                      TIMESTEPS_PER_FRAME, WRIST)

CAN = Capabilities(render=True, keep_scenes=True, know_truth=True)
STATE = mujoco.mjtState.mjSTATE_INTEGRATION  # of a row
SUPERSAMPLING = 2  # rendered this much larger per axis, then averaged: MuJoCo's own AA is slow


_OPEN: 'weakref.WeakSet[ReferenceScene]' = weakref.WeakSet()  # scenes with a rendering context


def _close_renderers() -> None:
    """Free contexts at exit, before the GL library goes; afterwards it only raises."""
    for scene in list(_OPEN):
        scene.close()


def _check_drawable(robot: Robot) -> None:
    """Refuse joints that are no arm: this world draws a round base, an arm, a fixed camera."""
    if robot.cameras[0].moves or (robot.joints and robot.arm is None):
        raise SpecError(f'robot {shown(robot.name)}: the reference world draws only a round base, '
                        'an arm like the shipped one and a camera that no joint moves; leave '
                        'other joints out of the YAML, or use another engine '
                        '(docs/your_own_robot.md).')


class ReferenceScene:
    """One robot in one scene: the MuJoCo model, its state and its camera."""

    def __init__(self, scene: Scene, robot: Optional[Robot] = None,
                 frame_rate_hz: float = 15.0) -> None:
        """
        Compile the scene; the renderer is made when the first image is asked for.

        :raises SpecError: a robot that this world cannot draw
        """
        robot = robot or load_robot()
        _check_drawable(robot)
        text, files = scene_mjcf(scene, robot, frame_rate_hz)
        self.scene, self.robot = scene, robot
        self.model = mujoco.MjModel.from_xml_string(text, files)
        self.data = mujoco.MjData(self.model)
        # camera, supersampling -> its off-screen buffer
        self._renderers: Dict[Tuple[str, int], '_Renderer'] = {}
        joint = self.model.joint
        self._base = [joint(n).qposadr[0] for n in ('base_x', 'base_y', 'base_yaw')]
        self._arm = [joint(n).qposadr[0] for n in robot.joint_names]
        self._mirror = [joint('right_finger').qposadr[0]] if robot.joints else []
        self._objects = np.array([[joint(f'{m.name}_{a}').qposadr[0] for a in ('x', 'y', 'yaw')]
                                  for m in scene.movables], int).reshape(-1, 3)
        self._base_geom = self.model.geom('base_collision').id

    def set_state(self, state: StartState) -> None:
        """Put everything at rest at a state."""
        mujoco.mj_resetData(self.model, self.data)
        q = self.data.qpos
        q[self._base] = state.base_pose
        q[self._arm] = state.joint_position
        q[self._mirror] = state.joint_position[-1:]
        q[self._objects] = state.object_pose
        mujoco.mj_forward(self.model, self.data)

    def set_speed(self, base_twist: np.ndarray, joint_velocity: np.ndarray) -> None:
        """Set the base's twist (3,) in base_link and the joint speeds (j,)."""
        self.data.qvel[self._base] = se2.rotated(base_twist, self.data.qpos[self._base[2]])
        self.data.qvel[self._arm] = joint_velocity
        mujoco.mj_forward(self.model, self.data)

    def step(self, action: np.ndarray) -> None:
        """
        Advance one camera frame.

        :param action: (a,) base v_x [m/s], v_y [m/s] if it strafes, w_z [rad/s] in base_link,
            then joint velocities
        """
        ctrl, strafes = self.data.ctrl, self.robot.drive.strafes
        ctrl[2:] = action[1 + strafes:]
        yaw = self._base[2]
        for _ in range(TIMESTEPS_PER_FRAME):
            c, s = np.cos(self.data.qpos[yaw]), np.sin(self.data.qpos[yaw])
            ctrl[:2] = action[0] * c, action[0] * s
            if strafes:
                ctrl[:2] += -action[1] * s, action[1] * c
            mujoco.mj_step(self.model, self.data)
        mujoco.mj_forward(self.model, self.data)  # contacts of the state that is shown

    @property
    def base_pose(self) -> np.ndarray:
        """(3,) float64: x, y [m], yaw [rad] in the scene frame."""
        return self.data.qpos[self._base].copy()

    @property
    def base_twist(self) -> np.ndarray:
        """(3,) float64: v_x, v_y [m/s], w_z [rad/s] in base_link."""
        return se2.rotated(self.data.qvel[self._base], -self.data.qpos[self._base[2]])

    @property
    def joint_position(self) -> np.ndarray:
        """(j,) float64: rad or m."""
        return self.data.qpos[self._arm].copy()

    @property
    def joint_velocity(self) -> np.ndarray:
        """(j,) float64: rad/s or m/s."""
        return self.data.qvel[self._arm].copy()

    @property
    def object_pose(self) -> np.ndarray:
        """(n, 3) float64: x, y [m], yaw [rad] in the scene frame."""
        return self.data.qpos[self._objects].copy()

    @property
    def contact(self) -> bool:
        """Whether the base touches anything."""
        pairs = self.data.contact.geom[:self.data.ncon]
        return bool((pairs == self._base_geom).any())

    def render(self, groups: Sequence[int] = (0, 1, 2),
               supersampling: int = SUPERSAMPLING,
               camera: str = HEAD) -> Tuple[np.ndarray, np.ndarray]:
        """
        Draw a camera.

        :param groups: visible geom groups: 0 static, 1 robot, 2 movable objects
        :param supersampling: rendered pixels per image pixel and axis
        :param camera: ``HEAD``, or ``WRIST`` where the robot has a second one
        :return: rgb (h, w, 3) uint8, depth (h, w) float32 metres along the optical axis
        """
        which = camera, supersampling
        if which not in self._renderers:
            own = self.robot.cameras[camera == WRIST].camera
            self._renderers[which] = _Renderer(self.model, own, camera, supersampling)
            if not _OPEN:  # exit runs in reverse order, and the first context registered GL's
                atexit.register(_close_renderers)
            _OPEN.add(self)
        return self._renderers[which].draw(self.data, groups)

    def arm_mask(self) -> np.ndarray:
        """Pixels where the robot is nearer than everything else, (h, w) bool."""
        with_arm = self.render(supersampling=1)[1]
        without = self.render(groups=(0, 2), supersampling=1)[1]
        return with_arm < without - 1e-3

    def close(self) -> None:
        """Free the rendering contexts."""
        while self._renderers:
            self._renderers.popitem()[1].close()


class _Renderer:
    """An off-screen buffer and what is needed to read colour and depth from one pass."""

    def __init__(self, model: Any, camera: MountedCamera, name: str, supersampling: int) -> None:
        self.supersampling = supersampling
        width, height = camera.width_px * supersampling, camera.height_px * supersampling
        try:
            self._gl = mujoco.GLContext(width, height)
            self._gl.make_current()
            self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        except (AttributeError, OSError, RuntimeError, mujoco.FatalError) as error:
            raise SpecError(NO_DRAWING.format(error)) from error
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self._scene = mujoco.MjvScene(model, maxgeom=500)
        self._option = mujoco.MjvOption()
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._camera.fixedcamid = model.camera(name).id
        self._model = model
        self._viewport = mujoco.MjrRect(0, 0, width, height)
        self._rgb = np.empty((height, width, 3), np.uint8)
        self._depth = np.empty((height, width), np.float32)
        self._near = model.vis.map.znear * model.stat.extent
        self._far = model.vis.map.zfar * model.stat.extent

    def draw(self, data: Any, groups: Sequence[int]) -> Tuple[np.ndarray, np.ndarray]:
        self._gl.make_current()
        self._option.geomgroup[:] = 0
        self._option.geomgroup[list(groups)] = 1
        mujoco.mjv_updateScene(self._model, data, self._option, None, self._camera,
                               mujoco.mjtCatBit.mjCAT_ALL, self._scene)
        mujoco.mjr_render(self._viewport, self._scene, self._context)
        mujoco.mjr_readPixels(self._rgb, self._depth, self._viewport, self._context)
        depth = self._metres(self._depth[::-1])
        rgb = self._rgb[::-1]
        if self.supersampling == 1:
            return rgb.copy(), depth
        h, w = depth.shape[0] // self.supersampling, depth.shape[1] // self.supersampling
        return cv2.resize(rgb, (w, h), interpolation=cv2.INTER_AREA), _second_nearest(depth)

    def _metres(self, buffer: np.ndarray) -> np.ndarray:
        """OpenGL depth 0..1 -> metres; MuJoCo clears with reversed z in newer versions."""
        near, far = np.float32(self._near), np.float32(self._far)
        return near * far / (far - buffer * (far - near))

    def close(self) -> None:
        self._context.free()
        self._gl.free()


def _second_nearest(depth: np.ndarray) -> np.ndarray:
    """
    Halve a depth image without inventing depths between foreground and background.

    :param depth: (2 h, 2 w) metres
    :return: (h, w), of every 2 x 2 block the second smallest
    """
    a, b, c, d = depth[::2, ::2], depth[::2, 1::2], depth[1::2, ::2], depth[1::2, 1::2]
    low, high = np.minimum(a, b), np.maximum(a, b)
    low_2, high_2 = np.minimum(c, d), np.maximum(c, d)
    return np.minimum(np.maximum(low, low_2), np.minimum(high, high_2))


class _Row(NamedTuple):
    """One world of the batch; never changed, a step makes another one."""

    scene: str
    state: np.ndarray  # all that MuJoCo needs to go on


def _saved(sim: ReferenceScene) -> _Row:
    state = np.empty(mujoco.mj_stateSize(sim.model, STATE))
    mujoco.mj_getState(sim.model, sim.data, state, STATE)
    return _Row(sim.scene.name, state)


class ReferenceWorld(WorldModel):
    """MuJoCo as a ``WorldModel``; the worlds of a batch are stepped one after the other."""

    def __init__(self, batch_size: int = 1, arm_mask: bool = False,
                 robot: Union[Robot, str] = '') -> None:
        """
        Prepare a batch of worlds.

        :param batch_size: worlds side by side
        :param arm_mask: put ``arm_mask`` (b, t, h, w) bool into ``Observation.extra``
        :param robot: a robot, or what ``load_robot`` takes; '' is the one that ships
        :raises SpecError: bad batch size; no such robot, or one that this world cannot draw
        """
        robot = load_robot(robot)
        _check_drawable(robot)
        if batch_size < 1:
            raise SpecError(f'batch_size={batch_size} must be at least 1.')
        self.spec = WorldSpec(engine='reference', model=f'mujoco {mujoco.__version__}',
                              scenes=tuple(SCENES), robot=robot,
                              action=robot_action_layout(robot), has_depth=True,
                              can=replace(CAN, watch_wrist=len(robot.cameras) > 1),
                              predicted_states=('base', 'joints', 'contact', 'objects'))
        self.batch_size, self._arm_mask = batch_size, arm_mask
        self._wrist_is_watched = False
        self._compiled: Dict[str, ReferenceScene] = {}  # the one model of all rows in a scene
        self._rows: List[_Row] = []  # none before the first reset

    def reset(self, scenes: Scenes, seeds: Seeds, rows: Rows = None, *, render: bool = True,
              start: Optional[Start] = None) -> Observation:
        """Start rows over; see ``WorldModel.reset``."""
        fresh, shown = {}, []
        for place in row_starts(scenes, seeds, rows, self.batch_size, self.spec):
            sim = self._sim(place.scene)
            sim.set_state(get_scene(place.scene).start_state(
                place.seed, self.spec.robot))
            fresh[place.row] = _saved(sim)
            shown.append(self._shown(sim, render))
        self._rows = with_rows(self._rows, fresh, self.batch_size)
        return side_by_side(shown)

    def step(self, actions: np.ndarray, render: bool = True) -> Observation:
        """Advance one frame; see ``WorldModel.step``."""
        check_actions(actions, self.batch_size, self.spec)
        moved, shown = [], []
        for row, action in zip(self._rows, np.asarray(actions, np.float64)[:, 0]):
            sim = self._loaded(row)
            sim.step(action)
            moved.append(_saved(sim))
            shown.append(self._shown(sim, render))
        self._rows = moved
        return side_by_side(shown)

    def object_names(self, scene: str) -> Tuple[str, ...]:
        """Return the names of the movable objects; see ``WorldModel.object_names``."""
        return tuple(movable.name for movable in get_scene(scene).movables)

    def observe(self, observation: Observation, render: bool = True) -> Observation:
        """Take over observed poses, twists, joints and objects; see ``WorldModel.observe``."""
        seen = State.of(observation)
        self._check(seen)
        told, shown = [], []
        for i, row in enumerate(self._rows):
            sim = self._put(row, seen, i)
            sim.set_speed(observation.base_twist[i, -1], observation.joint_velocity[i, -1])
            told.append(_saved(sim))
            shown.append(self._shown(sim, render))
        self._rows = told
        return side_by_side(shown)

    def render(self, state: State) -> Observation:
        """Draw a state that came from elsewhere; see ``WorldModel.render``."""
        self._check(state)
        return side_by_side([self._shown(self._put(row, state, i), True)
                             for i, row in enumerate(self._rows)])

    def watch_wrist(self, is_watched: bool) -> None:
        """Draw the camera at the wrist too, or no more; see ``WorldModel.watch_wrist``."""
        if not self.spec.can.watch_wrist:
            return super().watch_wrist(is_watched)
        self._wrist_is_watched = is_watched

    def snapshot(self, rows: Rows = None) -> Tuple[_Row, ...]:
        """Return the state of rows."""
        return tuple(self._rows[i] for i in chosen_rows(rows, self.batch_size))

    def restore(self, snapshot: Tuple[_Row, ...], rows: Rows = None) -> None:
        """Put rows into the state of a snapshot."""
        taken = rows_for(snapshot, rows, self.batch_size)
        self._rows = with_rows(self._rows, taken, self.batch_size)

    def close(self) -> None:
        """Free the rendering contexts; call it in the thread that rendered."""
        for sim in self._compiled.values():
            sim.close()

    def _sim(self, scene: str) -> ReferenceScene:
        """Return the simulation of a scene, compiled when it is first needed."""
        if scene not in self._compiled:
            self._compiled[scene] = ReferenceScene(get_scene(scene), self.spec.robot,
                                                   self.spec.frame_rate_hz)
        return self._compiled[scene]

    def _loaded(self, row: _Row) -> ReferenceScene:
        """Return the simulation of a row, in its state."""
        sim = self._sim(row.scene)
        mujoco.mj_setState(sim.model, sim.data, row.state, STATE)
        mujoco.mj_forward(sim.model, sim.data)
        return sim

    def _put(self, row: _Row, known: State, i: int) -> ReferenceScene:
        """Return the simulation of a row, at rest in a row of what is known."""
        sim = self._sim(row.scene)
        sim.set_state(StartState(known.base_pose[i], known.joint_position[i],
                                 known.object_pose[i]))
        return sim

    def _check(self, state: State) -> None:
        num_objects = len(self.object_names(self._rows[0].scene))
        check_state(state, self.batch_size, num_objects, self.spec)

    def _shown(self, sim: ReferenceScene, render: bool) -> Observation:
        """Look at a simulation; nothing of it is shared."""
        rgb, depth = sim.render() if render else (None, None)
        wrist = sim.render(camera=WRIST)[0] if render and self._wrist_is_watched else None
        seen: Dict[str, Any] = dict(
            rgb=rgb, depth_m=depth, wrist_rgb=wrist, base_pose=sim.base_pose,
            base_twist=sim.base_twist,
            joint_position=sim.joint_position, joint_velocity=sim.joint_velocity,
            contact=np.float32(sim.contact), object_pose=sim.object_pose)
        extra = {'arm_mask': sim.arm_mask()[None, None]} if render and self._arm_mask else {}
        columns: Dict[str, Any] = {name: None if value is None else np.asarray(value)[None, None]
                                   for name, value in seen.items()}
        return Observation(**columns, extra=extra)
