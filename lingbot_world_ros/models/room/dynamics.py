# SPDX-License-Identifier: Apache-2.0
"""
The transition model s' = f(s, a): a recurrent state-space model over an explicit state.

A GRU carries the deterministic part, a small Gaussian latent the stochastic part; heads predict
the motion of the base in its own frame, the joints, contact, the motion of movable objects, and
how fast the uncertainty of each grows. Walls are felt through the clearance map, which comes from
the learned scene map. Torch, for training and export only.

Axes: b batch, j joint, k movable object, p probe.
Source: RSSM of PlaNet and Dreamer (Hafner et al. 2019, 2020); no code taken from there.
"""
from dataclasses import dataclass
from typing import Dict, Optional, Tuple

from lingbot_world_ros.models.room.state import RoomState
from lingbot_world_ros.robots.load import load_robot
from lingbot_world_ros.robots.robot import Robot
from lingbot_world_ros.worlds.scenes import Scene
import numpy as np
from numpy.typing import ArrayLike
import torch
from torch import nn, Tensor
from torch.nn import functional as F

Tensors = Dict[str, Tensor]


@dataclass(frozen=True)
class DynamicsSpec:
    """Independent sizes only."""

    hidden: int = 160
    latent: int = 8
    object_hidden: int = 48
    object_embedding: int = 8
    num_probes: int = 16  # places on the base's rim where clearance is felt
    cell_m: float = 0.05  # of the clearance map
    plan_m: Tuple[float, float] = (7.5, 6.5)  # of every clearance map, x and y, from -margin_m
    margin_m: float = 0.2

    @property
    def plan_cells(self) -> Tuple[int, ...]:
        """Rows (y) and columns (x) of a clearance map."""
        return tuple(int(round(e / self.cell_m)) + 1 for e in self.plan_m[::-1])


# Typical size of one frame's change, used to scale outputs: metres, radians, per frame.
MOTION_SCALE = (0.05, 0.02, 0.1)
# Order of the uncertain quantities in ``growth``: position, yaw, joints, objects.
STILL = 0.03  # share of full speed below which motion fades out
OBJECT_GAP = 13  # column of the object features: gap to the nearest other object


class SceneContact(nn.Module):
    """What the transition model knows of a scene: clearance map and object embeddings."""

    def __init__(self, scene: Scene, spec: DynamicsSpec) -> None:
        """Start without walls; ``clearance`` is filled from the scene map."""
        super().__init__()
        self.scene = scene
        self.register_buffer('clearance', torch.full((1, 1, *spec.plan_cells), 1.0))
        self.register_buffer('radius', torch.tensor([[m.radius_m for m in scene.movables]],
                                                    dtype=torch.float32), persistent=False)
        self.embedding = nn.Parameter(0.1 * torch.randn(1, len(scene.movables),
                                                        spec.object_embedding))

    def tensors(self) -> Tensors:
        """Return what ``Dynamics.forward`` needs, by name."""
        return {name: getattr(self, name) for name in CONTACT_TENSORS}


CONTACT_TENSORS = ('clearance', 'radius', 'embedding')  # one row per scene


