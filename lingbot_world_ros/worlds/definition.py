# SPDX-License-Identifier: Apache-2.0
"""
What a world is: a scene plus what makes a start of it, and what can be wrong with one.

Seed, prompt, start images and their camera, start pose, joints, named poses. No ROS.
"""
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, Optional, Protocol, Sequence, Tuple
import unicodedata

from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.geometry.camera import PinholeCamera
from lingbot_world_ros.robots.robot import JointSpec, Robot
import yaml

MAX_SEED = 2 ** 31 - 1
MAX_PROMPT = 10_000  # characters
IMAGE_SCENE = 'image'  # of engines that can start from any image
VIEW = '_view'  # ends the names of scenes that are pictures of one of ours
CAMERA = ('width_px', 'height_px', 'fx_px', 'fy_px', 'cx_px', 'cy_px')
POSE_2D = ('x_m', 'y_m', 'yaw_rad')
POSE_3D = ('x_m', 'y_m', 'z_m', 'yaw_rad')

# What can be wrong with a world; the first is for a name or file that is not there, the others
# are those of simulation_interfaces/LoadWorld.
NOT_FOUND, UNSUPPORTED_FORMAT, NO_RESOURCE, RESOURCE_PARSE_ERROR = (
    'NOT_FOUND', 'UNSUPPORTED_FORMAT', 'NO_RESOURCE', 'RESOURCE_PARSE_ERROR')
MISSING_ASSETS, UNSUPPORTED_ASSETS, UNSUPPORTED_ELEMENTS = (
    'MISSING_ASSETS', 'UNSUPPORTED_ASSETS', 'UNSUPPORTED_ELEMENTS')


class WorldError(SpecError):
    """A world that cannot be loaded; ``code`` is one of the names above."""

    def __init__(self, code: str, text: str) -> None:
        """Keep the code for those who answer with a number."""
        super().__init__(text)
        self.code = code


class EngineTraits(Protocol):
    """What a world asks of the engine that is to load it; a ``WorldSpec`` has all of it."""

    @property
    def engine(self) -> str:
        """Its name."""
        ...

    @property
    def scenes(self) -> Sequence[str]:
        """The scenes it has weights for."""
        ...

    @property
    def robot(self) -> Robot:
        """The robot that stands in them."""
        ...

    @property
    def joints(self) -> Sequence[JointSpec]:
        """The commanded joints of the robot, in order."""
        ...

    @property
    def takes_text(self) -> bool:
        """Whether a world may have a prompt."""
        ...

    @property
    def takes_images(self) -> bool:
        """Whether a world may start from images and the camera that took them."""
        ...

    @property
    def takes_poses(self) -> bool:
        """Whether the robot can be put elsewhere."""
        ...


@dataclass(frozen=True)
class NamedPose:
    """A place worth a name: ``pose`` is x, y, z [m], yaw [rad] in the scene frame."""

    name: str
    description: str
    tags: Tuple[str, ...]
    pose: Tuple[float, float, float, float]


@dataclass(frozen=True)
class WorldDefinition:
    """
    A scene and how it starts.

    ``start_pose`` x, y [m], yaw [rad] in the scene frame, None for where the seed puts the robot;
    ``joints`` name -> rad or m, the others as the seed has them; ``images`` are absolute paths,
    ``camera`` took them; ``uri`` finds it again, empty if it came inline.
    """

    name: str
    scene: str
    seed: int = 0
    prompt: str = ''
    images: Tuple[str, ...] = ()
    camera: Optional[PinholeCamera] = None
    start_pose: Optional[Tuple[float, float, float]] = None
    joints: Dict[str, float] = field(default_factory=dict)
    named_poses: Tuple[NamedPose, ...] = ()
    description: str = ''
    tags: Tuple[str, ...] = ()
    uri: str = field(default='', compare=False)

    @property
    def text(self) -> str:
        """YAML that gives this definition again, the shortest there is."""
        entries = {'name': self.name, 'scene': self.scene, 'seed': self.seed,
                   'prompt': self.prompt, 'images': [Path(i).as_uri() for i in self.images],
                   'camera': _camera_entry(self.camera),
                   'start_pose': dict(zip(POSE_2D, self.start_pose or ())),
                   'joints': dict(self.joints),
                   'named_poses': [_sparse({'name': p.name, 'description': p.description,
                                            'tags': list(p.tags),
                                            'pose': dict(zip(POSE_3D, p.pose))})
                                   for p in self.named_poses],
                   'description': self.description, 'tags': list(self.tags)}
        return yaml.safe_dump(_sparse(entries), sort_keys=False, allow_unicode=True)


def _camera_entry(camera: Optional[PinholeCamera]) -> Optional[Dict[str, float]]:
    """Write a camera as world files have it."""
    if camera is None:
        return None
    return {name: getattr(camera, name) for name in CAMERA}


def _sparse(entries: Dict[str, Any]) -> Dict[str, Any]:
    """Leave out what says nothing; numbers always say something."""
    return {key: value for key, value in entries.items()
            if type(value) in (int, float) or value}


def expected_text(value: object, limit: int) -> str:
    """
    Look whether a text may be part of a world.

    :param value: whatever was given
    :param limit: characters it may have
    :return: what it should be and is not, '' if all is well
    """
    if not isinstance(value, str) or len(value) > limit:
        return f'text of at most {limit} characters'
    if any(unicodedata.category(c) in ('Cc', 'Cs') and c not in '\n\t' for c in value):
        return 'text without control characters'
    return ''
