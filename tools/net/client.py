# SPDX-License-Identifier: Apache-2.0
"""
A ROS client that drives a world in stepped mode and writes down all that it is told.

It knows the public surface only: names and types of topics, services, parameters. A step is over
when each topic has brought the frame with the stamp that the step must end with, so nothing is
lost and nothing depends on how fast the machine is.
"""
from importlib import import_module
import json
import time

import builtin_interfaces.msg
from geometry_msgs.msg import Twist, TwistStamped
from lifecycle_msgs.srv import ChangeState
from lingbot_world_ros.msg import ActionEmbedding, WorldSpec, WorldStatus
from nav_msgs.msg import Odometry, Path
import rcl_interfaces.msg
import rcl_interfaces.srv
import rclpy
from rclpy.action import ActionClient
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile
from record_of import changes, Flattener, text_digest
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, JointState, LaserScan
import simulation_interfaces.action
import simulation_interfaces.msg
import simulation_interfaces.srv
from std_msgs.msg import Float32, Float64MultiArray, String
import std_srvs.srv
from tf2_msgs.msg import TFMessage
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

PATIENCE_S = 60.0
START_PATIENCE_S = 180.0
JOINING_S = 20.0  # after its first frame a world says how it is within a second
QUIET_S = 0.3
IDLE_S = 0.002
DEPTH = 2000
STATE_PAUSED, STATE_PLAYING = 2, 1

# What is heard, by key: type, name, latched. Those with a frame's stamp come last: once the last
# of them brings a message, the world has heard of every subscription before it.
TOPICS = {
    'robot_description': (String, 'robot_description', True),
    'tf_static': (TFMessage, '/tf_static', True),
    'world_spec': (WorldSpec, 'world_spec', True),
    'path': (Path, 'path', False),
    'clock': (Clock, '/clock', False),
    'real_time_factor': (Float32, 'real_time_factor', False),
    'action_embedding': (ActionEmbedding, 'action_embedding', False),
    'world_status': (WorldStatus, 'world_status', False),
    'odom': (Odometry, 'odom', False),
    'joint_states': (JointState, 'joint_states', False),
    'tf': (TFMessage, '/tf', False),
    'camera_info': (CameraInfo, 'camera/camera_info', False),
    'scan': (LaserScan, 'scan', False),
    'depth_camera_info': (CameraInfo, 'camera/depth/camera_info', False),
    'depth': (Image, 'camera/depth/image_rect_raw', False),
    'compressed': (CompressedImage, 'camera/image_raw/compressed', False),
    'image': (Image, 'camera/image_raw', False)}
FRAME = ('odom', 'joint_states', 'tf', 'camera_info', 'scan', 'depth_camera_info', 'depth',
         'compressed', 'image')
COMMANDS = {
    'cmd_vel': (Twist, 'cmd_vel'),
    'joint_command': (JointState, 'joint_command'),
    'joint_trajectory': (JointTrajectory, 'arm_controller/joint_trajectory'),
    'joint_commands': (Float64MultiArray, 'arm_controller/commands'),
    'prompt': (String, 'prompt'),
    'anchor_image': (Image, 'camera/anchor')}
# Of the wall, not of the world: they differ from run to run.
LEFT_OUT = {
    'world_status': ('real_time_factor', 'frame_rate', 'step_duration', 'command_latency',
                     'late_frames'),
    'real_time_factor': ('data',)}
REPEATED = ('world_status',)  # told again and again while time stands still


def seconds(stamp_ns: int) -> builtin_interfaces.msg.Time:
    """Return a stamp as messages have it."""
    return builtin_interfaces.msg.Time(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)


def ns_of(stamp) -> int:
    """Return a stamp in nanoseconds."""
    return stamp.sec * 10**9 + stamp.nanosec


