# SPDX-License-Identifier: Apache-2.0
"""
Objects that work in other processes, here or on the machines of a Ray cluster.

A crew hires workers; each holds one object and does one call at a time. Workers get lost: killed,
out of memory, their machine gone. Whoever asked is told by ``WorkerLost``, and hires another one.
Only trusted code is at the other end, so messages are pickled.
"""
from abc import ABC, abstractmethod
from multiprocessing.connection import Connection, wait as wait_for
import os
import select
import socket
import subprocess
import sys
import threading
from typing import Any, Callable, Dict, List, Optional, Sequence, Set, Tuple

from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.paths import pip_install
from lingbot_world_ros.processes import begin_as_child, exit_text, portable

TRIES = 5  # of a call whose workers are lost
ANSWER_S = 5.0  # in which a cluster answers
ONE_THREAD = {'OMP_NUM_THREADS': '1', 'OPENBLAS_NUM_THREADS': '1', 'MKL_NUM_THREADS': '1'}
SERVE = 'import sys; sys.path[:] = {path!r}; from {module} import serve; serve({fd})'


class WorkerLost(ConnectionError):
    """A worker ended in the middle of a call; what it held is gone."""


class Worker(ABC):
    """One process with one object in it."""

    @property
    @abstractmethod
    def pid(self) -> int:
        """
        Process id, on its machine; there is no call under way.

        :raises WorkerLost: the worker has ended
        """

    @abstractmethod
    def ask(self, name: str, *args: Any, **kwargs: Any) -> None:
        """
        Begin a call; there is no other one under way.

        :param name: of a method of its object, or of a property
        :param args: of the method, picklable
        :param kwargs: of the method, picklable
        """

    @abstractmethod
    def answer(self) -> Any:
        """
        Wait for the end of the call.

        :return: what the method returned
        :raises WorkerLost: the worker has ended
        :raises Exception: what the method raised, or the making of its object
        """

    @abstractmethod
    def kill(self) -> None:
        """End it at once, whatever it does."""


class Crew(ABC):
    """Where workers are; a context manager that ends all of them."""

    def __enter__(self) -> 'Crew':
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def hire(self, make: Callable[..., Any], *args: Any, **kwargs: Any) -> Worker:
        """
        Start a worker.

        :param make: a class or a function of a module, makes its object there
        :param args: of ``make``, picklable
        :param kwargs: of ``make``, picklable
        :return: the worker; what ``make`` raises is raised by its first ``answer``
        """

    @abstractmethod
    def wait(self, workers: Sequence[Any]) -> List[Any]:
        """
        Wait until a call has ended, or its worker.

        :param workers: of this crew, all with a call under way
        :return: those of them whose ``answer`` does not wait
        """

    @abstractmethod
    def close(self) -> None:
        """End all workers."""


def open_crew(number: int, ray_address: Optional[str] = None) -> Crew:
    """
    Find a place for workers.

    :param number: of workers that will be there at a time
    :param ray_address: of a Ray cluster, 'local' for one that is started here; None: processes of
        this machine, without Ray
    :return: the crew, nobody in it
    :raises SpecError: less than one worker, Ray is not installed, there is no such cluster or it
        is too small
    """
    if number < 1:
        raise SpecError(f'workers={number} must be at least 1.')
    return Processes() if ray_address is None else RayCluster(number, ray_address)


class _Host:
    """What runs in a worker: makes the object, then calls it."""

    def begin(self, make: Callable[..., Any], args: Sequence[Any],
              kwargs: Dict[str, Any]) -> None:
        """Make the object."""
        self._is_made, self._object = self._tried(lambda: make(*args, **kwargs))

    def call(self, name: str, args: Sequence[Any], kwargs: Dict[str, Any]) -> Tuple[bool, Any]:
        """Call a method, or look up a property; return whether it went well, and what came."""
        def called() -> Any:
            found = getattr(self._object, name)
            return found(*args, **kwargs) if callable(found) else found
        return self._tried(called) if self._is_made else (False, self._object)

    def pid(self) -> Tuple[bool, int]:
        """Return the process id as an answer of ``call``."""
        return True, os.getpid()

    def _tried(self, do: Callable[[], Any]) -> Tuple[bool, Any]:
        try:
            return True, do()
        except Exception as error:  # travels to who asked
            return False, portable(error)


