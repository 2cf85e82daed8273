# SPDX-License-Identifier: Apache-2.0
"""
Compare learners: how soon does one of stable-baselines3 do what imitation learns? Prints JSON.

PPO or SAC on the imagined RoomReach without pictures, by the task's own reward, and
``lingbot-world train-policy`` beside it; after every round the share of 60 imagined episodes that
reach their goal, CPU seconds and engine frames so far. One thread each.
"""
import argparse
import json
from pathlib import Path
import tempfile
import time

SCENES = 'living_room', 'office', 'workshop'
ROWS, EPISODES = 32, 60


def _env(rows: int, mode: str):
    from lingbot_world_ros.envs.rooms import RoomVectorEnv
    return RoomVectorEnv(rows, task='RoomReach', image=False, autoreset_mode=mode,
                         engine_options={'exact': False})


def _share(policy) -> float:
    """Play episodes that are the same for all."""
    from lingbot_world_ros.evaluation.episodes import draw_starts, play
    env = _env(12, 'Disabled')
    ended = play(env, policy, draw_starts(SCENES, EPISODES, 1))
    env.close()
    return sum(episode.success for episode in ended) / len(ended)


class Rounds:
    """What came of each round; playing to find out does not count as learning."""

    def __init__(self):
        """Begin to count CPU time."""
        self.rows, self._began_s = [], time.process_time()

    @property
    def seconds(self) -> float:
        """CPU time of learning so far."""
        return time.process_time() - self._began_s

    def add(self, frames: int, policy) -> None:
        """Find out how good a policy is by now."""
        seconds = self.seconds
        self.rows.append({'cpu_s': seconds, 'frames': frames, 'success': _share(policy)})
        self._began_s = time.process_time() - seconds


def imitation(seed: int) -> list:
    """Train as ``train-policy`` does, with 12 000 frames a round."""
    from lingbot_world_ros.policies.network import NetworkPolicy
    from lingbot_world_ros.training.train_policy import PolicySpec, train_policy
    rounds = Rounds()
    with tempfile.TemporaryDirectory() as folder:
        train_policy(PolicySpec('RoomReach', frames=60000, rounds=5, scan=False, seed=seed),
                     Path(folder), lambda row: rounds.add(12000 * (row['round'] + 1),
                                                          NetworkPolicy(Path(folder))))
    return rounds.rows


def reinforcement(name: str, seconds: float, seed: int) -> list:
    """Train with stable-baselines3 and its defaults, on normalised observations."""
    import numpy as np
    import stable_baselines3
    import torch
    torch.set_num_threads(1)
    from stable_baselines3.common.vec_env import VecNormalize
    env = VecNormalize(_vec_env(_env(ROWS, 'SameStep')), norm_reward=name == 'PPO')
    options = {'PPO': {'n_steps': 128, 'batch_size': 512}, 'SAC': {
        'train_freq': 1, 'gradient_steps': ROWS // 4, 'learning_starts': 2000}}[name]
    model = getattr(stable_baselines3, name)('MultiInputPolicy', env, seed=seed, device='cpu',
                                             **options)

    class Learnt:
        name, task, senses, image_size, knows_state = 'learnt', '', (), None, False

        def begin(self, rows, known):
            """Forget nothing: it remembers nothing."""

        def act(self, observation, known):
            """See ``policies.policy.Policy``."""
            action, _ = model.predict(env.normalize_obs(observation), deterministic=True)
            return np.clip(action, -1.0, 1.0).astype(float)

    rounds, frames_per_action = Rounds(), env.venv.env.frames_per_action
    while rounds.seconds < seconds:
        model.learn(16384, reset_num_timesteps=not rounds.rows)
        rounds.add(model.num_timesteps * frames_per_action, Learnt())
    env.close()
    return rounds.rows


def _vec_env(env):
    """Show a vector environment of Gymnasium as one of stable-baselines3."""
    import numpy as np
    from stable_baselines3.common.vec_env import VecEnv

    class Shown(VecEnv):
        def __init__(self):
            super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)
            self.env = env

        def reset(self):
            return self.env.reset(seed=self._seeds[0])[0]

        def step_async(self, actions):
            self._said = actions

        def step_wait(self):
            seen, reward, terminated, truncated, info = self.env.step(self._said)
            infos = [{} for _ in range(self.num_envs)]
            for row in np.flatnonzero(terminated | truncated):
                infos[row] = {'TimeLimit.truncated': bool(truncated[row]),
                              'terminal_observation': info['final_obs'][row]}
            return seen, reward.astype(np.float32), terminated | truncated, infos

        def close(self):
            self.env.close()

        def get_attr(self, attr_name, indices=None):
            return [getattr(self.env, attr_name)] * self.num_envs

        def set_attr(self, attr_name, value, indices=None):
            raise AttributeError(attr_name)

        def env_method(self, method_name, *args, indices=None, **keywords):
            raise AttributeError(method_name)

        def env_is_wrapped(self, wrapper_class, indices=None):
            return [False] * self.num_envs
    return Shown()


def main():
    """Measure one learner and print the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('learner', choices=('imitation', 'PPO', 'SAC'))
    parser.add_argument('--seconds', type=float, default=300.0, help='CPU time to learn')
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    rows = (imitation(args.seed) if args.learner == 'imitation' else
            reinforcement(args.learner, args.seconds, args.seed))
    print(json.dumps({'learner': args.learner, 'seed': args.seed, 'rounds': rows}))


if __name__ == '__main__':
    main()