class Dynamics(nn.Module):
    """One frame of the transition model; ``state.advance`` applies what it predicts."""

    probes: Tensor
    joint_low: Tensor
    joint_high: Tensor
    joint_max_speed: Tensor
    twist_scale: Tensor
    action_scale: Tensor
    motion_scale: Tensor

    def __init__(self, spec: DynamicsSpec = DynamicsSpec(), robot: Optional[Robot] = None) -> None:
        """Build the networks for a robot, by default the one that ships."""
        super().__init__()
        robot = robot or load_robot()
        self.spec, self.robot, self.num_joints = spec, robot, len(robot.joints)
        angle = np.arange(spec.num_probes) * 2 * np.pi / spec.num_probes
        rim = robot.footprint.radius_m * np.stack([np.cos(angle), np.sin(angle)], -1)
        self._constant('probes', np.concatenate([[[0.0, 0.0]], rim]).T)  # 2 p
        for field in ('low', 'high', 'max_speed'):
            self._constant(f'joint_{field}', robot.joint_array(field))
        drive = robot.drive
        self._constant('twist_scale', [drive.linear_high_mps, 0.2, drive.angular_max_radps])
        self._constant('action_scale', np.concatenate(
            [[drive.linear_high_mps, drive.angular_max_radps], robot.joint_array('max_speed')]))
        self._constant('motion_scale', MOTION_SCALE)
        h, o, j = spec.hidden, spec.object_hidden, self.num_joints
        base_inputs = 3 + 3 * j + j + (2 + j) + spec.num_probes + 3
        object_inputs = 17 + spec.object_embedding
        self.object_in = nn.Sequential(nn.Linear(object_inputs, o), nn.SiLU(), nn.Linear(o, o),
                                       nn.SiLU())
        self.base_in = nn.Sequential(nn.Linear(base_inputs + o, h), nn.SiLU())
        self.gru = nn.GRUCell(h, h)
        self.prior = nn.Linear(h, 2 * spec.latent)
        self.posterior = nn.Sequential(nn.Linear(h + 6 + 2 * j + 1, h), nn.SiLU(),
                                       nn.Linear(h, 2 * spec.latent))
        # twist and motion of the base, joint motion and speed, contact
        self.head = nn.Sequential(nn.Linear(2 * h + spec.latent, h), nn.SiLU(),
                                  nn.Linear(h, 6 + 2 * j + 1))
        self.linear = nn.Linear(3 + j + 2 + j, 6 + 2 * j, bias=False)
        self.object_head = nn.Sequential(nn.Linear(h + o + spec.latent + object_inputs, o),
                                         nn.SiLU(), nn.Linear(o, 3 + 1))
        growth = nn.Linear(64, 2 + j)
        self.growth = nn.Sequential(nn.Linear(h + spec.latent, 64), nn.SiLU(), growth)
        nn.init.zeros_(self.linear.weight)
        nn.init.constant_(growth.bias, -6.0)

    def _constant(self, name: str, value: ArrayLike) -> None:
        self.register_buffer(name, torch.tensor(np.asarray(value), dtype=torch.float32),
                             persistent=False)

    def start(self, pose: Tensor, joints: Tensor, objects: Tensor) -> RoomState:
        """
        Make the state of a robot at rest, known exactly.

        :param pose: (b, 3); joints (b, j); objects (b, k, 3)
        :return: the state
        """
        b, k = objects.shape[:2]
        zeros = pose.new_zeros
        return RoomState(pose, zeros(b, 3), joints, zeros(b, self.num_joints), objects,
                         zeros(b, k, 3), zeros(b, self.spec.hidden),
                         zeros(b, 2 + self.num_joints + k))

    def forward(self, state: RoomState, action: Tensor, noise: Tensor, scene: Tensors,
                seen: Optional[Tuple[Tensor, Tensor]] = None) -> Tensors:
        """
        Predict one frame's motion.

        :param state: the state
        :param action: (b, 2 + j) base v_x [m/s], w_z [rad/s], joint speeds
        :param noise: (b, latent) standard normal, zeros for the mean of the prior
        :param scene: ``SceneContact.tensors()``; several scenes stacked share the batch evenly,
            the worlds of the first scene first
        :param seen: for training, (b, 1) bool where to infer the posterior and (b, 6 + 2 j + 1)
            what really happened; elsewhere and by default the prior is used
        :return: dict with motion (b, 3: x, y, yaw in base_link), twist (b, 3), joint_motion,
            joint_speed (b, j), contact (b,) logit, object_motion (b, k, 3), hidden (b, h), growth
            (b, 2 + j + k) of variances, and prior and posterior statistics (b, 2 latent)
        """
        x, objects = self.features(state, action, scene)
        pooled = self.object_in(objects)  # b k o
        x = self.base_in(torch.cat([x, pooled.sum(1)], -1))
        hidden = self.gru(x, state.hidden)
        prior = self.prior(hidden)
        posterior = prior
        if seen is not None:
            mask, truth = seen
            posterior = torch.where(mask, self.posterior(torch.cat([hidden, truth], -1)), prior)
        mean, spread = posterior.chunk(2, -1)
        latent = mean + noise * (F.softplus(spread) + 0.01)
        y = self.head(torch.cat([x, hidden, latent], -1))
        j = self.num_joints
        direct = self.linear(torch.cat([state.twist / self.twist_scale,
                                        state.joint_speed / self.joint_max_speed,
                                        action / self.action_scale], -1))
        base, joint, object_ = self.activity(state, action, objects)
        gate = torch.cat([base.expand(-1, 6), joint, joint], -1)
        y, contact = y[:, :-1] * gate + direct, y[:, -1]
        around = torch.cat([hidden, latent], -1)[:, None].expand(-1, objects.shape[1], -1)
        z = self.object_head(torch.cat([around, pooled, objects], -1))
        # Errors must not shape the state they measure, hence the detached input.
        growth = torch.cat([
            F.softplus(self.growth(torch.cat([hidden, latent], -1).detach())) * 1e-2
            * torch.cat([base.expand(-1, 2), joint], -1),
            F.softplus(z[..., 3] - 6.0) * 1e-2 * object_], -1)
        return {'motion': y[:, :3] * self.motion_scale, 'twist': y[:, 3:6] * self.twist_scale,
                'joint_motion': y[:, 6:6 + j] * self.joint_max_speed * 0.1,
                'joint_speed': y[:, 6 + j:] * self.joint_max_speed, 'contact': contact,
                'object_motion': z[..., :3] * self.motion_scale * object_[..., None],
                'hidden': hidden,
                'growth': growth, 'prior': prior, 'posterior': posterior}

    def activity(self, state: RoomState, action: Tensor,
                 objects: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        """
        Return what may move at all, 0..1, from the share of full speed it has or is asked for.

        What rests and is not commanded stays exactly where it is, however long; a network alone
        lets it creep.

        :param state: the state
        :param action: (b, 2 + j)
        :param objects: (b, k, n) from ``features``
        :return: base (b, 1), joints (b, j), objects (b, k)
        """
        asked = (action / self.action_scale).abs()
        moving = (state.twist / self.twist_scale).abs().sum(-1, keepdim=True)
        base = _fade(moving + asked[:, :2].sum(-1, keepdim=True))
        joint = _fade((state.joint_speed / self.joint_max_speed).abs() + asked[:, 2:])
        own = (state.object_motion / self.motion_scale).abs().sum(-1)  # b k
        near_base, gap = objects[..., 3], objects[..., OBJECT_GAP] / 10
        bumped = base * near_base + torch.exp(-20 * gap.clamp_min(0.0)) \
            * own.amax(1, keepdim=True).clamp_max(1.0)
        return base, joint, _fade(own + bumped)

    def features(self, state: RoomState, action: Tensor, scene: Tensors) -> Tuple[Tensor, Tensor]:
        """Return what the networks see of a state: (b, n) of the robot, (b, k, n) of objects."""
        c, s = torch.cos(state.pose[:, 2:3]), torch.sin(state.pose[:, 2:3])  # b 1
        px, py = self.probes
        wx = state.pose[:, 0:1] + c * px - s * py
        wy = state.pose[:, 1:2] + s * px + c * py
        clearance = self._clearance(wx, wy, scene)  # b p
        radius = self.robot.footprint.radius_m
        gap = clearance[:, :1] - radius
        slope = self._slope(state.pose[:, 0:1], state.pose[:, 1:2], c, s, scene)
        span = self.joint_high - self.joint_low
        place = (state.joints - self.joint_low) / span
        robot = torch.cat([
            state.twist / self.twist_scale, 2 * place - 1, (10 * place).clamp(-0.5, 1.0),
            (10 * (1 - place)).clamp(-0.5, 1.0), state.joint_speed / self.joint_max_speed,
            action / self.action_scale, (5 * clearance[:, 1:]).clamp(-1.0, 1.5),
            (10 * gap).clamp(-1.0, 3.0), *slope], -1)
        dx = state.objects[..., 0] - state.pose[:, :1]  # b k
        dy = state.objects[..., 1] - state.pose[:, 1:2]
        bx, by = c * dx + s * dy, -s * dx + c * dy
        distance = (dx * dx + dy * dy + 1e-6).sqrt()
        size = _per_world(scene['radius'], dx.shape[0])
        reach = distance - radius - size
        free = self._clearance(state.objects[..., 0], state.objects[..., 1], scene) - size
        wall = self._slope(state.objects[..., 0], state.objects[..., 1], c, s, scene)
        facing = state.objects[..., 2] - state.pose[:, 2:3]
        other = self._neighbours(state.objects, c, s, size)
        objects = torch.stack([
            bx / distance, by / distance, (10 * reach).clamp(-1.0, 3.0),
            torch.exp(-20 * reach.clamp_min(0.0)), (0.5 * distance).clamp(0.0, 2.0),
            *(state.object_motion / self.motion_scale).unbind(-1),
            torch.cos(facing), torch.sin(facing), (10 * free).clamp(-1.0, 3.0), *wall, *other,
            (action[:, :1] / self.action_scale[0]).expand_as(bx)], -1)
        embedding = _per_world(scene['embedding'], objects.shape[0]).expand(objects.shape[0], -1,
                                                                            -1)
        return robot, torch.cat([objects, embedding], -1)

    def _clearance(self, x: Tensor, y: Tensor, scene: Tensors) -> Tensor:
        """Distance to the nearest wall or furniture at scene points (b, n): b n, metres."""
        low, (width, height) = -self.spec.margin_m, self.spec.plan_m
        grid = torch.stack([(x - low) * (2.0 / width) - 1.0, (y - low) * (2.0 / height) - 1.0], -1)
        scenes = scene['clearance'].shape[0]
        found = F.grid_sample(scene['clearance'], grid.reshape(scenes, -1, x.shape[1], 2),
                              mode='bilinear', padding_mode='border', align_corners=True)
        return found.reshape(-1, x.shape[1])

    def _slope(self, x: Tensor, y: Tensor, c: Tensor, s: Tensor,
               scene: Tensors) -> Tuple[Tensor, Tensor]:
        """Direction away from the nearest wall, in base axes: two (b, n) tensors."""
        e = 0.06
        gx = self._clearance(x + e, y, scene) - self._clearance(x - e, y, scene)
        gy = self._clearance(x, y + e, scene) - self._clearance(x, y - e, scene)
        gx, gy = gx / (2 * e), gy / (2 * e)
        return c * gx + s * gy, -s * gx + c * gy

    def _neighbours(self, objects: Tensor, c: Tensor, s: Tensor,
                    size: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        """Gap to the nearest other object and the direction to it in base axes, (b, k) each."""
        dx = objects[:, None, :, 0] - objects[:, :, None, 0]  # b k k
        dy = objects[:, None, :, 1] - objects[:, :, None, 1]
        k = objects.shape[1]
        gap = (dx * dx + dy * dy + 1e-6).sqrt() - size[:, None] - size[..., None]
        gap = gap + 1e3 * torch.eye(k, device=gap.device)
        weight = torch.softmax(-20.0 * gap, -1)
        nx, ny = (weight * dx).sum(-1), (weight * dy).sum(-1)
        length = (nx * nx + ny * ny + 1e-6).sqrt()
        nx, ny = nx / length, ny / length
        return (10 * gap.amin(-1)).clamp(-1.0, 3.0), c * nx + s * ny, -s * nx + c * ny


def _per_world(rows: Tensor, batch: int) -> Tensor:
    """One row per scene -> one per world; a single scene broadcasts."""
    return rows if rows.shape[0] == 1 else rows.repeat_interleave(batch // rows.shape[0], 0)


def _fade(share: Tensor) -> Tensor:
    """1 above ``STILL``, below it falling with the square: what hardly moves comes to rest."""
    return (share / STILL).clamp(0.0, 1.0) ** 2
