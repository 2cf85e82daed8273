# SPDX-License-Identifier: Apache-2.0
"""
What happens to a world during a soak, one function per act, and what has to come of it.

An act begins and ends with a playing world. It raises ``Broken`` when a rule does not hold.
"""
import os
import signal
import time

from bench.faulty_sim import HANG_S, order_faults
from bench.peers import Peer
from bench.soak_rules import Broken, FLOOD_ANSWER_S, MARGIN_S, SERVICE_TIMEOUT_S, STEP_TIMEOUT_S
from lingbot_world_ros.msg import WorldStatus
from lingbot_world_ros.nodes.ros_process import start_ros
import numpy as np
from rcl_interfaces.srv import SetParameters
import rclpy
from rclpy.action import ActionClient
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from simulation_interfaces.action import SimulateSteps
from simulation_interfaces.msg import Resource, SimulationState
from simulation_interfaces.srv import (GetAvailableWorlds, GetCurrentWorld, GetEntities,
                                       GetEntityState, GetSimulationState, GetSimulatorFeatures,
                                       LoadWorld, ResetSimulation, SetEntityState,
                                       SetSimulationState, StepSimulation, UnloadWorld)

OK, INCORRECT_STATE, OPERATION_FAILED = 1, 3, 4
STOPPED, PLAYING, PAUSED, ERROR = (WorldStatus.STATE_STOPPED, WorldStatus.STATE_PLAYING,
                                   WorldStatus.STATE_PAUSED, WorldStatus.STATE_ERROR)
SCENES = ('living_room', 'office', 'workshop')
SERVICES = {'get_available_worlds': GetAvailableWorlds, 'get_current_world': GetCurrentWorld,
            'get_entities': GetEntities, 'get_entity_state': GetEntityState,
            'get_simulation_state': GetSimulationState,
            'get_simulator_features': GetSimulatorFeatures, 'load_world': LoadWorld,
            'reset_simulation': ResetSimulation, 'set_entity_state': SetEntityState,
            'set_simulation_state': SetSimulationState, 'step_simulation': StepSimulation,
            'unload_world': UnloadWorld, 'world_model/set_parameters': SetParameters}
PLACED = {'set_pose': True} if hasattr(SetEntityState.Request, 'set_pose') else {}  # since 2.1
QUIET_S = 4.0
STALL_S = 3.0
STALL_RATE_HZ = 13.5  # starting a process is work too
FLOOD_S = 1.5
LAST_FLOOD_RADPS = 0.25


