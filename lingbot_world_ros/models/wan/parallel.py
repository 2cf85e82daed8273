# SPDX-License-Identifier: Apache-2.0
"""
One stream on several GPUs: each process holds the whole network and shares the work with others.

Outside attention every process works on its part of the tokens, within self-attention on its part
of the heads; two exchanges per block lead from one to the other. The cache of a process holds its
heads only. Attention to the text needs no exchange: all text is everywhere.

The first process (rank 0) is the one that asks; the others are its children and follow the calls
that it passes on. It alone encodes, decodes, and draws the noise.

Axes: b batch, n tokens, s tokens of one process, h heads, d width (of a head, behind h).

Source: DeepSpeed Ulysses, arXiv 2309.14509.
"""
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
import multiprocessing
from multiprocessing import connection
import os
import pickle
import shutil
import tempfile
import threading
import time
import traceback
from typing import (Any, Callable, Dict, Iterator, List, NamedTuple, NoReturn, Optional, Sequence,
                    Tuple, Union)
import weakref

from lingbot_world_ros.errors import EngineHung, EngineLost, SpecError
from lingbot_world_ros.geometry.camera import PinholeCamera
from lingbot_world_ros.models.wan.codec import VideoCodec, VideoDecoder
from lingbot_world_ros.models.wan.device import Device
from lingbot_world_ros.models.wan.dit import WanDiT
from lingbot_world_ros.models.wan.kv_cache import KVCache
from lingbot_world_ros.models.wan.stream import CausalStream, StreamCopy, StreamSpec
from lingbot_world_ros.processes import begin_as_child, exit_text, portable
import numpy as np
import torch
from torch import distributed, Tensor

ANSWER_S = 600.0  # for one call; the first may compile
NOTICE_S = 1.0  # a process that ended is known to have ended within this
END_S = 3.0  # a process that does not end by itself is killed after this long
# One machine only; and a failed exchange must not end the process that asked for it.
ENVIRONMENT = {'GLOO_SOCKET_IFNAME': 'lo', 'NCCL_SOCKET_IFNAME': 'lo',
               'TORCH_NCCL_ASYNC_ERROR_HANDLING': '2'}


