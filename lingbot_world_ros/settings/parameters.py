# SPDX-License-Identifier: Apache-2.0
"""
Parameters of the nodes: name, type, range and meaning here, defaults in ``config/default.yaml``.

Read without ROS; nodes declare what stands here, profiles may set nothing else.
"""
from dataclasses import dataclass
from typing import Any, Optional, Tuple

from lingbot_world_ros.errors import quoted, SpecError
from lingbot_world_ros.session.spec import INITIAL_STATES
from lingbot_world_ros.session.states import Mode, State, texts, TimePolicy

KINDS = {bool: 'true or false', int: 'a whole number', float: 'a number', str: 'text'}
LINGBOT_ENGINE, PREFIX = 'lingbot_world', 'lingbot.'


@dataclass(frozen=True)
class Param:
    """One parameter; ``choices`` is empty for free text; ``dynamic``: settable while running."""

    name: str
    kind: type
    description: str
    low: Optional[float] = None
    high: Optional[float] = None
    choices: Tuple[str, ...] = ()
    dynamic: bool = False

    def check(self, value: Any, source: str) -> Any:
        """
        Check a value and bring it to the declared type.

        :param value: as read from YAML or the command line
        :param source: file or command line, for the message
        :return: the value, a whole number turned into a float or text where one is wanted
        :raises SpecError: wrong type, outside the range or not a choice
        """
        if self.kind is float and type(value) is int:
            value = float(value)
        if self.kind is str and type(value) is int:  # what YAML makes of prompt:=1984
            value = str(value)
        if type(value) is not self.kind:
            raise SpecError(f'{source}: {self.name}={_told(value)} is not '
                            f'{KINDS[self.kind]}.')
        if self.low is not None and not self.low <= value <= self.high:
            raise SpecError(f'{source}: {self.name}={value!r} is outside {self.low} to '
                            f'{self.high}.')
        if self.choices and value not in self.choices:
            raise SpecError(f'{source}: {self.name}={_told(value)} is not one of '
                            f'{", ".join(self.choices)}.')
        return value


WORLD_MODEL = (
    Param('engine', str, 'World model to run: room (learned, CPU), reference (MuJoCo) or '
          'lingbot_world (GPU).'),
    Param('isolate_engine', bool, 'Run the engine in a process of its own, which is started again '
          'when it hangs, is killed or runs out of memory.'),
    Param('autostart', bool, 'Configure and activate by itself; false waits for lifecycle calls.'),
    Param('world', str, 'World to load: a name, a package:// or file:// URI of a world file; '
          'empty takes scene and seed.'),
    Param('world_path', str, 'Folders, separated by colons, from which world files may be loaded '
          'beside those that ship.'),
    Param('scene', str, 'Scene to start in; world_spec lists those of the engine.'),
    Param('start_image', str, 'Picture to start from, a path, package:// or file:// URL, in place '
          'of that of world or scene; for engines that take images.'),
    Param('prompt', str, 'Text to start with, in place of that of world or scene; for engines '
          'that take text.'),
    Param('seed', int, 'Start state of the scene, from the next reset on.', 0, 2 ** 31 - 1,
          dynamic=True),
    Param('mode', str, 'When sim time advances: realtime (paced to the wall), stepped (by '
          'step_simulation only) or lockstep (one step per command).',
          choices=texts(Mode), dynamic=True),
    Param('initial_state', str, 'State after the start; playing is paused in stepped mode.',
          choices=texts(INITIAL_STATES)),
    Param('state_after_reset', str, 'What ResetSimulation leaves: keep the state, or playing as '
          'Isaac Sim does.', choices=('keep', State.PLAYING.value)),
    Param('reset_time_policy', str, 'Sim time after a reset: zero (starts again) or monotonic '
          '(goes on).', choices=texts(TimePolicy)),
    Param('speed', float, 'Sim seconds per wall second in realtime mode; 0 is as fast as '
          'possible.', 0.0, 100.0, dynamic=True),
    Param('clock_rate_hz', float, 'Ticks of /clock per sim second between frames, never beyond '
          'the newest; 0 is one per frame.', 0.0, 1000.0),
    Param('action_timeout_s', float,
          'Wall seconds without action_embedding after which the robot stands still.',
          0.01, 3600.0, dynamic=True),
    Param('lockstep_commands', int, 'Commands that make one step in lockstep mode.', 1, 1000),
    Param('lockstep_timeout_s', float, 'Wall seconds after which lockstep goes on without a '
          'command.', 0.01, 3600.0, dynamic=True),
    Param('step_timeout_s', float, 'Wall seconds after which a step of the engine counts as '
          'hanging.', 0.1, 3600.0, dynamic=True),
    Param('service_timeout_s', float, 'Wall seconds after which a service call that is not done '
          'answers with an error.', 0.1, 3600.0, dynamic=True),
    Param('service_prefix', str, 'Put before the names of the simulation services; empty is the '
          'root (the namespace of the node), /gzserver is Gazebo.'),
    Param('entity_name', str, 'Name of the robot in the entity services.'),
    Param('frame_prefix', str, 'Put before every frame name.'),
    *(Param(f'frames.{name}', str, f'Name of the {name} frame.')
      for name in ('odom', 'base', 'camera', 'optical')),
    Param('camera_info_url', str, 'Calibration file (package://, file:// or a path) of the camera '
          'to show; empty is that of the engine.'),
    Param('field_of_view_deg', float, 'Horizontal field of view of the camera to show; 0 is '
          'that of the engine.', 0.0, 179.0),
    Param('image_width', int, 'Pixels; 0 is that of the engine.', 0, 8192),
    Param('image_height', int, 'Pixels; 0 is that of the engine.', 0, 8192),
    Param('publish_clock', bool, 'Publish sim time; one world per clock topic may.'),
    Param('publish_tf', bool, 'Publish transforms.'),
    Param('publish_scan', bool, 'Publish a laser scan made from depth, where there is depth.'),
    Param('scan_min_height_m', float, 'Lowest point over the floor that the scan sees.',
          -10.0, 10.0),
    Param('scan_max_height_m', float, 'Highest point over the floor that the scan sees.',
          -10.0, 10.0),
    Param('scan_max_range_m', float, 'Range beyond which the scan reports nothing.', 0.1, 1000.0),
    Param('jpeg_quality', int, 'Quality of the compressed image.', 1, 100, dynamic=True),
    Param('image_reliability', str, 'Reliability of images and camera_info.',
          choices=('reliable', 'best_effort')),
    Param('image_queue_depth', int, 'Images kept for a slow subscriber.', 1, 100),
)

