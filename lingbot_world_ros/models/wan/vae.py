# SPDX-License-Identifier: Apache-2.0
"""
Wan2.1's video autoencoder: pixels to latents and back, at once or as a stream.

A clip is 4n + 1 frames or n + 1 latents: the first frame has a latent of its own, each later
latent stands for four frames. All convolutions over time look back only, so that a stream needs
no more than the last two inputs of each. Both directions always work latent by latent: a clip
comes out the same, bit for bit, whatever the pieces it was handed over in. The memory between
two calls is a tuple that is never written to; keep one to return to that place of the stream.

Modules carry the names of the public tensors (Wan2.1_VAE.pth).

Axes: b batch, c channel, f latent frames, t frames at some rate, T pixel frames, h w rows and
columns of latents or in between, H W those of pixels.

Source: Wan2.1 (Apache-2.0), architecture and numbers; diffusers' AutoencoderKLWan, tensor names.
"""
from dataclasses import dataclass
from functools import wraps
from itertools import islice
from typing import Callable, Iterator, List, Optional, ParamSpec, Tuple, TypeVar

from lingbot_world_ros.errors import SpecError
import torch
from torch import nn, Tensor
from torch.nn import functional as F

LATENT_MEAN = (-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
               0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921)
LATENT_STD = (2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
              3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160)
FRAMES_PER_LATENT = 4
MEMORY = 2  # frames that a causal convolution remembers
NORM_EPS = 1e-24  # of a mean square: only keeps a pixel of zeros from becoming NaN
REMEDY = ('give the Wan2.1_VAE.pth that comes with the checkpoint, or the folder vae/ of its '
          'diffusers layout')

Memory = Optional[Tuple[Tensor, ...]]  # of one layer
Cache = Tuple[Tuple[Tensor, ...], ...]  # of all layers
Args = ParamSpec('Args')
Result = TypeVar('Result')


@dataclass(frozen=True)
class VaeSpec:
    """
    Sizes of one autoencoder; the defaults are those of Wan2.1.

    ``multipliers`` of ``dim`` are the widths from full to an eighth of the resolution,
    ``temporal_down`` says which of the three halvings of the resolution halve the frames, too.
    """

    dim: int = 96
    latent_channels: int = len(LATENT_MEAN)
    multipliers: Tuple[int, ...] = (1, 2, 4, 4)
    res_blocks: int = 2
    temporal_down: Tuple[bool, ...] = (False, True, True)

    def __post_init__(self) -> None:
        """Refuse what the rest of the system has no latents for."""
        if self.latent_channels != len(LATENT_MEAN):
            raise SpecError(f'this autoencoder has {self.latent_channels} latent channels, '
                            f'LingBot-World needs {len(LATENT_MEAN)} (Wan2.2 of the 5B has 48); '
                            f'{REMEDY}.')
        if len(self.multipliers) != 4 or len(self.temporal_down) != 3 or \
                sum(self.temporal_down) != 2:
            raise SpecError(f'this autoencoder has widths {self.multipliers} and halves frames '
                            f'{self.temporal_down}, expected four widths and two halvings; '
                            f'{REMEDY}.')

    @property
    def widths(self) -> Tuple[int, ...]:
        """Channels of each resolution, finest first."""
        return tuple(self.dim * m for m in self.multipliers)


def order(x: Tensor) -> torch.memory_format:
    """Return in which order (b, c, t, h, w) lies in memory."""
    return torch.channels_last_3d if x.stride(1) == 1 else torch.contiguous_format


def last_frames(x: Tensor, num_frames: int = MEMORY) -> Tensor:
    """
    Copy what the next call remembers, so that the rest of ``x`` can be freed.

    The order is given as a plain clone keeps strides that tell apart the first calls of a stream;
    the decoder would be compiled once more for them.
    """
    return x[:, :, -num_frames:].clone(memory_format=order(x))  # b c t h w


def in_full_float32(method: Callable[Args, Result]) -> Callable[Args, Result]:
    """
    Let a method's convolutions and products compute in float32 where GPUs would take TF32.

    cuDNN rounds what enters a convolution to ten bits by default. The settings of the process,
    which PyTorch offers no others for, are put back afterwards.
    """
    @wraps(method)
    def call(*args: Args.args, **kwargs: Args.kwargs) -> Result:
        cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
        before = cudnn.allow_tf32, matmul.allow_tf32
        cudnn.allow_tf32 = matmul.allow_tf32 = False
        try:
            return method(*args, **kwargs)
        finally:
            cudnn.allow_tf32, matmul.allow_tf32 = before
    return call


