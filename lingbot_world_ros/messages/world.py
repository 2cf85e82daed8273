# SPDX-License-Identifier: Apache-2.0
"""What a world is and how it is doing -> WorldSpec, WorldStatus, diagnostic_msgs."""
from array import array
from math import isnan, nan
from typing import Optional, Tuple

from diagnostic_msgs.msg import DiagnosticArray
from lingbot_world_ros.actions.command_spec import CommandSpec
from lingbot_world_ros.actions.embedding import CarriedCamera
from lingbot_world_ros.actions.layout import ActionDim, ActionLayout
from lingbot_world_ros.actions.limits import Limits
from lingbot_world_ros.engines.interface import WorldSpec
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.messages.camera_info import camera_from_msg
from lingbot_world_ros.messages.diagnostics import entry_to_msg, ERROR, OK, WARN
from lingbot_world_ros.messages.frames import transform_from_msg, transform_to_msg
from lingbot_world_ros.messages.stamps import set_stamp
from lingbot_world_ros.msg import WorldSpec as WorldSpecMsg, WorldStatus as WorldStatusMsg
from lingbot_world_ros.robots.urdf import optical_in_link, RobotModel
from lingbot_world_ros.session.states import Fault, Mode, State
from lingbot_world_ros.session.status import SessionStatus
import numpy as np

STATES = {State.STOPPED: WorldStatusMsg.STATE_STOPPED,
          State.PLAYING: WorldStatusMsg.STATE_PLAYING,
          State.PAUSED: WorldStatusMsg.STATE_PAUSED,
          State.NO_WORLD: WorldStatusMsg.STATE_NO_WORLD,
          State.LOADING: WorldStatusMsg.STATE_LOADING_WORLD,
          State.ERROR: WorldStatusMsg.STATE_ERROR}
FRAME_RATES_HZ = (0.001, 1e6)  # beyond them whole nanoseconds do not tell frames apart
MAX_FRAMES = 1000  # of a step, more than any engine makes
SLOW_FACTOR = 0.95  # below this share of the asked speed a world counts as slow


def world_spec_to_msg(spec: WorldSpec, status: SessionStatus, frame_id: str) -> WorldSpecMsg:
    """
    Describe a running world.

    :param spec: of the engine
    :param status: of the session, right after a reset
    :param frame_id: base frame, which carries the camera
    :return: the message, to be latched
    """
    joints, limit = spec.joints, spec.uncertainty_limit
    msg = WorldSpecMsg(
        engine=spec.engine, model=spec.model, scene=status.scene, scenes=list(spec.scenes),
        world=status.world, world_resource=status.world_text, mode=status.mode.value,
        seed=status.seed, width=spec.camera.width_px, height=spec.camera.height_px,
        k=spec.camera.k.ravel(),
        camera_pose=transform_to_msg(spec.camera.T_base_optical), camera_parent=frame_id,
        free_camera=spec.free_camera, frame_rate=spec.frame_rate_hz,
        frames_per_step=spec.frames_per_step, step_dt=spec.step_dt_s,
        action_names=list(spec.action.names), action_units=[d.unit for d in spec.action.dims],
        action_min=[float(d.low) for d in spec.action.dims],
        action_max=[float(d.high) for d in spec.action.dims],
        joint_names=[j.name for j in joints], joint_position_min=[float(j.low) for j in joints],
        joint_position_max=[float(j.high) for j in joints],
        predicted_states=list(spec.predicted_states),
        integrated_states=list(spec.integrated_states), has_depth=spec.has_depth,
        uncertainty_limit=nan if limit is None else float(limit),
        takes_text=spec.takes_text, takes_images=spec.takes_images)
    msg.header.frame_id = frame_id
    set_stamp(msg.header.stamp, status.stamp_ns)
    return msg


def command_spec_from_msg(msg: WorldSpecMsg, timeout_s: float,
                          limits: Limits = Limits()) -> CommandSpec:
    """
    Read what can be commanded.

    :param msg: description of the world
    :param timeout_s: time after which velocities become zero; sim time unless the mode is realtime
    :param limits: that the user asks for
    :return: layout, joints and limits
    :raises SpecError: sizes that fit nothing, or a layout that cannot carry the commands
    """
    low_hz, high_hz = FRAME_RATES_HZ
    if not low_hz <= msg.frame_rate <= high_hz or not 1 <= msg.frames_per_step <= MAX_FRAMES:
        raise SpecError(f'world_spec: frame_rate={msg.frame_rate} must be {low_hz} to {high_hz} '
                        f'Hz, frames_per_step={msg.frames_per_step} 1 to {MAX_FRAMES}.')
    columns = (msg.action_names, msg.action_units, msg.action_min, msg.action_max)
    if len(set(map(len, columns))) > 1:
        raise SpecError('world_spec: action_names, units, min and max are not of one length.')
    layout = ActionLayout(tuple(ActionDim(*dim) for dim in zip(*columns)))
    return CommandSpec(
        layout, tuple(msg.joint_names), tuple(msg.joint_position_min),
        tuple(msg.joint_position_max), timeout_s, limits=limits,
        ages_in_sim_time=msg.mode in (Mode.STEPPED, Mode.LOCKSTEP))