# Processes of this machine


class Processes(Crew):
    """
    Workers of this machine. They end with this process, however it ends.

    Programs of their own and no forks: engines with threads survive none. They do not import the
    main module, so a script needs no guard around what hires them.
    """

    def __init__(self) -> None:
        """Begin with nobody."""
        self._workers: Set['_ProcessWorker'] = set()

    def hire(self, make: Callable[..., Any], *args: Any, **kwargs: Any) -> '_ProcessWorker':
        """See ``Crew``."""
        worker = _ProcessWorker(self._workers.discard)
        self._workers.add(worker)
        worker.send('begin', make, args, kwargs)
        return worker

    def wait(self, workers: Sequence['_ProcessWorker']) -> List['_ProcessWorker']:
        """See ``Crew``."""
        ready = set(map(id, wait_for([worker.pipe for worker in workers])))
        return [worker for worker in workers if id(worker.pipe) in ready]

    def close(self) -> None:
        """See ``Crew``."""
        for worker in list(self._workers):
            worker.kill()


class _ProcessWorker(Worker):
    """A process at the other end of a pipe."""

    def __init__(self, on_end: Callable[['_ProcessWorker'], Any]) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            code = SERVE.format(path=sys.path, module=__name__, fd=theirs.fileno())
            # In a session of its own: Ctrl-C comes to this process, which ends them.
            self._process = subprocess.Popen(
                [sys.executable, '-c', code], pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL,
                env={**os.environ, **ONE_THREAD}, start_new_session=True)
        self.pipe = Connection(ours.detach())
        self._on_end = on_end

    @property
    def pid(self) -> int:
        """See ``Worker``."""
        return self._process.pid

    def send(self, *message: Any) -> None:
        """Send a call; that nobody is there shows when it is answered."""
        try:
            self.pipe.send(message)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def ask(self, name: str, *args: Any, **kwargs: Any) -> None:
        """See ``Worker``."""
        self.send('call', name, args, kwargs)

    def answer(self) -> Any:
        """See ``Worker``."""
        try:
            good, answer = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            code = self._process.wait()
            raise WorkerLost(f'process {self._process.pid} ended, {exit_text(code)}') from None
        if not good:
            raise answer
        return answer

    def kill(self) -> None:
        """See ``Worker``."""
        self._process.kill()
        self._process.wait()
        self.pipe.close()
        self._on_end(self)


def serve(fd: int) -> None:
    """
    Be a worker, until the pipe closes.

    :param fd: file descriptor of this end of the pipe
    """
    begin_as_child()
    threading.Thread(target=_end_with_the_other_end, args=(fd,), daemon=True).start()
    host = _Host()
    with Connection(fd) as pipe:
        while True:
            try:
                name, *args = pipe.recv()
                answer = getattr(host, name)(*args)
                if name == 'call':
                    pipe.send(answer)
            except (EOFError, BrokenPipeError, ConnectionResetError):
                os._exit(0)  # nobody is left to care for what an engine says at its end
            except Exception as error:  # what was sent, or is to be, cannot be pickled
                pipe.send((False, portable(error)))


def _end_with_the_other_end(fd: int) -> None:
    """End the process once nobody waits for it, also in the middle of a long call."""
    pipe = select.poll()
    pipe.register(fd, 0)  # that the other end is gone is told in any case
    pipe.poll()
    os._exit(0)


# Ray


def _require_answer(address: str) -> None:
    """Raise ``OSError`` if an address of the form HOST:PORT is not listened at."""
    host, _, port = address.rpartition(':')
    if host and port.isdigit() and '/' not in host:
        socket.create_connection((host, int(port)), ANSWER_S).close()


