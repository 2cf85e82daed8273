# SPDX-License-Identifier: Apache-2.0
"""
The same environments over any simulator on topics.

Importing this registers ``RoomNavRos-v0``, ``RoomReachRos-v0`` and ``RoomPushRos-v0`` of the
namespace ``lingbot_world_ros``. docs/environments.md says what a simulator has to offer.
"""
from typing import Any, Dict

import gymnasium
from lingbot_world_ros.engines.interface import WorldModel
from lingbot_world_ros.envs.rooms import NAMESPACE, RoomEnv
from lingbot_world_ros.envs.tasks import RoomReach, TASKS
from lingbot_world_ros.settings.profiles import DEFAULT_PROFILE

OF_THE_WORLD = ('profile', 'namespace', 'robot', 'scene', 'frame_rate_hz', 'steps_per_frame',
                'domain_id', 'patience_s')


class RosEnv(RoomEnv):
    """
    A task in the room of a simulator that runs elsewhere: ours, another one, or a robot.

    Spaces, rewards and success are those of ``RoomEnv``; so are the bytes where the simulator is
    one of ours in stepped mode.
    """

    def __init__(self, *, task: str, image: bool = True, depth: bool = False, scan: bool = False,
                 profile: str = DEFAULT_PROFILE, **keywords: Any) -> None:
        """
        Find the simulator.

        :param task: one of ``tasks.TASKS``
        :param image: as in ``RoomVectorEnv``
        :param depth: as there
        :param scan: as there
        :param profile: names of topics and services, as ``lingbot-world sim --profile`` takes it
        :param keywords: namespace, robot, scene, frame_rate_hz, steps_per_frame, domain_id and
            patience_s of ``RosWorld``, and those of ``RoomVectorEnv`` but for its engine
        :raises SpecError: there is no simulator, or it does not fit
        """
        own = {name: keywords.pop(name) for name in OF_THE_WORLD if name in keywords}
        world = find_world(task, profile=profile, depth=depth or scan,
                           image=image or keywords.get('render_mode') is not None, **own)
        super().__init__(task=task, engine=world, image=image, depth=depth, scan=scan, **keywords)


def find_world(task: str, **keywords: Any) -> WorldModel:
    """
    Find a simulator for a task.

    :param task: one of ``tasks.TASKS``
    :param keywords: of ``RosWorld``
    :return: it, as an engine of one row
    :raises SpecError: there is none, or it does not fit
    """
    from lingbot_world_ros.nodes.ros_world import RosWorld
    options: Dict[str, Any] = {'entities': task != RoomReach.name, **keywords}
    return RosWorld(**options)


for _name in TASKS:
    gymnasium.register(f'{NAMESPACE}/{_name}Ros-v0', entry_point=f'{__name__}:RosEnv',
                       kwargs={'task': _name})
