# SPDX-License-Identifier: Apache-2.0
"""
A picture seen from a little further on: a camera over a floor, with something far behind it.

Height, tilt, focal length and distortion of the camera, and how far what stands is, are learned
with everything else; lengths are in heights of the camera. What moves by itself, or is neither
floor nor far, comes out wrong, and the network that draws is told what came from where.
Axes: b batch, c channel, h w picture.
Source: the homography of a plane (Hartley and Zisserman, Multiple View Geometry, 13.1) and view
synthesis as supervision (arXiv 1704.07813); no code taken from either.
"""
from typing import Optional, Tuple

import torch
from torch import nn, Tensor
from torch.nn import functional as F

FOCAL, TILT, BEND, FAR = 0.9, 0.42, 0.3, -1.7  # to begin with; see ``Floor``
SOFT = 30.0  # steepness of the border between floor and far, per unit of inverse depth
NEAREST = 0.1  # along the axis, in heights of the camera, of what can be projected
ROUNDS = 4  # of undoing the distortion
UNSEEN = 0.2  # error of what the other picture does not show


class Floor(nn.Module):
    """Draws what a camera sees at a pose out of the picture from where it was."""

    def __init__(self) -> None:
        """Begin with a camera that looks ahead and down a little."""
        super().__init__()
        self.focal = nn.Parameter(torch.tensor(FOCAL))  # halves of the picture's width
        self.tilt = nn.Parameter(torch.tensor(TILT))  # rad below the horizon
        self.bend = nn.Parameter(torch.tensor(BEND))  # per square of a half width
        self.far = nn.Parameter(torch.tensor(FAR))  # log of the inverse depth of what stands

    def forward(self, picture: Tensor, pose: Tensor,
                offset: Optional[Tensor] = None) -> Tuple[Tensor, Tensor]:
        """
        Draw.

        :param picture: (b, c, h, w) float
        :param pose: (b, 3) where to look from: ahead, left, yaw [rad] in the frame of ``picture``
        :param offset: (b, 2) by how much the pictures are shifted, in halves of their sides
        :return: (b, c, h, w), and (b, 1, h, w) 1 where the picture shows it, else 0
        """
        height, width = picture.shape[-2:]
        ratio = height / width
        rows = ((torch.arange(height) + 0.5) * 2 / height - 1)[:, None].expand(-1, width)
        cols = ((torch.arange(width) + 0.5) * 2 / width - 1).expand(height, -1)
        across, down = cols[None], rows[None]
        if offset is not None:
            across, down = (place + offset[:, i, None, None]
                            for i, place in enumerate((across, down)))
        right, below, ahead = self._points(across, down * ratio)
        x, y, yaw = (value[:, None, None] for value in pose.float().unbind(-1))
        c, s = torch.cos(yaw), torch.sin(yaw)
        u, v, is_ahead = self._project(s * -ahead + c * right - y, below,
                                       x + c * ahead + s * right)
        places = torch.stack([u, v / ratio], -1)
        if offset is not None:
            places = places - offset[:, None, None]
        seen = is_ahead & (places.abs().amax(-1) < 1)
        drawn = F.grid_sample(picture.float(), places, 'bilinear', 'border', False)
        return drawn, seen[:, None].float()

    def _points(self, across: Tensor, down: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        """Return what is seen, right, below and ahead of the camera; in heights of it."""
        bent = 1 + self.bend * (across ** 2 + down ** 2)
        across, down = across * bent / self.focal, down * bent / self.focal
        c, s = torch.cos(self.tilt), torch.sin(self.tilt)
        below, ahead = down * c + s, c - down * s
        far = torch.exp(self.far)
        inverse = F.softplus((below - far) * SOFT) / SOFT + far
        return across / inverse, below / inverse, ahead / inverse

    def _project(self, right: Tensor, below: Tensor,
                 ahead: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        """Return where points are seen, in halves of the width, and whether they are ahead."""
        c, s = torch.cos(self.tilt), torch.sin(self.tilt)
        depth = ahead * c + below * s
        down, is_ahead = below * c - ahead * s, depth > NEAREST
        depth = depth.clamp_min(NEAREST)
        u, v = right / depth * self.focal, down / depth * self.focal
        straight = (u ** 2 + v ** 2 + 1e-9).sqrt()
        radius = straight
        for _ in range(ROUNDS):  # Newton's, for radius * (1 + bend * radius ** 2) = straight
            square = self.bend * radius ** 2
            radius = radius - (radius * (1 + square) - straight) / (1 + 3 * square).clamp_min(0.1)
        return u * radius / straight, v * radius / straight, is_ahead


def shown_error(drawn: Tensor, is_shown: Tensor, true: Tensor) -> Tensor:
    """
    Compare what a picture shows from elsewhere with the true one from there.

    :param drawn: (b, 3, h, w)
    :param is_shown: (b, 1, h, w) 0..1, where it shows something
    :param true: (b, 3, h, w)
    :return: mean absolute difference; ``UNSEEN`` where nothing is shown
    """
    error = (drawn - true).abs()
    return torch.lerp(torch.full_like(error, UNSEEN), error, is_shown).mean()
