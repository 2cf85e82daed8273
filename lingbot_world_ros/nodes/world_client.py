# SPDX-License-Identifier: Apache-2.0
"""
Asks a simulator to pause, step, reset or load, by whatever services it offers.

simulation_interfaces first, the std_srvs of ``world_model`` where that is missing. Requests are
made from the thread of an asyncio loop; the answers come in the executor's.
"""
import asyncio
from functools import partial
import time
from typing import Any, Callable, Dict, Optional, Sequence, Tuple, Union

from lingbot_world_ros.messages.parameters import set_parameter_to_request
from lingbot_world_ros.messages.standard import switch_to_request, text_to_msg
from lingbot_world_ros.nodes import qos
from lingbot_world_ros.nodes.simulation_answers import installed
from lingbot_world_ros.session.states import Mode
from rcl_interfaces.srv import SetParameters
from rclpy.client import Client
from rclpy.node import Node
from rclpy.task import Future
from std_msgs.msg import String
from std_srvs.srv import SetBool, Trigger

PATIENCE_S = 35.0  # a world answers within its service_timeout_s, 30 s
ASKED_AGAIN_S = 5.0  # a question in the background; whom it was put to may be gone unseen
STANDARD = ('SetSimulationState', 'GetSimulationState', 'StepSimulation', 'ResetSimulation',
            'LoadWorld', 'GetAvailableWorlds', 'GetEntitiesStates')
OWN = {'reset': Trigger, 'pause': SetBool, 'step': Trigger, 'set_parameters': SetParameters}
OK, ALREADY = 1, 101  # of simulation_interfaces/Result
PLAYING, PAUSED = 1, 2  # of simulation_interfaces/SimulationState


class Failed(Exception):
    """Something was not done; the text says why."""