class Client:
    """The process that asks: services, the action, the newest world_status."""

    def __init__(self, soak):
        start_ros([])
        self.services, self.status = {}, None
        self._soak = soak
        self._node = rclpy.create_node('soak')
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        self._clients = {name: self._node.create_client(kind, f'/{name}')
                         for name, kind in SERVICES.items()}
        self.action = ActionClient(self._node, SimulateSteps, '/simulate_steps')
        self._node.create_subscription(WorldStatus, 'world_status', self._on_status, 50)

    def _on_status(self, msg):
        self.status = msg

    def close(self):
        """Leave the graph."""
        self._executor.shutdown()
        self._node.destroy_node()
        rclpy.try_shutdown()

    def spin(self, seconds):
        """Listen for a while."""
        end_s = time.monotonic() + seconds
        while (left_s := end_s - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=left_s)

    def wait_for(self, happened, within_s, what, rule='state'):
        """
        Listen until something is so.

        :raises Broken: it is not within the time
        """
        start_s, within_s = time.monotonic(), within_s * self._soak.patience
        while not happened():
            if not self._soak.world.is_alive:
                raise Broken('end', 'the world ended by itself')
            if time.monotonic() - start_s > within_s:
                state = self.status and (f'; world_status: state {self.status.state}, fault '
                                         f'{self.status.fault}, {self.status.message!r}')
                raise Broken(rule, f'waited {within_s:g} s for {what}{state}')
            self._executor.spin_once(timeout_sec=0.05)
        return time.monotonic() - start_s

    def wait_state(self, state, within_s=MARGIN_S, **fields):
        """Wait for a world_status with a state and other values."""
        want = {'state': state, **fields}
        self.wait_for(lambda: all(getattr(self.status, name) == value
                                  for name, value in want.items()), within_s, f'{want}')

    def call(self, name, within_s=SERVICE_TIMEOUT_S + MARGIN_S, **fields):
        """
        Call a service.

        :raises Broken: no answer within the time
        """
        client = self._clients[name]
        self.wait_for(client.service_is_ready, MARGIN_S + 4.0, f'the service {name}', 'service')
        future = client.call_async(SERVICES[name].Request(**fields))
        took_s = self.wait_for(future.done, within_s, f'the answer of {name} {fields}', 'service')
        entry = self.services.setdefault(name, {'calls': 0, 'longest_s': 0.0})
        entry['calls'] += 1
        entry['longest_s'] = max(entry['longest_s'], took_s)
        return future.result()

    def expect(self, name, *codes, **fields):
        """
        Call a service whose result is known.

        :raises Broken: another result
        """
        response = self.call(name, **fields)
        result = response.result
        if result.result not in (codes or (OK,)):
            raise Broken('service', f'{name} {fields}: result {result.result}, expected '
                         f'{codes or OK}: {result.error_message}')
        return response

    def set_state(self, state, *codes):
        """Ask for a simulation state."""
        return self.expect('set_simulation_state', *codes, state=SimulationState(state=state))

    def load(self, uri='', text=''):
        """Build the request of load_world."""
        resource = {'uri': uri, 'resource_string': text}
        if hasattr(LoadWorld.Request, 'world_resource'):
            return {'world_resource': Resource(**resource)}
        return resource  # before 2.1

    def set_parameter(self, name, value, accepted=True):
        """Set a parameter of world_model."""
        parameters = [Parameter(name, value=value).to_parameter_msg()]
        answer = self.call('world_model/set_parameters', parameters=parameters)
        if answer.results[0].successful != accepted:
            raise Broken('service', f'{name}:={value}: successful={not accepted}: '
                         f'{answer.results[0].reason}')

    def make_play(self):
        """Bring the world back to playing, whatever the act before left."""
        for _ in range(3):
            if self.status.state == PLAYING:
                return
            try:
                if self.status.state == WorldStatus.STATE_NO_WORLD:
                    self.call('load_world', **self.load(uri=SCENES[0]))
                elif self.status.state == ERROR:
                    self.call('reset_simulation')
                self.call('set_simulation_state', state=SimulationState(state=PLAYING))
                self.wait_state(PLAYING)
            except Broken as broken:
                self._soak.note(broken.rule, f'after the act: {broken}')


def quiet(soak):
    """Nothing but the driver: the full frame rate."""
    rate_hz = soak.rate(QUIET_S)
    if rate_hz is not None:
        soak.rates.append(rate_hz)


def pauses_and_steps(soak):
    """Time stands still in a pause; steps move it by exactly as much as asked."""
    client = soak.client
    client.expect('step_simulation', OPERATION_FAILED, steps=1)
    client.set_state(PAUSED)
    client.wait_state(PAUSED)
    client.set_state(PAUSED, 101)
    frame = client.status.frame
    client.spin(0.3)
    if client.status.frame != frame:
        raise Broken('state', f'frame {client.status.frame} came in a pause after {frame}')
    for steps in (1, 5, 15):
        client.expect('step_simulation', steps=steps)
        frame += steps
        client.wait_state(PAUSED, frame=frame)
    client.set_state(PLAYING)
    client.wait_state(PLAYING)


def resets(soak):
    """Every scope, playing and paused; the state stays."""
    client = soak.client
    scopes = ResetSimulation.Request
    for scope in (scopes.SCOPE_DEFAULT, scopes.SCOPE_TIME, scopes.SCOPE_STATE, scopes.SCOPE_ALL):
        client.expect('reset_simulation', scope=scope)
        client.wait_state(PLAYING)
        client.spin(0.2)
    client.expect('reset_simulation', 0, 4, scope=64)
    client.set_state(STOPPED)
    client.wait_state(STOPPED, frame=1)
    client.set_state(PLAYING)


