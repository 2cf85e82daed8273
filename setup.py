# SPDX-License-Identifier: Apache-2.0
"""
Install the Python part with pip: worlds, models, evaluation, the ``lingbot-world`` command.

colcon never reads this file: package.xml names ament_cmake, so CMakeLists.txt builds the messages
and installs the nodes. ROS itself does not come from here; ``make sim`` and robot workspaces
bring it.
"""
from pathlib import Path
from xml.etree import ElementTree

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
MANIFEST = ElementTree.parse(ROOT / 'package.xml').getroot()


def requirements(name: str) -> list:
    """
    Read one list of ``requirements/``.

    :param name: file name without ``.txt``
    :return: its requirement lines, comments dropped
    """
    lines = (ROOT / 'requirements' / f'{name}.txt').read_text().splitlines()
    return [line for line in lines if line and not line.startswith('#')]


setup(
    name=MANIFEST.findtext('name'),
    version=MANIFEST.findtext('version'),
    description=' '.join(MANIFEST.findtext('description').split()),
    license='Apache-2.0',
    author=MANIFEST.findtext('author'),
    maintainer=MANIFEST.findtext('maintainer'),
    maintainer_email=MANIFEST.find('maintainer').get('email'),
    project_urls={link.get('type'): link.text for link in MANIFEST.findall('url')},
    python_requires='>=3.10',
    packages=find_packages(include=['lingbot_world_ros', 'lingbot_world_ros.*']),
    package_data={'lingbot_world_ros': ['models/room/weights/*', 'worlds/learned_worlds/*/*',
                                        'view/page/*',
                                        'report/*.html']},
    data_files=[
        ('share/lingbot_world_ros', ['package.xml']), *(
            (f'share/lingbot_world_ros/{folder}', [str(path) for path in Path(folder).glob('*.*')])
            for folder in ('config', 'config/foxglove', 'config/robots', 'config/rviz',
                           'config/worlds', 'config/worlds/images', 'launch'))
    ],
    install_requires=requirements('run'),
    extras_require={name: requirements(name)
                    for name in ('reference', 'ros-kilted', 'ros-jazzy', 'lingbot', 'train',
                                 'report', 'envs', 'ray', 'test')},
    entry_points={'console_scripts': ['lingbot-world = lingbot_world_ros.cli.main:main']},
    zip_safe=False,
)