def empty_memory(x: Tensor) -> Tensor:
    """Return the zeros before a stream, laid out in memory like ``x``."""
    return torch.zeros_like(torch.cat([x[:, :, :1]] * MEMORY, 2))  # b c 2 h w


def per_frame(operation: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a 2-D operation to each frame of (b, c, t, h, w)."""
    # With the channels moved out of the way, views of a single frame keep the strides by which
    # torch recognises channels-last tensors; otherwise it copies them to another order.
    frames = operation(x.movedim(1, -1).flatten(0, 1).movedim(-1, 1))  # bt c h w
    return frames.movedim(1, -1).unflatten(0, (x.shape[0], -1)).movedim(-1, 1)  # b c t h w


class RMSNorm(nn.Module):
    """Divide by the root mean square over the channels."""

    def __init__(self, channels: int, axes: int = 3) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels, *[1] * axes))

    def forward(self, x: Tensor) -> Tensor:
        gamma = self.gamma.flatten()
        return F.rms_norm(x.movedim(1, -1), gamma.shape, gamma, NORM_EPS).movedim(-1, 1)


class Layer(nn.Module):
    """A step of the stream: ``forward(x, memory) -> (x, memory)``, memory None at the start."""

    def reach(self, dirty: int, frames: int) -> Tuple[int, int]:
        """
        Tell how far into a stream the first frame is felt.

        :param dirty: that many frames after the first one depend on it, in what comes in
        :param frames: that come in per call
        :return: the same two of what goes out
        """
        return dirty, frames


class CausalConv3d(nn.Conv3d):
    """Convolve over this frame and the two before it."""

    def __init__(self, c_in: int, c_out: int, plane: int = 3) -> None:
        super().__init__(c_in, c_out, (MEMORY + 1, plane, plane),
                         padding=(0, plane // 2, plane // 2))

    def forward(self, x: Tensor,  # type: ignore[override]  # a step of a stream
                memory: Optional[Tensor]) -> Tuple[Tensor, Tensor]:
        memory = empty_memory(x) if memory is None else memory
        x = torch.cat([memory, x], 2)  # b c 2+t h w
        return super().forward(x), last_frames(x)


class Stem(CausalConv3d, Layer):
    """The first convolution."""

    def forward(self, x: Tensor,  # type: ignore[override]  # as every Layer
                memory: Memory) -> Tuple[Tensor, Memory]:
        x, kept = super().forward(x, memory[0] if memory else None)
        return x, (kept,)

    def reach(self, dirty: int, frames: int) -> Tuple[int, int]:
        return dirty + MEMORY, frames


class Head(nn.Sequential, Layer):
    """The last convolution."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__(RMSNorm(c_in), nn.SiLU(inplace=True), CausalConv3d(c_in, c_out))

    def forward(self, x: Tensor,  # type: ignore[override]  # as every Layer
                memory: Memory) -> Tuple[Tensor, Memory]:
        norm, activation, conv = self
        x, kept = conv(activation(norm(x)), memory[0] if memory else None)
        return x, (kept,)

    def reach(self, dirty: int, frames: int) -> Tuple[int, int]:
        return dirty + MEMORY, frames


class Residual(Layer):
    """Two convolutions that are added to what came in."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(  # the names count a dropout that training had
            RMSNorm(c_in), nn.SiLU(inplace=True), CausalConv3d(c_in, c_out),
            RMSNorm(c_out), nn.SiLU(inplace=True), nn.Identity(), CausalConv3d(c_out, c_out))
        self.shortcut = nn.Conv3d(c_in, c_out, 1) if c_in != c_out else nn.Identity()

    def forward(self, x: Tensor, memory: Memory) -> Tuple[Tensor, Memory]:
        norm1, silu1, conv1, norm2, silu2, _, conv2 = self.residual
        old1, old2 = memory or (None, None)
        y, kept1 = conv1(silu1(norm1(x)), old1)
        y, kept2 = conv2(silu2(norm2(y)), old2)
        return y + self.shortcut(x), (kept1, kept2)

    def reach(self, dirty: int, frames: int) -> Tuple[int, int]:
        return dirty + 2 * MEMORY, frames


class FrameAttention(Layer):
    """Each frame's pixels attend to each other, with one head."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = RMSNorm(channels, axes=2)
        self.to_qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.proj = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, memory: Memory) -> Tuple[Tensor, Memory]:
        return x + per_frame(self.attend, x), ()

    def attend(self, x: Tensor) -> Tensor:
        """Return what is added to frames (bt, c, h, w)."""
        qkv = self.to_qkv(self.norm(x)).flatten(2).mT[:, None]  # bt 1 hw 3c
        y = F.scaled_dot_product_attention(*qkv.chunk(3, -1))[:, 0]  # bt hw c
        return self.proj(y.unflatten(1, x.shape[2:]).movedim(-1, 1))


