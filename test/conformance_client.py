# SPDX-License-Identifier: Apache-2.0
"""
A client of simulation_interfaces in a process of its own: plain rclpy, nothing of this package.

Reads one JSON request per line from standard input and answers each with one JSON line. The four
habits at the end are written the way users of Isaac Sim, Gazebo, O3DE and MuJoCo write them.
"""
import json
import sys
import time

from action_msgs.msg import GoalStatus
import rclpy
from rclpy.action import ActionClient
from rclpy.executors import SingleThreadedExecutor
from rosgraph_msgs.msg import Clock
import simulation_interfaces.action
import simulation_interfaces.msg
import simulation_interfaces.srv
from simulation_requests import fitting

PATIENCE_S = 60.0  # a guard: answers come within a second
STOPPED, PLAYING, PAUSED, QUITTING, NO_WORLD = 0, 1, 2, 3, 4
OK, INCORRECT_STATE, OPERATION_FAILED = 1, 3, 4


class Client:
    """Calls services below a prefix and waits for their answers."""

    def __init__(self, node, executor):
        self.node, self._executor = node, executor
        self._clients = {}
        self._feedback = {}  # of all goals below a prefix

    def wait(self, happened, what):
        """Spin until it happened."""
        deadline = time.monotonic() + PATIENCE_S
        while not happened():
            if time.monotonic() > deadline:
                raise AssertionError(f'waited in vain for {what}')
            self._executor.spin_once(timeout_sec=0.1)

    def send(self, name, prefix='', **fields):
        """Send a request; returns the future of the response."""
        srv_type = getattr(simulation_interfaces.srv, _camel(name))
        if (prefix, name) not in self._clients:
            self._clients[prefix, name] = self.node.create_client(srv_type, f'{prefix}/{name}')
        client = self._clients[prefix, name]
        self.wait(client.service_is_ready, f'service {prefix}/{name}')
        request = srv_type.Request()
        _fill(request, fitting(request.get_fields_and_field_types(), fields))
        return client.call_async(request)

    def call(self, name, prefix='', **fields):
        """Call a service; the response comes as a dictionary."""
        future = self.send(name, prefix, **fields)
        self.wait(future.done, f'the answer of {prefix}/{name}')
        return _plain(future.result())

    def code(self, name, prefix='', **fields):
        """Call a service; only the code of the result."""
        return self.call(name, prefix, **fields)['result']['result']

    def state(self, prefix=''):
        """Ask for the state."""
        return self.call('get_simulation_state', prefix)['state']['state']

    def set_state(self, state, prefix=''):
        """Change the state; returns the code."""
        return self.code('set_simulation_state', prefix, state={'state': state})

    def action_client(self, prefix=''):
        """Return a client of the action that hears the feedback of its first goal, too."""
        action = simulation_interfaces.action.SimulateSteps
        client = ActionClient(self.node, action, f'{prefix}/simulate_steps')
        # By its topic: what comes after the result, an action client of rclpy does not pass on.
        if prefix not in self._feedback:
            self._feedback[prefix] = []
            self.node.create_subscription(
                action.Impl.FeedbackMessage, f'{prefix}/simulate_steps/_action/feedback',
                self._feedback[prefix].append, 100)
        self.wait(client.server_is_ready, 'the action')
        # The server learns of subscriptions in the order in which they were made, so when it
        # answers a service client that is newer it has found the one for feedback.
        self._clients.pop((prefix, 'get_simulation_state'), None)
        self.state(prefix)
        return client

    def simulate(self, steps, prefix='', cancel_after=None):
        """Run the action; cancel once so many steps were reported."""
        key = prefix, 'simulate_steps'
        if key not in self._clients:
            self._clients[key] = self.action_client(prefix)
        client, canceling = self._clients[key], []
        accepted = client.send_goal_async(
            simulation_interfaces.action.SimulateSteps.Goal(steps=steps))
        self.wait(accepted.done, 'the goal to be accepted')
        goal = accepted.result()
        outcome = goal.get_result_async()

        def feedback():
            return [_plain(message.feedback) for message in self._feedback[prefix]
                    if message.goal_id == goal.goal_id]

        def is_over():
            if cancel_after is not None and len(feedback()) >= cancel_after and not canceling:
                canceling.append(goal.cancel_goal_async())
            return outcome.done()

        self.wait(is_over, 'the result of the action')
        status = {GoalStatus.STATUS_SUCCEEDED: 'succeeded', GoalStatus.STATUS_ABORTED: 'aborted',
                  GoalStatus.STATUS_CANCELED: 'canceled'}[outcome.result().status]
        if status == 'succeeded':  # feedback is a topic of its own and may come later
            self.wait(lambda: len(feedback()) >= steps, 'the feedback')
        return {'accepted': goal.accepted, 'status': status, 'feedback': feedback(),
                'result': _plain(outcome.result().result.result)}

    def during_steps(self, name, prefix='', **fields):
        """Call a service while a step request runs; returns both responses."""
        stepping = self.send('step_simulation', prefix, steps=2 ** 64 - 1)
        self.wait(lambda: self.state(prefix) == PLAYING, 'the steps to begin')
        second = self.call(name, prefix, **fields)
        if name in ('step_simulation', 'get_simulation_state', 'get_entities'):
            self.set_state(PAUSED, prefix)  # they interrupt nothing
        self.wait(stepping.done, 'the steps to end')
        return {'steps': _plain(stepping.result()), 'other': second}

    def two_goals(self, prefix=''):
        """Start the action twice at once, then cancel the first; returns all."""
        second = {}

        def on_feedback(_):
            second['sent'] = True

        client = self.action_client(prefix)
        accepted = client.send_goal_async(
            simulation_interfaces.action.SimulateSteps.Goal(steps=10 ** 9),
            feedback_callback=on_feedback)
        self.wait(lambda: 'sent' in second, 'feedback')
        other = self.simulate(1, prefix)
        outcome = accepted.result().get_result_async()
        accepted.result().cancel_goal_async()
        self.wait(outcome.done, 'the first goal to end')
        client.destroy()
        return {'first': _plain(outcome.result().result.result), 'second': other}

    def vanish(self, prefix=''):
        """Send requests that take long, and leave without waiting for their answers."""
        self.send('step_simulation', prefix, steps=10 ** 9)
        self.wait(lambda: self.state(prefix) == PLAYING, 'the steps to begin')
        sys.stdout.write('null\n')
        sys.stdout.flush()
        sys.exit(0)

    def vanish_from_action(self, prefix=''):
        """Start a goal and leave in the middle of it."""
        client = self.action_client(prefix)
        client.send_goal_async(simulation_interfaces.action.SimulateSteps.Goal(steps=10 ** 9))
        self.wait(lambda: self.state(prefix) == PLAYING, 'the steps to begin')
        sys.stdout.write('null\n')
        sys.stdout.flush()
        sys.exit(0)

    def go(self, state, prefix=''):
        """Bring the simulator into a state, whatever it is in."""
        if state == 'no_world':
            self.call('unload_world', prefix)
            return
        scene = {'error': 'faulty', 'stepping': 'slow'}.get(state, 'living_room')
        loaded = self.call('load_world', prefix, world_resource={'uri': scene})
        assert loaded['result']['result'] == OK, loaded
        if state == 'playing':
            assert self.set_state(PLAYING, prefix) == OK
        elif state in ('paused', 'stepping', 'error'):
            assert self.set_state(PAUSED, prefix) == OK
        if state == 'error':
            assert self.code('step_simulation', prefix, steps=1) == OPERATION_FAILED

    # The four habits.

    def isaac(self):
        """Isaac Sim: names at the root; a reset, whatever its scope, ends playing."""
        features = self.call('get_simulator_features')['features']
        step_dt_s = json.loads(features['custom_info'])['step_dt_s']
        assert {20, 24, 25, 31, 32, 33} <= set(features['features'])
        clock = []
        self.node.create_subscription(Clock, '/clock', clock.append, 10)
        assert self.set_state(PLAYING) in (OK, 101)
        for scope in (0, 255, 2):
            assert self.set_state(PAUSED) == OK
            assert self.code('reset_simulation', scope=scope) == OK
            assert self.state() == PLAYING, 'Isaac Sim plays after any reset'
        assert self.code('step_simulation', steps=1) != OK, 'it is playing'
        assert self.set_state(PAUSED) == OK
        for steps in (1, 4, 10):
            before = self._sim_time_s()
            assert self.code('step_simulation', steps=steps) == OK
            after = self._sim_time_s()
            assert abs(after - before - steps * step_dt_s) < 1e-6, 'exactly these frames'
            assert self.state() == PAUSED
            self.wait(lambda: clock and abs(_seconds(clock[-1].clock) - after) < 1e-6,
                      'the clock of the newest frame')
        assert self.simulate(3)['status'] == 'succeeded'
        robot = self.call('get_entities', filters={'filter': 'robot'})['entities']
        assert len(robot) == 1
        assert self.call('get_entity_state', entity=robot[0])['result']['result'] == OK
        assert self.set_state(STOPPED) == OK
        assert self.set_state(PLAYING) == OK

    def gazebo(self):
        """Gazebo: names under /gzserver; resets everything and keeps what plays or is paused."""
        prefix = '/gzserver'
        self.call('get_simulator_features', prefix)
        self.set_state(PAUSED, prefix)
        for scope in (0, 255):
            assert self.code('reset_simulation', prefix, scope=scope) == OK
            assert self.state(prefix) == PAUSED, 'a paused world stays paused'
        assert self.code('step_simulation', prefix, steps=25) == OK
        assert self._sim_time_s(prefix) > 25 / 15.0
        assert self.set_state(PLAYING, prefix) == OK
        assert self.code('reset_simulation', prefix, scope=0) == OK
        assert self.state(prefix) == PLAYING, 'a playing world goes on'
        assert self.set_state(STOPPED, prefix) == OK
        assert self._sim_time_s(prefix) < 0.1, 'stop pauses and resets'
        names = self.call('get_entities', prefix)['entities']
        info = self.call('get_entity_info', prefix, entity=names[0])
        assert info['info']['category']['category'] == 1, 'a robot'

    def o3de(self, prefix=''):
        """O3DE: starts stopped, honours every scope, steps only when paused."""
        assert self.state(prefix) == STOPPED, 'StartInStoppedState'
        assert self.code('step_simulation', prefix, steps=1) == OPERATION_FAILED
        assert self.set_state(PLAYING, prefix) == OK
        assert self.code('step_simulation', prefix, steps=1) == OPERATION_FAILED
        assert self.simulate(1, prefix)['result']['result'] == OPERATION_FAILED
        assert self.set_state(PAUSED, prefix) == OK
        start = self._pose(prefix)
        self._put(1.5, 1.5, prefix)
        assert self.code('step_simulation', prefix, steps=5) == OK
        time_s = self._sim_time_s(prefix)
        assert self.code('reset_simulation', prefix, scope=2) == OK  # state only
        assert self._pose(prefix) == start and self._sim_time_s(prefix) >= time_s
        self._put(1.5, 1.5, prefix)
        assert self.code('reset_simulation', prefix, scope=1) == OK  # time only
        assert self._pose(prefix)['x'] == 1.5 and self._sim_time_s(prefix) < 0.1
        assert self.code('reset_simulation', prefix, scope=4) == OK  # nothing was spawned
        assert self._pose(prefix)['x'] == 1.5
        assert self.code('reset_simulation', prefix, scope=7) == OK
        assert self._pose(prefix) == start
        assert self.code('reset_simulation', prefix, scope=64) != OK
        assert self.state(prefix) == PAUSED

    def mujoco(self, prefix=''):
        """mujoco_ros2_control: pause, set a state, step and wait for it, look, go on."""
        self.set_state(PLAYING, prefix)
        assert self.set_state(PAUSED, prefix) == OK
        step_dt_s = json.loads(
            self.call('get_simulator_features', prefix)['features']['custom_info'])['step_dt_s']
        for episode in range(3):
            self._put(2.0, 1.5 + 0.1 * episode, prefix)
            before = self._sim_time_s(prefix)
            assert self.code('step_simulation', prefix, steps=10) == OK
            assert abs(self._sim_time_s(prefix) - before - 10 * step_dt_s) < 1e-6
            assert abs(self._pose(prefix)['x'] - 2.0) < 1e-6, 'it was told to stand still'
        assert self.set_state(PLAYING, prefix) == OK
        paused_at = self._sim_time_s(prefix)
        self.wait(lambda: self._sim_time_s(prefix) > paused_at, 'time to run again')

    def _put(self, x_m, y_m, prefix):
        assert self.code('set_entity_state', prefix, entity='robot', set_pose=True, set_twist=True,
                         state={'pose': {'position': {'x': x_m, 'y': y_m}}}) == OK

    def _pose(self, prefix):
        return self.call('get_entity_state', prefix,
                         entity='robot')['state']['pose']['position']

    def _sim_time_s(self, prefix=''):
        stamp = self.call('get_entity_state', prefix, entity='robot')['state']['header']['stamp']
        return stamp['sec'] + stamp['nanosec'] * 1e-9


