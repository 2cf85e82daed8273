# SPDX-License-Identifier: Apache-2.0
"""
Parameters of the nodes: name, type, range and meaning here, defaults in ``config/default.yaml``.

Read without ROS; nodes declare what stands here and in the table of the engine that runs, profiles
may set nothing else.
"""
from contextlib import suppress
from typing import Any, Callable, Dict, Mapping, Optional, Tuple

from lingbot_world_ros.engines.registry import CAMERA_SCALE, engine_entry, engines, SHIPPED
from lingbot_world_ros.errors import quoted, SpecError, unknown_name
from lingbot_world_ros.parameter import Param
from lingbot_world_ros.session.spec import INITIAL_STATES
from lingbot_world_ros.session.states import Mode, State, texts, TimePolicy
from lingbot_world_ros.worlds.learned import learned_folder, learned_names

WORLD_MODEL: Tuple[Param, ...] = (
    Param('engine', str, 'World model to run: '
          + ''.join(f'{entry.name} ({entry.summary}), ' for entry in SHIPPED.values())
          + 'or one that another package registers.'),
    Param('isolate_engine', bool, 'Run the engine in its own process, which is restarted when '
          'it hangs, is killed or runs out of memory.'),
    Param('autostart', bool, 'Configure and activate by itself; false waits for lifecycle calls.'),
    Param('world', str, 'World to load: a name, or a package:// or file:// URI of a world file, '
          'or the folder of a learned world; empty: use scene and seed.'),
    Param('world_path', str, 'More folders from which world files may be loaded, separated by '
          'colons.'),
    Param('scene', str, 'Scene to start in; world_spec lists the scenes of the engine. An '
          'engine without the default scene starts in its first one.'),
    Param('start_image', str, 'Image to start from (a path, package:// or file:// URL) instead '
          'of that of world or scene; for engines that take images.'),
    Param('prompt', str, 'Text to start with, instead of that of world or scene; for engines '
          'that take text.'),
    Param('seed', int, 'Selects the start state of the scene, from the next reset on.',
          0, 2 ** 31 - 1, dynamic=True),
    Param('mode', str, 'When sim time advances: realtime (with the wall clock), stepped (only '
          'on step_simulation) or lockstep (one step per command).',
          choices=texts(Mode), dynamic=True),
    Param('initial_state', str, 'State after the start; playing is paused in stepped mode.',
          choices=texts(INITIAL_STATES)),
    Param('state_after_reset', str, 'State after ResetSimulation: keep, or playing as in Isaac '
          'Sim.', choices=('keep', State.PLAYING.value)),
    Param('reset_time_policy', str, 'Sim time after a reset: zero (restarts) or monotonic '
          '(continues).', choices=texts(TimePolicy)),
    Param('speed', float, 'Sim seconds per wall second in realtime mode; 0 is as fast as '
          'possible.', 0.0, 100.0, dynamic=True),
    Param('clock_rate_hz', float, 'Ticks of /clock per sim second between frames, never ahead '
          'of the newest frame; 0 is one per frame.', 0.0, 1000.0),
    Param('action_timeout_s', float,
          'Wall seconds without action_embedding after which the robot stops.',
          0.01, 3600.0, dynamic=True),
    Param('lockstep_commands', int, 'Commands that make one step in lockstep mode.', 1, 1000),
    Param('lockstep_timeout_s', float, 'Wall seconds after which lockstep makes a step without '
          'a command.', 0.01, 3600.0, dynamic=True),
    Param('step_timeout_s', float, 'Wall seconds after which a step of the engine counts as '
          'hanging.', 0.1, 3600.0, dynamic=True),
    Param('service_timeout_s', float, 'Wall seconds after which an unfinished service call '
          'answers with an error.', 0.1, 3600.0, dynamic=True),
    Param('service_prefix', str, 'Prefix of the names of the simulation services; empty: none '
          '(the namespace of the node); /gzserver: as in Gazebo.'),
    Param('entity_name', str, 'Name of the robot in the entity services.'),
    Param('frame_prefix', str, 'Prefix of every frame name.'),
    *(Param(f'frames.{name}', str, f'Name of the {name} frame.')
      for name in ('odom', 'base', 'camera', 'optical')),
    Param('frames.map', str, 'Name of the frame of the scene: of the map, and of poses in it.'),
    Param('frames.imu', str, 'Name of the frame of the IMU, which is the base; empty: '
          'frames.base.'),
    Param('frames.footprint', str, 'Another name for the base frame, which some stacks want, such '
          'as base_footprint; empty: none.'),
    Param('camera_info_url', str, 'Calibration file (package://, file:// or a path) of the '
          'published camera; empty: that of the engine.'),
    Param('field_of_view_deg', float, 'Horizontal field of view of the published camera; 0: '
          'that of the engine.', 0.0, 179.0),
    Param('image_width', int, 'Pixels; 0 is that of the engine, which draws in the size asked for '
          'if it can.', 0, 8192),
    Param('image_height', int, 'Pixels; as image_width.', 0, 8192),
    Param('publish_clock', bool, 'Publish sim time; only one world per clock topic may do so.'),
    Param('publish_tf', bool, 'Publish transforms.'),
    Param('publish_map', bool, 'Publish the floor plan of the scene as a map, latched; for '
          'engines that keep to our scenes.'),
    Param('publish_map_odom_tf', bool, 'Publish where odom is in the map, in place of a '
          'localisation; for engines that keep to our scenes.'),
    Param('map_resolution_m', float, 'Side of a cell of the map, metres.', 0.01, 1.0),
    Param('publish_wrist_camera', bool, 'Publish images of the second camera of the robot, at the '
          'wrist; for the reference world.'),
    Param('contact_threshold', float, 'Probability of a touch from which contact is true.',
          0.0, 1.0, dynamic=True),
    Param('publish_bumper', bool, 'Publish where the base touches something, as points for '
          'costmaps; for engines that keep to our scenes.'),
    Param('bumper_margin_m', float, 'How far outside the footprint these points are: a costmap '
          'clears the cells that the robot covers.', 0.0, 1.0),
    Param('imu_gyroscope_noise_density', float, 'White noise of the turn rates of the IMU, '
          'rad/s/sqrt(Hz).', 0.0, 1.0),
    Param('imu_accelerometer_noise_density', float, 'White noise of the accelerations of the IMU, '
          'm/s^2/sqrt(Hz).', 0.0, 10.0),
    Param('publish_scan', bool, 'Publish a laser scan made from depth, if the engine has depth.'),
    Param('scan_min_height_m', float, 'Lowest height above the floor that the scan sees.',
          -10.0, 10.0),
    Param('scan_max_height_m', float, 'Greatest height above the floor that the scan sees.',
          -10.0, 10.0),
    Param('scan_max_range_m', float, 'Range beyond which the scan reports nothing.', 0.1, 1000.0),
    Param('jpeg_quality', int, 'Quality of the compressed image.', 1, 100, dynamic=True),
    Param('image_reliability', str, 'Reliability of images and camera_info.',
          choices=('reliable', 'best_effort')),
    Param('image_queue_depth', int, 'Images kept for a slow subscriber.', 1, 100),
)