class WorldClient:
    """Clients of one simulator's services."""

    def __init__(self, node: Node, service_prefix: str, prompt_topic: str):
        """
        Make the clients of simulation_interfaces; those of ``world_model`` come with its name.

        :param node: rclpy node that owns them
        :param service_prefix: as in the simulator's profile
        :param prompt_topic: where a prompt is published
        """
        self._node = node
        self._clients: Dict[str, Client] = {}
        self._world_node: Optional[str] = None
        # name -> the newest question in the background, and when
        self._asked: Dict[str, Tuple[Future, float]] = {}
        prefix = service_prefix.rstrip('/') + '/' if service_prefix else ''
        for name in STANDARD:
            srv_type = installed('srv', name)
            if srv_type is not None:
                snake = ''.join(f'_{c.lower()}' if c.isupper() else c for c in name).lstrip('_')
                self._clients[name] = node.create_client(srv_type, prefix + snake)
        self._prompts = qos.publisher(node, String, prompt_topic, qos.NEWEST)

    def know(self, world_node: str) -> None:
        """
        Take note of the node that runs the world, in the executor's thread.

        :param world_node: full name
        """
        if world_node == self._world_node:
            return
        for name, srv_type in OWN.items():
            if name in self._clients:
                self._node.destroy_client(self._clients.pop(name))
            self._clients[name] = self._node.create_client(srv_type, f'{world_node}/{name}')
        self._world_node = world_node

    def can(self) -> Dict[str, bool]:
        """Say what may be asked for, as the page wants to know it."""
        ready = {name for name, client in list(self._clients.items())
                 if client.service_is_ready()}
        return {'pause': bool(ready & {'SetSimulationState', 'pause'}),
                'step': bool(ready & {'StepSimulation', 'step'}),
                'reset': bool(ready & {'ResetSimulation', 'reset'}),
                'load': 'LoadWorld' in ready, 'seed': 'set_parameters' in ready,
                'mode': 'set_parameters' in ready}

    def ask_in_background(self, name: str, on_answer: Callable[[Any], None]) -> bool:
        """
        Call a service without a request's fields.

        :param name: of STANDARD
        :param on_answer: called with the response, in the executor's thread
        :return: whether there is such a service
        """
        client = self._clients.get(name)
        if client is None:
            return False
        is_there = client.service_is_ready()
        asked, before_s = self._asked.get(name, (None, 0.0))
        if asked is not None and not asked.done():
            if is_there and time.monotonic() - before_s < ASKED_AGAIN_S:
                return True  # the answer is still to come
            client.remove_pending_request(asked)
            del self._asked[name]
        if not is_there:
            return False
        future = client.call_async(client.srv_type.Request())
        self._asked[name] = future, time.monotonic()
        future.add_done_callback(
            lambda done: None if done.result() is None else on_answer(done.result()))
        return True

    async def do(self, what: str, value: Any, mode: str) -> Tuple[bool, str]:
        """
        Do something and wait for it.

        :param what: pause, play, step, reset, load, mode, seed or prompt
        :param value: what it takes, see ``view.messages.WorldRequest``
        :param mode: of the world
        :return: whether it was done, and what came of it in words
        """
        try:
            return True, await getattr(self, f'_{what}')(value, mode) or ''
        except Failed as failure:
            return False, str(failure)

    async def _pause(self, _: None, mode: str) -> None:
        await self._set_state(PAUSED)

    async def _play(self, _: None, mode: str) -> None:
        await self._set_state(PLAYING)

    async def _set_state(self, state: int) -> None:
        if not self._offers('SetSimulationState'):
            return await self._trigger('pause', switch_to_request(state == PAUSED))
        request = self._request('SetSimulationState')
        request.state.state = state
        await self._standard('SetSimulationState', request, (OK, ALREADY))

    async def _step(self, num_steps: int, mode: str) -> None:
        if not self._offers('StepSimulation'):
            for _ in range(num_steps):
                await self._trigger('step')
            return
        request = self._request('StepSimulation')
        request.steps = num_steps
        await self._standard('StepSimulation', request)

    async def _reset(self, seed: Optional[int], mode: str) -> None:
        if seed is not None:
            await self._seed(seed, mode)
        if self._offers('ResetSimulation'):
            await self._standard('ResetSimulation', self._request('ResetSimulation'))
        else:
            await self._trigger('reset')

    async def _load(self, uri: str, mode: str) -> None:
        request = self._request('LoadWorld')
        getattr(request, 'world_resource', request).uri = uri
        await self._standard('LoadWorld', request)
        await self._set_state(PAUSED if mode == Mode.STEPPED else PLAYING)  # loaded worlds stand

    async def _mode(self, mode: str, before: str) -> None:
        await self._set_parameter('mode', mode)
        if before == Mode.STEPPED and mode != before:  # it stands, which nobody asked for
            await self._set_state(PLAYING)

    async def _seed(self, seed: int, mode: str) -> None:
        await self._set_parameter('seed', seed)

    async def _prompt(self, text: str, mode: str) -> None:
        self._prompts.publish(text_to_msg(text))

    async def _set_parameter(self, name: str, value: Union[int, str]) -> None:
        request = set_parameter_to_request(name, value)
        for result in (await self._call('set_parameters', request)).results:
            if not result.successful:
                raise Failed(result.reason)

    async def _trigger(self, name: str, request: Any = None) -> None:
        response = await self._call(name, request or Trigger.Request())
        if not response.success:
            raise Failed(response.message)

    async def _standard(self, name: str, request: Any, good: Sequence[int] = (OK,)) -> None:
        result = (await self._call(name, request)).result
        if result.result not in good:
            raise Failed(result.error_message or f'{name}: result {result.result}')

    def _offers(self, name: str) -> bool:
        return name in self._clients and self._clients[name].service_is_ready()

    def _request(self, name: str) -> Any:
        if name not in self._clients:
            raise Failed(f'{name} of simulation_interfaces is not installed here.')
        return self._clients[name].srv_type.Request()

    async def _call(self, name: str, request: Any) -> Any:
        client = self._clients.get(name)
        if client is None or not client.service_is_ready():
            raise Failed(f'The simulator offers no service '
                         f'{name if client is None else client.srv_name}.')
        loop = asyncio.get_running_loop()
        answered = loop.create_future()
        asked = client.call_async(request)
        asked.add_done_callback(partial(_pass_on, loop, answered))
        try:
            return await asyncio.wait_for(answered, PATIENCE_S)
        except asyncio.TimeoutError:
            client.remove_pending_request(asked)
            raise Failed(f'{client.srv_name} does not answer.') from None


def _pass_on(loop: asyncio.AbstractEventLoop, answered: asyncio.Future, asked: Future) -> None:
    """Bring an answer from the executor's thread to that of the loop."""
    def finish() -> None:
        if not answered.done():
            answered.set_result(asked.result())

    try:
        loop.call_soon_threadsafe(finish)
    except RuntimeError:  # the loop has ended, nobody waits
        pass
