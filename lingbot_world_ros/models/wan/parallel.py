# SPDX-License-Identifier: Apache-2.0
"""
One stream on several GPUs: each process holds the whole network and shares the work with others.

``ulysses`` has what they exchange, ``ranks`` the processes. Rank 0 alone encodes, decodes, and
draws the noise.
"""
from functools import partial
from typing import Any, Callable, Dict, List, NoReturn, Optional, Sequence, Tuple
import weakref

from lingbot_world_ros.errors import EngineLost
from lingbot_world_ros.geometry.camera import PinholeCamera
from lingbot_world_ros.models.wan.codec import VideoCodec, VideoDecoder
from lingbot_world_ros.models.wan.device import Device
from lingbot_world_ros.models.wan.dit import WanDiT
from lingbot_world_ros.models.wan.kv_cache import KVCache
from lingbot_world_ros.models.wan.ranks import ANSWER_S, Ranks
from lingbot_world_ros.models.wan.stream import CausalStream, StreamCopy, StreamSpec
from lingbot_world_ros.models.wan.ulysses import Ulysses
import numpy as np
import torch
from torch import Tensor


class OnDevice:
    """A video encoder or decoder that is on another device than the network."""

    def __init__(self, codec: Any, device: Device) -> None:
        """
        Wrap.

        :param codec: already there
        :param device: where it is; frames stay there
        """
        self._codec, self._device = codec, torch.device(device)
        self.settled_latents = getattr(codec, 'settled_latents', 0)  # of encoders

    def start_condition(self, image: Tensor, num_latents: int) -> Tensor:
        """Encode a start image."""
        return self._codec.start_condition(image.to(self._device), num_latents)

    def decode_chunk(self, latents: Tensor, cache: Any) -> Tuple[Tensor, Any]:
        """Decode the next latents."""
        return self._codec.decode_chunk(latents.to(self._device, non_blocking=True), cache)


class ParallelStream:
    """
    A ``CausalStream`` on several devices; one thread of one process may call it.

    ``start`` also brings processes back that ended. One such stream works in a process at a
    time: a new one ends the one before.
    """

    def __init__(self, dit: WanDiT, vae: VideoCodec, spec: StreamSpec, camera: PinholeCamera, *,
                 make_dit: Callable[[str], WanDiT], devices: Sequence[str],
                 decoder: Optional[VideoDecoder] = None, timeout_s: float = ANSWER_S) -> None:
        """
        Start the other processes and load the network there.

        :param dit: network of this process, on ``devices[0]``
        :param vae: encodes start images, and decodes unless ``decoder`` does
        :param spec: a ``StreamSpec``
        :param camera: whose image it is, a ``PinholeCamera``
        :param make_dit: device -> the same network there; picklable (a module's function or a
            ``functools.partial`` of one)
        :param devices: by rank, see ``devices_for``
        :param decoder: as for ``CausalStream``; ``OnDevice`` if it is somewhere else
        :param timeout_s: longest time for a call or an exchange
        :raises SpecError: the devices cannot share this network, or what ``make_dit`` raises
        """
        self._vae, self._timeout_s = vae, timeout_s
        self._make_rank = partial(_rank_stream, make_dit, tuple(devices), spec, camera)
        self._devices = tuple(devices)
        dit.parallel = Ulysses(dit.spec.num_heads, 0, len(devices))
        self._stream = RankStream(dit, _Encoded(), spec, camera, decoder=decoder or vae)
        self._num_snapshots = 0
        self._dropped: List[int] = []
        self._ranks = self._started()

    @property
    def dit(self) -> WanDiT:
        """Network of this process."""
        return self._stream.dit

    @property
    def spec(self) -> StreamSpec:
        """Sizes."""
        return self._stream.spec

    @property
    def cache(self) -> KVCache:
        """Keys and values of this process's heads."""
        return self._stream.cache

    @property
    def next_latent(self) -> int:
        """Latent frames since the start."""
        return self._stream.next_latent

    @property
    def newest_latents(self) -> Tensor:
        """Clean latents of the newest chunk, (1, 16, f, h, w) float32."""
        return self._stream.newest_latents

    @torch.no_grad()
    def start(self, image: Tensor, text_embeddings: Tensor, seed: int) -> None:
        """Begin a clip, in new processes if need be; see ``CausalStream.start``."""
        if self._ranks.is_closed:
            self._ranks = self._started()
        encoded = self._vae.start_condition(image, self._vae.settled_latents)
        self._call('start', encoded, text_embeddings, seed)

    def set_text(self, text_embeddings: Tensor) -> None:
        """Change the prompt; see ``CausalStream.set_text``."""
        self._call('set_text', text_embeddings)

    def next_chunk(self, poses: np.ndarray) -> Tensor:
        """
        Imagine one more chunk; see ``CausalStream.next_chunk``.

        :raises EngineLost: a process failed; names it. ``start`` begins anew
        """
        return self._call('next_chunk', poses)

    def write_cache(self) -> None:
        """Write the newest chunk's keys and values; see ``CausalStream.write_cache``."""
        self._call('write_cache')

    def undo(self) -> None:
        """Take the newest chunk back; see ``CausalStream.undo``."""
        self._stream.undo()  # refuses before anybody else hears of it
        self._ranks.together(lambda: None, 'undo')

    def snapshot(self) -> 'Snapshot':
        """Return what stands for a copy of everything, which each process keeps for itself."""
        dropped = tuple(self._dropped)
        del self._dropped[:len(dropped)]
        self._call('forget', dropped)
        self._num_snapshots += 1
        snapshot = Snapshot(self._num_snapshots, self._ranks)
        weakref.finalize(snapshot, self._dropped.append, snapshot.number)
        self._call('keep', snapshot.number)
        return snapshot

    def restore(self, snapshot: 'Snapshot') -> None:
        """Go back to a snapshot; those made before processes were lost are lost with them."""
        if snapshot.ranks is not self._ranks:
            raise EngineLost('this snapshot was lost with the processes that kept it')
        self._call('go_back', snapshot.number)

    def close(self) -> None:
        """End the other processes."""
        self._ranks.close()

    def _call(self, name: str, *args: Any) -> Any:
        call = getattr(self._stream, name)
        return self._ranks.together(lambda: call(*args), name, *map(_on_host, args))

    def _started(self) -> Ranks:
        backend = 'nccl' if self._devices[0].startswith('cuda') else 'gloo'
        self._stream.kept.clear()
        return Ranks(self._make_rank, len(self._devices), backend=backend,
                     device=self._devices[0], timeout_s=self._timeout_s)