def worlds(soak):
    """Another scene by name, one as text, none that cannot be; no world at all."""
    client = soak.client
    names = [world.name for world in client.expect('get_available_worlds').worlds]
    scene = SCENES[int(soak.rng.integers(len(SCENES)))]
    for request in (*(client.load(uri=name) for name in SCENES),
                    client.load(uri=names[int(soak.rng.integers(len(names)))]),
                    client.load(text=f'name: soaked\nscene: {scene}\nseed: 7\n')):
        client.expect('load_world', **request)
        client.wait_state(STOPPED, frame=1)
        client.set_state(PLAYING)
        client.spin(0.2)
    client.expect('load_world', 2, 102, **client.load(uri='no_such_world'))
    client.expect('load_world', 103, **client.load(text='scene: ['))
    client.wait_state(PLAYING)
    if client.expect('get_current_world').world.name != 'soaked':
        raise Broken('state', 'a world that could not be loaded replaced the one before')
    client.expect('unload_world')
    client.wait_state(WorldStatus.STATE_NO_WORLD)
    client.set_state(PLAYING, 103)
    client.expect('step_simulation', INCORRECT_STATE, OPERATION_FAILED, steps=1)
    client.expect('unload_world', 101)
    client.expect('load_world', **client.load(uri=scene))
    client.set_state(PLAYING)


def parameters(soak):
    """What may be set while running, and values that are refused."""
    client = soak.client
    for name, values in (('speed', (2.0, 0.5, 1.0)), ('jpeg_quality', (40, 90)),
                         ('action_timeout_s', (0.3, 0.5)), ('seed', (3, 0))):
        for value in values:
            client.set_parameter(name, value)
            client.spin(0.15)
    client.set_parameter('speed', -1.0, accepted=False)
    client.set_parameter('jpeg_quality', 'high', accepted=False)
    client.wait_state(PLAYING)


def teleports(soak):
    """The robot elsewhere, an object elsewhere, and a place inside a wall."""
    client = soak.client
    client.set_state(PAUSED)
    names = client.expect('get_entities').entities
    for name in names:
        state = client.expect('get_entity_state', entity=name).state
        state.pose.position.x += 0.05
        client.expect('set_entity_state', OK, 101, entity=name, state=state, **PLACED)
    state.pose.position.x = 1000.0
    client.expect('set_entity_state', 101, entity=names[0], state=state, **PLACED)
    client.set_state(PLAYING)
    client.wait_state(PLAYING)


def steps_by_the_action(soak):
    """To the end, and canceled half way; feedback counts every step."""
    client = soak.client
    client.set_state(PAUSED)
    for steps, cancels in ((8, False), (400, True)):
        counted = []
        client.wait_for(client.action.server_is_ready, MARGIN_S, 'the action', 'service')
        goal = client.action.send_goal_async(
            SimulateSteps.Goal(steps=steps),
            lambda msg, counted=counted: counted.append(msg.feedback.completed_steps))
        client.wait_for(goal.done, SERVICE_TIMEOUT_S, 'the goal to be accepted', 'service')
        answer = goal.result().get_result_async()
        if cancels:
            client.wait_for(lambda counted=counted: counted, SERVICE_TIMEOUT_S, 'feedback',
                            'service')
            goal.result().cancel_goal_async()
        client.wait_for(answer.done, SERVICE_TIMEOUT_S + MARGIN_S, 'the result of the action',
                        'service')
        done = answer.result().result.result
        if (done.result == OK) == cancels:
            raise Broken('service', f'{steps} steps, canceled={cancels}: {done}')
        client.wait_state(PAUSED)
    client.set_state(PLAYING)


def engine_fails_once(soak):
    """It goes on from the last good state; nobody notices but the counter."""
    client = soak.client
    for fault in ('error', 'nan', 'memory'):
        recoveries = client.status.recoveries
        order_faults(soak.world.faults, fault)
        client.wait_state(PLAYING, STEP_TIMEOUT_S + MARGIN_S, recoveries=recoveries + 1, fault=0)


def engine_fails_again(soak):
    """Twice in one step is an error with a name; a reset recovers."""
    client = soak.client
    faults = {'error': WorldStatus.FAULT_FAILED, 'nan': WorldStatus.FAULT_DIVERGED,
              'memory': WorldStatus.FAULT_OUT_OF_MEMORY}
    for name, fault in faults.items():
        order_faults(soak.world.faults, name, name)
        client.wait_state(ERROR, STEP_TIMEOUT_S + MARGIN_S, fault=fault)
        _needs_a_reset(client)


def _needs_a_reset(client):
    client.expect('step_simulation', OPERATION_FAILED, steps=1)
    client.set_state(PLAYING, OPERATION_FAILED, 102)
    client.expect('get_simulation_state', OPERATION_FAILED)
    client.expect('reset_simulation')
    client.wait_state(PLAYING, STEP_TIMEOUT_S + MARGIN_S, fault=0)


