# SPDX-License-Identifier: Apache-2.0
"""
The observation model o = g(s): state of robot and objects -> image, depth, expected error.

Deferred neural rendering. Per scene a learned map (a signed distance grid for where surfaces
are, three feature planes for what they look like) and a small network per movable object; shared
by all scenes a convolutional network that draws the arm from its projected kinematics and turns
features into colour. Camera rays come first: every pixel's ray is traced through the map, so a
place looks the same whenever it is revisited. Torch, for training and export only.

Axes: b batch, c channel, h w image, n rays, k movable objects, v voxels.
Source: deferred neural textures (Thies et al. 2019), tri-planes (Chan et al. 2022), sphere
tracing (Hart 1996), cone start depths (Quilez); no code taken from there.
"""
from dataclasses import dataclass
from typing import Dict, NamedTuple, Optional, Sequence, Tuple

from lingbot_world_ros.geometry.camera import MountedCamera
from lingbot_world_ros.models.room.lens import COARSE, lens_tensors
from lingbot_world_ros.robots.arm import SEGMENTS
from lingbot_world_ros.robots.load import load_robot
from lingbot_world_ros.robots.robot import Robot
from lingbot_world_ros.worlds.scenes import get_scene, Scene, WALL_HEIGHT_M
import numpy as np
import torch
from torch import nn, Tensor
from torch.nn import functional as F

Tensors = Dict[str, Tensor]
Axes = Tuple[Tensor, Tensor, Tensor]  # x, y, z


@dataclass(frozen=True)
class RendererSpec:
    """Independent sizes only."""

    voxel_m: float = 0.05
    margin_m: float = 0.2  # map beyond the room, so that walls have a behind
    texel_m: float = 0.02
    plane_channels: int = 10
    feature_channels: int = 12
    object_hidden: int = 24
    width: int = 40  # channels at half resolution
    width_low: int = 64  # channels at quarter resolution
    coarse_steps: int = 12
    fine_steps: int = 5
    quick: bool = False  # sines by polynomials, right to 6e-5; maps not put together to be drawn


# For small pictures, whose pixels are larger than a texel: coarser planes, which have learned what
# such a pixel shows, and fewer steps.
SMALL = RendererSpec(texel_m=0.04, coarse_steps=8, fine_steps=4, quick=True)
QUICK = RendererSpec(fine_steps=4, quick=True)  # for who needs no bytes that repeat


class SceneMap(nn.Module):
    """
    What is learned about one scene.

    ``sdf``: (nx, ny, nz) signed distance in metres at voxel corners, positive in free space.
    ``planes``: feature planes xy, xz, yz, each (1, c, rows, cols).
    ``objects``: weights of one ray network per movable object.
    """

    half_size_m: Tensor
    grid: Tensor

    def __init__(self, scene: Scene, spec: RendererSpec) -> None:
        """Start from an empty map of the right size."""
        super().__init__()
        self.scene, self.spec = scene, spec
        extent = np.array([*scene.size_m, WALL_HEIGHT_M])
        self.low_m = -spec.margin_m
        self.shape = tuple(int(np.ceil((e + 2 * spec.margin_m) / spec.voxel_m)) + 1
                           for e in extent)
        self.sdf = nn.Parameter(torch.full(self.shape, 0.5))
        self.extent_m = extent + 2 * spec.margin_m
        cells = [int(np.ceil(e / spec.texel_m)) for e in self.extent_m]
        c = spec.plane_channels
        self.planes = nn.ParameterList(
            [nn.Parameter(0.1 * torch.randn(1, c, cells[j], cells[i]))
             for i, j in ((0, 1), (0, 2), (1, 2))])
        k, h = len(scene.movables), spec.object_hidden
        sizes = ((OBJECT_INPUTS, h), (h, h), (h, 2 + spec.feature_channels))
        self.objects = nn.ParameterList()
        for cols, rows in sizes:
            self.objects.append(nn.Parameter(torch.randn(k, rows, cols) / np.sqrt(cols)))
            self.objects.append(nn.Parameter(torch.zeros(k, rows, 1)))
        self.register_buffer('half_size_m', torch.tensor(
            [m.half_size_m for m in scene.movables], dtype=torch.float32), persistent=False)
        self.register_buffer('grid', torch.tensor(
            [*self.shape, self.low_m, *self.extent_m], dtype=torch.float32), persistent=False)

    def tensors(self) -> Tensors:
        """Return what ``Renderer.forward`` needs, by name; see ``SCENE_TENSORS``."""
        out = {'atlas': pack_atlas(self.sdf), 'half_size_m': self.half_size_m,
               'grid': self.grid}
        for name, plane in zip(('xy', 'xz', 'yz'), self.planes):
            out[f'plane_{name}'] = plane
        for i, weight in enumerate(self.objects):
            out[f'object_{i}'] = weight
        return out


