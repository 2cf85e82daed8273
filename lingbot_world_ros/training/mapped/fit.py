# SPDX-License-Identifier: Apache-2.0
"""
Fit the map of a place to pictures: planes, distances and poses together, the network frozen.

Beside the map are fitted: what is left of the error of the poses (knots with a loose prior), how
bright each picture was taken (automatic exposure and white balance), and by how much pictures lag
behind depth. Axes: n frame, b batch, h w image.
"""
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Optional, Tuple

from lingbot_world_ros.models.mapped.network import MapOfPlace, MappedRenderer
from lingbot_world_ros.training.runs import cosine
import numpy as np
import torch
from torch import nn, Tensor
import torch._dynamo  # optimisers do; once OpenGL draws it would crash
from torch.nn import functional as F

BATCH = 4
KNOT_S = 0.5  # between knots of pose and exposure
RATES = {'planes': 4e-2, 'sdf': 1e-3, 'pose': 3e-4, 'exposure': 2e-3, 'lag': 1e-3}
ARM_NEAR = 0.05  # nearness to an arm beyond which a pixel is not the map's
POSE_PRIOR, EXPOSURE_PRIOR = 0.5, 0.05
EDGE_WEIGHT, DEPTH_WEIGHT = 0.5, 0.02


@dataclass(frozen=True)
class Views:
    """
    What is fitted to; arrays may be memory-mapped.

    ``mask`` is False where a pixel is not of the place: the robot's own body.
    """

    rgb: np.ndarray  # (n, h, w, 3) uint8
    depth: Optional[np.ndarray]  # (n, h, w) metres, 0 none
    pose: np.ndarray  # (n, 3) base in the scene
    T_base_optical: np.ndarray  # (n or 1, 4, 4)
    mask: np.ndarray  # (h, w) bool
    joints: Optional[np.ndarray]  # (n, j) of an arm that is drawn
    rate_hz: float


