# SPDX-License-Identifier: Apache-2.0
"""
Navigation from one end of a room to the other, in imagination or in the reference world.

A planner that hears `map`, `scan` and `/tf` and sends `cmd_vel`, nothing else. The world is in
lockstep, a step per command, so that nothing depends on how fast the machine is. A judge, which
the planner does not hear, counts touches. Prints one JSON object.
"""
import argparse
from dataclasses import replace
import json
import sys
import threading
import time
from typing import Any, Callable, Dict, List

from bench.planner import Costmap, plan_path, Pursuit, Scan
from geometry_msgs.msg import Twist
from lingbot_world_ros.messages.commands import twist_to_msg
from lingbot_world_ros.messages.frames import transform_from_msg
from lingbot_world_ros.messages.stamps import stamp_to_ns
from lingbot_world_ros.nodes import qos
from lingbot_world_ros.nodes.action_encoder import ActionEncoderNode
from lingbot_world_ros.nodes.parameters import as_overrides
from lingbot_world_ros.nodes.ros_process import start_ros
from lingbot_world_ros.nodes.spinner import Spinner
from lingbot_world_ros.nodes.world_model import WorldModelNode
from lingbot_world_ros.robots.load import load_robot
from lingbot_world_ros.session.frame import Frame
from lingbot_world_ros.session.observer import SessionObserver
from lingbot_world_ros.worlds.definition import WorldDefinition
from lingbot_world_ros.worlds.floor_plan import floor_plan, FloorPlan
from lingbot_world_ros.worlds.scenes import get_scene, Part, Scene, SCENES
from nav_msgs.msg import OccupancyGrid
import numpy as np
import rclpy
from rclpy.node import Node
from sensor_msgs.msg import LaserScan
from tf2_msgs.msg import TFMessage

PATIENCE_S = 60.0  # of wall time, for a frame
TIME_LIMIT_S = 90.0  # of sim time, for a drive
NEAR_M = 0.25  # to the goal: there
END_SHARE = 0.3  # of the room's length, for each of its ends
REPLAN_FRAMES = 8
TOUCH = 0.5  # probability from which a touch counts
REACH_M = 0.12  # from the footprint to what it touches, at most
OVERRIDES = {'mode': 'lockstep', 'lockstep_timeout_s': 600.0, 'initial_state': 'stopped',
             'cmd_vel_type': 'twist', 'publish_map': True, 'publish_map_odom_tf': True}


class Judge(SessionObserver):
    """Knows of every frame what the engine says: where the base is, and whether it touches."""

    def __init__(self, news: threading.Condition) -> None:
        """Begin without a frame; ``news`` is told of each."""
        self._news = news
        self.frames: Dict[int, Frame] = {}

    def on_frame(self, frame: Frame) -> None:
        """Keep a frame by its stamp."""
        with self._news:
            self.frames[frame.stamp_ns] = frame
            self._news.notify_all()


class NavigatorNode(Node):
    """Hears `map`, `scan` and `/tf`, sends `cmd_vel`."""

    def __init__(self, news: threading.Condition) -> None:
        """Subscribe; ``news`` is told of what arrives."""
        super().__init__('navigator')
        self._news = news
        self.maps: List[OccupancyGrid] = []
        self.scans: Dict[int, LaserScan] = {}
        self.poses: Dict[int, np.ndarray] = {}  # by stamp, x, y, yaw in the map
        self.create_subscription(OccupancyGrid, 'map', self._on(self.maps.append), qos.LATCHED)
        self.create_subscription(LaserScan, 'scan', self._on(self._take_scan), qos.STATE)
        self.create_subscription(TFMessage, '/tf', self._on(self._take_tf), qos.TF)
        self._cmd_vel = self.create_publisher(Twist, 'cmd_vel', qos.STATE)

    def _on(self, take: Callable[[Any], None]) -> Callable[[Any], None]:
        def callback(msg: Any) -> None:
            with self._news:
                take(msg)
                self._news.notify_all()
        return callback

    def _take_scan(self, msg: LaserScan) -> None:
        self.scans[stamp_to_ns(msg.header.stamp)] = msg

    def _take_tf(self, msg: TFMessage) -> None:
        T = {link.child_frame_id: transform_from_msg(link.transform) for link in msg.transforms}
        T_map_base = T['odom'] @ T['base_link']
        yaw = np.arctan2(T_map_base[1, 0], T_map_base[0, 0])
        self.poses[stamp_to_ns(msg.transforms[0].header.stamp)] = np.array(
            [*T_map_base[:2, 3], yaw])

    def drive(self, v_x: float, w_z: float) -> None:
        """Send a command."""
        self._cmd_vel.publish(twist_to_msg(v_x, w_z))

    @property
    def is_connected(self) -> bool:
        """Whether the world hears the commands, and there is a world to hear."""
        return bool(self._cmd_vel.get_subscription_count() and all(
            self.count_publishers(name) for name in ('map', 'scan', '/tf')))