ACTION_ENCODER = (
    Param('cmd_vel_type', str, 'Message type of cmd_vel: auto goes by ROS_DISTRO.',
          choices=('auto', 'twist', 'twist_stamped')),
    Param('arm_commands_interface', str, 'What the values on arm_controller/commands are.',
          choices=('position', 'velocity')),
    Param('cmd_timeout_s', float, 'Seconds after which a velocity command that is not repeated '
          'becomes zero: wall time in realtime mode, else sim time.', 0.01, 3600.0, dynamic=True),
    Param('encode_rate_hz', float, 'Least rate of action_embedding, wall time.', 1.0, 1000.0),
    Param('policy_frequency', float, 'Hz of sim time at which trajectory points without timing '
          'follow each other.', 0.1, 1000.0, dynamic=True),
    Param('limits.linear_velocity_mps', float, 'Largest forward speed; 0 is that of the engine.',
          0.0, 100.0),
    Param('limits.linear_acceleration_mps2', float, 'Largest forward acceleration; 0: no limit.',
          0.0, 1000.0),
    Param('limits.angular_velocity_radps', float, 'Largest turn rate; 0 is that of the engine.',
          0.0, 100.0),
    Param('limits.angular_acceleration_radps2', float, 'Largest turn acceleration; 0: no limit.',
          0.0, 1000.0),
    Param('limits.joint_acceleration', float, 'Largest joint acceleration, rad/s^2 or m/s^2; '
          '0: no limit.', 0.0, 10000.0),
    Param('camera_path_metres_per_unit', float, 'Scale of camera_path; 0 makes its largest step '
          'over four frames lingbot.metres_per_world_unit long.', 0.0, 1e6),
)

# What engine lingbot_world is made with; it checks what is said here in words only.
LINGBOT = tuple(Param(f'{PREFIX}{name}', *rest) for name, *rest in (
    ('checkpoint', str, 'Folder or file of the network.'),
    ('vae', str, 'File of the video autoencoder; empty is looked for beside the checkpoint.'),
    ('text_encoder', str, 'File or folder of the text encoder (UMT5-XXL); empty is looked for '
     'beside the checkpoint.'),
    ('tokenizer', str, 'Folder of its tokenizer; empty is looked for beside the checkpoint.'),
    ('tiny_decoder', str, 'TAEHV file that decodes in place of the autoencoder, faster and '
     'softer; empty is none.'),
    ('device', str, 'Where the network runs, for example cuda:1 or cpu; auto needs a GPU.'),
    ('t5_device', str, 'Where the text encoder runs, once per prompt: cpu or cuda.'),
    ('precision', str, 'Of the weights: bf16, fp8 or nf4 (smaller), fp32.', None, None,
     ('fp32', 'bf16', 'fp8', 'nf4')),
    ('height_px', int, 'Height of the predicted image, a multiple of 16.', 64, 4096),
    ('width_px', int, 'Width of the predicted image, a multiple of 16.', 64, 4096),
    ('field_of_view_deg', float, 'Horizontal field of view of the predicted image.', 1.0, 170.0),
    ('chunk_latents', int, 'Latent frames (of four frames each) per step; 0 is what the '
     'checkpoint was made for.', 0, 64),
    ('window_latents', int, 'Latent frames seen at a time, sink and current chunk included; 0 is '
     'what the checkpoint was made for.', 0, 1024),
    ('sink_latents', int, 'First latent frames that are never forgotten; -1 is what the '
     'checkpoint was made for.', -1, 256),
    ('cache_in_8_bits', bool, 'Halve the memory of what is seen of earlier frames.'),
    ('step_indices', str, 'Denoising steps as indices of 1000, for example 0,179,358,679; empty '
     'is what the checkpoint was made for.'),
    ('shift', float, 'Shift of the noise levels; 0 is what the checkpoint was made for.',
     0.0, 100.0),
    ('attention', str, 'Attention kernels; auto takes the best that is installed.'),
    ('compile', bool, 'Let PyTorch compile the network; the first step then takes a minute.'),
    ('keep_films', bool, "Keep the camera's part of all blocks for a step: faster, takes memory."),
    ('num_gpus', int, 'GPUs that share the work, from device on, each with the whole network; '
     'divides its attention heads (40 or 12).', 1, 64),
    ('decoder_device', str, 'Where images are encoded and decoded, for example cuda:1; empty is '
     'device.'),
    ('cache_dir', str, 'Folder for encoded prompts; empty is ~/.cache/lingbot_world_ros.')))

