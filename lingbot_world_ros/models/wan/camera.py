# SPDX-License-Identifier: Apache-2.0
"""
What the network is told about the camera: a ray per pixel, packed into tokens.

For each latent frame there is one pose, that of the camera seen from the latent frame before. A
ray is its origin and its direction; the models with keys (act) take direction and keys.

Axes: c channel, f latent frames, h w latent rows and columns, n tokens, p pixels of one token.
Cameras are optical: x right, y down, z forward.

Source: LingBot-World v1 (camera conditioning).
"""
from typing import Optional

from lingbot_world_ros.actions.camera_path import CameraPath, FRAMES_PER_LATENT
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.geometry.camera import PinholeCamera
from lingbot_world_ros.geometry.rotation import vector_from_rotation
from lingbot_world_ros.models.wan.device import Device
from lingbot_world_ros.models.wan.spec import num_latents, PATCH, PIXELS_PER_TOKEN, VAE_STRIDE
import numpy as np
import torch
from torch import Tensor

ACT_CHANNELS = 7  # direction x y z, keys w a s d

# A latent frame's motion below these is sensor noise, not a wish: the models see exact rest. At
# 16 Hz and 0.25 m per unit they are 4 mm/s and 0.1 degrees/s.
REST_TRANSLATION = 0.004  # world units
REST_ROTATION_RAD = 5e-4


def unit_translations(relative: np.ndarray) -> np.ndarray:
    """
    Scale a clip so that its longest translation is 1; one at rest stays as it is.

    :param relative: (f, 4, 4)
    :return: (f, 4, 4)
    """
    longest = np.linalg.norm(relative[:, :3, 3], axis=-1).max()
    scaled = np.array(relative)
    if longest > 0:
        scaled[:, :3, 3] /= longest
    return scaled


def clip_steps(path: CameraPath, num_frames: int, latents: Optional[int] = None) -> np.ndarray:
    """
    Turn the path of a whole clip into the poses that the network takes.

    :param path: at the clip's frame rate
    :param num_frames: frames of the path that are used, 4n + 1
    :param latents: how many latent frames they are spread over; None takes every fourth frame.
        The public causal scripts round them down to whole chunks, which stretches time a little
    :return: (f, 4, 4) float32 camera seen from the latent frame before, world units: the longest
        translation is 1. Rounded as by the public scripts, which matters far from the origin
    :raises SpecError: the path is shorter
    """
    if num_frames > len(path):
        raise SpecError(f'camera path of {len(path)} poses is too short for {num_frames} frames; '
                        f'use at most {len(path) - (len(path) - 1) % FRAMES_PER_LATENT}.')
    at = np.linspace(0, num_frames - 1, latents or num_latents(num_frames))
    return unit_translations(_framewise_in_float32(_interpolated(path.poses, at)))