SCENE_TENSORS = ('atlas', 'grid', 'half_size_m', 'plane_xy', 'plane_xz', 'plane_yz') \
    + tuple(f'object_{i}' for i in range(6))
# Of sin(3 x) / x and cos(3 x) in x squared, interpolated at Chebyshev points of -1..1.
SINE = (2.9999925, -4.4996245, 2.0219771, -0.42534683, 0.044128774)
COSINE = (1, -4.4995095, 3.3684248, -0.98848774, 0.12963075)
OBJECT_INPUTS = 3 + 3 + 12  # entry and exit point of the box, Fourier features of the entry


def pack_atlas(sdf: Tensor) -> Tensor:
    """
    Lay the slices of the grid side by side, each together with the next one.

    One bilinear look-up then gives two heights, and trilinear interpolation is one more blend:
    2-D grid sampling is the fast gather of every CPU runtime, 3-D is not.

    :param sdf: (nx, ny, nz)
    :return: (1, 2, nx, nz * ny): channel 0 slice z, channel 1 slice z + 1
    """
    above = torch.cat([sdf[..., 1:], sdf[..., -1:]], -1)
    return torch.stack([sdf, above]).permute(0, 1, 3, 2).flatten(2)[None]


def camera_tensors(camera: MountedCamera) -> Tensors:
    """Return ``lens_tensors`` as tensors."""
    return {name: torch.from_numpy(value) for name, value in lens_tensors(camera).items()}


class Geometry(NamedTuple):
    """What is seen before a network has drawn it; everything that has to be float32."""

    found: Tensor  # (3 * plane_channels + 1, b, n) ``look_up``
    static: Tensor  # (b, n) optical depth of the map, metres
    objects: Tensor  # (b, 4 + c + 3, h/2, w/2) log depth of four pixels, and ``object_maps``
    arm: Tensor  # (b, 4 * segments, h/2, w/2) ``arm_maps``


