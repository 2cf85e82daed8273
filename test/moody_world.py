# SPDX-License-Identifier: Apache-2.0
"""An engine whose scenes misbehave on purpose, and the world_model node around it."""
import time

from fake_world import FakeWorld
from lingbot_world_ros.engines.rows import row_starts
from lingbot_world_ros.nodes.world_model import WorldModelNode
import numpy as np
from rclpy.parameter import Parameter

SLOW_STEP_S = 0.02
POUF = (4.0, 2.0, 0.0)


class MoodyWorld(FakeWorld):
    """In scene faulty every step fails, in slow it takes its time, unloadable never starts."""

    def __init__(self, **options):
        super().__init__(scenes=('living_room', 'office', 'faulty', 'slow', 'unloadable'),
                         **options)

    def reset(self, scenes, seeds, rows=None, **more):
        if scenes == 'unloadable':
            raise RuntimeError('the weights of this scene are gone')
        row_starts(scenes, seeds, rows, 1, self.spec)
        self._objects = np.array([POUF])
        return super().reset(scenes, seeds, rows, **more)

    def step(self, actions, render=True):
        if self._scene == 'faulty':
            raise RuntimeError('the engine is broken')
        if self._scene == 'slow':
            time.sleep(SLOW_STEP_S)
        return super().step(actions, render)

    def observe(self, observation, render=True):
        self._objects = observation.object_pose[0, -1].copy()
        return super().observe(observation, render)

    def render(self, state):
        kept, self._objects = self._objects, state.object_pose[0]
        shown = super().render(state)
        self._objects = kept
        return shown

    def snapshot(self, rows=None):
        return super().snapshot(rows), self._objects.copy()

    def restore(self, snapshot, rows=None):
        state, objects = snapshot
        super().restore(state, rows)
        self._objects = objects.copy()

    def object_names(self, scene):
        return ('pouf',)

    def _observe(self, states):
        observation = super()._observe(states)
        observation.object_pose = np.tile(self._objects, (1, len(states), 1, 1))
        return observation


def simulator(namespace='', **params) -> WorldModelNode:
    """Return a node that runs a MoodyWorld, paused, in the living room."""
    params = {'scene': 'living_room', 'initial_state': 'paused', 'publish_tf': False,
              'topics.clock': f'{namespace}/clock', **params}
    return WorldModelNode(MoodyWorld, namespace=namespace, parameter_overrides=[
        Parameter(name, value=value) for name, value in params.items()])
