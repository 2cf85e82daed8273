# SPDX-License-Identifier: Apache-2.0
"""The groups of test files that ``colcon test`` runs and times one by one."""
from fnmatch import fnmatch
from pathlib import Path

# Name -> files, as patterns of what follows test_. What fits none belongs to the core.
GROUPS = {
    'package': ('package_*', 'import_rules', 'types', 'interface_hashes', 'mutants', 'net'),
    'docs': ('docs', 'doc_commands', 'your_own_engine'),
    'programs': ('cli', 'doctor', 'launch', 'bench', 'navigate', 'smoke', 'two_worlds'),
    'nodes': ('nodes', 'action_encoder', 'camera_geometry', 'layouts', 'lifecycle',
              'mode_parameter', 'playback', 'profiles', 'publishers', 'stepping',
              'text_and_images', 'senses', 'trajectory_action', 'plan_action'),
    'services': ('conformance', 'simulation_services'),
    'robustness': ('faults', 'fuzz', 'soak'),
    'view': ('view*', 'page*', 'glass'),
    'recordings': ('record', 'recorded_drive', 'replay', 'report', 'follower'),
    'engines': ('engine_contract', 'envs', 'ros_env', 'evaluate*', 'isolated', 'planning_gap',
                'reference_world',
                'room_world', 'session_engines', 'training', 'worlds'),
    'lingbot_world': ('wan_*', 'lingbot_world*', 'imagine', 'inspect', 'gpu_stream'),
}
CORE = 'core'


def group_of(path: Path) -> str:
    """Name the group of a test file."""
    name = path.stem.replace('test_', '', 1)
    return next((group for group, patterns in GROUPS.items()
                 if any(fnmatch(name, pattern) for pattern in patterns)), CORE)


def files_outside(group: str) -> list:
    """
    List what one group leaves to the others.

    :param group: its name; '' is all groups
    :return: names of test files
    """
    if group and group not in (*GROUPS, CORE):
        raise ValueError(f'There is no group {group!r} of tests; there are '
                         f'{", ".join((*GROUPS, CORE))}.')
    return [path.name for path in Path(__file__).parent.glob('test_*.py')
            if group and group_of(path) != group]
