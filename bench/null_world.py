# SPDX-License-Identifier: Apache-2.0
"""An engine that takes no time, to measure everything around engines. NumPy only, no ROS."""
from lingbot_world_ros.actions.layout import robot_action_layout
from lingbot_world_ros.engines.interface import Capabilities, Observation, WorldModel, WorldSpec
from lingbot_world_ros.engines.rows import check_actions, row_starts
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
                              action=robot_action_layout(robot), predicted_states=('base',),
                              can=Capabilities(take_poses=False))
        camera, num_joints = self.spec.camera, len(robot.joints)
        rng = np.random.default_rng(0)
        rgb = rng.integers(0, 256, (1, 1, camera.height_px, camera.width_px, 3), np.uint8)
        rgb.setflags(write=False)  # shown again and again, so nobody may write into it
        self._shown = {'rgb': rgb}
        self._states = {
            'base_pose': np.zeros((1, 1, 3)), 'base_twist': np.zeros((1, 1, 3)),
            'joint_position': robot.joint_array('home')[None, None],
            'joint_velocity': np.zeros((1, 1, num_joints)),
            'contact': np.zeros((1, 1), np.float32), 'object_pose': np.zeros((1, 1, 0, 3))}

    def reset(self, scenes, seeds, rows=None, *, render=True, start=None):
        """Show the only image there is."""
        row_starts(scenes, seeds, rows, 1, self.spec)
        return self._observation()

    def step(self, actions, render=True):
        """Move as told; see ``WorldModel.step``."""
        check_actions(actions, 1, self.spec)
        action = actions[0, 0]
        twist = np.array([[[action[0], 0.0, action[1]]]], np.float64)
        return self._observation(base_twist=twist,
                                 joint_velocity=actions[:, :, 2:].astype(np.float64))

    def observe(self, observation, render=True):
        """Take nothing over."""
        return self._observation()

    def object_names(self, scene):
        """Return no names; nothing moves."""
        return ()

    def snapshot(self, rows=None):
        """Return the state: there is none."""
        return ()

    def restore(self, snapshot, rows=None):
        """Go back to a state."""

    def _observation(self, **moved):
        copies = {name: value.copy() for name, value in self._states.items()}
        return Observation(**{**self._shown, **copies, **moved})