class Snapshot:
    """Names a state that all processes keep until nobody holds this any more."""

    def __init__(self, number: int, ranks: Ranks) -> None:
        self.number, self.ranks = number, ranks

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled: what it stands for stays in these processes."""
        raise TypeError('a snapshot of several GPUs cannot leave its process')


class RankStream(CausalStream):
    """
    The stream of one process among several; ``dit.parallel`` is set.

    Noise is that of rank 0: generators of unlike GPUs need not agree.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        draw = self._noise
        self._noise = lambda *of: self.dit.parallel.from_first(draw(*of).contiguous())
        self.kept: Dict[int, StreamCopy] = {}

    def keep(self, number: int) -> None:
        """Keep a snapshot."""
        self.kept[number] = self.snapshot()

    def go_back(self, number: int) -> None:
        """Restore a snapshot."""
        self.restore(self.kept[number])

    def forget(self, numbers: Tuple[int, ...]) -> None:
        """Drop snapshots."""
        for number in numbers:
            self.kept.pop(number, None)


class _Encoded:
    """Stands for the video codec where rank 0 has encoded already and will decode."""

    settled_latents = 0

    def start_condition(self, encoded: Tensor, num_latents: int) -> Tensor:
        return encoded

    def decode_chunk(self, latents: Tensor, cache: Any) -> Tuple[Tensor, None]:
        return latents.new_empty(1, 3, 0, 1, 1), None  # b c T H W


def _rank_stream(make_dit: Callable[[str], WanDiT], devices: Tuple[str, ...], spec: StreamSpec,
                 camera: PinholeCamera, rank: int) -> RankStream:
    """Make the stream of another process, there."""
    if devices[rank].startswith('cuda'):
        torch.cuda.set_device(devices[rank])  # kernels of other packages go by it
    dit = make_dit(devices[rank])
    dit.parallel = Ulysses(dit.spec.num_heads, rank, len(devices))
    return RankStream(dit, _Encoded(), spec, camera)


def _on_host(value: Any) -> Any:
    return value.cpu() if isinstance(value, Tensor) else value
