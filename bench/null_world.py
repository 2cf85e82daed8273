# SPDX-License-Identifier: Apache-2.0
"""An engine that takes no time, to measure everything around engines. NumPy only, no ROS."""
from lingbot_world_ros.actions.layout import robot_action_layout
from lingbot_world_ros.engines.interface import Observation, WorldModel, WorldSpec
from lingbot_world_ros.robots.load import load_robot
import numpy as np


class NullWorld(WorldModel):
    """
    Shows the same image for ever; a robot that moves exactly as it is told.

    Velocities of base and joints are those of the action, so that whoever listens can tell which
    command a step acted on. Positions stay.
    """

    def __init__(self):
        """Allocate everything that will ever be shown."""
        robot = load_robot()
        self.spec = WorldSpec(engine='null', model='null', scenes=('living_room',), robot=robot,
                              action=robot_action_layout(robot), predicted_states=('base',))
        camera, num_joints = self.spec.camera, len(robot.joints)
        rng = np.random.default_rng(0)
        self._shown = {
            'rgb': rng.integers(0, 256, (1, 1, camera.height_px, camera.width_px, 3), np.uint8),
            'base_pose': np.zeros((1, 1, 3)), 'base_twist': np.zeros((1, 1, 3)),
            'joint_position': robot.joint_array('home')[None, None],
            'joint_velocity': np.zeros((1, 1, num_joints)),
            'contact': np.zeros((1, 1), np.float32), 'object_pose': np.zeros((1, 1, 0, 3))}

    def reset(self, scene, seed, render=True):
        """Show the only image there is."""
        return Observation(**self._shown)

    def step(self, actions, render=True):
        """Move as told; see ``WorldModel.step``."""
        action = actions[0, 0]
        twist = np.array([[[action[0], 0.0, action[1]]]], np.float64)
        return Observation(**{**self._shown, 'base_twist': twist,
                              'joint_velocity': actions[:, :, 2:].astype(np.float64)})

    def observe(self, observation, render=True):
        """Take nothing over."""
        return self.reset('', 0)

    def object_names(self, scene):
        """Return no names; nothing moves."""
        return ()

    def snapshot(self):
        """Return the state: there is none."""
        return ()

    def restore(self, snapshot):
        """Go back to a state."""