class Navigation:
    """A world in lockstep, a navigator and a judge, in one process."""

    def __init__(self, engine: str) -> None:
        """
        Start them; a context manager.

        :param engine: ``room`` or ``reference``
        """
        self._engine, self._news = engine, threading.Condition()
        self._spinners = (Spinner(), Spinner())  # the world's waiting must not stop the planner

    def __enter__(self) -> 'Navigation':
        overrides = as_overrides({**OVERRIDES, 'engine': self._engine})
        for spinner in self._spinners:
            spinner.__enter__()
        encoder = self._spinners[0].add(ActionEncoderNode(parameter_overrides=overrides))
        self._judge = Judge(self._news)
        self._world = self._spinners[0].add(WorldModelNode(
            encoder=encoder, observers=[self._judge], parameter_overrides=overrides))
        self._navigator = self._spinners[1].add(NavigatorNode(self._news))
        self._wait_for(lambda: self._navigator.is_connected and self._navigator.maps, 'the world')
        return self

    def __exit__(self, *_: object) -> None:
        for spinner in reversed(self._spinners):
            spinner.__exit__()

    def _wait_for(self, happened: Callable[[], Any], what: str) -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        with self._news:
            while not happened():
                if time.monotonic() > deadline_s:
                    raise SystemExit(f'bench.navigate: waited in vain for {what}')
                self._news.wait(0.05)  # of who has found whom nobody is told

    def trial(self, scene: str, seed: int) -> dict:
        """
        Drive once.

        :param scene: of ``worlds.scenes``
        :param seed: where things stand, and where from and where to
        :return: what came of it
        """
        start, goal = ends(scene, seed)
        costmap = self._begin(scene, seed, start)
        pursuit, stamp_ns = Pursuit(), min(self._judge.frames)
        path, touches, is_touching, way_m, no_way = None, [], False, 0.0, 0
        first_ns, before = stamp_ns, None
        for frame in range(10 ** 6):
            scan, pose = self._frame(stamp_ns)
            way_m += 0.0 if before is None else float(np.hypot(*(pose - before)[:2]))
            before = pose
            costmap.look(scan, pose)
            truth = self._judge.frames.pop(stamp_ns)
            if truth.contact >= TOUCH and not is_touching:
                touches.append(costmap.touches(truth.base_pose, REACH_M))
            is_touching = truth.contact >= TOUCH
            left_m = float(np.hypot(*(goal - pose[:2])))
            sim_s = (stamp_ns - first_ns) * 1e-9
            if left_m < NEAR_M or sim_s > TIME_LIMIT_S:
                break
            if frame % REPLAN_FRAMES == 0:
                path = plan_path(costmap, pose, goal)
                no_way += path is None
            # Without a way it looks around: what it took for one may not be there.
            v_x, w_z = (0.0, 0.6) if path is None else pursuit.command(path, pose)
            self._navigator.drive(v_x, w_z)
            stamp_ns = self._next(stamp_ns)
        return {'scene': scene, 'seed': seed, 'reached': left_m < NEAR_M,
                'has_way': has_way(scene, seed, costmap.plan.resolution_m),
                'sim_s': round(sim_s, 2), 'way_m': round(way_m, 2), 'left_m': round(left_m, 3),
                'start': np.round(start, 3).tolist(), 'goal': np.round(goal, 3).tolist(),
                'touches': touches, 'plans_without_a_way': no_way}

    def _begin(self, scene: str, seed: int, start: np.ndarray) -> Costmap:
        """Load a scene with the robot at a start, and read the map."""
        session, navigator = self._world.session, self._navigator
        assert session is not None  # it is active
        session.pause().exception()
        with self._news:
            for kept in (navigator.maps, navigator.scans, navigator.poses, self._judge.frames):
                kept.clear()
        x, y, yaw = start.tolist()
        session.load(WorldDefinition(scene, scene, seed, start_pose=(x, y, yaw))).result()
        session.play().result()
        self._wait_for(lambda: navigator.maps and navigator.poses and navigator.scans, 'the map')
        return Costmap(plan_of(navigator.maps[-1]), load_robot().footprint.radius_m)

    def _frame(self, stamp_ns: int) -> tuple:
        """Wait for all of one frame; return scan and pose."""
        navigator = self._navigator
        self._wait_for(lambda: stamp_ns in navigator.scans and stamp_ns in navigator.poses
                       and stamp_ns in self._judge.frames, f'the frame at {stamp_ns} ns')
        msg, pose = navigator.scans.pop(stamp_ns), navigator.poses.pop(stamp_ns)
        return Scan(np.array(msg.ranges), msg.angle_min, msg.angle_increment, msg.range_min,
                    msg.range_max), pose

    def _next(self, stamp_ns: int) -> int:
        """Wait for the frame that answers a command, and return its stamp."""
        later: List[int] = []

        def came() -> bool:
            later[:] = [stamp for stamp in self._judge.frames if stamp > stamp_ns]
            return bool(later)
        self._wait_for(came, 'the step of a command')
        return min(later)