class Renderer(nn.Module):
    """
    Turn poses, joints and object poses into images of a scene given by its map tensors.

    The size of the images is that of the camera, which is given by its tensors, too.
    """

    starts: Tensor
    ends: Tensor

    def __init__(self, spec: RendererSpec = RendererSpec(), robot: Optional[Robot] = None) -> None:
        """Build the shared network."""
        super().__init__()
        robot = robot or load_robot()
        self.spec, self.robot = spec, robot
        self.autocast = False  # bfloat16 in the convolutions; geometry always stays float32
        for name, points in zip(('starts', 'ends'), zip(*SEGMENTS)):
            self.register_buffer(name, torch.tensor(points), persistent=False)
        f, w, low = spec.feature_channels, spec.width, spec.width_low
        self.shade_in = nn.Conv1d(3 * spec.plane_channels + 1, 48, 1)
        self.shade_out = nn.Conv1d(48, f, 1)
        self.arm_in = nn.Conv2d(4 * len(SEGMENTS), 32, 3, padding=1)
        self.arm_mid = nn.Conv2d(32, 32, 3, padding=1)
        self.stem = nn.Conv2d(4 * (f + 1) + (f + 3) + 32, w, 3, padding=1)
        self.down = nn.Conv2d(w, low, 3, stride=2, padding=1)
        self.low_a = nn.Conv2d(low, low, 3, padding=1)
        self.low_b = nn.Conv2d(low, low, 3, padding=1)
        self.up = nn.Conv2d(low, w, 1)
        self.top_a = nn.Conv2d(w, w, 3, padding=1)
        self.top_b = nn.Conv2d(w, w, 3, padding=1)
        # Per pixel: rgb, depth of what is in front of the map, and whether something is.
        self.out = nn.Conv2d(w, 4 * 5, 3, padding=1)

    def forward(self, base_pose: Tensor, joints: Tensor, objects: Tensor, scene: Tensors,
                camera: Tensors) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
        """
        Render a batch of states of one scene.

        :param base_pose: (b, 3) float32 x, y [m], yaw [rad]
        :param joints: (b, 5) float32 rad or m
        :param objects: (b, k, 3) float32 x, y, yaw
        :param scene: ``SceneMap.tensors()``
        :param camera: ``camera_tensors`` of the camera that sees, h x w pixels
        :return: rgb (b, 3, h, w) about 0..1; depth (b, h, w) metres; probability (b, h, w) that
            robot or object stand before the map; depth of the map alone (b, h, w)
        """
        return self.draw(self.geometry(base_pose, joints, objects, scene, camera))

    def geometry(self, base_pose: Tensor, joints: Tensor, objects: Tensor, scene: Tensors,
                 camera: Tensors) -> Geometry:
        """Find out what each pixel sees; parameters as in ``forward``."""
        static = self.trace(base_pose, scene, camera)  # b n
        found = look_up(base_pose, static, scene, camera)
        maps = self.object_maps(base_pose, objects, static, scene, camera)
        return Geometry(found, static, torch.cat([_blocks(found[-1:], maps), maps], 1),
                        self.arm_maps(joints, camera))

    def draw(self, seen: Geometry) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
        """Draw what is seen; returns what ``forward`` does."""
        with torch.autocast(seen.found.device.type, torch.bfloat16, enabled=self.autocast,
                            cache_enabled=False):
            x = self.out(self.features(seen))
        x = F.pixel_shuffle(x.float(), 2)  # b 5 h w
        static = seen.static.reshape(-1, 1, *x.shape[2:])
        front = torch.sigmoid(x[:, 4:])
        depth = static + front * (F.softplus(x[:, 3:4]) - static)
        return x[:, :3], depth[:, 0], front[:, 0], static[:, 0]

    def features(self, seen: Geometry) -> Tensor:
        """Return what ``out`` draws from, (b, width, h/2, w/2)."""
        return self.cnn(_blocks(self.shade(seen.found), seen.objects), seen.objects, seen.arm)

    @staticmethod
    def _grid_rays(base_pose: Tensor, rays: Tensor, grid: Tensor,
                   lens: Tensor) -> Tuple[Axes, Axes]:
        """Origin and direction of rays in voxels, one (b, 1 or n) tensor per axis."""
        ex, ey, c, s = _eye(base_pose, lens)
        scale = (grid[:3] - 1.0) / grid[4:7]
        rx, ry, rz, _ = rays
        low = grid[3]
        origin = ((ex - low) * scale[0], (ey - low) * scale[1], (lens[2] - low) * scale[2])
        direction = ((c * rx - s * ry) * scale[0], (s * rx + c * ry) * scale[1],
                     (rz * scale[2])[None])
        return origin, direction

    def trace(self, base_pose: Tensor, scene: Tensors, camera: Tensors) -> Tensor:
        """
        Sphere-trace every pixel's ray: cones first, then rays from where the cones stop.

        :param base_pose: (b, 3)
        :param scene: map tensors
        :param camera: camera tensors
        :return: (b, n) optical depth of the first surface, metres; differentiable in the map
            through the last step
        """
        spec, b, lens = self.spec, base_pose.shape[0], camera['lens']
        coarse, rays = camera['rays_coarse'].flatten(1), camera['rays'].flatten(1)
        with torch.no_grad():
            length, spread = coarse[3], lens[3]
            beam = self._grid_rays(base_pose, coarse, scene['grid'], lens)
            depth = torch.full_like(length, 0.25).expand(b, -1)
            for _ in range(spec.coarse_steps):
                free = sample_sdf(*beam, depth, scene) - spread * depth
                depth = depth + free.clamp_min(0.0) / (length + spread)
            depth = F.interpolate(depth.reshape(b, 1, *camera['rays_coarse'].shape[1:]),
                                  scale_factor=float(COARSE), mode='nearest').reshape(b, -1)
        length = rays[3]
        beam = self._grid_rays(base_pose, rays, scene['grid'], lens)
        with torch.no_grad():
            for _ in range(spec.fine_steps):
                depth = depth + sample_sdf(*beam, depth, scene) / length
        return (depth + sample_sdf(*beam, depth, scene) / length).clamp(0.05, 20.0)

    def shade(self, found: Tensor) -> Tensor:
        """
        Decode features of the map.

        :param found: (3 * plane_channels + 1, b, n) ``look_up``
        :return: (c, b, n)
        """
        pixels = found.reshape(1, found.shape[0], -1)
        shaded = self.shade_out(F.relu(self.shade_in(pixels)))
        return shaded.reshape(-1, *found.shape[1:])

    def object_maps(self, base_pose: Tensor, objects: Tensor, static: Tensor,
                    scene: Tensors, camera: Tensors) -> Tensor:
        """
        Evaluate each movable object's ray network and lay them over each other by depth.

        :param base_pose: (b, 3)
        :param objects: (b, k, 3)
        :param static: (b, n) depth of the map
        :param scene: map tensors
        :param camera: camera tensors
        :return: (b, c + 3, h/2, w/2): blended features, coverage, ray length inside the nearest
            box (a smooth edge measure), log depth
        """
        lens, shape = camera['lens'], camera['rays'].shape[1:]
        ex, ey, cb, sb = _eye(base_pose, lens)
        yaw = objects[..., 2]
        c, s = torch.cos(yaw), torch.sin(yaw)  # b k
        cr, sr = cb * c + sb * s, sb * c - cb * s  # of base yaw - object yaw
        dx, dy = ex - objects[..., 0], ey - objects[..., 1]
        size = scene['half_size_m'].T  # 3 k
        # Eye and rays in each object's box, where the box is -1..1 on every axis: b k 1, b k n.
        rx, ry, rz, _ = camera['rays_half'].flatten(1)
        eye = [((c * dx + s * dy) / size[0])[..., None], ((c * dy - s * dx) / size[1])[..., None],
               ((lens[2] - size[2]) / size[2])[None, :, None]]
        cr, sr = cr[..., None], sr[..., None]
        ray = [(cr * rx - sr * ry) / size[0][:, None], (sr * rx + cr * ry) / size[1][:, None],
               (rz / size[2][:, None])[None]]
        inverse = [1.0 / torch.where(r.abs() < 1e-5, torch.full_like(r, 1e-5), r) for r in ray]
        middle = [-e * i for e, i in zip(eye, inverse)]
        reach = [i.abs() for i in inverse]
        near = torch.maximum(torch.maximum(middle[0] - reach[0], middle[1] - reach[1]),
                             middle[2] - reach[2]).clamp_min(0.0)
        far = torch.minimum(torch.minimum(middle[0] + reach[0], middle[1] + reach[1]),
                            middle[2] + reach[2])
        inside = far - near  # b k n, negative where the ray misses
        entry = torch.stack([(e + near * r).clamp(-1, 1) for e, r in zip(eye, ray)], 2)  # b k 3 n
        leave = torch.stack([(e + far * r).clamp(-1, 1) for e, r in zip(eye, ray)], 2)
        sin, cos = self.sines(entry)
        twice = (2.0 * sin * cos, 1.0 - 2.0 * sin * sin)  # sine and cosine of 6 * entry
        x = torch.cat([entry, leave, sin, cos, *twice], 2)
        x = F.relu(scene['object_0'] @ x + scene['object_1'])
        x = F.relu(scene['object_2'] @ x + scene['object_3'])
        x = scene['object_4'] @ x + scene['object_5']  # b k (2 + c) n
        alpha = torch.sigmoid(x[:, :, 0]) * (inside > 0).to(x.dtype)
        own = near + inside * torch.sigmoid(x[:, :, 1])
        depth = static.reshape(-1, *shape)[:, ::2, ::2].reshape(base_pose.shape[0], -1)
        feature, cover = torch.zeros_like(x[:, 0, 2:]), torch.zeros_like(depth)
        edge = inside.clamp(-0.2, 0.2).amax(1)
        for k in range(objects.shape[1]):
            front = alpha[:, k] * torch.sigmoid((depth - own[:, k]) * 40.0)
            feature = feature * (1.0 - front[:, None]) + front[:, None] * x[:, k, 2:]
            depth = depth + front * (own[:, k] - depth)
            cover = cover + front * (1.0 - cover)
        maps = torch.cat([feature, torch.stack([cover, 5.0 * edge,
                                                torch.log(depth.clamp_min(0.05))], 1)], 1)
        return maps.reshape(base_pose.shape[0], -1, *camera['rays_half'].shape[1:])

    def sines(self, x: Tensor) -> Tuple[Tensor, Tensor]:
        """Return sine and cosine of 3 x, for x of -1..1."""
        if not self.spec.quick:
            return torch.sin(3.0 * x), torch.cos(3.0 * x)
        square = x * x
        sin, cos = torch.full_like(x, SINE[-1]), torch.full_like(x, COSINE[-1])
        for a, b in zip(SINE[-2::-1], COSINE[-2::-1]):
            sin, cos = sin * square + a, cos * square + b
        return sin * x, cos

    def arm_maps(self, joints: Tensor, camera: Tensors) -> Tensor:
        """
        Draw the arm's kinematics as smooth maps at half resolution.

        :param joints: (b, 5)
        :param camera: camera tensors
        :return: (b, 4 * segments, h/2, w/2): per link segment nearness, signed offset across,
            place along, inverse depth
        """
        arm = self.robot.arm
        assert arm is not None, 'it draws an arm'
        points = arm.points(joints, _TorchMath)  # b p 3
        lens, optical_from_base = camera['lens'], camera['optical_from_base']
        optical = points @ optical_from_base[:3, :3].T + optical_from_base[:3, 3]
        z = optical[..., 2].clamp_min(0.05)
        u = lens[4] * optical[..., 0] / z + lens[5]
        v = lens[4] * optical[..., 1] / z + lens[6]
        ux, uy, ia = (t[:, self.starts, None] for t in (u, v, 1.0 / z))  # b s 1
        sx, sy, ib = (t[:, self.ends, None] for t in (u, v, 1.0 / z))
        sx, sy = sx - ux, sy - uy
        square = sx * sx + sy * sy + 1.0
        pixels = camera['pixels_half'].flatten(1)
        ox, oy = pixels[0] - ux, pixels[1] - uy  # b s n
        along = ((ox * sx + oy * sy) / square).clamp(0.0, 1.0)
        inverse = ia + along * (ib - ia)
        qx, qy = ox - along * sx, oy - along * sy
        unit = 1.0 / (lens[7] * inverse)  # per pixel, in units of 3 cm there
        near = torch.exp(-0.5 * (qx * qx + qy * qy) * unit * unit)
        across = ((ox * sy - oy * sx) / square.sqrt() * unit).clamp(-3.0, 3.0)
        maps = torch.cat([near, near * across, near * along, near * inverse], 1)
        return maps.reshape(joints.shape[0], -1, *camera['pixels_half'].shape[1:])

    def cnn(self, shaded: Tensor, objects: Tensor, arm: Tensor) -> Tensor:
        """Features and maps at half resolution -> (b, width, h/2, w/2)."""
        arm = F.relu(self.arm_mid(F.relu(self.arm_in(arm))))
        x = F.relu(self._stem(shaded, objects, arm))
        low = F.relu(self.down(x))
        low = low + self.low_b(F.relu(self.low_a(low)))
        x = F.relu(x + F.interpolate(self.up(low), scale_factor=2.0, mode='nearest'))
        x = x + self.top_b(F.relu(self.top_a(x)))
        return F.relu(x)

    def _stem(self, *maps: Tensor) -> Tensor:
        """Convolve all maps; one by one, none has to be copied beside the others."""
        if not self.spec.quick:
            return self.stem(torch.cat(maps, 1))
        first, *others = self.stem.weight.split([x.shape[1] for x in maps], 1)
        out = F.conv2d(maps[0], first, self.stem.bias, padding=1)
        for x, weight in zip(maps[1:], others):
            out = out + F.conv2d(x, weight, padding=1)
        return out