class Corrections(nn.Module):
    """What is wrong with poses and pictures of a recording, over its time."""

    def __init__(self, num_frames: int, rate_hz: float) -> None:
        """Start from nothing wrong."""
        super().__init__()
        self.every = max(1, int(round(KNOT_S * rate_hz)))
        knots = num_frames // self.every + 2
        self.pose = nn.Parameter(torch.zeros(knots, 3))  # x, y [m], yaw [rad]
        self.gain = nn.Parameter(torch.zeros(knots, 3))  # logarithm, per channel
        self.lag_s = nn.Parameter(torch.zeros(()))  # of pictures behind poses

    def at(self, knots: Tensor, index: np.ndarray) -> Tensor:
        """Interpolate knots at frames, (b, c)."""
        knot = torch.from_numpy(index // self.every)
        share = torch.from_numpy((index % self.every) / self.every).float()[:, None]
        return knots[knot] * (1.0 - share) + knots[knot + 1] * share


class MapFit:
    """A fit under way; ``parts`` is what a checkpoint has to keep."""

    def __init__(self, views: Views, place: MapOfPlace, renderer: MappedRenderer,
                 camera: Dict[str, Tensor], has_arm: bool) -> None:
        """
        Prepare.

        :param views: pictures and where they were taken
        :param place: the map to fit
        :param renderer: that draws it
        :param camera: tensors of the camera
        :param has_arm: whether the arm of the shipped robot is in view, and drawn
        """
        self.views, self.place, self.renderer = views, place, renderer
        self.corrections = Corrections(len(views.rgb), views.rate_hz)
        self._camera, self._has_arm = camera, has_arm
        self._mask = torch.from_numpy(views.mask).float()
        self._T_base_optical = torch.from_numpy(np.asarray(views.T_base_optical)).float()
        step = np.zeros_like(views.pose)
        step[1:-1] = 0.5 * (views.pose[2:] - views.pose[:-2]) * views.rate_hz
        self._twist = torch.from_numpy(step).float()
        self._pose = torch.from_numpy(views.pose)
        fixed = self.corrections
        self.optimiser = torch.optim.Adam(
            [{'params': [*place.fine, *place.coarse], 'lr': RATES['planes']},
             {'params': [place.sdf], 'lr': RATES['sdf']},
             {'params': [fixed.pose], 'lr': RATES['pose']},
             {'params': [fixed.gain], 'lr': RATES['exposure']},
             {'params': [fixed.lag_s], 'lr': RATES['lag']}], betas=(0.9, 0.99))
        self._base = [group['lr'] for group in self.optimiser.param_groups]

    @property
    def parts(self) -> Dict[str, Any]:
        """Return what has a state."""
        return {'place': self.place, 'corrections': self.corrections,
                'optimiser': self.optimiser}

    def step(self, progress: float, index: np.ndarray) -> Tensor:
        """
        Make one step.

        :param progress: share of the budget that is used, 0 to 1
        :param index: (b,) frames
        :return: the loss
        """
        for group, rate in zip(self.optimiser.param_groups, self._base):
            group['lr'] = rate * cosine(progress)
        loss = self.loss(index)
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        return loss.detach()

    def loss(self, index: np.ndarray) -> Tensor:
        """Colour, edges, depth of the map, and how far poses and exposure were moved."""
        views = self.views
        T = self.camera_poses(index)
        arm, weight = self._arm(index)
        rgb, _, _, static = self.renderer(T, self.place.tensors(), self._camera, arm)
        truth = _image(views.rgb[index])
        gain = self.corrections.at(self.corrections.gain, index)
        error = rgb * torch.exp(gain)[:, :, None, None] - truth
        colour = (weight * (error.abs() + 2.0 * error * error).mean(1)).mean()
        across, down = weight[..., 1:] * weight[..., :-1], weight[:, 1:] * weight[:, :-1]
        edges = ((across * (error[..., 1:] - error[..., :-1]).abs().mean(1)).mean()
                 + (down * (error[..., 1:, :] - error[..., :-1, :]).abs().mean(1)).mean())
        moved = self.corrections.at(self.corrections.pose, index)
        loss = (colour + EDGE_WEIGHT * edges + POSE_PRIOR * (moved ** 2).mean()
                + EXPOSURE_PRIOR * (gain ** 2).mean())
        if views.depth is not None:
            depth = torch.from_numpy(np.ascontiguousarray(views.depth[index])).float()
            off = (static - depth).abs() / (0.01 + 0.01 * depth * depth)
            loss = loss + DEPTH_WEIGHT * (weight * (depth > 0) * off.clamp(max=3.0)).mean()
        return loss

    def camera_poses(self, index: np.ndarray) -> Tensor:
        """Return T_scene_optical of frames, (b, 4, 4) float32, with what was corrected."""
        fixed = self.corrections
        some = torch.from_numpy(index)
        pose = (self._pose[some].float() + fixed.at(fixed.pose, index)
                + fixed.lag_s * self._twist[some])
        mounted = self._T_base_optical
        return planar(pose) @ (mounted if len(mounted) == 1 else mounted[some])

    def poses(self) -> np.ndarray:
        """Return the corrected base poses, (n, 3) float64."""
        index = np.arange(len(self.views.pose))
        with torch.no_grad():
            return self.views.pose + self.corrections.at(self.corrections.pose, index).numpy()

    @torch.no_grad()
    def draw(self, index: np.ndarray, exposed: bool = True) -> Tuple[Tensor, Tensor, Tensor]:
        """
        Draw frames of the recording.

        :param index: (b,) frames
        :param exposed: as bright as they were taken
        :return: rgb (b, 3, h, w) 0..1, truth of that shape, weight (b, h, w)
        """
        arm, weight = self._arm(index)
        rgb, _, _, _ = self.renderer(self.camera_poses(index), self.place.tensors(),
                                     self._camera, arm)
        if exposed:
            gain = self.corrections.at(self.corrections.gain, index)
            rgb = rgb * torch.exp(gain)[:, :, None, None]
        return rgb.clamp(0, 1), _image(self.views.rgb[index]), weight

    @torch.no_grad()
    def _arm(self, index: np.ndarray) -> Tuple[Optional[Tensor], Tensor]:
        """Maps of an arm that is drawn, and which pixels are of the place, (b, h, w)."""
        weight = self._mask.expand(len(index), -1, -1)
        if not self._has_arm or self.views.joints is None:
            return None, weight
        joints = torch.from_numpy(np.ascontiguousarray(self.views.joints[index])).float()
        maps = self.renderer.network.arm_maps(joints, self._camera)
        near = F.interpolate(maps[:, :maps.shape[1] // 4].amax(1, keepdim=True), scale_factor=2.0,
                             mode='bilinear')[:, 0]
        return maps, weight * (near < ARM_NEAR)


def planar(pose: Tensor) -> Tensor:
    """Lift (b, 3) x, y, yaw to (b, 4, 4)."""
    c, s = torch.cos(pose[:, 2]), torch.sin(pose[:, 2])
    zero, one = torch.zeros_like(c), torch.ones_like(c)
    rows = ((c, -s, zero, pose[:, 0]), (s, c, zero, pose[:, 1]), (zero, zero, one, zero),
            (zero, zero, zero, one))
    return torch.stack([torch.stack(row, -1) for row in rows], 1)


def held_out_psnr(fit: MapFit, index: np.ndarray) -> List[float]:
    """
    Compare drawn and recorded pictures.

    :param fit: whose map
    :param index: (m,) frames, held out
    :return: of each the PSNR [dB], pixels of the robot left out
    """
    out: List[float] = []
    for begin in range(0, len(index), BATCH):
        rgb, truth, weight = fit.draw(index[begin:begin + BATCH])
        square = ((rgb - truth) ** 2).mean(1)
        mean = (square * weight).sum((1, 2)) / weight.sum((1, 2)).clamp_min(1.0)
        out += (-10.0 * mean.clamp_min(1e-10).log10()).tolist()
    return out


def run_fit(fit: MapFit, train: np.ndarray, budget_s: float, clock: Callable[[], float],
            seed: int, on_step: Callable[[float, int], None] = lambda progress, step: None,
            used_s: float = 0.0, step: int = 0) -> int:
    """
    Fit until the time is used up.

    :param fit: what to fit
    :param train: (m,) frames that may be looked at
    :param budget_s: seconds of ``clock``
    :param clock: tells seconds
    :param seed: of the order of frames
    :param on_step: called after each step with the share of the budget used, and steps made
    :param used_s: of the budget, in an attempt before
    :param step: steps made before
    :return: steps made
    """
    since = clock() - used_s
    while True:
        progress = (clock() - since) / budget_s
        if progress >= 1.0:
            return step
        rng = np.random.default_rng([seed, step])
        fit.step(progress, np.sort(rng.choice(train, BATCH, replace=False)))
        step += 1
        on_step(progress, step)


def _image(rgb: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(rgb)).permute(0, 3, 1, 2).float() / 255