TOPICS = tuple(
    Param(f'topics.{key}', str, f'Topic name: {meaning}.') for key, meaning in (
        ('image', 'predicted colour image'), ('camera_info', 'calibration of the image'),
        ('compressed', 'predicted colour image as JPEG'), ('depth', 'predicted depth image'),
        ('scan', 'laser scan made from depth'), ('joint_states', 'predicted joint states'),
        ('odom', 'predicted odometry'), ('path', 'way of the base since the reset'),
        ('tf', 'moving transforms'), ('tf_static', 'fixed transforms'), ('clock', 'sim time'),
        ('diagnostics', 'state of health'), ('real_time_factor', 'sim seconds per wall second'),
        ('robot_description', 'URDF of the robot, latched'), ('cmd_vel', 'base velocity commands'),
        ('joint_command', 'joint commands by name'),
        ('joint_trajectory', 'joint trajectory commands'),
        ('joint_commands', 'joint commands as an array'), ('prompt', 'text for the world model'),
        ('anchor_image', 'picture for the world model to go on from')))

SHARED = (
    *TOPICS,
    Param('robot_description', str, 'URDF: the XML itself, a package:// or file:// URL or a path. '
          'Tightens joint limits and gives the kinematics; empty is the robot of the engine.'),
    Param('camera_link', str, 'Link of the URDF that carries the camera, for engines with a free '
          'camera; empty is the base.'),
    Param('camera_path', str, 'Path that the camera follows instead of cmd_vel, for engines with '
          'a free camera: a folder with poses.npy, or keys:w-16,none-16; empty is cmd_vel.'),
    Param(f'{PREFIX}metres_per_world_unit', float, 'Metres the camera moves in a quarter of a '
          'second where LingBot-World shows its fastest motion.', 1e-6, 1e6))
WORLD_MODEL += LINGBOT + SHARED
ACTION_ENCODER += SHARED
VIEW = (
    Param('view.host', str, "Address the operator's page listens on; another than this machine's "
          'own needs a token.'),
    Param('view.port', int, 'TCP port of the page; 0 is the first free one from 8420 on.',
          0, 65535),
    Param('view.token', str, 'The page is for those who know this text; empty is for everybody '
          'on this machine.'),
    Param('view.reference', str, 'Namespace of the truth beside the imagined world, as '
          '"lingbot-world follow" has it.'),
    Param('view.linear_velocity_mps', float, 'Largest velocity asked of a robot whose simulator '
          'has no world_spec.', 0.0, 100.0),
    Param('view.angular_velocity_radps', float, 'The same for turning.', 0.0, 100.0),
    Param('view.joint_velocity', float, 'The same for joints, rad/s or m/s.', 0.0, 100.0),
    *(p for p in WORLD_MODEL if p.name == 'service_prefix'), *TOPICS)
PARAMS = {p.name: p for p in WORLD_MODEL + ACTION_ENCODER + VIEW}
NODES = ('world_model', 'action_encoder', 'view')


def engine_options(values: dict) -> dict:
    """
    Say what an engine is made with, beside its name.

    :param values: all parameters of world_model, by name
    :return: options for ``make_world``
    :raises SpecError: something is set that the engine has no use for, or a file is missing
    """
    if values['engine'] != LINGBOT_ENGINE:
        if values[f'{PREFIX}checkpoint']:
            raise SpecError(f'{PREFIX}checkpoint is for engine {LINGBOT_ENGINE!r}, not for '
                            f'{quoted(values["engine"])}; set engine, or take a profile like '
                            'lingbot_world_fast.')
        return {}
    options = {name[len(PREFIX):]: value for name, value in values.items()
               if name.startswith(PREFIX)}
    if values['robot_description']:
        from lingbot_world_ros.robots.urdf import read_description
        options['robot_description'] = read_description(values['robot_description'])
    return options


def _told(value: Any) -> str:
    return quoted(value) if isinstance(value, str) else repr(value)[:120]
