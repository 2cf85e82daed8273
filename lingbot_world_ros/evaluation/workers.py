# SPDX-License-Identifier: Apache-2.0
"""
Do jobs in this process, in several, or on several machines with Ray.

A job is data, and what comes out follows from it alone; so a job whose worker was lost is done
again by another one and nothing is missing or counted twice. Results are in the order of the jobs.
"""
from concurrent.futures import as_completed, ProcessPoolExecutor
import multiprocessing
import os
from typing import Any, Callable, Dict, List, Optional, Sequence, TypeVar

from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.paths import pip_install
from lingbot_world_ros.processes import begin_as_child

Job = TypeVar('Job')
Result = TypeVar('Result')
TRIES = 5  # of a job whose workers are lost
ONE_THREAD = {'OMP_NUM_THREADS': '1', 'OPENBLAS_NUM_THREADS': '1', 'MKL_NUM_THREADS': '1'}


class Workers:
    """Where jobs are done."""

    def __init__(self, number: int = 1, ray_address: Optional[str] = None) -> None:
        """
        Say where; nothing is started yet.

        :param number: of processes; 1 without Ray is this one
        :param ray_address: of a Ray cluster, 'local' for one that is started here; None: no Ray
        :raises SpecError: less than one worker
        """
        if number < 1:
            raise SpecError(f'workers={number} must be at least 1.')
        self._number, self._ray_address = number, ray_address

    def run(self, do: Callable[[Job], Result], jobs: Sequence[Job],
            on_done: Callable[[Job, Result], Any] = lambda job, result: None) -> List[Result]:
        """
        Do all jobs.

        :param do: a function of a module, called with a job
        :param jobs: what is to be done
        :param on_done: called here, with each job that is done and its result
        :return: what ``do`` returned, in the order of the jobs
        :raises SpecError: Ray is wanted and not there, or a job's workers were lost too often
        """
        if self._ray_address is not None:
            return _run_with_ray(do, jobs, on_done, self._number, self._ray_address)
        if self._number > 1:
            return _run_in_processes(do, jobs, on_done, self._number)
        results = []
        for job in jobs:
            results.append(do(job))
            on_done(job, results[-1])
        return results


def _run_in_processes(do: Callable[[Job], Result], jobs: Sequence[Job],
                      on_done: Callable[[Job, Result], Any], number: int) -> List[Result]:
    results: Dict[int, Result] = {}
    context = multiprocessing.get_context('spawn')
    with ProcessPoolExecutor(number, context, initializer=_begin) as pool:
        futures = {pool.submit(do, job): i for i, job in enumerate(jobs)}
        try:
            for future in as_completed(futures):
                i = futures[future]
                results[i] = future.result()
                on_done(jobs[i], results[i])
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [results[i] for i in range(len(jobs))]


def _begin() -> None:
    """Prepare a process: one thread of its own, and no life without the one that started it."""
    os.environ.update(ONE_THREAD)
    begin_as_child()


def _run_with_ray(do: Callable[[Job], Result], jobs: Sequence[Job],
                  on_done: Callable[[Job, Result], Any], number: int,
                  address: str) -> List[Result]:
    """Keep as many actors busy as there are workers; one that is lost is replaced."""
    try:
        import ray
        from ray.exceptions import RayActorError, RayTaskError
    except ModuleNotFoundError as error:
        raise SpecError(f'--ray needs the Python package ray: {pip_install("ray")}.') from error
    is_ours = not ray.is_initialized()
    if is_ours:
        try:
            ray.init(address=None if address == 'local' else address, log_to_driver=False,
                     configure_logging=False)
        except (ConnectionError, ValueError) as error:
            raise SpecError(f'No Ray cluster answers at {address!r} ({error}); start one with '
                            '"ray start --head", or take --ray local.') from error
    actor = ray.remote(num_cpus=1, max_restarts=0, runtime_env={'env_vars': ONE_THREAD})(_Actor)
    waiting, tries = list(range(len(jobs)))[::-1], [0] * len(jobs)
    results: Dict[int, Result] = {}
    under_way: Dict[Any, Any] = {}  # reference -> (actor, number of the job)

    def hand_out(worker: Any) -> None:
        if waiting:
            i = waiting.pop()
            tries[i] += 1
            under_way[worker.do.remote(do, jobs[i])] = worker, i
    try:
        for _ in range(min(number, len(jobs))):
            hand_out(actor.remote())
        while under_way:
            (reference,), _ = ray.wait(list(under_way), num_returns=1)
            worker, i = under_way.pop(reference)
            try:
                results[i] = ray.get(reference)
                on_done(jobs[i], results[i])
            except RayActorError as error:
                if tries[i] >= TRIES:
                    raise SpecError(f'Workers were lost {TRIES} times in a row over the same '
                                    f'episodes ({error}).') from error
                waiting.append(i)  # it is next
                worker = actor.remote()
            except RayTaskError as error:
                raise error.as_instanceof_cause() from None
            hand_out(worker)
    finally:
        for worker, _ in under_way.values():
            ray.kill(worker)
        if is_ours:
            ray.shutdown()
    return [results[i] for i in range(len(jobs))]


class _Actor:
    """One process of a cluster, which keeps what it has loaded."""

    def do(self, function: Callable[[Any], Any], job: Any) -> Any:
        """Do a job there."""
        return function(job)
