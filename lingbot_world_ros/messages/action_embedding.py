# SPDX-License-Identifier: Apache-2.0
"""actions.ActionEmbedding <-> the message of the same name."""
from array import array

from lingbot_world_ros.actions.command_spec import CommandCounts
from lingbot_world_ros.actions.embedding import ActionEmbedding
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.messages.camera_info import camera_from_msg
from lingbot_world_ros.messages.frames import transform_from_msg, transform_to_msg
from lingbot_world_ros.messages.stamps import set_stamp, stamp_to_ns
from lingbot_world_ros.msg import ActionEmbedding as ActionEmbeddingMsg
import numpy as np


def embedding_to_msg(embedding: ActionEmbedding, frame_id: str) -> ActionEmbeddingMsg:
    """
    Write an embedding.

    :param embedding: what the world is asked to do
    :param frame_id: base frame
    :return: the message
    """
    msg = ActionEmbeddingMsg(
        sequence=embedding.sequence, num_frames=len(embedding.embedding),
        frame_period_s=embedding.period_s,
        camera_motion=[transform_to_msg(T) for T in embedding.camera_motion],
        joint_names=list(embedding.joint_names),
        joint_position_target=array('d', embedding.joint_position.ravel()),
        joint_velocity_target=array('d', embedding.joint_velocity.ravel()),
        width=embedding.camera.width_px, height=embedding.camera.height_px,
        k=embedding.camera.k.ravel(), layout=list(embedding.layout),
        embedding=array('f', embedding.embedding.ravel()),
        accepted_commands=embedding.counts.accepted, rejected_commands=embedding.counts.rejected,
        clipped_commands=embedding.counts.clipped,
        timed_out_commands=embedding.counts.timed_out, message=embedding.counts.message)
    msg.header.frame_id = frame_id
    set_stamp(msg.header.stamp, embedding.stamp_ns)
    set_stamp(msg.valid_until, embedding.valid_until_ns)
    return msg


def embedding_from_msg(msg: ActionEmbeddingMsg) -> ActionEmbedding:
    """
    Read an embedding.

    :param msg: the message
    :return: the embedding; whether it fits a world is for ``check_embedding`` to say
    :raises SpecError: arrays whose lengths do not fit num_frames, or a camera not in pixels
    """
    counts = CommandCounts(msg.accepted_commands, msg.rejected_commands, msg.clipped_commands,
                           msg.timed_out_commands, msg.message)
    return ActionEmbedding(
        sequence=msg.sequence, stamp_ns=stamp_to_ns(msg.header.stamp),
        period_s=msg.frame_period_s,
        camera_motion=np.array([transform_from_msg(T) for T in msg.camera_motion]),
        joint_names=tuple(msg.joint_names), camera=camera_from_msg(msg, 'action_embedding'),
        layout=tuple(msg.layout),
        joint_position=_rows(msg, 'joint_position_target', len(msg.joint_names)),
        joint_velocity=_rows(msg, 'joint_velocity_target', len(msg.joint_names)),
        embedding=_rows(msg, 'embedding', len(msg.layout)), counts=counts,
        valid_until_ns=stamp_to_ns(msg.valid_until))


def _rows(msg: ActionEmbeddingMsg, field: str, width: int) -> np.ndarray:
    values = np.array(getattr(msg, field))
    if values.size != msg.num_frames * width:
        raise SpecError(f'action_embedding: {field} has {values.size} values, expected num_frames '
                        f'{msg.num_frames} x {width}.')
    return values.reshape(msg.num_frames, width)