ACTION_ENCODER: Tuple[Param, ...] = (
    Param('cmd_vel_type', str, 'Message type of cmd_vel; auto depends on ROS_DISTRO.',
          choices=('auto', 'twist', 'twist_stamped')),
    Param('arm_commands_interface', str, 'Meaning of the values on arm_controller/commands.',
          choices=('position', 'velocity')),
    Param('cmd_timeout_s', float, 'Seconds after which a velocity command that is not repeated '
          'becomes zero: wall time in realtime mode, otherwise sim time.',
          0.01, 3600.0, dynamic=True),
    Param('encode_rate_hz', float, 'Minimum rate of action_embedding, in wall time.', 1.0, 1000.0),
    Param('policy_frequency', float, 'Rate in sim time of trajectory points that have no '
          'timing, Hz.', 0.1, 1000.0, dynamic=True),
    Param('allow_nonzero_velocity_at_trajectory_end', bool, 'Accept trajectories whose last '
          'point has a velocity, as MoveIt Servo sends them; false refuses them, as '
          'joint_trajectory_controller does since Iron.', dynamic=True),
    Param('constraints.trajectory', float, 'How far each joint may be from a goal of '
          'FollowJointTrajectory on the way, rad or m; 0: no limit.', 0.0, 1000.0, dynamic=True),
    Param('constraints.goal', float, 'The same at its end.', 0.0, 1000.0, dynamic=True),
    Param('constraints.goal_time', float, 'Seconds of sim time after its end until that must '
          'hold; 0: forever.', 0.0, 86400.0, dynamic=True),
    Param('limits.linear_velocity_mps', float, 'Largest forward speed; 0: that of the engine.',
          0.0, 100.0),
    Param('limits.linear_acceleration_mps2', float, 'Largest forward acceleration; 0: no limit.',
          0.0, 1000.0),
    Param('limits.angular_velocity_radps', float, 'Largest turn rate; 0: that of the engine.',
          0.0, 100.0),
    Param('limits.angular_acceleration_radps2', float, 'Largest turn acceleration; 0: no limit.',
          0.0, 1000.0),
    Param('limits.joint_acceleration', float, 'Largest joint acceleration, rad/s^2 or m/s^2; '
          '0: no limit.', 0.0, 10000.0),
    Param('camera_path_metres_per_unit', float, 'Scale of camera_path; 0 makes its largest step '
          'over four frames lingbot.metres_per_world_unit long.', 0.0, 1e6),
)