def stamp_of(msg):
    """Return the sim time of a message, nanoseconds; None if it has none."""
    if hasattr(msg, 'clock'):
        return ns_of(msg.clock)
    if hasattr(msg, 'transforms'):
        msg = msg.transforms[0]
    return ns_of(msg.header.stamp) if hasattr(msg, 'header') else None


def parameter_value(value):
    """Return a parameter's value as its services take it."""
    kinds = rcl_interfaces.msg.ParameterType
    if isinstance(value, bool):
        return rcl_interfaces.msg.ParameterValue(type=kinds.PARAMETER_BOOL, bool_value=value)
    if isinstance(value, int):
        return rcl_interfaces.msg.ParameterValue(type=kinds.PARAMETER_INTEGER,
                                                 integer_value=value)
    if isinstance(value, float):
        return rcl_interfaces.msg.ParameterValue(type=kinds.PARAMETER_DOUBLE, double_value=value)
    return rcl_interfaces.msg.ParameterValue(type=kinds.PARAMETER_STRING, string_value=value)


def fill(msg, fields: dict):
    """Set the fields of a message; fields of fields as dictionaries, messages in lists too."""
    for name, value in fields.items():
        if isinstance(value, dict):
            fill(getattr(msg, name), value)
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            kind = msg.get_fields_and_field_types()[name]
            package, _, name_of_kind = kind.partition('<')[2].rstrip('>').partition('/')
            make = getattr(import_module(f'{package}.msg'), name_of_kind)
            items = [make() for _ in value]
            for item, content in zip(items, value):
                fill(item, content)
            setattr(msg, name, items)
        else:
            setattr(msg, name, value)


def parameter_table(world, node) -> dict:
    """
    Ask a node for all its parameters.

    :param node: its full name
    :return: name -> what describes it, and its value
    """
    def ask(kind, **fields):
        name = f'{node}/{_snake(kind)}'
        return world.call(getattr(rcl_interfaces.srv, kind), name, silent=True, **fields)
    names = sorted(ask('ListParameters').result.names)
    described = ask('DescribeParameters', names=names).descriptors
    values = ask('GetParameters', names=names).values
    flat = Flattener().table
    return {name: {**flat(one), 'value': {path: value for path, value in flat(other).items()
                                          if value not in ('', 0, 0.0, False, [])}}
            for name, one, other in zip(names, described, values)}


class Stream:
    """The messages of one topic: each a digest and what changed since the one before."""

    def __init__(self, key, flattener):
        self.key, self._flattener = key, flattener
        self._left_out = LEFT_OUT.get(key, ())
        self._until_ns = None
        self._last = {}
        self.count, self.newest, self.stamp = 0, None, None
        self.records, self._stamps = [], []

    def add(self, msg):
        """Take note of a message."""
        self.count, self.newest, self.stamp = self.count + 1, msg, stamp_of(msg)
        if self._until_ns is not None and (self.stamp or 0) > self._until_ns:
            return
        table = self._flattener.table(msg)
        for path in self._left_out:
            table.pop(path, None)
        if self.key in REPEATED and table == self._last:
            return
        self.records.append([text_digest(json.dumps(table)), changes(self._last, table)])
        self._stamps.append(self.stamp)
        self._last = table

    def last(self):
        """Return the newest message as the first of a record."""
        return [[self.records[-1][0], self._last]] if self.records else []

    def forget(self):
        """Begin anew; the newest message stays the one before."""
        self.records, self._stamps = [], []

    def leave_out(self, *paths):
        """Record these fields no more."""
        self._left_out += paths

    def stop_at(self, stamp_ns):
        """Drop what came, or comes, with a later stamp."""
        self._until_ns = stamp_ns
        self.records = [record for record, stamp in zip(self.records, self._stamps)
                        if (stamp or 0) <= stamp_ns]