def _interpolated(poses: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Read poses between frames as the public scripts do: straight lines, SLERP. (m, 4, 4)."""
    from scipy.spatial.transform import Rotation, Slerp
    frames, T = np.arange(len(poses)), np.tile(np.eye(4), (len(at), 1, 1))
    rotations = Rotation.from_matrix(poses[:, :3, :3])
    T[:, :3, :3] = (Slerp(frames, rotations)(at) if len(poses) > 1 else rotations).as_matrix()
    T[:, :3, 3] = np.stack([np.interp(at, frames, poses[:, axis, 3]) for axis in range(3)], -1)
    return T


def _framewise_in_float32(poses: np.ndarray) -> np.ndarray:
    """See each camera from the one before, by way of the first, in the public scripts' order."""
    def inverse(T: Tensor) -> Tensor:
        rotation = T[:, :3, :3].transpose(1, 2)
        out = torch.eye(4).repeat(len(T), 1, 1)
        out[:, :3, :3], out[:, :3, 3] = rotation, -(rotation @ T[:, :3, 3:])[..., 0]
        return out

    T = torch.tensor(poses, dtype=torch.float32)
    T = inverse(T[:1]) @ T
    steps = torch.eye(4).repeat(len(T), 1, 1)
    steps[1:] = inverse(T[:-1]) @ T[1:]
    return steps.numpy()


def clip_keys(path: CameraPath, num_frames: int) -> np.ndarray:
    """
    Take the keys of a clip for networks with keys.

    :param path: at the clip's frame rate
    :param num_frames: frames of the path that are used, 4n + 1
    :return: (f, 4) float32 w a s d, those of every fourth frame; zeros where there are none
    """
    if path.keys is None:
        return np.zeros((num_latents(num_frames), 4), np.float32)
    return path.keys[:num_frames:FRAMES_PER_LATENT]


def latent_steps(camera_motion: np.ndarray, metres_per_world_unit: float) -> np.ndarray:
    """
    Turn live motion into the poses that the network takes.

    :param camera_motion: (T, 4, 4) camera after a frame seen from the one before, metres; T is a
        multiple of 4
    :param metres_per_world_unit: metres per latent frame (four frames) that the network knows as
        its largest translation, a brisk walk; the same for the whole stream
    :return: (T / 4, 4, 4) float64 camera seen from the latent frame before, world units. What is
        below ``REST_TRANSLATION`` or ``REST_ROTATION_RAD`` is exactly at rest
    """
    motion = np.asarray(camera_motion, np.float64).reshape(-1, FRAMES_PER_LATENT, 4, 4)
    steps = motion[:, 0]
    for i in range(1, FRAMES_PER_LATENT):
        steps = steps @ motion[:, i]
    steps[:, :3, 3] /= metres_per_world_unit
    steps[np.linalg.norm(steps[:, :3, 3], axis=-1) < REST_TRANSLATION, :3, 3] = 0.0
    turns = np.linalg.norm(vector_from_rotation(steps[:, :3, :3]), axis=-1)
    steps[turns < REST_ROTATION_RAD, :3, :3] = np.eye(3)
    return steps


class RayGrid:
    """
    Rays of one camera: all that poses do not change is computed once and stays on the device.

    ``directions`` (n, 3, p) float32: unit vectors of a latent frame's n tokens in camera axes, the
    p = 256 pixels of a token in the order in which the network takes them.
    """

    def __init__(self, camera: PinholeCamera, device: Optional[Device] = None) -> None:
        """
        Compute the directions, through the centres of the pixels.

        :param camera: of the video; its size is one of ``VideoSize``
        :param device: where tokens are made
        """
        rays = np.moveaxis(camera.rays(camera.pixel_grid()), -1, 0)  # c H W
        directions = torch.from_numpy(np.ascontiguousarray(rays))
        directions = directions / directions.norm(dim=0)
        self.directions = _pixels_to_tokens(directions.float()).to(device)  # n c p

    def tokens(self, poses: np.ndarray, keys: Optional[np.ndarray] = None,
               dtype: torch.dtype = torch.float32) -> Tensor:
        """
        Make the camera tokens of some latent frames.

        :param poses: (f, 4, 4) camera seen from the latent frame before, world units
        :param keys: (f, 4) w a s d, 0 or 1, for networks with keys; None for those with rays
        :param dtype: of the tokens
        :return: (1, n, 1536), or (1, n, 1792) with keys; n = f h w / 4
        """
        device, f = self.directions.device, len(poses)
        rotations = torch.as_tensor(poses[:, :3, :3], dtype=torch.float32).to(device)
        given = poses[:, :3, 3] if keys is None else keys
        constants = torch.as_tensor(given, dtype=torch.float32).to(device)
        n, _, p = self.directions.shape
        directions = torch.einsum('fij,njp->fnip', rotations, self.directions)
        constants = constants[:, None, :, None].expand(f, n, -1, p)
        parts = (constants, directions) if keys is None else (directions, constants)
        return torch.cat(parts, 2).to(dtype).reshape(1, f * n, -1)  # 1 n c*p


def _pixels_to_tokens(image: Tensor) -> Tensor:
    """
    Give each token its pixels: (c, H, W) -> (n, c, p).

    A token is 2 x 2 latents of 8 x 8 pixels each; within it the latent is the fastest index.
    """
    c, H, W = image.shape
    rows, columns = H // PIXELS_PER_TOKEN, W // PIXELS_PER_TOKEN
    x = image.view(c, rows, PATCH[1], VAE_STRIDE[1], columns, PATCH[2], VAE_STRIDE[2])
    x = x.permute(1, 4, 0, 3, 6, 2, 5)  # rows columns c r s ph pw
    return x.reshape(rows * columns, c, -1)
