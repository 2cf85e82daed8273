# SPDX-License-Identifier: Apache-2.0
"""What recurrent worlds are trained on: aligned recordings, split by piece, as windows."""
from dataclasses import dataclass
from typing import List, Sequence, Tuple

from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.recording.aligned import AlignedRecording
import numpy as np
import torch
from torch import Tensor

MIN_PIECE = 100  # frames of a piece that is held out
Piece = Tuple[int, int]  # (begin, end), frames counted through all recordings


@dataclass(frozen=True)
class Drives:
    """Recordings of one robot, one after the other, and which pieces of them teach."""

    recordings: Tuple[AlignedRecording, ...]
    training: Tuple[Piece, ...]
    held_out: Tuple[Piece, ...]

    @property
    def firsts(self) -> np.ndarray:
        """Count of frames before each recording."""
        return np.cumsum([0, *(r.num_frames for r in self.recordings)])

    def pictures(self, frames: np.ndarray) -> Tensor:
        """
        Read pictures.

        :param frames: (n,) int
        :return: (n, 3, h, w) float 0..1, channels last in memory
        """
        rgb = torch.from_numpy(self.rgb(frames)).permute(0, 3, 1, 2)
        return rgb.float().div_(255).contiguous(memory_format=torch.channels_last)

    def rgb(self, frames: np.ndarray) -> np.ndarray:
        """Return pictures as they are stored, (n, h, w, 3) uint8."""
        frames = np.asarray(frames)
        firsts = self.firsts
        of = np.searchsorted(firsts, frames, 'right') - 1
        out = np.empty((len(frames), *self.recordings[0].rgb.shape[1:]), np.uint8)
        for i in np.unique(of):
            out[of == i] = self.recordings[i].rgb[frames[of == i] - firsts[i]]
        return out

    def actions(self) -> np.ndarray:
        """Return the commands of all frames, (n, a) float32."""
        return np.concatenate([np.asarray(r.action, np.float32) for r in self.recordings])


def split_drives(recordings: Sequence[AlignedRecording], num_held_out: int) -> Drives:
    """
    Hold the last long pieces out; nothing recorded after the first of them teaches.

    :param recordings: in the order in which they were made, of equal pictures and commands
    :param num_held_out: pieces of at least ``MIN_PIECE`` frames
    :return: the split
    :raises SpecError: recordings that do not fit together, or not enough pieces
    """
    pieces: List[Piece] = []
    first = 0
    for recording in recordings:
        _check(recording, recordings[0])
        pieces += [(first + a, first + b) for a, b in recording.segments]
        first += recording.num_frames
    long = [piece for piece in pieces if piece[1] - piece[0] >= MIN_PIECE]
    if len(long) <= num_held_out or num_held_out < 1:
        raise SpecError(f'{len(long)} pieces of {MIN_PIECE} frames or more cannot give '
                        f'{num_held_out} to be held out and one to learn from; record more, or '
                        'without gaps.')
    border = long[-num_held_out][0]
    return Drives(tuple(recordings), tuple(p for p in pieces if p[1] <= border),
                  tuple(p for p in long if p[0] >= border))


def windows(pieces: Sequence[Piece], num_frames: int) -> np.ndarray:
    """
    List where windows can begin.

    :param pieces: stretches without a gap
    :param num_frames: of a window
    :return: (n,) int first frames, in order; empty where no piece is long enough
    """
    begins = [np.arange(a, b - num_frames + 1) for a, b in pieces if b - a >= num_frames]
    return np.concatenate(begins) if begins else np.zeros(0, int)


def spread(begins: np.ndarray, count: int) -> np.ndarray:
    """Choose some windows evenly, (at most ``count``,)."""
    chosen = np.linspace(0, len(begins) - 1, min(count, len(begins))).round().astype(int)
    return begins[chosen]


def _check(recording: AlignedRecording, other: AlignedRecording) -> None:
    if recording.action is None:
        raise SpecError(f'{recording.name} has no commands; a world cannot be learned from it.')
    ours = recording.size_px, recording.action_names, recording.rate_hz
    theirs = other.size_px, other.action_names, other.rate_hz
    if ours != theirs:
        raise SpecError(f'{recording.name} has pictures, commands and rate {ours}, {other.name} '
                        f'has {theirs}; align both in the same way.')
