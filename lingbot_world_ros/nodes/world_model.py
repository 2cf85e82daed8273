# SPDX-License-Identifier: Apache-2.0
"""Node ``world_model``: the newest action embedding in, frames and states of a world out."""
import time

from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.msg import ActionEmbedding as ActionEmbeddingMsg
from lingbot_world_ros.nodes import qos
from lingbot_world_ros.nodes.params import declare, WORLD_MODEL
from lingbot_world_ros.nodes.run import spin_node
from lingbot_world_ros.nodes.world_publishers import WorldPublishers
from lingbot_world_ros.sensors.action_embedding import embedding_from_msg
from lingbot_world_ros.worlds.session import PLAYING, Session, SessionSpec
from lingbot_world_ros.worlds.world_model import make_world
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.task import Future
from std_msgs.msg import String
from std_srvs.srv import SetBool, Trigger

LOG_PERIOD_S = 5.0
DISCOVERY_S = 3.5  # Fast DDS announces a node every 3 s, should its first calls go unheard


class WorldModelNode(Node):
    """Wire ``action_embedding`` to a session and the session to its publishers."""

    def __init__(self, world=None, **node_args):
        """
        Load the engine and start it.

        :param world: an engine to use in place of the one the parameter names
        :param node_args: for ``rclpy.node.Node``
        :raises SpecError: a parameter, scene or the engine's files cannot be used
        """
        super().__init__('world_model', **node_args)
        self._made_s = time.monotonic()
        params = declare(self, WORLD_MODEL)
        world = world or make_world(params.engine)
        self.sensors = WorldPublishers(self, world.spec, params)
        spec = SessionSpec(params.scene, params.seed, params.speed, params.start_paused,
                           params.action_timeout_s)
        self.session = Session(world, spec, observers=[self.sensors], log=self.get_logger())
        self._T_base_optical = world.spec.camera.T_base_optical
        self.create_subscription(ActionEmbeddingMsg, 'action_embedding', self.on_embedding,
                                 qos.NEWEST)
        self.create_subscription(String, 'prompt', self.on_prompt, qos.NEWEST)
        self.create_service(Trigger, '~/reset', self.on_reset)
        self.create_service(SetBool, '~/pause', self.on_pause)
        self.create_service(Trigger, '~/step', self.on_step)
        # Steady: with use_sim_time a ROS timer would wait for the clock this node publishes.
        self.create_timer(1.0, self.on_second, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self.first_frame = self.session.start()

    def destroy_node(self):
        """End the worker before its publishers go away."""
        if hasattr(self, 'session'):
            self.session.close()
        super().destroy_node()

    def refuse_second_clock(self, spinner):
        """
        Look for another clock; two in one domain make every time-dependent node jump.

        Blocks until this node is ``DISCOVERY_S`` old, because before that nobody can tell.

        :param spinner: that spins this node; when it is time to end the search ends too
        :raises SpecError: something else publishes /clock in this ROS domain
        """
        if '/clock' not in self.sensors.topics:
            return
        while self.count_publishers('/clock') < 2:
            if time.monotonic() - self._made_s > DISCOVERY_S or spinner.wait(0.05):
                return
        raise SpecError(
            f'ROS domain {self.context.get_domain_id()} is in use: something else publishes '
            '/clock there. End it, choose another domain (ROS_DOMAIN_ID=7 ...), or run this '
            'world with a namespace and the parameter publish_clock:=false.')

    def on_embedding(self, msg):
        """Hand the newest embedding over to the session."""
        try:
            self.session.set_embedding(embedding_from_msg(msg, self._T_base_optical))
        except SpecError as error:
            self.get_logger().warning(str(error), throttle_duration_sec=LOG_PERIOD_S)

    def on_prompt(self, msg):
        """Say that the engine takes no text."""
        spec = self.session.world.spec
        self.get_logger().warning(
            f'prompt: refused, engine {spec.engine!r} takes no text; choose one of its scenes '
            f'({", ".join(spec.scenes)}) by parameter.', throttle_duration_sec=LOG_PERIOD_S)

    async def on_reset(self, request, response):
        """Start the scene over with its seed."""
        return await self._answer(response, self.session.reset())

    async def on_pause(self, request, response):
        """Pause (data: true) or play (data: false)."""
        change = self.session.pause if request.data else self.session.play
        return await self._answer(response, change())

    async def on_step(self, request, response):
        """Advance a paused world by one step."""
        return await self._answer(response, self.session.advance(1))

    def on_second(self):
        """Report to operators, also while nothing moves."""
        status = self.session.status
        self.sensors.publish_diagnostics(status)
        if status.state != PLAYING:  # else every step tells
            self.sensors.repeat_status(status)

    async def _answer(self, response, outcome):
        """Wait for the worker without holding up the executor, then fill in the response."""
        done = Future(executor=self.executor)
        outcome.add_done_callback(lambda _: done.set_result(True))
        await done
        error = 'the node is shutting down' if outcome.cancelled() else outcome.exception()
        response.success = error is None
        response.message = str(error or f'{outcome.result().state} at '
                               f'{outcome.result().stamp_ns * 1e-9:.3f} s of sim time')
        return response


def main(args=None) -> int:
    """Run the node until it is interrupted; return the exit code."""
    return spin_node(WorldModelNode, args, _begin)


def _begin(node, spinner):
    node.refuse_second_clock(spinner)
    spec, status = node.session.world.spec, node.session.status
    node.get_logger().info(f'{spec.engine} ({spec.model}), scene {status.scene}, '
                           f'seed {status.seed}.')