def carried_camera_from_msg(msg: WorldSpecMsg, robot: Optional[RobotModel] = None,
                            link: str = '') -> CarriedCamera:
    """
    Read the camera a WorldSpec describes.

    :param msg: description of the world
    :param robot: kinematics of the robot, None if it is not known
    :param link: link to put the camera on instead; '' leaves it where the world has it
    :return: the camera, moving with the arm where its link does
    :raises SpecError: the engine's camera cannot be put there, or is not in pixels
    """
    with np.errstate(invalid='ignore'):  # a quaternion of zeros is told below
        T_link_optical = transform_from_msg(msg.camera_pose)
    camera = camera_from_msg(msg, 'world_spec')
    if not np.isfinite(T_link_optical).all():
        raise SpecError('world_spec: camera_pose is no pose.')
    parent = '' if msg.camera_parent == msg.header.frame_id else msg.camera_parent
    if link and not msg.free_camera:
        raise SpecError(f'camera_link={link!r}: the camera of engine {msg.engine!r} stays where '
                        'it is; leave camera_link empty, or take an engine with a free camera.')
    if not msg.free_camera or not (link or parent):
        return CarriedCamera(camera, T_link_optical)
    if robot is None:
        raise SpecError(f'The camera sits on {link or parent!r}: set robot_description, which '
                        'says how that moves.')
    if not link:  # the frame name may carry the prefix of one robot among several
        link = parent if parent in robot.links else parent.rpartition('/')[2]
    elif link != parent.rpartition('/')[2]:
        T_link_optical = optical_in_link(link)
    joints = tuple(msg.joint_names)

    def poses_of(positions: np.ndarray) -> np.ndarray:
        T_base_link = robot.link_pose(link, dict(zip(joints, positions.T)))
        return np.broadcast_to(T_base_link @ T_link_optical, (len(positions), 4, 4))

    start = poses_of(np.zeros((1, len(joints))))[0]
    return CarriedCamera(camera, start, poses_of)


def problem_of(status: SessionStatus) -> str:
    """Return the newest problem in words, the engine's before the commands'; '' if all is well."""
    return status.message or status.counts.message


def world_status_to_msg(status: SessionStatus,
                        out: Optional[WorldStatusMsg] = None) -> WorldStatusMsg:
    """
    Report how a world is doing.

    :param status: of the session
    :param out: message to fill again; None makes one
    :return: the message
    """
    out = out or WorldStatusMsg()
    set_stamp(out.header.stamp, status.stamp_ns)
    out.state, out.mode = STATES[status.state], status.mode.value
    out.fault, out.recoveries = int(status.fault), status.recoveries
    out.scene, out.seed = status.scene, status.seed
    out.step, out.frame = status.step, status.frame
    out.embedding_sequence = status.embedding_sequence
    out.actions = array('f', () if status.actions is None else np.ravel(status.actions))
    out.anchor = array('d', status.anchor)
    out.prompt, out.images_anchored = status.prompt, status.images_anchored
    out.digest = status.digest
    out.real_time_factor, out.frame_rate = status.real_time_factor, status.frame_rate_hz
    out.step_duration, out.command_latency = status.step_duration_s, status.command_latency_s
    out.uncertainty = status.uncertainty
    out.uncertainty_calibrated = status.calibrated and not isnan(status.uncertainty)
    out.contact = status.contact
    out.rejected_commands = status.counts.rejected + status.rejected_embeddings
    out.clipped_commands = status.counts.clipped
    out.timed_out_commands = status.counts.timed_out
    out.lockstep_timeouts, out.late_frames = status.lockstep_timeouts, status.late_frames
    out.message = problem_of(status)
    return out


def diagnostics_to_msg(status: SessionStatus, spec: WorldSpec, speed: float,
                       node: str) -> DiagnosticArray:
    """
    Report problems in the form robot operators watch.

    :param status: of the session
    :param spec: of the engine
    :param speed: asked sim seconds per wall second, 0 for no wish
    :param node: node name, first part of the entry's name
    :return: one entry; WARN when slow, uncalibrated or commands were refused; ERROR when the
        engine failed
    """
    level, message = _verdict(status, speed)
    values = {
        'world': status.world, 'scene': status.scene, 'seed': status.seed, 'mode': status.mode,
        'state': status.state, 'fault': _fault_name(status),
        'recoveries': status.recoveries, 'lockstep timeouts': status.lockstep_timeouts,
        'frame rate [Hz]': f'{status.frame_rate_hz:.2f}',
        'real time factor': f'{status.real_time_factor:.3f}',
        'step duration [ms]': f'{status.step_duration_s * 1e3:.2f}',
        'uncertainty': 'unknown' if isnan(status.uncertainty) else f'{status.uncertainty:.4f}',
        'late frames': status.late_frames,
        'rejected commands': status.counts.rejected + status.rejected_embeddings,
        'clipped commands': status.counts.clipped,
        'timed out commands': status.counts.timed_out}
    return entry_to_msg(f'{node}: world', level, message, values, status.stamp_ns,
                        hardware_id=f'{spec.engine} {spec.model}')


def _fault_name(status: SessionStatus) -> str:
    return Fault(status.fault).name.lower().replace('_', ' ')


def _verdict(status: SessionStatus, speed: float) -> Tuple[bytes, str]:
    if status.state == State.ERROR:
        return ERROR, f'{_fault_name(status)}: {status.message}'
    if (status.state == State.PLAYING and status.mode == Mode.REALTIME
            and status.real_time_factor < SLOW_FACTOR * speed):
        return (WARN, f'sim time runs at {status.real_time_factor:.2f} of wall '
                f'time, {speed:g} was asked for: the engine or this machine is too slow')
    if not status.calibrated and not isnan(status.uncertainty):
        return WARN, 'the model is less sure than it was ever calibrated for'
    if problem_of(status):
        return WARN, problem_of(status)
    return OK, status.state.value