class World:
    """One world as a client sees it, and the record of what it told."""

    def __init__(self, domain, *, folders=(), namespace='', prefix='', names=None, without=(),
                 cmd_vel_type=Twist, left_out=()):
        """
        Subscribe to everything.

        :param domain: ROS domain
        :param folders: as ``Flattener`` takes them
        :param namespace: of the world, without slashes
        :param prefix: of the simulation services
        :param names: topic names that are not the default ones, by key
        :param without: keys of topics that this world does not have
        :param cmd_vel_type: Twist or TwistStamped
        :param left_out: keys of topics that are not recorded
        """
        self._context = rclpy.Context()
        rclpy.init(args=[], context=self._context, domain_id=domain)
        self._namespace = f'/{namespace}' if namespace else ''
        self._prefix = prefix or self._namespace
        self._model = f'{self._namespace}/world_model'
        self._encoder = f'{self._namespace}/action_encoder'
        self.node = rclpy.create_node('net', context=self._context, namespace=self._namespace
                                      or None, use_global_arguments=False)
        self._listener = rclpy.create_node(
            'net_listener', context=self._context, namespace=self._namespace or None,
            use_global_arguments=False)
        self._subscriptions = []
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._flattener = Flattener(folders)
        self._clients, self._publishers = {}, {}
        self._names = dict(names or {})
        self._command_types = {**{key: kind for key, (kind, _) in COMMANDS.items()},
                               'cmd_vel': cmd_vel_type}
        self.answers, self.start = [], {}
        self.streams = {}
        self._left_out = left_out
        for key, (kind, name, latched) in TOPICS.items():
            if key not in without:
                self.listen(key, kind, self._names.get(key, name), latched)
        self._frame_keys = [key for key in FRAME if key in self.streams]
        self.sim_ns = self.period_ns = 0
        self.frames_per_step = 1

    # Listening.

    def listen(self, key, kind, name, latched=False):
        """Record a topic."""
        stream = self.streams[key] = Stream(key, self._flattener)
        durability = DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE
        subscription = self._listener.create_subscription(
            kind, name, stream.add, QoSProfile(depth=DEPTH, durability=durability))
        self._subscriptions.append((subscription.handle, kind, stream))

    def spin(self):
        """Take what is there; sleep for a moment if there is nothing."""
        is_idle = True
        for handle, kind, stream in self._subscriptions:  # cheaper than an executor's wait
            with handle:
                taken = handle.take_message(kind, False)
            while taken is not None:
                is_idle = False
                stream.add(taken[0])
                with handle:
                    taken = handle.take_message(kind, False)
        self._executor.spin_once(timeout_sec=0.0)
        if is_idle:
            time.sleep(IDLE_S)

    def wait(self, happened, what, patience_s=PATIENCE_S):
        """Spin until something happened."""
        deadline_s = time.monotonic() + patience_s
        while not happened():
            if time.monotonic() > deadline_s:
                stamps = {key: stream.stamp for key, stream in self.streams.items()}
                raise RuntimeError(f'waited {patience_s:g} s in vain for {what}; newest stamps '
                                   f'{stamps}')
            self.spin()

    def begin(self, program=None):
        """Wait for the first frame on every topic, and keep it as what the world starts with."""
        wanted = [*self._frame_keys, 'world_spec', 'world_status']

        def is_there():
            return all(self.streams[key].count for key in wanted)
        since_s = time.monotonic()
        self.wait(lambda: program is not None and program.code is not None or is_there()
                  or time.monotonic() - since_s > JOINING_S, 'a frame', START_PATIENCE_S)
        if self.streams['world_status'].count and not is_there():
            # Another node heard the frame before this one was found: nobody is told it twice.
            self.call(simulation_interfaces.srv.ResetSimulation,
                      f'{self._prefix}/reset_simulation', silent=True)
        self.wait(lambda: program is not None and program.code is not None or is_there(),
                  f'the first frame ({wanted})', START_PATIENCE_S)
        if program is not None and program.code is not None:
            raise RuntimeError(f'it ended with {program.code}: {program.lines[-10:]}')
        self.quiet()
        self.start = {key: stream.last() for key, stream in self.streams.items()
                      if key in wanted or TOPICS.get(key, (0, 0, False))[2]}
        for stream in self.streams.values():
            stream.forget()
        self.read_spec()
        self.sim_ns = self.streams['odom'].stamp

    def read_spec(self):
        """Learn from world_spec how long a step is."""
        spec = self.streams['world_spec'].newest
        self.period_ns = round(1e9 / spec.frame_rate)
        self.frames_per_step = spec.frames_per_step

    def quiet(self, quiet_s=QUIET_S):
        """Wait until nothing comes any more but what is repeated."""
        def total():
            return sum(stream.count for key, stream in self.streams.items()
                       if key not in (*REPEATED, *self._left_out))
        count, since_s = total(), time.monotonic()
        while time.monotonic() - since_s < quiet_s:
            self.spin()
            if total() != count:
                count, since_s = total(), time.monotonic()

    @property
    def status(self):
        """The newest world_status."""
        return self.streams['world_status'].newest

    def wait_for_frame(self, stamp_ns, state=STATE_PAUSED):
        """Wait until a frame is there on every topic, and the status that follows it."""
        def there():
            return (all(self.streams[key].stamp == stamp_ns for key in self._frame_keys)
                    and self.streams['world_status'].stamp == stamp_ns
                    and state in (None, self.status.state)
                    and ('clock' not in self.streams or self.streams['clock'].stamp == stamp_ns))
        self.wait(there, f'the frame at {stamp_ns}')
        self.sim_ns = stamp_ns

    # Asking.

    def call(self, kind, name, note='', patience_s=PATIENCE_S, silent=False, **fields):
        """
        Call a service and record its answer.

        :param kind: type of the service
        :param name: absolute, or relative to the world
        :param note: told beside the answer
        :param silent: record nothing
        :param fields: of the request, nested as dictionaries
        :return: the response
        """
        future = self.ask(kind, name, **fields)
        self.wait(future.done, f'the answer of {name}', patience_s)
        if not silent:
            self.note(f'{name.rpartition("/")[2]} {json.dumps(fields)} {note}'.strip(),
                      self._flattener.table(future.result()))
        return future.result()

    def ask(self, kind, name, **fields):
        """Send a request; return the future of the answer."""
        client = self._clients.get(name)
        if client is None:
            client = self._clients[name] = self.node.create_client(kind, name)
        self.wait(client.service_is_ready, f'service {name}', START_PATIENCE_S)
        request = kind.Request()
        fill(request, fields)
        return client.call_async(request)

    def note(self, label, answer):
        """Record something else that was learned."""
        self.answers.append([self._flattener.text(label), answer])

    def sim(self, name, note='', **fields):
        """Call a service of simulation_interfaces by its type's name."""
        kind = getattr(simulation_interfaces.srv, name)
        return self.call(kind, f'{self._prefix}/{_snake(name)}', note, **fields)

    def trigger(self, name):
        """Call a service of std_srvs of world_model without arguments."""
        return self.call(std_srvs.srv.Trigger, f'{self._model}/{name}')

    def pause(self, data):
        """Call ``~/pause``."""
        return self.call(std_srvs.srv.SetBool, f'{self._model}/pause', data=data)

    def set_parameter(self, name, value, node=None):
        """Set a parameter of world_model, or of the node that is named."""
        request = [{'name': name, 'value': parameter_value(value)}]
        future = self._ask_parameters(node, request)
        self.wait(future.done, 'set_parameters')
        self.note(f'set {node or "world_model"} {name} {value!r}',
                  self._flattener.table(future.result()))

    def _ask_parameters(self, node, entries):
        kind = rcl_interfaces.srv.SetParameters
        name = f'{self._namespace}/{node}' if node else self._model
        client = self._clients.setdefault(
            f'{name}/set_parameters', self.node.create_client(kind, f'{name}/set_parameters'))
        self.wait(client.service_is_ready, f'the parameters of {name}')
        return client.call_async(kind.Request(parameters=[
            rcl_interfaces.msg.Parameter(**entry) for entry in entries]))

    def lifecycle(self, label):
        """Ask world_model for a transition."""
        ids = {'configure': 1, 'cleanup': 2, 'activate': 3, 'deactivate': 4}
        return self.call(ChangeState, f'{self._model}/change_state', label,
                         transition={'id': ids[label]})

    def state(self):
        """Ask for the state and return its number."""
        return self.sim('GetSimulationState').state.state

    # Time.

    def step(self, steps=1, times=1):
        """Make steps, so many per request, and wait for the last frame of each request."""
        for _ in range(times):
            name = f'{self._prefix}/step_simulation'
            response = self.call(simulation_interfaces.srv.StepSimulation, name, silent=True,
                                 steps=steps)
            if response.result.result != 1:
                self.note('step refused', self._flattener.table(response))
                return
            self.wait_for_frame(self.sim_ns + steps * self.frames_per_step * self.period_ns)

    def new_frame(self, act, stamp_ns=None, state=None):
        """
        Do something that shows one new frame, and wait for it.

        :param act: called without arguments
        :param stamp_ns: of the frame; None is that of the first frame
        """
        counts = {key: self.streams[key].count for key in [*self._frame_keys, 'world_status']}
        outcome = act()
        self.wait(lambda: all(self.streams[key].count > count for key, count in counts.items()),
                  'a new frame')
        self.read_spec()
        self.wait_for_frame(self.period_ns if stamp_ns is None else stamp_ns, state)
        return outcome

    def reset(self, scope=0, stamp_ns=None):
        """Reset and wait for the frame that it shows."""
        return self.new_frame(lambda: self.sim('ResetSimulation', scope=scope), stamp_ns)

    def load(self, uri='', text='', **fields):
        """Load a world that can be loaded; it is paused afterwards."""
        resource = {'uri': uri, 'resource_string': text}
        self.new_frame(lambda: self.sim('LoadWorld', world_resource=resource, **fields))
        self.sim('SetSimulationState', state={'state': STATE_PAUSED})

    def simulate(self, steps):
        """Make steps by the action; record its feedback and result."""
        kind = simulation_interfaces.action.SimulateSteps
        client, feedback = ActionClient(
            self.node, kind, f'{self._prefix}/simulate_steps'), []
        self.wait(client.server_is_ready, 'the action')
        accepted = client.send_goal_async(
            kind.Goal(steps=steps),
            feedback_callback=lambda m: feedback.append(self._flattener.table(m.feedback)))
        self.wait(accepted.done, 'the goal to be accepted')
        outcome = accepted.result().get_result_async()
        self.wait(outcome.done, 'the result')
        self.wait(lambda: len(feedback) >= steps, 'the feedback')
        client.destroy()
        self.note(f'simulate_steps {steps}', {
            'status': outcome.result().status, 'feedback': feedback,
            **self._flattener.table(outcome.result().result), 'canceled': 0})
        self.wait_for_frame(self.sim_ns + steps * self.frames_per_step * self.period_ns)

    # Commanding.

    def publish(self, key, msg):
        """Send a message and make sure that it was taken before anything that follows."""
        publisher = self._publishers.get(key)
        if publisher is None:
            name = self._names.get(key, COMMANDS[key][1])
            publisher = self._publishers[key] = self.node.create_publisher(
                self._command_types[key], name, 10)
        self.wait(publisher.get_subscription_count, f'a subscriber of {key}')
        publisher.publish(msg)
        if not publisher.wait_for_all_acked(Duration(seconds=PATIENCE_S)):
            raise RuntimeError(f'{key}: the message did not arrive')
        # An executor takes messages before it answers a service: then this one was taken.
        self.call(rcl_interfaces.srv.ListParameters, f'{self._encoder}/list_parameters',
                  silent=True)
        self.call(rcl_interfaces.srv.ListParameters, f'{self._model}/list_parameters',
                  silent=True)

    def twist(self, x=0.0, yaw=0.0, stamp_ns=0, **others):
        """Send a base velocity; ``others`` as ``y``, ``z``, ``roll``, ``pitch``."""
        twist = Twist()
        twist.linear.x, twist.angular.z = float(x), float(yaw)
        twist.linear.y, twist.linear.z = others.get('y', 0.0), others.get('z', 0.0)
        twist.angular.x, twist.angular.y = others.get('roll', 0.0), others.get('pitch', 0.0)
        if self._command_types['cmd_vel'] is TwistStamped:
            stamped = TwistStamped(twist=twist)
            stamped.header.stamp = seconds(stamp_ns)
            return self.publish('cmd_vel', stamped)
        return self.publish('cmd_vel', twist)

    def drive(self, x, yaw, steps):
        """Send the same velocity before each of some steps."""
        for _ in range(steps):
            self.twist(x, yaw)
            self.step()

    def joints(self, names, position=(), velocity=(), effort=()):
        """Send a joint command."""
        self.publish('joint_command', JointState(
            name=list(names), position=list(map(float, position)),
            velocity=list(map(float, velocity)), effort=list(map(float, effort))))

    def arm(self, values):
        """Send one value per joint."""
        self.publish('joint_commands', Float64MultiArray(data=list(map(float, values))))

    def trajectory(self, names, points, stamp_ns=0):
        """
        Send a trajectory.

        :param names: of the joints
        :param points: (seconds from start, positions, velocities, accelerations) each; the last
            two may be left out
        :param stamp_ns: sim time of the start, 0 is now
        """
        msg = JointTrajectory(joint_names=list(names))
        msg.header.stamp = seconds(stamp_ns)
        for time_s, *values in points:
            point = JointTrajectoryPoint()
            after_ns = round(time_s * 1e9)
            point.time_from_start = builtin_interfaces.msg.Duration(
                sec=after_ns // 10**9, nanosec=after_ns % 10**9)
            for field, numbers in zip(('positions', 'velocities', 'accelerations'), values):
                setattr(point, field, list(map(float, numbers)))
            msg.points.append(point)
        self.publish('joint_trajectory', msg)

    def image(self, rgb, encoding='rgb8'):
        """Send an image to go on from, (h, w, 3) uint8."""
        height, width = rgb.shape[:2]
        self.publish('anchor_image', Image(
            height=height, width=width, step=rgb[0].nbytes, encoding=encoding,
            data=rgb.tobytes()))

    def put(self, entity, x, y, yaw=0.0, frame='', twist=None, **fields):
        """Put an entity somewhere."""
        from math import cos, sin
        state = {'header': {'frame_id': frame},
                 'pose': {'position': {'x': float(x), 'y': float(y), 'z': 0.0},
                          'orientation': {'z': sin(yaw / 2), 'w': cos(yaw / 2)}}}
        if twist is not None:
            state['twist'] = {'linear': {'x': twist[0], 'y': twist[1]}, 'angular': {'z': twist[2]}}
        return self.sim('SetEntityState', entity=entity, state=state,
                        **{'set_pose': True, 'set_twist': twist is not None, **fields})

    # The end.

    def end(self) -> dict:
        """
        Wait until all is said.

        :return: what was recorded
        """
        self.quiet()
        record = {'start': self.start, 'answers': self.answers,
                  'topics': {key: stream.records for key, stream in self.streams.items()
                             if key not in self._left_out}}
        if 'real_time_factor' in record['topics']:
            record['topics']['real_time_factor'] = [len(self.streams['real_time_factor'].records)]
        return record

    def close(self):
        """Leave the graph."""
        self._executor.shutdown()
        self.node.destroy_node()
        self._listener.destroy_node()
        rclpy.try_shutdown(context=self._context)


def _snake(name):
    return ''.join(f'_{c.lower()}' if c.isupper() and i else c.lower()
                   for i, c in enumerate(name))
