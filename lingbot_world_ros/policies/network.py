# SPDX-License-Identifier: Apache-2.0
"""
Policies that were trained: a small network in a folder, run with NumPy.

``policy.safetensors`` has its weights, ``policy.yaml`` says what it is for, what it looks at, and
how it came about. A scan goes in as its nearest range in each of ``SECTORS`` directions, so that
one policy fits pictures of any width. Speeds are left out: who learns from them copies what was
done before (de Haan et al. 2019). What is to be pushed goes in where it should be by now, as
``policies.belief`` works it out.
"""
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from lingbot_world_ros.envs.known import Known
from lingbot_world_ros.envs.tasks import TASKS
from lingbot_world_ros.errors import shown, SpecError
from lingbot_world_ros.policies.belief import Belief
from lingbot_world_ros.policies.policy import Columns, Policy
import numpy as np
from safetensors.numpy import load_file
import yaml

FORMAT = 1
SECTORS, NEAREST_M = 20, 0.3
WEIGHTS, ABOUT = 'policy.safetensors', 'policy.yaml'
ROUNDS = 'rounds.jsonl'  # of its training: a line each, as ``lingbot-world report`` draws it
Layers = List[Tuple[np.ndarray, np.ndarray]]  # weight (out, in) and bias (out,) float32


