# SPDX-License-Identifier: Apache-2.0
"""
A client as users of Isaac Sim write it: its topic names, its services, nothing of this package.

Drives forward, moves a joint, pauses, makes ten steps, resets; prints what it saw as JSON.
"""
import json
import sys
import time

from geometry_msgs.msg import Twist
from nav_msgs.msg import Odometry
import rclpy
from rclpy.node import Node
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image, JointState
from simulation_interfaces.msg import SimulationState
from simulation_interfaces.srv import (GetEntities, GetEntityState, GetSimulationState,
                                       ResetSimulation, SetSimulationState, StepSimulation)


class IsaacClient(Node):
    """Reads and drives whatever simulator speaks with Isaac Sim's names."""

    def __init__(self):
        super().__init__('isaac_client')
        self.newest, self.stamps = {}, []
        for key, msg_type in (('rgb', Image), ('camera_info', CameraInfo), ('depth', Image),
                              ('odom', Odometry), ('joint_states', JointState)):
            self.create_subscription(msg_type, key, lambda m, key=key: self.on_sensor(key, m), 10)
        self.create_subscription(Clock, 'clock', lambda m: self.newest.update(clock=m), 10)
        self.cmd_vel = self.create_publisher(Twist, 'cmd_vel', 10)
        self.joint_command = self.create_publisher(JointState, 'joint_command', 10)

    def on_sensor(self, key, msg):
        self.newest[key] = msg
        if key == 'rgb':
            self.stamps.append(nanoseconds(msg.header.stamp))

    def wait_for(self, happened, act=lambda: None, timeout_s=60.0):
        deadline = time.monotonic() + timeout_s
        while not happened():
            if time.monotonic() > deadline:
                raise SystemExit(f'timeout; seen {sorted(self.newest)}')
            act()
            rclpy.spin_once(self, timeout_sec=0.05)

    def call(self, srv_type, name, **fields):
        client = self.create_client(srv_type, name)
        self.wait_for(client.service_is_ready)
        future = client.call_async(srv_type.Request(**fields))
        self.wait_for(future.done)
        return future.result()


def nanoseconds(stamp):
    return stamp.sec * 1_000_000_000 + stamp.nanosec


def main():
    rclpy.init()
    sim = IsaacClient()
    seen = {}
    sim.wait_for(lambda: len(sim.newest) == 6)
    rgb, info, depth = (sim.newest[k] for k in ('rgb', 'camera_info', 'depth'))
    seen['image'] = [rgb.width, rgb.height, rgb.encoding, rgb.header.frame_id]
    seen['camera_info'] = [info.width, info.height, info.header.frame_id, bool(info.k[0] > 0.0)]
    seen['depth'] = [depth.encoding, depth.header.frame_id]
    odom = sim.newest['odom']
    seen['odom'] = [odom.header.frame_id, odom.child_frame_id]
    forward = Twist()
    forward.linear.x = 0.2
    sim.wait_for(lambda: sim.newest['odom'].twist.twist.linear.x > 0.15,
                 lambda: sim.cmd_vel.publish(forward))
    joint = sim.newest['joint_states'].name[0]
    goal = 0.3 if sim.newest['joint_states'].position[0] < 0.0 else -0.3
    command = JointState(name=[joint], position=[goal])
    sim.wait_for(lambda: abs(sim.newest['joint_states'].position[0] - goal) < 0.05,
                 lambda: sim.joint_command.publish(command))
    seen['moved'] = True
    result = sim.call(SetSimulationState, 'set_simulation_state',
                      state=SimulationState(state=SimulationState.STATE_PAUSED))
    seen['paused'] = result.result.result
    state = sim.call(GetSimulationState, 'get_simulation_state')
    seen['state'] = state.state.state
    robot = sim.call(GetEntities, 'get_entities').entities[0]
    before = nanoseconds(sim.call(GetEntityState, 'get_entity_state',
                                  entity=robot).state.header.stamp)
    sim.wait_for(lambda: sim.stamps[-1] == before)  # images from before the pause may still come
    seen['step'] = sim.call(StepSimulation, 'step_simulation', steps=10).result.result
    sim.wait_for(lambda: len([s for s in sim.stamps if s > before]) == 10)
    after = nanoseconds(sim.newest['clock'].clock)
    sim.wait_for(lambda: nanoseconds(sim.newest['clock'].clock) == max(sim.stamps))
    seen['stepped_s'] = (max(sim.stamps) - before) * 1e-9
    seen['clock_is_newest'] = after <= max(sim.stamps)
    seen['reset'] = sim.call(ResetSimulation, 'reset_simulation').result.result
    seen['state_after_reset'] = sim.call(GetSimulationState, 'get_simulation_state').state.state
    sim.wait_for(lambda: nanoseconds(sim.newest['clock'].clock) < before)
    print(json.dumps(seen))
    sim.destroy_node()
    rclpy.shutdown()


if __name__ == '__main__':
    sys.exit(main())
