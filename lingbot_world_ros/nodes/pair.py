# SPDX-License-Identifier: Apache-2.0
"""Both nodes of a world in one process."""
from typing import Any, Callable, Optional, Sequence, Tuple

from lingbot_world_ros.engines.interface import WorldModel
from lingbot_world_ros.nodes.action_encoder import ActionEncoderNode
from lingbot_world_ros.nodes.world_model import WorldModelNode
from lingbot_world_ros.session.observer import SessionObserver


def make_pair(world: Optional[Callable[[], WorldModel]] = None,
              observers: Sequence[SessionObserver] = (),
              **node_args: Any) -> Tuple[WorldModelNode, ActionEncoderNode]:
    """
    Make both nodes of a world for one process: the session asks the encoder without a topic.

    :param world: makes the engine, in place of the one that the parameter names
    :param observers: of the session, to be told beside the topics
    :param node_args: for both nodes
    :return: the WorldModelNode and the ActionEncoderNode, both to be spun
    :raises SpecError: a parameter, scene or the engine's files cannot be used
    """
    encoder = ActionEncoderNode(**node_args)
    try:
        return WorldModelNode(world=world, encoder=encoder, observers=observers,
                              **node_args), encoder
    except BaseException:
        encoder.destroy_node()
        raise