def plan_of(msg: OccupancyGrid) -> FloorPlan:
    """Read a map; what is unknown counts as occupied."""
    grid = np.array(msg.data, np.int8).reshape(msg.info.height, msg.info.width)
    return FloorPlan((grid < 0) | (grid > 50), msg.info.resolution,
                     (msg.info.origin.position.x, msg.info.origin.position.y))


def ends(name: str, seed: int) -> tuple:
    """
    Draw a free start at one end of a room and a free goal at the other.

    :param name: of a scene
    :param seed: that of the world, whose objects stand elsewhere each time
    :return: start (3,) x, y [m], yaw [rad]; goal (2,) metres
    """
    scene, robot = get_scene(name), load_robot()
    objects = scene.start_state(seed, robot).object_pose
    rng, radius_m = np.random.default_rng([seed, 77]), robot.footprint.radius_m
    sizes_m = np.array([movable.radius_m for movable in scene.movables])

    def free(low: float, high: float) -> np.ndarray:
        for _ in range(10000):
            xy = rng.uniform((low, 0.0), (high, scene.size_m[1]))
            clear_m = np.hypot(*(objects[:, :2] - xy).T) - sizes_m
            if (scene.clearance_m(xy, robot.footprint.height_m) > radius_m + 0.12
                    and (clear_m > radius_m + 0.12).all()):
                return xy
        raise SystemExit(f'bench.navigate: no room at the end of {name}')
    length_m = scene.size_m[0]
    a, b = free(0.0, END_SHARE * length_m), free((1.0 - END_SHARE) * length_m, length_m)
    start, goal = (a, b) if seed % 2 == 0 else (b, a)
    return np.array([*start, rng.uniform(-np.pi, np.pi)]), goal


def has_way(name: str, seed: int, resolution_m: float) -> bool:
    """
    Say whether the planner would find a way if it knew from the start where all objects are.

    :param name: of a scene
    :param seed: that of the world
    :param resolution_m: of the map
    :return: whether some way keeps the planner's distance from everything
    """
    robot, (start, goal) = load_robot(), ends(name, seed)
    scene = get_scene(name)
    known = floor_plan(with_objects(scene, scene.start_state(seed, robot).object_pose),
                       robot.footprint.height_m, resolution_m)
    return plan_path(Costmap(known, robot.footprint.radius_m), start, goal) is not None


def with_objects(scene: Scene, object_pose: np.ndarray) -> Scene:
    """Return a scene whose movable objects, at poses (n, 3), are furniture."""
    objects = tuple(
        Part('box' if movable.shape == 'box' else 'cylinder', movable.half_size_m,
             (x, y, movable.half_size_m[2]), movable.material, (0.0, 0.0, yaw))
        for movable, (x, y, yaw) in zip(scene.movables, object_pose.tolist(), strict=True))
    return replace(scene, parts=scene.parts + objects)


def summary(engine: str, trials: List[dict]) -> dict:
    """Count what came of all trials."""
    touches = [what for trial in trials for what in trial['touches']]
    return {'engine': engine, 'trials': len(trials),
            'reached': sum(trial['reached'] for trial in trials),
            'trials_without_a_way': sum(not trial['has_way'] for trial in trials),
            'walls_touched_that_the_planner_saw': touches.count('map'),
            'objects_touched_that_a_scan_saw': touches.count('scan'),
            'touches_of_what_it_did_not_see': touches.count('unseen'),
            'trials_without_a_touch': sum(not trial['touches'] for trial in trials),
            'each': trials}


def run(engine: str, num_trials: int, first_seed: int = 0) -> dict:
    """
    Drive a number of times; the seed says in which scene, too.

    :param engine: ``room`` or ``reference``
    :param num_trials: how often
    :param first_seed: of the first trial
    :return: the summary
    """
    scenes, done = list(SCENES), []
    with Navigation(engine) as navigation:
        for seed in range(first_seed, first_seed + num_trials):
            done.append(navigation.trial(scenes[seed % len(scenes)], seed))
            print(f'{len(done)}/{num_trials} {json.dumps(done[-1])}', file=sys.stderr)
    return summary(engine, done)


def main() -> None:
    """Drive and print the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--trials', type=int, default=50)
    parser.add_argument('--engine', choices=('room', 'reference'), default='room')
    parser.add_argument('--seed', type=int, default=0, help='of the first trial')
    args = parser.parse_args()
    start_ros([])
    try:
        print(json.dumps(run(args.engine, args.trials, args.seed)))
    finally:
        rclpy.try_shutdown()


if __name__ == '__main__':
    main()