class Ulysses:
    """
    Tokens to heads and back, for ``WanDiT.parallel``.

    Numbers of tokens that cannot be divided are filled up with zeros, which attention never sees.
    """

    def __init__(self, num_heads: int, rank: int, size: int) -> None:
        """
        Name a process's part; the default process group is used when it comes to exchanges.

        :param num_heads: of the network
        :param rank: of this process, 0 to ``size`` - 1
        :param size: number of processes
        :raises SpecError: the heads cannot be divided among so many
        """
        check_num_gpus(size, num_heads)
        self.rank, self.size = rank, size
        self._num_tokens = 0  # of the newest tensor that was shared out

    def shard(self, x: Tensor) -> Tensor:
        """
        Take this process's part.

        :param x: (b, n, ...), the same everywhere
        :return: (b, s, ...), s = n / size rounded up
        """
        self._num_tokens = x.shape[1]
        share = self._share(x.shape[1])
        return _filled(x[:, self.rank * share:(self.rank + 1) * share], share)

    def gather(self, x: Tensor) -> Tensor:
        """
        Put the parts of all processes together.

        :param x: (b, s, d)
        :return: (b, n, d), the same everywhere
        """
        parts = [torch.empty_like(x, memory_format=torch.contiguous_format)
                 for _ in range(self.size)]
        distributed.all_gather(parts, x.contiguous())
        return torch.cat(parts, 1)[:, :self._num_tokens]

    def to_heads(self, q: Tensor, k: Tensor, v: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        """
        Exchange some tokens with all heads for all tokens with some heads, in one go.

        :param q: (b, s, h, d)
        :param k: (b, s, h, d)
        :param v: (b, s, h, d)
        :return: the three as (b, n, h / size, d)
        """
        sent = torch.stack([x.unflatten(2, (self.size, -1)).movedim(2, 0) for x in (q, k, v)], 1)
        received = _exchange(sent)  # size 3 b s h/size d
        joined = received.movedim(0, 2).flatten(2, 3)
        q, k, v = joined[:, :, :self._num_tokens].unbind(0)
        return q, k, v

    def to_tokens(self, out: Tensor) -> Tensor:
        """
        Exchange all tokens with some heads for some tokens with all heads.

        :param out: (b, n, h / size, d)
        :return: (b, s, h, d)
        """
        share = self._share(out.shape[1])
        filled = _filled(out, share * self.size)
        sent = filled.unflatten(1, (self.size, share)).movedim(1, 0)
        received = _exchange(sent.contiguous())  # size b s h/size d
        return received.movedim(0, 2).flatten(2, 3)

    def from_first(self, x: Tensor) -> Tensor:
        """Return the tensor of rank 0, written over the one that is given."""
        distributed.broadcast(x, 0)
        return x

    def _share(self, num_tokens: int) -> int:
        return -(-num_tokens // self.size)


def check_num_gpus(num_gpus: int, num_heads: int) -> None:
    """
    Refuse what the heads of a network cannot be divided among.

    :param num_gpus: at least 1
    :param num_heads: of the network
    :raises SpecError: names what works
    """
    if num_gpus < 1 or num_heads % num_gpus:
        fitting = ', '.join(str(n) for n in range(1, num_heads + 1) if num_heads % n == 0)
        raise SpecError(f'num_gpus={num_gpus} does not divide the {num_heads} attention heads of '
                        f'this network; use one of {fitting}.')


def devices_for(num_gpus: int, device: Device, num_heads: int) -> Tuple[str, ...]:
    """
    Choose a device for each process.

    :param num_gpus: how many processes
    :param device: of the first one; the others take the next GPUs
    :param num_heads: of the network
    :return: names of devices, by rank
    :raises SpecError: there are not so many, or the heads cannot be divided among them
    """
    check_num_gpus(num_gpus, num_heads)
    device = torch.device(device)
    if device.type != 'cuda':
        return (str(device),) * num_gpus
    first, count = device.index or 0, torch.cuda.device_count()
    if first + num_gpus > count:
        raise SpecError(f'num_gpus={num_gpus} from cuda:{first} on, but there are {count} GPUs; '
                        'use fewer, or make more visible (CUDA_VISIBLE_DEVICES).')
    return tuple(f'cuda:{index}' for index in range(first, first + num_gpus))


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

    def _started(self) -> 'Ranks':
        backend = 'nccl' if self._devices[0].startswith('cuda') else 'gloo'
        self._stream.kept.clear()
        return Ranks(self._make_rank, len(self._devices), backend=backend,
                     device=self._devices[0], timeout_s=self._timeout_s)


class Snapshot:
    """Names a state that all processes keep until nobody holds this any more."""

    def __init__(self, number: int, ranks: 'Ranks') -> None:
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


class Meeting(NamedTuple):
    """Where and how processes find each other: a file in a folder of this user."""

    file: str
    backend: str
    size: int
    timeout_s: float

    def join(self, rank: int, device: Optional[Device] = None) -> None:
        """Make the default process group, together with all others."""
        store = distributed.FileStore(self.file, self.size)
        own = torch.device(device) if device is not None and self.backend == 'nccl' else None
        with _environment():
            distributed.init_process_group(
                self.backend, store=store, rank=rank, world_size=self.size, device_id=own,
                timeout=timedelta(seconds=self.timeout_s))


class Ranks:
    """
    Child processes that make the same calls as this one, and their end.

    Where a process fails all of them end, so that nobody waits for it. ``FloatingPointError`` is
    an exception: it comes from numbers that all processes have alike.
    """

    _newest: Optional['Ranks'] = None

    def __init__(self, make_follower: Callable[[int], Any], size: int, *, backend: str = 'gloo',
                 device: str = 'cpu', timeout_s: float = ANSWER_S) -> None:
        """
        Start the processes.

        :param make_follower: rank -> object whose methods will be called there; picklable
        :param size: number of processes with this one
        :param backend: nccl or gloo
        :param device: of this process; the others are asked for ``dit.device``
        :param timeout_s: longest time for a call or an exchange
        :raises SpecError: what ``make_follower`` raises
        """
        if Ranks._newest is not None:
            Ranks._newest.close()
        if distributed.is_initialized():
            raise SpecError('torch.distributed is in use in this process, and num_gpus > 1 needs '
                            'it; use num_gpus=1 or another process.')
        self.is_closed, self._timeout_s, self._backend = False, timeout_s, backend
        self._ended: List[_Follower] = []
        self._lock = threading.Lock()
        self._folder = tempfile.mkdtemp(prefix='lingbot_ranks_')
        meeting = Meeting(os.path.join(self._folder, 'meeting'), backend, size, timeout_s)
        self._followers: List[_Follower] = []
        Ranks._newest = self
        try:
            for rank in range(1, size):
                self._followers.append(_Follower(rank, meeting, make_follower))
            self._watcher = threading.Thread(target=self._watch, name='ranks', daemon=True)
            self._watcher.start()
            self._collect(None, None)
        except BaseException:
            self.close(0.0)
            raise
        self.together(lambda: meeting.join(0, device), JOIN)

    def together(self, own: Callable[[], Any], name: str, *args: Any) -> Any:
        """
        Make a call in all processes.

        :param own: what this process does for its part
        :param name: of the method that followers call
        :param args: theirs; picklable, without tensors of a device
        :return: what ``own`` returns
        :raises EngineLost: another process failed or ended; names its rank
        :raises EngineHung: it took too long
        :raises MemoryError: another process has no memory left
        """
        if self.is_closed:
            raise EngineLost('the processes that share the work have ended; reset the world')
        result: Any = None
        diverged: Optional[FloatingPointError] = None
        started_s = time.monotonic()
        try:
            for follower in self._followers:
                follower.tell(name, args)
            result = own()
        except FloatingPointError as error:
            diverged = error
        except BaseException as error:
            self._give_up(error)
        if time.monotonic() - started_s > self._timeout_s:  # NCCL may end an exchange in silence
            self._give_up(EngineHung(f'a call to several GPUs took more than {self._timeout_s} s'))
        self._collect(diverged, self._timeout_s)
        if diverged is not None:
            raise diverged
        return result

    def close(self, grace_s: float = END_S) -> None:
        """
        End the processes.

        :param grace_s: for ending by themselves
        """
        if self.is_closed:
            return
        self.is_closed = True
        for follower in self._followers:
            follower.pipe.close()
        for follower in self._followers:
            follower.process.join(grace_s)
        self._kill()
        self._leave()
        shutil.rmtree(self._folder, ignore_errors=True)
        if Ranks._newest is self:
            Ranks._newest = None

    def _collect(self, diverged: Optional[FloatingPointError], timeout_s: Optional[float]) -> None:
        """Wait for the answers of all followers."""
        for follower in self._followers:
            try:
                answer = follower.answer(timeout_s)
            except (EOFError, OSError) as error:  # EngineHung is one of them
                self._give_up(error)
            if isinstance(answer, Failure):
                self._give_up(None)
            if (answer is None) != (diverged is None):
                self._give_up(EngineLost(f'rank {follower.rank} and rank 0 came to different '
                                         'numbers'))

    def _give_up(self, error: Optional[BaseException]) -> NoReturn:
        """End all processes and raise the reason, which is that of the first one to fail."""
        self._watcher.join(NOTICE_S)
        reasons = [f.reason() for f in self._followers if f in self._ended or f.failure]
        self.close(0.0)
        if error is not None and not reasons:
            raise error
        first = min(reasons, key=lambda failure: failure.time_s)
        raise first.error from (RuntimeError(first.trace) if first.trace else error)

    def _watch(self) -> None:
        """Wait until a process ends; if it should not have, free those that wait for it."""
        sentinels: Dict[Any, _Follower] = {
            f.process.sentinel: f for f in self._followers}
        ended = connection.wait(list(sentinels))
        if not self.is_closed:
            self._ended = [sentinels[sentinel] for sentinel in ended]
            self._kill()
            if self._backend == 'nccl':  # gloo notices by itself
                self._leave()

    def _kill(self) -> None:
        with self._lock:
            for follower in self._followers:
                if follower.process.is_alive():
                    follower.process.kill()
                follower.process.join()

    def _leave(self) -> None:
        """Leave the process group; with NCCL what waits on the device is aborted."""
        with self._lock:
            if not distributed.is_initialized():
                return
            if self._backend == 'nccl':
                distributed.distributed_c10d._abort_process_group()
            else:
                distributed.destroy_process_group()


JOIN = 'join'  # of the process group: the first call


class Failure(NamedTuple):
    """Why a process ended: its error, where, and when by the clock all processes share."""

    error: BaseException
    trace: str = ''
    time_s: float = 0.0


class _Follower:
    """One child process, as seen from rank 0."""

    def __init__(self, rank: int, meeting: Meeting, make_follower: Callable[[int], Any]) -> None:
        self.rank = rank
        self.failure: Optional[Failure] = None
        context = multiprocessing.get_context('spawn')
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_follow, args=(theirs, rank, meeting, make_follower),
                                       name=f'rank {rank}', daemon=True)
        with _children_allowed():
            self.process.start()
        theirs.close()

    def tell(self, name: str, args: Tuple[Any, ...]) -> None:
        self.pipe.send_bytes(pickle.dumps((name, args)))

    def answer(self, timeout_s: Optional[float]) -> Union[None, FloatingPointError, Failure]:
        """Return None, a FloatingPointError, or a Failure, which is also kept."""
        if not self.pipe.poll(timeout_s):
            raise EngineHung(f'rank {self.rank} does not answer within {timeout_s} s')
        answer = pickle.loads(self.pipe.recv_bytes())
        if isinstance(answer, Failure):
            self.failure = answer
        return answer

    def reason(self) -> Failure:
        """Return why it ended."""
        try:
            while self.failure is None and self.pipe.poll():
                self.answer(0.0)
        except (EOFError, OSError):
            pass
        who = f'rank {self.rank}'
        if self.failure is None:
            return Failure(EngineLost(f'{who} ended ({exit_text(self.process.exitcode)})'))
        error = self.failure.error
        if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
            error = MemoryError(f'{who}: {error}')
        elif not isinstance(error, SpecError):
            error = EngineLost(f'{who} failed: {type(error).__name__}: {error}')
        return self.failure._replace(error=error)


def _follow(pipe: connection.Connection, rank: int, meeting: Meeting,
            make_follower: Callable[[int], Any]) -> None:
    """Run in a child: make the follower, then do what comes through the pipe until it closes."""
    begin_as_child()
    code = 0
    try:
        follower = make_follower(rank)
        pipe.send_bytes(pickle.dumps(None))
        _follow_calls(pipe, rank, meeting, follower)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass
    except BaseException as error:  # travels to the parent
        code = 1
        failure = Failure(portable(error), traceback.format_exc(), time.monotonic())
        pipe.send_bytes(pickle.dumps(failure))
    os._exit(code)  # at once: others may be waiting for this process within an exchange


def _follow_calls(pipe: connection.Connection, rank: int, meeting: Meeting, follower: Any) -> None:
    while True:
        name, args = pickle.loads(pipe.recv_bytes())
        answer = None
        try:
            if name == JOIN:
                meeting.join(rank, follower.dit.device)
            else:
                getattr(follower, name)(*args)
        except FloatingPointError as error:
            answer = error
        pipe.send_bytes(pickle.dumps(answer))


@contextmanager
def _children_allowed() -> Iterator[None]:
    """Let a daemon, such as the process of an isolated engine, have children."""
    # What it has children of ends with its parent anyway.
    config = getattr(multiprocessing.current_process(), '_config')
    before = config.get('daemon')
    config['daemon'] = False
    try:
        yield
    finally:
        config['daemon'] = before


@contextmanager
def _environment() -> Iterator[None]:
    """Set what torch.distributed reads while it makes a group, but for what the user set."""
    added = [name for name in ENVIRONMENT if name not in os.environ]
    os.environ.update({name: ENVIRONMENT[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


def _exchange(sent: Tensor) -> Tensor:
    """Send part i of the first axis to rank i and return what all ranks sent here."""
    received = torch.empty_like(sent)
    distributed.all_to_all_single(received, sent)
    return received


def _filled(x: Tensor, num_tokens: int) -> Tensor:
    """Add zeros behind (b, n, ...) up to a number of tokens."""
    missing = num_tokens - x.shape[1]
    if not missing:
        return x
    return torch.cat([x, x.new_zeros(x.shape[0], missing, *x.shape[2:])], 1)


def _on_host(value: Any) -> Any:
    return value.cpu() if isinstance(value, Tensor) else value
