# SPDX-License-Identifier: Apache-2.0
"""
Do jobs in this process, in several, or on several machines with Ray.

A job is data, and what comes out follows from it alone; so a job whose worker was lost is done
again by another one and nothing is missing or counted twice. Results are in the order of the jobs.
"""
from typing import Any, Callable, Dict, List, Optional, Sequence, TypeVar

from lingbot_world_ros.crew import Crew, open_crew, TRIES, Worker, WorkerLost
from lingbot_world_ros.errors import SpecError

Job = TypeVar('Job')
Result = TypeVar('Result')


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
        if not jobs:
            return []
        if self._ray_address is not None or self._number > 1:
            with open_crew(self._number, self._ray_address) as crew:
                return _shared_out(crew, self._number, do, jobs, on_done)
        results = []
        for job in jobs:
            results.append(do(job))
            on_done(job, results[-1])
        return results


class _Doer:
    """What a worker holds: nothing. Functions keep by themselves what they have loaded."""

    def do(self, function: Callable[[Any], Any], job: Any) -> Any:
        """Do a job there."""
        return function(job)


def _shared_out(crew: Crew, number: int, do: Callable[[Job], Result], jobs: Sequence[Job],
                on_done: Callable[[Job, Result], Any]) -> List[Result]:
    """Keep all workers busy; one that is lost is replaced."""
    waiting, tries = list(range(len(jobs)))[::-1], [0] * len(jobs)
    results: Dict[int, Result] = {}
    under_way: Dict[Worker, int] = {}  # number of the job

    def hand_out(worker: Worker) -> None:
        if not waiting:
            return worker.kill()
        i = waiting.pop()
        tries[i] += 1
        under_way[worker] = i
        worker.ask('do', do, jobs[i])
    for _ in range(min(number, len(jobs))):
        hand_out(crew.hire(_Doer))
    while under_way:
        for worker in crew.wait(list(under_way)):
            i = under_way.pop(worker)
            try:
                results[i] = worker.answer()
            except WorkerLost as error:
                if tries[i] >= TRIES:
                    raise SpecError(f'Workers were lost {TRIES} times in a row over the same '
                                    f'episodes ({error}).') from error
                waiting.append(i)  # it is next
                worker.kill()
                worker = crew.hire(_Doer)
            else:
                on_done(jobs[i], results[i])
            hand_out(worker)
    return [results[i] for i in range(len(jobs))]
