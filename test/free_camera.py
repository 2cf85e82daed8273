# SPDX-License-Identifier: Apache-2.0
"""A fake engine whose camera follows any motion, takes text and images, for tests."""
from dataclasses import replace

from fake_world import FakeWorld
from lingbot_world_ros.actions.camera_columns import camera_action_dims, camera_motion_of
from lingbot_world_ros.actions.layout import ActionLayout
from lingbot_world_ros.engines.interface import Capabilities
import numpy as np

CAN = Capabilities(take_prompts=True, take_images=True, follow_camera=True)


class FreeCameraWorld(FakeWorld):
    """Adds up the camera motion it is told; ``motions`` are (T, 4, 4) per step since the reset."""

    def __init__(self, frames_per_step=4, scenes=('a', 'image'), **options):
        super().__init__(frames_per_step=frames_per_step, scenes=scenes, has_depth=False,
                         **options)
        layout = ActionLayout((*self.spec.action.dims, *camera_action_dims()))
        self.spec = replace(self.spec, action=layout, can=CAN, frame_rate_hz=16.0,
                            integrated_states=('base', 'joints'), predicted_states=())
        self.motions, self.prompts, self.anchors, self.start = [], [], [], None

    def reset(self, scenes, seeds, rows=None, *, render=True, start=None):
        shown = super().reset(scenes, seeds, rows)
        self.start, self.motions = start, []
        return shown

    def step(self, actions, render=True):
        shown = super().step(actions)
        self.motions.append(camera_motion_of(actions[0], self.spec.action))
        return shown

    def set_prompt(self, text):
        self.prompts.append(text)

    def observe(self, observation, render=True):
        if observation.rgb is not None:
            self.anchors.append(observation.rgb[0, -1].copy())
        return super().observe(observation)

    def poses(self):
        """Return where the camera was in each frame since the reset, (n + 1, 4, 4)."""
        poses = [np.eye(4)]
        for motion in np.concatenate(self.motions) if self.motions else ():
            poses.append(poses[-1] @ motion)
        return np.stack(poses)