class _TorchMath:
    """The three functions that ``Arm.points`` needs, from torch."""

    cos, sin, stack = torch.cos, torch.sin, torch.stack


def _blocks(pixels: Tensor, like: Tensor) -> Tensor:
    """Put the four pixels of a block beside each other: c b n -> b 4c h/2 w/2."""
    b, (h, w) = like.shape[0], like.shape[2:]
    return pixels.reshape(-1, b, h, 2, w, 2).permute(1, 0, 3, 5, 2, 4).flatten(1, 3)


def look_up(base_pose: Tensor, depth: Tensor, scene: Tensors, camera: Tensors) -> Tensor:
    """
    Look up the map's features where the rays end.

    :param base_pose: (b, 3)
    :param depth: (b, n) optical depth
    :param scene: map tensors
    :param camera: camera tensors
    :return: (3 * plane_channels + 1, b, n): features, and the logarithm of the depth, which tells
        how large a pixel is there
    """
    lens = camera['lens']
    ex, ey, c, s = _eye(base_pose, lens)
    rx, ry, rz, _ = camera['rays'].flatten(1)
    low, extent = scene['grid'][3], scene['grid'][4:7]
    x = (ex - low + depth * (c * rx - s * ry)) * (2.0 / extent[0]) - 1.0
    y = (ey - low + depth * (s * rx + c * ry)) * (2.0 / extent[1]) - 1.0
    z = (lens[2] - low + depth * rz) * (2.0 / extent[2]) - 1.0
    found = [_lookup(scene[f'plane_{name}'], u, v)
             for name, u, v in (('xy', x, y), ('xz', x, z), ('yz', y, z))]
    return torch.cat([*found, torch.log(depth)[None]])