class RayCluster(Crew):
    """Workers are actors, on whatever machine of the cluster has a core to spare."""

    _number_open, _is_ours = 0, False  # crews in this process; whether one of them connected it

    def __init__(self, number: int, address: str) -> None:
        """
        Connect to a cluster, unless this process has.

        :param number: of workers that will be there at a time
        :param address: as ``ray.init`` takes it, 'local' for a cluster that is started here
        :raises SpecError: no Ray, no cluster, or one with too few cores
        """
        try:
            import ray
        except ModuleNotFoundError as error:
            raise SpecError('Working with Ray needs the Python package ray: '
                            f'{pip_install("ray")}.') from error
        self._ray = ray
        self._workers: Set['_RayWorker'] = set()
        self._is_open = False
        if not ray.is_initialized():
            self._connect(number, address)
            RayCluster._is_ours = True
        RayCluster._number_open += 1
        self._is_open = True
        cores = int(ray.cluster_resources().get('CPU', 0))
        if cores < number:
            self.close()
            raise SpecError(f'workers={number}: the Ray cluster has {cores} CPU cores, one for '
                            f'each worker; take at most {cores}, or start more nodes with '
                            '"ray start".')
        self._actor = ray.remote(num_cpus=1, max_restarts=0, scheduling_strategy='SPREAD',
                                 runtime_env={'env_vars': ONE_THREAD})(_Host)

    def _connect(self, number: int, address: str) -> None:
        is_local = address == 'local'
        try:
            _require_answer(address)  # Ray itself tries for ten minutes
            self._ray.init(address=address, log_to_driver=False,
                           configure_logging=False, include_dashboard=False if is_local else None,
                           num_cpus=max(number, os.cpu_count() or 1) if is_local else None)
        except (OSError, OverflowError, ValueError, RuntimeError) as error:
            said = str(error).strip().partition('\n')[0][:200]
            raise SpecError(f'No Ray cluster answers at {address!r} ({said}); start one with '
                            '"ray start --head", or take "local".') from error

    def hire(self, make: Callable[..., Any], *args: Any, **kwargs: Any) -> '_RayWorker':
        """See ``Crew``."""
        worker = _RayWorker(self._ray, self._actor.remote(), self._workers.discard)
        self._workers.add(worker)
        worker.begin(make, args, kwargs)
        return worker

    def wait(self, workers: Sequence['_RayWorker']) -> List['_RayWorker']:
        """See ``Crew``."""
        ready, _ = self._ray.wait([worker.reference for worker in workers], num_returns=1)
        return [worker for worker in workers if worker.reference in ready]

    def close(self) -> None:
        """See ``Crew``."""
        if not self._is_open:
            return
        self._is_open = False
        for worker in list(self._workers):
            worker.kill()
        RayCluster._number_open -= 1
        if RayCluster._is_ours and not RayCluster._number_open:
            RayCluster._is_ours = False
            self._ray.shutdown()


class _RayWorker(Worker):
    """An actor."""

    def __init__(self, ray: Any, actor: Any, on_end: Callable[['_RayWorker'], Any]) -> None:
        self._ray, self._actor, self._on_end = ray, actor, on_end
        self.reference: Any = None  # of the call under way

    @property
    def pid(self) -> int:
        """See ``Worker``."""
        return int(self._got(self._actor.pid.remote()))

    def begin(self, make: Callable[..., Any], args: Sequence[Any], kwargs: Dict[str, Any]) -> None:
        """Let it make its object."""
        self._actor.begin.remote(make, args, kwargs)

    def ask(self, name: str, *args: Any, **kwargs: Any) -> None:
        """See ``Worker``."""
        self.reference = self._actor.call.remote(name, args, kwargs)

    def answer(self) -> Any:
        """See ``Worker``."""
        return self._got(self.reference)

    def _got(self, reference: Any) -> Any:
        from ray.exceptions import RayError, RayTaskError
        try:
            good, answer = self._ray.get(reference)
        except RayTaskError as error:  # not of the object: what was sent cannot be read there
            raise error.as_instanceof_cause() from None
        except RayError as error:
            raise WorkerLost(f'actor ended, {str(error).strip().splitlines()[0]}') from None
        if not good:
            raise answer
        return answer

    def kill(self) -> None:
        """See ``Worker``."""
        self._ray.kill(self._actor)
        self._on_end(self)
