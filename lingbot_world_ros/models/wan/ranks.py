# SPDX-License-Identifier: Apache-2.0
"""
Child processes that make the same calls as this one: how they start, meet, fail and end.

The first process (rank 0) is the one that asks; the others are its children and follow the calls
that it passes on.
"""
from contextlib import contextmanager
from datetime import timedelta
import multiprocessing
from multiprocessing import connection
import os
import pickle
import shutil
import tempfile
import threading
import time
import traceback
from typing import (Any, Callable, Dict, Iterator, List, NamedTuple, NoReturn, Optional, Tuple,
                    Union)

from lingbot_world_ros.errors import EngineHung, EngineLost, SpecError
from lingbot_world_ros.models.wan.device import Device
from lingbot_world_ros.processes import begin_as_child, exit_text, portable
import torch
from torch import distributed

ANSWER_S = 600.0  # for one call; the first may compile
NOTICE_S = 1.0  # a process that ended is known to have ended within this
END_S = 3.0  # a process that does not end by itself is killed after this long
# One machine only; and a failed exchange must not end the process that asked for it.
ENVIRONMENT = {'GLOO_SOCKET_IFNAME': 'lo', 'NCCL_SOCKET_IFNAME': 'lo',
               'TORCH_NCCL_ASYNC_ERROR_HANDLING': '2'}
JOIN = 'join'  # of the process group: the first call


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
