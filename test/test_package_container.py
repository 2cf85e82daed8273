# SPDX-License-Identifier: Apache-2.0
"""
Dockerfile and dev container: the commands of the documentation, in the form images want.

Nothing is built here; of the rules that linters of Dockerfiles know, those that apply are kept.
"""
import json
import re
from xml.etree import ElementTree

from doc_commands import lines_of, simple_commands
from doc_pages import DOCS, read, ROOT
import pytest

ROAD = ('rosdep', 'pip', 'colcon')  # programs of the road through a workspace
MANIFEST = ElementTree.parse(ROOT / 'package.xml').getroot()
PIP_NAMES = {'python3-opencv': 'opencv-python-headless', 'python3-yaml': 'pyyaml',
             'urdfdom_py': 'urdfdom-py'}  # of what rosdep knows by another name


def instructions():
    """Read the Dockerfile: (instruction, its text on one line) in order."""
    text = re.sub(r'(?m)^\s*#.*\n', '', (ROOT / 'Dockerfile').read_text())
    lines = re.sub(r'\\\n\s*', '', text).splitlines()
    return [tuple(line.split(maxsplit=1)) for line in lines if line.strip()]


def texts(*names):
    """Return what some instructions say."""
    return [text for name, text in instructions() if name in names]


def dev_container():
    """Read the settings of the dev container."""
    return json.loads((ROOT / '.devcontainer' / 'devcontainer.json').read_text())


def road(commands):
    """Keep the commands of the road, without what goes before and after."""
    return [' '.join(words) for command in commands for words in simple_commands(command)
            if words[0] in ROAD and words[1] != 'update']


def test_its_commands_are_those_of_the_documentation():
    if not DOCS.is_dir():
        pytest.skip('docs/ is not installed with the package')
    told = [road(command for command, _ in lines_of(block.text))
            for page in (ROOT / 'README.md', DOCS / 'in_place_of_a_simulator.md')
            for block in read(page).blocks if 'rosdep install' in block.text]
    assert len(told) == 2 and told[0] == told[1] == road(texts('RUN'))
    inside = re.search(r"-c '(.*)'", dev_container()['postCreateCommand']).group(1)
    assert road([inside]) == told[0][-1:]


def test_rosdep_and_pip_bring_all_that_running_needs():
    """Whoever adds a requirement says where a workspace takes it from."""
    declared = {node.text for node in MANIFEST if node.tag in ('depend', 'exec_depend')}
    by_rosdep = {PIP_NAMES.get(name, name.replace('python3-', '')) for name in declared}
    pip, = (words for words in map(str.split, road(texts('RUN'))) if words[0] == 'pip')
    lines = (ROOT / 'requirements' / 'run.txt').read_text().splitlines()
    needed = {re.match(r'[\w-]+', line).group() for line in lines if line[:1] not in ('#', '')}
    assert set(pip[2:]) == needed - by_rosdep


def test_the_distribution_is_an_argument_and_no_image_is_just_the_latest():
    first, text = instructions()[0]
    assert first == 'ARG' and re.fullmatch(r'ROS_DISTRO=\w+', text)
    names = set()
    for base in texts('FROM'):
        image, _, name = base.partition(' AS ')
        assert image in names or image == 'ros:${ROS_DISTRO}-ros-base', base
        names.add(name)


def test_packages_of_the_system_are_fetched_and_cleaned_up_in_one_layer():
    installing = [text for text in texts('RUN') if re.search(r'(apt-get|rosdep) install', text)]
    assert len(installing) == 2
    for text in installing:
        assert text.startswith('apt-get update && '), text
        assert text.endswith('rm -rf /var/lib/apt/lists/*'), text
        assert ' -y' in text
        assert 'rosdep' in text or '--no-install-recommends' in text
    # rosdep calls apt-get, and takes no such option.
    assert 'APT::Install-Recommends "false"' in texts('RUN')[0]
    assert sum('apt-get update' in text for text in texts('RUN')) == 2


@pytest.mark.parametrize('name, pattern', [
    ('RUN', r'\bsudo\b'), ('RUN', r'(^|&& )cd '), ('RUN', r'break-system-packages'),
    ('RUN', r'\bapt (install|update)'), ('ADD', ''), ('MAINTAINER', '')])
def test_it_has_no_bad_habits(name, pattern):
    assert [text for text in texts(name) if re.search(pattern, text)] == []


def test_it_is_not_root_and_works_below_the_home_of_its_user():
    """A dev container gives the user the number of the host's, and the home with it, no more."""
    steps = instructions()
    user = texts('USER')[-1]
    assert user == dev_container()['remoteUser'] != 'root'
    asking = [i for i, (name, text) in enumerate(steps)
              if name == 'RUN' and ('pip install' in text or 'colcon' in text)]
    assert steps.index(('USER', user)) < min(asking)
    folder, = texts('WORKDIR')
    assert re.fullmatch(rf'/\w+/{user}/ros2_ws', folder)
    assert folder == dev_container()['workspaceFolder']


def test_sources_come_after_what_changes_less_and_before_the_build():
    steps = [f'{name} {text}' for name, text in instructions()]
    order = ['COPY package.xml src/lingbot_world_ros/', 'rosdep install', 'pip install',
             'COPY --chown=ubuntu:ubuntu . src/lingbot_world_ros', 'colcon build', 'ENTRYPOINT']
    places = [next(i for i, step in enumerate(steps) if words in step) for words in order]
    assert places == sorted(places)
    assert {'.git', '.venv', '.venv-*'} <= set((ROOT / '.dockerignore').read_text().split('\n'))


def test_it_starts_what_there_is_with_the_workspace_sourced():
    entry, command = (json.loads(text) for text in texts('ENTRYPOINT', 'CMD'))
    assert 'source ~/ros2_ws/install/setup.bash && exec "$@"' in entry
    assert command[:3] == ['ros2', 'launch', 'lingbot_world_ros']
    assert (ROOT / 'launch' / command[3]).is_file()


def test_the_dev_container_is_a_stage_of_the_same_file():
    build = dev_container()['build']
    here = ROOT / '.devcontainer'
    assert (here / build['dockerfile']).resolve() == ROOT / 'Dockerfile'
    assert (here / build['context']).resolve() == ROOT
    assert any(text.endswith(f' AS {build["target"]}') for text in texts('FROM'))
    assert set(build['args']) == {'ROS_DISTRO'}
    mounted = f'{dev_container()["workspaceFolder"]}/src/{MANIFEST.findtext("name")}'
    assert f',target={mounted},' in dev_container()['workspaceMount']
