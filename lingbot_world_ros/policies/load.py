# SPDX-License-Identifier: Apache-2.0
"""Make a policy from the text that names it, as ``judge`` and ``drive`` take it."""
from pathlib import Path
import sys
from typing import Callable

from lingbot_world_ros.engines.registry import DEFAULT_ENGINE
from lingbot_world_ros.envs.tasks import TASKS
from lingbot_world_ros.errors import shown, SpecError, unknown_name
from lingbot_world_ros.plain_yaml import read_number
from lingbot_world_ros.policies.experts import Expert
from lingbot_world_ros.policies.network import ABOUT, NetworkPolicy, read_about
from lingbot_world_ros.policies.policy import Policy
from lingbot_world_ros.policies.scripted import ScriptedPolicy
from lingbot_world_ros.robots.robot import Robot

FORMS = ('"random", "scripted" or "scripted:SKILL" (0 to 1), "expert", "plan:cem:BUDGET" or '
         '"plan:mppi:BUDGET" (rollouts), either with ":ENGINE" that imagines, '
         '"picture:cem:BUDGET" or "picture:mppi:BUDGET", or the folder of a trained policy')


def load_policy(text: str, task: str, robot: Robot) -> Policy:
    """
    Make a policy.

    :param text: one of ``FORMS``
    :param task: that it is to do
    :param robot: that it drives
    :return: the policy
    :raises SpecError: there is no such policy, or it is for another task or robot
    """
    if task not in TASKS:
        raise unknown_name('task', task, TASKS)
    kind, _, rest = text.partition(':')
    if text == 'random':
        return ScriptedPolicy(task, robot, 0.0)
    if text == 'expert':
        return Expert(task, robot)
    if kind == 'scripted':
        return ScriptedPolicy(task, robot, _number(text, rest) if rest else 1.0)
    if kind in ('plan', 'picture'):
        method, _, rest = rest.partition(':')
        budget, _, engine = rest.partition(':')
        return _planner(kind)(task, robot, method,
                              int(_number(text, budget)) if budget else None,
                              engine or DEFAULT_ENGINE)
    if not Path(text).expanduser().is_dir():
        raise SpecError(f'policy {shown(text)}: there is no such folder; train one with '
                        f'"lingbot-world train-policy --out {shown(text)}", or name {FORMS}.')
    policy = NetworkPolicy(Path(text).expanduser())
    if policy.task != task:
        raise SpecError(f'policy {shown(text)} was trained for {policy.task}, not for {task}.')
    if policy.about['robot'] != robot.name:
        raise SpecError(f"policy {shown(text)} drives robot {policy.about['robot']!r}, not "
                        f'{robot.name!r}.')
    return policy


def _planner(kind: str) -> Callable[..., Policy]:
    """Import what imagines only where it is asked for."""
    if kind == 'picture':
        from lingbot_world_ros.policies.picture_planner import PicturePlanner
        return PicturePlanner
    from lingbot_world_ros.policies.planner import Planner
    return Planner


def task_of(text: str) -> str:
    """
    Tell what a trained policy was trained for.

    :param text: as ``load_policy`` takes it
    :return: name of a task
    :raises SpecError: it is no folder of a trained policy, which could do more than one task
    """
    folder = Path(text).expanduser()
    if not folder.is_dir():
        raise SpecError(f'policy {shown(text)}: say what it is to do, --task with one of '
                        f'{", ".join(TASKS)}.')
    return str(read_about(folder)['task'])


def print_unfinished(text: str) -> None:
    """Say on standard error if the training of a policy has not come to its end."""
    folder = Path(text).expanduser()
    if not (folder / ABOUT).is_file():
        return
    about = read_about(folder)
    rounds, planned = about.get('rounds', 0), about.get('rounds_planned', 0)
    if rounds < planned:
        print(f'policy {shown(text)} has learned in {rounds} of {planned} rounds; the same '
              '"lingbot-world train-policy" goes on.', file=sys.stderr)


def _number(text: str, given: str) -> float:
    value = read_number(given)
    if value is None:
        raise SpecError(f'policy {shown(text)}: {shown(given)} is no number; there are {FORMS}.')
    return value