class Down2d(Layer):
    """Halve rows and columns."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.resample = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)),  # right and bottom only
                                      nn.Conv2d(channels, channels, 3, stride=2))

    def forward(self, x: Tensor, memory: Memory) -> Tuple[Tensor, Memory]:
        return per_frame(self.resample, x), ()


class Down3d(Down2d):
    """Halve rows, columns and frames; the first frame of a stream stays as it is."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.time_conv = nn.Conv3d(channels, channels, (3, 1, 1), stride=(2, 1, 1))

    def forward(self, x: Tensor, memory: Memory) -> Tuple[Tensor, Memory]:
        x, _ = super().forward(x, None)
        kept = (last_frames(x, 1),)
        if memory is not None:
            x = self.time_conv(torch.cat([memory[0], x], 2))  # b c t/2 h w
        return x, kept

    def reach(self, dirty: int, frames: int) -> Tuple[int, int]:
        return dirty // 2 + 1, frames // 2


class Up2d(Layer):
    """Double rows and columns, halve the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.resample = nn.Sequential(nn.Upsample(scale_factor=2.0, mode='nearest-exact'),
                                      nn.Conv2d(channels, channels // 2, 3, padding=1))

    def forward(self, x: Tensor, memory: Memory) -> Tuple[Tensor, Memory]:
        return per_frame(self.resample, x), ()


class Up3d(Up2d):
    """
    Double rows, columns and frames; the first frame of a stream stays one.

    That frame is not remembered either: the next one sees zeros before it.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.time_conv = CausalConv3d(channels, 2 * channels, plane=1)

    def forward(self, x: Tensor, memory: Memory) -> Tuple[Tensor, Memory]:
        if memory is None:
            kept = empty_memory(x)
        else:
            y, kept = self.time_conv(x, memory[0])
            pairs = zip(*(half.split(1, 2) for half in y.chunk(2, 1)))
            x = torch.cat([frame for pair in pairs for frame in pair], 2)  # b c 2t h w
        x, _ = super().forward(x, None)
        return x, (kept,)


class Coder(nn.Module):
    """Layers in the order of the stream; ``Encoder`` and ``Decoder`` fill them in."""

    def layers(self) -> List[Layer]:
        """Return all layers, first to last."""
        raise NotImplementedError

    def forward(self, x: Tensor, cache: Optional[Cache]) -> Tuple[Tensor, Cache]:
        layers, kept = self.layers(), []
        for layer, memory in zip(layers, cache or [None] * len(layers)):
            x, memory = layer(x, memory)
            kept.append(memory)
        return x, tuple(kept)


def middle_layers(channels: int) -> nn.Sequential:
    """Return the block between the two halves of the resolutions."""
    return nn.Sequential(Residual(channels, channels), FrameAttention(channels),
                         Residual(channels, channels))