def engine_hangs(soak):
    """Inside: an error with a name, a reset makes another engine. Isolated: it goes on."""
    client = soak.client
    recoveries = client.status.recoveries
    client.set_state(PAUSED)
    order_faults(soak.world.faults, 'hang')
    limit_s = STEP_TIMEOUT_S + MARGIN_S
    if soak.world.is_isolated:
        # The steps go on in the new process, well within the time of the service.
        client.expect('step_simulation', steps=3)
        client.wait_state(PAUSED, recoveries=recoveries + 1, fault=0)
        client.set_state(PLAYING)
        return
    client.expect('step_simulation', OPERATION_FAILED, steps=3, within_s=limit_s)
    client.wait_state(ERROR, fault=WorldStatus.FAULT_HUNG)
    client.expect('step_simulation', OPERATION_FAILED, steps=1)
    client.expect('reset_simulation')
    client.wait_state(PAUSED, fault=0)
    client.set_state(PLAYING)
    client.spin(HANG_S)  # the thread that hung comes back and ends, and shows nothing


def engine_is_killed(soak):
    """A process of its own: started again, not a frame missing."""
    client = soak.client
    recoveries = client.status.recoveries
    pid = soak.world.engine_pid
    if pid is None:
        raise Broken('state', 'there is no process of the engine')
    os.kill(pid, signal.SIGKILL)
    client.wait_state(PLAYING, 12 * STEP_TIMEOUT_S, recoveries=recoveries + 1, fault=0)


def engine_freezes(soak):
    """A process of its own that stands still: killed, started again, not a frame missing."""
    client = soak.client
    recoveries = client.status.recoveries
    os.kill(soak.world.engine_pid, signal.SIGSTOP)
    client.wait_state(PLAYING, 12 * STEP_TIMEOUT_S, recoveries=recoveries + 1, fault=0)


def subscriber_stalls(soak):
    """A reliable subscriber stands still; the world keeps its rate, others get every frame."""
    with Peer('listen') as listener:
        listener.hear()
        listener.freeze()
        rate_hz = soak.rate(STALL_S)
        listener.thaw()
    if rate_hz is not None and rate_hz < STALL_RATE_HZ:
        raise Broken('state', f'{rate_hz:.1f} frames/s while a subscriber stood still')


def flood(soak):
    """Commands at 10 kHz: services answer, the newest command wins."""
    client = soak.client
    soak.driver.ask('rest')
    with Peer('flood', '--seconds', FLOOD_S, '--last', LAST_FLOOD_RADPS) as peer:
        peer.hear()
        peer.say('go')
        end_s = time.monotonic() + FLOOD_S
        while time.monotonic() < end_s:
            client.expect('get_simulation_state', within_s=FLOOD_ANSWER_S)
        peer.hear()
        client.wait_for(lambda: len(client.status.actions) and np.isclose(
            client.status.actions[1], LAST_FLOOD_RADPS), MARGIN_S, 'the newest command to win')
    soak.driver.ask('go')


def client_dies_in_a_step(soak):
    """Steps that a client asked for before it was killed: the world is paused afterwards."""
    client = soak.client
    client.set_state(PAUSED)
    client.wait_state(PAUSED)
    steps, frame = 40, client.status.frame
    with Peer('step', '--steps', steps) as peer:
        peer.hear()
        peer.ask('go')
        client.wait_for(lambda: client.status.frame > frame, MARGIN_S, 'the first step')
        peer.kill()
    client.wait_for(lambda: client.status.state == PAUSED and client.status.frame > frame,
                    SERVICE_TIMEOUT_S, 'the end of the steps')
    frame = client.status.frame
    client.expect('step_simulation', steps=2)
    client.wait_state(PAUSED, frame=frame + 2)
    client.set_state(PLAYING)


def acts_of(is_isolated: bool) -> list:
    """Return the acts of a round in which everything happens, but for ``worlds`` and ``quiet``."""
    acts = [pauses_and_steps, resets, parameters, teleports, steps_by_the_action,
            engine_fails_once, engine_fails_again, engine_hangs, subscriber_stalls, flood,
            client_dies_in_a_step]
    return acts + [engine_is_killed, engine_freezes] if is_isolated else acts