def _lookup(plane: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Bilinear look-up in (1, c, rows, cols) at u (cols), v (rows) of -1..1: c b n."""
    # The batch shares the plane. Stacked in front and turned: on a CPU half the time of stacking
    # along the last axis.
    grid = torch.stack([u, v]).permute(1, 2, 0)[None]  # 1 b n 2
    return F.grid_sample(plane, grid, mode='bilinear', padding_mode='border',
                         align_corners=False)[0]


def sample_sdf(origin: Axes, direction: Axes, depth: Tensor, scene: Tensors) -> Tensor:
    """
    Interpolate the signed distance along rays.

    :param origin: three tensors, ray origin in voxels
    :param direction: three tensors, voxels per metre of optical depth
    :param depth: (b, n) metres
    :param scene: map tensors
    :return: (b, n) metres
    """
    nx, ny, nz = (scene['grid'][i] for i in range(3))
    x = (origin[0] + depth * direction[0])
    y = torch.minimum((origin[1] + depth * direction[1]).clamp_min(0.0), ny - 1.0)
    z = torch.minimum((origin[2] + depth * direction[2]).clamp_min(0.0), nz - 1.001)
    floor = z.floor()
    u = (floor * ny + y + 0.5) * (2.0 / (ny * nz)) - 1.0
    v = (x + 0.5) * (2.0 / nx) - 1.0
    pair = _lookup(scene['atlas'], u, v)
    return pair[0] + (z - floor) * (pair[1] - pair[0])


def _eye(base_pose: Tensor, lens: Tensor) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
    """Camera position x, y in the scene frame, each (b, 1), and cosine, sine of the yaw."""
    c, s = torch.cos(base_pose[:, 2:3]), torch.sin(base_pose[:, 2:3])
    return (base_pose[:, 0:1] + c * lens[0] - s * lens[1],
            base_pose[:, 1:2] + s * lens[0] + c * lens[1], c, s)


def make_maps(scenes: Sequence[str], spec: RendererSpec = RendererSpec()) -> nn.ModuleDict:
    """
    Build empty maps.

    :param scenes: names of shipped scenes
    :param spec: sizes
    :return: scene name -> SceneMap
    """
    return nn.ModuleDict({name: SceneMap(get_scene(name), spec) for name in scenes})