def _seconds(stamp):
    return stamp.sec + stamp.nanosec * 1e-9


def _camel(name):
    return ''.join(part.capitalize() for part in name.split('_'))


def _fill(message, fields):
    """Set nested fields of a message from a dictionary."""
    for name, value in fields.items():
        if isinstance(value, dict):
            _fill(getattr(message, name), value)
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            setattr(message, name, [_element(message, name, entry) for entry in value])
        else:
            if isinstance(getattr(message, name), float):
                value = float(value)
            setattr(message, name, value)


def _element(message, name, fields):
    kind = message.get_fields_and_field_types()[name]  # sequence<package/Type>
    package, element = kind[len('sequence<'):-1].split('/')
    made = getattr(__import__(f'{package}.msg', fromlist=[element]), element)()
    _fill(made, fields)
    return made


def _plain(value):
    """Turn a message into dictionaries, lists and numbers."""
    if hasattr(value, 'get_fields_and_field_types'):
        return {name: _plain(getattr(value, name)) for name in value.get_fields_and_field_types()}
    if isinstance(value, (str, bool, int, float)):
        return value
    return [_plain(entry) for entry in value]


def main():
    """Answer requests until standard input ends."""
    rclpy.init()
    executor = SingleThreadedExecutor()
    client = Client(rclpy.create_node('conformance_client'), executor)
    executor.add_node(client.node)
    for line in sys.stdin:
        method, arguments, keywords = json.loads(line)
        try:
            answer = getattr(client, method)(*arguments, **keywords)
        except AssertionError as error:
            frame = error.__traceback__
            while frame.tb_next:
                frame = frame.tb_next
            answer = {'failed': f'line {frame.tb_lineno}: {error}'}
        sys.stdout.write(f'{json.dumps(answer)}\n')
        sys.stdout.flush()
    rclpy.try_shutdown()


if __name__ == '__main__':
    main()