TOPICS = tuple(
    Param(f'topics.{key}', str, f'Topic name: {meaning}.') for key, meaning in (
        ('image', 'predicted colour image'), ('camera_info', 'calibration of the image'),
        ('compressed', 'predicted colour image as JPEG'), ('depth', 'predicted depth image'),
        ('wrist_image', 'colour image of the second camera'),
        ('wrist_camera_info', 'calibration of the second camera'),
        ('points', 'coloured points made from depth'),
        ('scan', 'laser scan made from depth'), ('contact', 'whether the base touches something'),
        ('bumper', 'where the base touches something'),
        ('imu', 'turn rate and acceleration from the motion of the base, with noise'),
        ('ground_truth_pose', 'true pose of the base in the scene'),
        ('predicted_pose', 'predicted pose of the base in the scene'),
        ('map', 'floor plan of the scene'), ('joint_states', 'predicted joint states'),
        ('odom', 'predicted odometry'),
        ('path', 'path of the base since the reset, or since it was put elsewhere'),
        ('tf', 'moving transforms'), ('tf_static', 'fixed transforms'), ('clock', 'sim time'),
        ('diagnostics', 'state of health'), ('real_time_factor', 'sim seconds per wall second'),
        ('robot_description', 'URDF of the robot, latched'), ('cmd_vel', 'base velocity commands'),
        ('joint_command', 'joint commands by name'),
        ('joint_trajectory', 'joint trajectory commands'),
        ('joint_commands', 'joint commands as an array'), ('prompt', 'text for the world model'),
        ('anchor_image', 'image for the world model to continue from')))

ROBOT = Param('robot', str, 'Robot: a name from config/robots, or a path, package:// or file:// '
              'URI of its YAML; empty: that of the engine.')
SHARED = (
    *TOPICS,
    ROBOT,
    Param('robot_description', str, 'URDF: the XML itself, a package:// or file:// URL or a path. '
          'Tightens joint limits and provides the kinematics; empty: that of the engine.'),
    Param('camera_link', str, 'Link of the URDF that carries the camera, for engines with a '
          'free camera; empty: the base.'),
    Param('camera_path', str, 'Path that the camera follows instead of cmd_vel, for engines with '
          'a free camera: a folder with poses.npy, or keys:w-16,none-16; empty: cmd_vel.'))