def features(observation: Columns, task: str, with_scan: bool,
             things: Optional[np.ndarray] = None) -> np.ndarray:
    """
    Put an observation into the numbers that a network reads.

    :param observation: channels of n rows
    :param task: one of ``envs.tasks.TASKS``: says where points are in the goal, which also go in
        as the logarithm of their distance and the cosine and sine of their bearing, and two of
        them as what leads from the first to the second
    :param with_scan: whether ranges are among them
    :param things: (n, 2) where the first point should be by now, in base_link [m]; None: where the
        goal says
    :return: (n, f) float32
    """
    goal, joints = observation['goal'], observation['joints']
    if things is not None:
        goal = goal.copy()
        first = TASKS[task].points[0]
        goal[:, first:first + 2] = things
    # Who drives is not told the joints, nor the start: they tell one episode from another, and a
    # learner then knows what to do in those that it has seen.
    columns = ([goal[:, TASKS[task].points[0]:]] if TASKS[task].points else
               [goal, joints[:, :joints.shape[1] // 2]])  # the other half are speeds
    for first in TASKS[task].points:
        x, y = goal[:, first].astype(float), goal[:, first + 1].astype(float)
        away_m = np.maximum(np.hypot(x, y), 1e-3)
        columns.append(np.stack([np.log(away_m), x / away_m, y / away_m], 1))
    if len(TASKS[task].points) == 2:
        columns.append(_along(*(goal[:, i:i + 2].astype(float) for i in TASKS[task].points)))
    if with_scan:
        ranges_m = observation['scan']
        sectors = [part.min(1) for part in np.array_split(ranges_m, SECTORS, 1)]
        columns.append(1.0 / np.maximum(np.stack(sectors, 1), NEAREST_M))
    return np.concatenate(columns, 1).astype(np.float32)


def _along(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """
    Describe the line through two points as who is to push along it needs it.

    :param first: (n, 2) in base_link [m]
    :param second: (n, 2)
    :return: (n, 4) cosine and sine of its direction, how far the first is ahead along it, and how
        far to the left of it
    """
    way = second - first
    ahead = way / np.maximum(np.hypot(*way.T), 1e-3)[:, None]
    along_m = (first * ahead).sum(1)
    left_m = first[:, 1] * ahead[:, 0] - first[:, 0] * ahead[:, 1]
    return np.stack([*ahead.T, along_m, left_m], 1)


def forward(x: np.ndarray, layers: Layers) -> np.ndarray:
    """
    Run the network: SiLU between layers, the hyperbolic tangent at the end.

    :param x: (n, f) float32
    :param layers: from first to last
    :return: (n, k) float32 from -1 to 1
    """
    for number, (weight, bias) in enumerate(layers):
        x = x @ weight.T + bias
        if number + 1 < len(layers):
            x = x / (1.0 + np.exp(-np.clip(x, -60.0, 60.0)))
    return np.tanh(x)


class NetworkPolicy(Policy):
    """A trained policy from a folder."""

    def __init__(self, folder: Path) -> None:
        """
        Read it.

        :param folder: that ``training.train_policy`` wrote
        :raises SpecError: nothing there, or it is not such a policy
        """
        self.about = read_about(folder)
        self.name, self.task = str(folder), self.about['task']
        self.senses = tuple(self.about['senses'])
        width_px, height_px = self.about.get('image_size') or (0, 0)
        self.image_size = (width_px, height_px) if width_px else None
        self._layers = _read_layers(folder / WEIGHTS)
        pushed = self.about.get('touch_m')
        self._belief = None if pushed is None else Belief(pushed)

    def begin(self, rows: Sequence[int], known: Known) -> None:
        """See ``Policy``."""
        if self._belief is not None:
            self._belief.begin(rows, len(known.starts))

    def act(self, observation: Columns, known: Known) -> np.ndarray:
        """See ``Policy``."""
        things = None if self._belief is None else self._belief.look(observation)
        x = features(observation, self.task, 'scan' in self.senses, things)
        expected = self._layers[0][0].shape[1]
        if x.shape[1] != expected:
            raise SpecError(f'policy {shown(self.name)} reads {expected} numbers and the '
                            f'observations of this environment have {x.shape[1]}: it was trained '
                            f"for task {self.task} with robot {self.about['robot']!r}.")
        return forward(x, self._layers).astype(float)


def read_about(folder: Path) -> Dict[str, Any]:
    """
    Read what a saved policy says of itself.

    :param folder: of the policy
    :return: the content of its YAML
    :raises SpecError: there is none, or it is not understood
    """
    path = folder / ABOUT
    remedy = f'make one with "lingbot-world train-policy --out {shown(str(folder))}".'
    try:
        about = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise SpecError(f'No policy in {shown(str(folder))}: {path.name} is missing; {remedy}'
                        ) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SpecError(f'{shown(str(path))} cannot be read ({error}); {remedy}') from None
    if not isinstance(about, dict) or about.get('format') != FORMAT:
        raise SpecError(f'{shown(str(path))} is no policy of format {FORMAT}; {remedy}')
    for key, kind in (('task', str), ('senses', list), ('robot', str)):
        if not isinstance(about.get(key), kind):
            raise SpecError(f'{shown(str(path))} has no usable {key!r}; {remedy}')
    if about['task'] not in TASKS or not set(about['senses']) <= {'scan'}:
        raise SpecError(f'{shown(str(path))} is for task {about["task"]!r} with senses '
                        f'{about["senses"]}; known are {", ".join(TASKS)} with scan or nothing.')
    pushed = about.get('touch_m', {})
    if not (isinstance(pushed, dict) and all(isinstance(far_m, float) and 0.0 < far_m < np.inf
                                             for far_m in pushed.values())):
        raise SpecError(f'{shown(str(path))}: touch_m gives metres by the name of a thing; '
                        f'{remedy}')
    return about


def write_policy(folder: Path, about: Mapping[str, Any], layers: Sequence[Tuple[Any, Any]],
                 save: Callable[[Dict[str, Any]], bytes]) -> None:
    """
    Write a policy.

    :param folder: made where it is not there
    :param about: see ``read_about``
    :param layers: weight and bias of each, of the kind that ``save_file`` takes
    :param save: of safetensors, for that kind
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / WEIGHTS).write_bytes(save({
        f'{number}.{name}': value for number, layer in enumerate(layers)
        for name, value in zip(('weight', 'bias'), layer)}))
    (folder / ABOUT).write_text(yaml.safe_dump({'format': FORMAT, **about}, sort_keys=False))


def _read_layers(path: Path) -> Layers:
    try:
        tensors = load_file(path)
        layers = [(tensors[f'{i}.weight'], tensors[f'{i}.bias'])
                  for i in range(len(tensors) // 2)]
        sizes = [weight.shape for weight, _ in layers]
        fits = all(a[0] == b[1] for a, b in zip(sizes, sizes[1:]))
        if not layers or not fits or any(w.shape[0] != b.shape[0] for w, b in layers):
            raise ValueError('layers that do not fit each other')
    except Exception as error:  # the library raises its own, undocumented types
        raise SpecError(f'{shown(str(path))} cannot be read ({error}); train the policy again.'
                        ) from error
    return layers