class Encoder(Coder):
    """Frames -> mean and log variance of latents: one frame at first, then groups of four."""

    def __init__(self, spec: VaeSpec) -> None:
        super().__init__()
        widths = spec.widths
        self.conv1 = Stem(3, widths[0])
        stages: List[Layer] = []
        for level, (before, width) in enumerate(zip(widths[:1] + widths, widths)):
            stages += [Residual(before if i == 0 else width, width)
                       for i in range(spec.res_blocks)]
            if level < len(spec.temporal_down):
                stages.append((Down3d if spec.temporal_down[level] else Down2d)(width))
        self.downsamples = nn.Sequential(*stages)
        self.middle = middle_layers(widths[-1])
        self.head = Head(widths[-1], 2 * spec.latent_channels)

    def layers(self) -> List[Layer]:
        return [self.conv1, *self.downsamples, *self.middle, self.head]

    def settled_calls(self) -> List[int]:
        """Return for each layer the first group whose output all later equal groups share."""
        calls, dirty, frames = [], 0, FRAMES_PER_LATENT
        for layer in self.layers():
            dirty, frames = layer.reach(dirty, frames)
            calls.append(-(-dirty // frames))
        return calls

    def settle(self, group: Tensor, cache: Cache) -> Iterator[Tensor]:
        """
        Encode the same four frames over and over until the result stays.

        A layer that has settled is not run again. It is exact, as the memory ends after a known
        number of frames: the layers at full resolution need 6 groups, the last one needs 29.

        :param group: (b, 3, 4, H, W)
        :param cache: after the first frame of a stream
        """
        layers, calls = self.layers(), self.settled_calls()
        memories: List[Memory] = list(cache)
        settled, first = group, 0
        for call in range(calls[-1] + 1):
            x = settled
            for i in range(first, len(layers)):
                x, memories[i] = layers[i](x, memories[i])
                if call >= calls[i]:
                    settled, first, memories[i] = x, i + 1, None
            yield x


class Decoder(Coder):
    """Latents -> frames, one latent per call."""

    def __init__(self, spec: VaeSpec) -> None:
        super().__init__()
        widths = spec.widths[::-1]
        self.conv1 = Stem(spec.latent_channels, widths[0])
        self.middle = middle_layers(widths[0])
        stages: List[Layer] = []
        before = widths[0]
        for level, width in enumerate(widths):
            stages += [Residual(before if i == 0 else width, width)
                       for i in range(spec.res_blocks + 1)]
            if level < len(spec.temporal_down):
                stages.append((Up3d if spec.temporal_down[::-1][level] else Up2d)(width))
                before = width // 2
        self.upsamples = nn.Sequential(*stages)
        self.head = Head(widths[-1], 3)

    def layers(self) -> List[Layer]:
        return [self.conv1, *self.middle, *self.upsamples, self.head]


class WanVAE(nn.Module):
    """
    The autoencoder with normalised latents and pixels from -1 to 1.

    The encoder stays in float32: what it gets wrong goes into all that is imagined from it. The
    decoder may work in 16 bits, see ``set_decoder``.
    """

    def __init__(self, spec: VaeSpec = VaeSpec()) -> None:
        """
        Build it with random weights.

        :param spec: its sizes
        """
        super().__init__()
        self.spec = spec
        self.encoder, self.decoder = Encoder(spec), Decoder(spec)
        c = spec.latent_channels
        self.conv1, self.conv2 = nn.Conv3d(2 * c, 2 * c, 1), nn.Conv3d(c, c, 1)
        for name, values in (('mean', LATENT_MEAN), ('std', LATENT_STD)):  # not on 'meta'
            self.register_buffer(name, torch.tensor(values, device='cpu').view(1, -1, 1, 1, 1),
                                 persistent=False)

    def set_decoder(self, dtype: torch.dtype) -> 'WanVAE':
        """
        Choose in which numbers the decoder works; those of 16 bits in the order that GPUs want.

        :param dtype: torch.float32, torch.bfloat16 or torch.float16
        :return: itself
        """
        channels_last = dtype.itemsize == 2
        self.decoder.to(dtype)
        for p in self.decoder.parameters():
            formats = {4: torch.channels_last, 5: torch.channels_last_3d} if channels_last else {}
            p.data = p.data.contiguous(
                memory_format=formats.get(p.ndim, torch.contiguous_format))
        return self

    @property
    def settled_latents(self) -> int:
        """Latents of an image and grey frames after it that differ; all later ones are equal."""
        return self.encoder.settled_calls()[-1] + 2

    @torch.no_grad()
    @in_full_float32
    def encode_chunk(self, video: Tensor, cache: Optional[Cache]) -> Tuple[Tensor, Cache]:
        """
        Encode the next frames of a stream.

        :param video: (b, 3, T, H, W) float32 -1 to 1; T is 4n + 1 at the start, then 4n; H and W
            are multiples of 8
        :param cache: what the call before returned; None starts a stream
        :return: latents (b, 16, f, H / 8, W / 8) float32 normalised, and the cache after them
        :raises SpecError: if the number of frames or their size is none of these
        """
        check_video(video, cache is None)
        groups = list(video.split(FRAMES_PER_LATENT, 2) if cache is not None else
                      (video[:, :, :1], *video[:, :, 1:].split(FRAMES_PER_LATENT, 2)))
        latents = []
        for group in filter(Tensor.numel, groups):
            x, cache = self.encoder(group, cache)
            latents.append(self._normalised(x))
        assert cache is not None, 'there is a frame'
        return torch.cat(latents, 2), cache

    def encode(self, video: Tensor) -> Tensor:
        """
        Encode a clip.

        :param video: (b, 3, 4n + 1, H, W) float32 -1 to 1; H and W are multiples of 8
        :return: latents (b, 16, n + 1, H / 8, W / 8) float32 normalised; the mean, not a sample
        :raises SpecError: if the number of frames or their size is none of these
        """
        return self.encode_chunk(video, None)[0]

    @torch.no_grad()
    @in_full_float32
    def start_condition(self, image: Tensor, num_latents: int) -> Tensor:
        """
        Encode an image that is followed by mid-grey frames, as the network is shown it.

        Equal to ``encode`` of that clip, with the memory of one group and, however long the clip,
        the work of about ``settled_latents``; the rest is a repetition.

        :param image: (3, H, W) float32 -1 to 1
        :param num_latents: f, at least 1
        :return: (16, f, H / 8, W / 8) float32 normalised
        :raises SpecError: if the size is no multiple of 8
        """
        latent, cache = self.encode_chunk(image[None, :, None], None)
        grey = image.new_zeros(1, 3, FRAMES_PER_LATENT, *image.shape[1:])
        latents = [latent]
        for x in islice(self.encoder.settle(grey, cache), num_latents - 1):
            latents.append(self._normalised(x))
        latents += latents[-1:] * (num_latents - len(latents))
        return torch.cat(latents, 2)[0]  # c f h w

    def _normalised(self, x: Tensor) -> Tensor:
        """Encoder output -> latents."""
        mean, _ = self.conv1(x).chunk(2, 1)
        return (mean - self.mean) / self.std

    @torch.no_grad()
    def decode_chunk(self, latents: Tensor, cache: Optional[Cache]) -> Tuple[Tensor, Cache]:
        """
        Decode the next latents of a stream. Never waits for the device.

        :param latents: (b, 16, f, h, w) float32 normalised, f at least 1
        :param cache: what the call before returned; None starts a stream
        :return: video (b, 3, T, 8 h, 8 w) float32 about -1 to 1, not clamped, and the cache after
            it; T is 4 f, or 4 f - 3 at the start
        """
        weight, frames = self.decoder.conv1.weight, []
        for latent in latents.split(1, 2):
            x = self.conv2(latent * self.std + self.mean)
            x, cache = self.decoder(x.to(weight.dtype, memory_format=order(weight)), cache)
            frames.append(x.float())
        assert cache is not None, 'there is a latent frame'
        return torch.cat(frames, 2), cache

    def decode(self, latents: Tensor) -> Tensor:
        """
        Decode a clip.

        :param latents: (b, 16, f, h, w) float32 normalised
        :return: video (b, 3, 4 f - 3, 8 h, 8 w) float32 about -1 to 1, not clamped
        """
        return self.decode_chunk(latents, None)[0]


def check_video(video: Tensor, start: bool) -> None:
    """Raise SpecError if these cannot be the next frames of a stream."""
    num_frames, *size = video.shape[2:]
    if num_frames < 1 or num_frames % FRAMES_PER_LATENT != int(start):
        expected = '4n + 1 (1, 5, 9, ...)' if start else 'a multiple of 4'
        raise SpecError(f'a video of {num_frames} frames cannot be encoded, their number must be '
                        f'{expected}; leave frames out.')
    if any(n < 8 or n % 8 for n in size):
        raise SpecError(f'a video of {size[0]} x {size[1]} pixels cannot be encoded, both must be '
                        'multiples of 8; scale or crop it.')


def to_frames(video: Tensor) -> Tensor:
    """
    Turn decoded video into images, on its device.

    :param video: (1, 3, T, H, W) float; -1 is 0, 1 is 255, beyond is clamped, between is rounded
        to the nearest (halves to even)
    :return: (T, H, W, 3) uint8, contiguous
    """
    frames = video.squeeze(0).permute(1, 2, 3, 0)  # t h w c
    levels = frames.clamp(-1.0, 1.0).add_(1.0).mul_(127.5).round_()
    return levels.to(torch.uint8, memory_format=torch.contiguous_format)