ENGINES = tuple(row for entry in SHIPPED.values() for row in entry.table())
WORLD_MODEL += SHARED  # and the table of the engine that runs
ACTION_ENCODER += (*(row for row in ENGINES if row.name == CAMERA_SCALE), *SHARED)
VIEW = (
    Param('view.host', str, "Address the operator's page listens on; any address except loopback "
          'needs a token.'),
    Param('view.port', int, 'TCP port of the page; 0: the first free one from 8420 on.',
          0, 65535),
    Param('view.token', str, 'Text needed to open the page; empty: open to everybody on this '
          'machine.'),
    Param('view.reference', str, 'Namespace of the truth beside the imagined world, as in '
          '"lingbot-world follow".'),
    Param('view.linear_velocity_mps', float, 'Largest velocity commanded to a robot whose '
          'simulator has no world_spec.', 0.0, 100.0),
    Param('view.angular_velocity_radps', float, 'The same for turning.', 0.0, 100.0),
    Param('view.joint_velocity', float, 'The same for joints, rad/s or m/s.', 0.0, 100.0),
    *(p for p in WORLD_MODEL if p.name in ('service_prefix', 'world')), ROBOT, *TOPICS)
PARAMS = {p.name: p for p in WORLD_MODEL + ENGINES + ACTION_ENCODER + VIEW}  # all that ship
NODES = ('world_model', 'action_encoder', 'view')


def all_parameters() -> Dict[str, Param]:
    """Return all parameters by name, with those of engines from other packages."""
    return {**{row.name: row for entry in engines().values() for row in entry.table()}, **PARAMS}


def find_parameter(name: str, kind: str = 'parameter') -> Param:
    """
    Find a parameter by its name.

    :param name: as profiles have it, for example ``'topics.image'``
    :param kind: what it is called where it was given
    :return: its row
    :raises SpecError: there is none
    """
    if name in PARAMS:
        return PARAMS[name]
    known = all_parameters()
    if name not in known:
        raise unknown_name(kind, name, known)
    return known[name]


def engine_options(values: Mapping[str, Any],
                   on_progress: Optional[Callable[[int, int], None]] = None) -> Dict[str, Any]:
    """
    Say what an engine is made with, beside its name.

    A size of pictures that it can draw in, it is told to draw in; into others they are scaled.

    :param values: parameters by name, with ``engine``; more than its own may be there
    :param on_progress: for engines that load for long; called with what is done and the total
    :return: options for ``make_world``
    :raises SpecError: unknown engine, a file is missing, or something is set that says that
        another engine was meant
    """
    entry = engine_entry(values['engine'])
    for other in SHIPPED.values():
        if other.key and other is not entry and values.get(other.key):
            raise SpecError(f'{other.key} is for engine {other.name!r}, not for '
                            f'{quoted(entry.name)}; set engine, or take a profile that does.')
    options = entry.options(values)
    if values.get('robot'):
        if 'robot' not in entry.takes:
            raise SpecError(f'robot={quoted(values["robot"])}: engine {entry.name!r} takes no '
                            'robot; leave robot empty.')
        from lingbot_world_ros.robots.load import load_robot
        options['robot'] = load_robot(values['robot'])
    size = values.get('image_width') or 0, values.get('image_height') or 0
    is_cut = values.get('field_of_view_deg') or values.get('camera_info_url')
    if all(size) and not is_cut and entry.draws:
        from lingbot_world_ros.robots.load import load_robot
        robot = load_robot(options.get('robot', entry.robot))
        with suppress(SpecError):
            options['robot'] = entry.robot_in_size(robot, *size)
    if 'robot_description' in entry.takes and values.get('robot_description'):
        from lingbot_world_ros.robots.urdf import read_description
        options['robot_description'] = read_description(values['robot_description'])
    if 'world' in entry.takes:
        folder = learned_folder(values.get('world') or '')
        if folder is None:
            raise SpecError(f'engine {entry.name!r} needs a learned world: set world to its '
                            'folder, or to the name of one that ships'
                            + (f' ({", ".join(learned_names())}).' if learned_names() else '.'))
        options['world'] = str(folder)
    if 'on_progress' in entry.takes and on_progress is not None:
        options['on_progress'] = on_progress
    return options
