# SPDX-License-Identifier: Apache-2.0
r"""
Every command in README.md and docs/ works: it is run here, or marked with why not and checked.

How pages mark their blocks:

- Every block of code is a fence with one of the words ``bash``, ``python``, ``yaml``, ``json``,
  ``xml`` or ``text``; ``bash`` holds commands only, ``text`` what is not run: output, trees.
- ``bash`` and ``python`` are run in order, one page in one empty folder and one ROS domain, with
  ``lingbot-world`` and ``python`` on the PATH. ``yaml`` is loaded by what reads it.
- A comment behind a command says how it runs. ``# leave it running``: in the background until the
  page ends, or until a command of the same verb begins. ``# Ctrl-C ends it``: it is interrupted
  once it says that it runs, a recording once it has some steps. ``# once the world has ended``:
  what was left running ends first. These words may stand anywhere in the comment.
- A line right above the fence says why a block is not run, or what it needs:
  ``<!-- needs: ros -->`` (a sourced workspace), ``gpu``, ``browser``, ``terminal``, ``internet``,
  or a list of requirements/ such as ``reference`` (run where that is installed); several with
  commas. ``<!-- heavy: half an hour -->``: it takes too long.
  ``<!-- given: arm.urdf from config/robots/room.urdf -->`` puts a file into the folder,
  ``<!-- save: mine.yaml -->`` the block itself.
- ``make`` is not run: it has its targets checked. So has every other command, run or not: names of
  launch files, arguments, options, parameters, topics, services, types and fields exist. Python is
  checked where the lists that it needs are installed, as that imports what it names.
"""
from concurrent.futures import ThreadPoolExecutor
import importlib.metadata
import json
import os
from pathlib import Path
import re
import signal
import subprocess
import sys
import time
from xml.etree import ElementTree

from doc_commands import check, check_python, lines_of, simple_commands, Wrong
from doc_pages import DOCS, name_of, pages, read, ROOT
from lingbot_world_ros.settings.profiles import load_profile
import pytest
import yaml

if not DOCS.is_dir():
    pytest.skip('docs/ is not installed with the package', allow_module_level=True)

KINDS = ('bash', 'python', 'yaml', 'json', 'xml', 'text')
NOT_HERE = ('ros', 'gpu', 'browser', 'terminal', 'internet')
LISTS = {path.stem: path for path in (ROOT / 'requirements').glob('*.txt')
         if path.stem not in NOT_HERE}
FROM_THE_NET = ('pip', 'pip3', 'git', 'hf', 'curl', 'wget', 'apt', 'apt-get')
OF_A_WORKSPACE = ('ros2', 'colcon', 'rosdep', 'rviz2')
LEFT, ENDED_BY_HAND, AFTER = 'leave it running', 'Ctrl-C ends it', 'once the world has ended'
READY = re.compile(r'Ctrl-C|https?://')  # what a verb says once it runs
HAS_RECORDED = re.compile(r', step \d')
PATIENCE_S, END_S = 400.0, 60.0  # guards against hanging, three pages at a time
PAGES_AT_A_TIME = 3
QUICK = ('README', 'first_run', 'policies', 'your_own_engine', 'your_own_scene', 'your_own_robot')
PAGES = [path for path in pages() if path.parent.name != 'reference']
BLOCKS = [block for path in pages() for block in read(path).blocks]


def is_run(block):
    """Tell whether this machine can run a block."""
    return ((block.kind in ('bash', 'python') or 'save' in block.marks) and
            'heavy' not in block.marks and
            all(need in LISTS and is_installed(LISTS[need]) for need in block.needs))


def is_installed(requirements):
    """Tell whether all packages of a list are there."""
    try:
        for name in re.findall(r'(?m)^[A-Za-z][\w.-]*', requirements.read_text()):
            importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


@pytest.mark.parametrize('path', pages(), ids=name_of)
def test_blocks_say_what_they_are(path):
    page = read(path)
    wrong = [f'{block}: {block.kind!r} is not one of {KINDS}' for block in page.blocks
             if block.kind not in KINDS]
    wrong += [f'{block}: {need!r} is not known' for block in page.blocks for need in block.needs
              if need not in (*NOT_HERE, *LISTS)]
    before = ''
    for number, line in page.lines:
        in_list = re.match(r' *([-*+]|\d+\.) ', before) or before.startswith('  ')
        if line.startswith('    ') and line.strip() and not in_list:
            wrong.append(f'{name_of(path)}:{number}: write a fence, not an indented block')
        before = line if line.strip() else before
    assert wrong == []


@pytest.mark.parametrize('block', [b for b in BLOCKS if b.kind == 'bash'], ids=str)
def test_commands_name_what_there_is(block):
    wrong = []
    for command, _ in lines_of(block.text):
        try:
            check(command)
        except Wrong as error:
            wrong.append(f'{command}\n    {error}')
        for words in simple_commands(command):
            for programs, need in ((FROM_THE_NET, 'internet'), (OF_A_WORKSPACE, 'ros')):
                if words[0] in programs and is_run(block):
                    wrong.append(f'{command}\n    needs a mark: <!-- needs: {need} -->')
    assert wrong == [], f'{block}\n' + '\n'.join(wrong)


@pytest.mark.parametrize('block', [b for b in BLOCKS if b.kind == 'python'], ids=str)
def test_python_names_what_there_is(block):
    pytest.importorskip('rclpy')
    pytest.importorskip('lingbot_world_ros.msg')
    for need in block.needs:
        if need in LISTS and not is_installed(LISTS[need]):
            pytest.skip(f'requirements/{need}.txt is not installed')
    check_python(block.text)


@pytest.mark.parametrize('block', [b for b in BLOCKS if b.kind in ('yaml', 'json', 'xml')],
                         ids=str)
def test_files_can_be_read(block, tmp_path):
    if block.kind == 'json':
        json.loads(block.text)
    elif block.kind == 'xml':
        ElementTree.fromstring(block.text)
    else:
        read_yaml(block, tmp_path)


def read_yaml(block, folder):
    """Load a parameter file or a world file the way the nodes do."""
    path = folder / 'page.yaml'
    path.write_text(block.text)
    content = yaml.safe_load(block.text)
    if 'ros__parameters' in block.text:
        assert load_profile(str(path)) or 'qos_overrides' in block.text
    elif isinstance(content, dict) and 'scene' in content:
        from dataclasses import replace
        from fake_world import FakeWorld
        from lingbot_world_ros.engines.interface import Capabilities
        from lingbot_world_ros.robots.load import load_robot
        from lingbot_world_ros.worlds.definition import IMAGE_SCENE
        from lingbot_world_ros.worlds.library import WorldLibrary
        from lingbot_world_ros.worlds.scenes import SCENES
        spec = replace(FakeWorld(robot=load_robot()).spec, scenes=(*SCENES, IMAGE_SCENE),
                       can=Capabilities(take_prompts=True, take_images=True))
        WorldLibrary(spec, str(folder)).load(path.as_uri(), ignore_assets=True)


class Shell:
    """
    Types the commands of one page.

    Folder and environment carry over from one command to the next; what is left running ends with
    the page.
    """

    def __init__(self, folder, domain):
        """Make a folder to work in, with the programs a reader has installed."""
        self._folder, self._home = folder, folder / 'page'
        programs = self._home / '.venv' / 'bin'
        programs.mkdir(parents=True)
        (programs / 'lingbot-world').write_text(
            f'#!/bin/sh\nexec "{sys.executable}" -m lingbot_world_ros.cli "$@"\n')
        for name in ('python', 'python3'):
            (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        for program in programs.iterdir():
            program.chmod(0o755)
        (programs / 'activate').write_text('')
        self._cwd, self._left, self._number = self._home, {}, 0
        self._env = {**os.environ, 'ROS_DOMAIN_ID': str(domain), 'HOME': str(self._home),
                     'PATH': f'{programs}{os.pathsep}{os.environ.get("PATH", os.defpath)}'}
        # No screen; and no distribution, where cmd_vel may be of another type than on the pages.
        for name in ('DISPLAY', 'WAYLAND_DISPLAY', 'ROS_DISTRO'):
            self._env.pop(name, None)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process, _, _ in self._left.values():
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def give(self, marked):
        """Put files of the repository into the folder; ``marked`` is the text of the mark."""
        for one in filter(None, marked.split(',')):
            name, _, source = one.strip().partition(' from ')
            self.save(name, (ROOT / source).read_bytes())

    def save(self, name, content):
        """Write a file, as an editor does."""
        (self._cwd / name).parent.mkdir(parents=True, exist_ok=True)
        (self._cwd / name).write_bytes(content)

    def type(self, command, comment=''):
        """Run one command as its comment says, and see that it succeeds."""
        verb = ' '.join(command.split()[:2])
        self.look_after()
        if AFTER in comment:
            self.end_all()
        self.end(verb)
        if LEFT in comment:
            self._left[verb] = self._start(command)
            self._wait_until_ready(*self._left[verb])
        elif ENDED_BY_HAND in comment:
            process = self._start(command)
            self._wait_until_ready(*process)
            self._interrupt(*process)
        else:
            self._run(command)

    def look_after(self):
        """See that what was left running still runs."""
        for process, output, command in self._left.values():
            assert process.poll() is None, f'{command}: ended by itself\n{output.read_text()}'

    def end(self, verb):
        """Interrupt what was left running of a verb."""
        if verb in self._left:
            self._interrupt(*self._left.pop(verb))

    def end_all(self):
        """Interrupt all that was left running."""
        for verb in list(self._left):
            self.end(verb)

    def _start(self, command):
        self._number += 1
        output = self._folder / f'output_{self._number}.txt'
        process = subprocess.Popen(
            ['bash', '-c', command], cwd=self._cwd, env=self._env, stdin=subprocess.DEVNULL,
            stdout=output.open('w'), stderr=subprocess.STDOUT, start_new_session=True)
        return process, output, command

    def _wait_until_ready(self, process, output, command):
        deadline_s = time.monotonic() + PATIENCE_S
        ready = HAS_RECORDED if ' record ' in command else READY
        while not ready.search(output.read_text()):
            told = f'{command}\n{output.read_text()}'
            assert process.poll() is None, f'ended by itself: {told}'
            assert time.monotonic() < deadline_s, f'does not say that it runs: {told}'
            time.sleep(0.05)

    def _interrupt(self, process, output, command):
        os.killpg(process.pid, signal.SIGINT)
        try:
            code = process.wait(END_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise AssertionError(f'does not end: {command}\n{output.read_text()}') from None
        assert code in (0, 130, -signal.SIGINT), f'exit code {code}: {command}\n' \
                                                 f'{output.read_text()}'

    def _run(self, command):
        """Run to the end; the shell's folder and variables are kept for the next command."""
        state = self._folder / 'state'
        process, output, _ = self._start(
            f'set -e\n{command}\n{{ pwd; env -0; }} > {str(state)!r}')
        try:
            code = process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            code = f'none after {PATIENCE_S:g} s'
        assert code == 0, f'exit code {code}: {command}\n{output.read_text()}'
        if state.exists():  # else the command was "exec"
            cwd, _, variables = state.read_text().partition('\n')
            self._cwd = Path(cwd)
            self._env = dict(line.split('=', 1) for line in variables.split('\0') if line)


def type_page(path, folder):
    """Type all commands of a page, as a reader does."""
    from ros_domain import Domain
    with Domain() as domain, Shell(folder, domain) as shell:
        for number, block in enumerate(filter(is_run, read(path).blocks)):
            shell.give(block.marks.get('given', ''))
            if 'save' in block.marks:
                shell.save(block.marks['save'], f'{block.text}\n'.encode())
            elif block.kind == 'python':
                script = folder / f'block_{number}.py'
                script.write_text(block.text)
                shell.type(f'python {str(script)!r}')
            else:
                for command, comment in lines_of(block.text):
                    if not command.startswith('make '):
                        shell.type(command, comment)
        shell.look_after()
        shell.end_all()


@pytest.fixture(scope='module')
def typed(request, tmp_path_factory):
    """Type some pages at a time: most of it is waiting for nodes to find each other."""
    for package in ('rclpy', 'lingbot_world_ros.msg', 'simulation_interfaces.srv', 'aiohttp',
                    'cv2', 'openvino', 're2', 'rosbags', 'safetensors'):
        pytest.importorskip(package)
    chosen = [item.callspec.params['path'] for item in request.session.items
              if getattr(item, 'originalname', '') == test_commands_of_a_page_work.__name__
              and item.get_closest_marker('skip') is None]
    with ThreadPoolExecutor(PAGES_AT_A_TIME) as pool:
        yield {path: pool.submit(type_page, path, tmp_path_factory.mktemp(path.stem))
               for path in chosen}


@pytest.mark.parametrize('path', [
    p if p.stem in QUICK else pytest.param(p, marks=pytest.mark.slow)
    for p in PAGES if any(map(is_run, read(p).blocks))], ids=name_of)
def test_commands_of_a_page_work(path, typed):
    typed[path].result()


MISTAKES = [
    ('make sims', 'sims'), ('make bench ARGS=--quik', 'option --quik'),
    ('lingbot-world simm', 'no verb'), ('lingbot-world sim --scen', '--scen'),
    ('lingbot-world sim --profile isac_sim', 'isaac_sim'),
    ('lingbot-world sim --param sped:=2.0', 'speed'),
    ('python -m lingbot_world_ros.training.dataset --ot data', '--ot'),
    ('python -m bench.soke', 'no module'),
    ('ros2 launch lingbot_world_ros sims.launch.py', 'no launch file'),
    ('ros2 launch lingbot_world_ros sim.launch.py scen:=office', "'scen'"),
    ('ros2 launch lingbot_world_ros sim.launch.py mode:=warp', 'warp'),
    ('ros2 launch lingbot_world_ros sim.launch.py lingbot.precision:=fp7', 'fp7'),
    ('ros2 run lingbot_world_ros word_model', 'no executable'),
    ('ros2 topic echo /camera/image', 'no topic'),
    ('ros2 topic echo --qos-durability transient_local /world_spec', '--qos-reliability'),
    ('ros2 topic pub -r 10 /cmd_vel geometry_msgs/msg/Pose "{}"', 'Twist'),
    ('ros2 topic pub -1 /joint_command sensor_msgs/msg/JointState "{names: [a]}"', "'names'"),
    ('ros2 service call /step_simulations simulation_interfaces/srv/StepSimulation', 'no service'),
    ('ros2 service call /step_simulation simulation_interfaces/srv/StepSimulation "{step: 1}"',
     "'step'"),
    ('ros2 param set /world_model mood stepped', "'mood'"),
    ('ros2 param set /world_model engine reference', 'cannot be set'),
    ('ros2 lifecycle set /world_modle configure', 'no node'),
    ('cd x && ros2 topic hz /skan > y', 'no topic')]


@pytest.mark.parametrize('command, words', MISTAKES)
def test_mistakes_in_commands_are_found(command, words):
    pytest.importorskip('lingbot_world_ros.msg')
    pytest.importorskip('simulation_interfaces')
    with pytest.raises(Wrong, match=re.escape(words)):
        check(command)


@pytest.mark.parametrize('text, words', [
    ('print(', 'never closed'), ('from lingbot_world_ros.cli.main import mane', 'mane'),
    ("x('sims.launch.py')", 'no launch file'),
    ("x('sim.launch.py', launch_arguments={'scen': 'office'}.items())", "'scen'")])
def test_mistakes_in_python_are_found(text, words):
    with pytest.raises(Wrong, match=re.escape(words)):
        check_python(text)


@pytest.mark.parametrize('command', [
    'make sim ARGS="--scene office"', 'A=1 lingbot-world sim --scene office --duration 2 | tee x',
    'ros2 launch lingbot_world_ros sim.launch.py profile:=nav2 lingbot.precision:=fp8',
    'ros2 topic pub -r 10 /cmd_vel geometry_msgs/msg/TwistStamped '
    '"{twist: {linear: {x: 0.2}, angular: {z: 0.3}}}"',
    'ros2 topic echo /world_0/camera/image_raw', 'ros2 topic hz /rgb', 'ros2 topic list',
    'ros2 service call /gzserver/step_simulation simulation_interfaces/srv/StepSimulation '
    '"{steps: 1}"',
    'ros2 action send_goal /simulate_steps simulation_interfaces/action/SimulateSteps '
    '"{steps: 10}"', 'ros2 param set /world_model speed 2.0',
    'ros2 service call /world_model/reset std_srvs/srv/Trigger'])
def test_good_commands_pass(command):
    check(command)


def test_commands_are_split_from_their_comments():
    text = ('a "# b" \\\n  --c d#e   # leave it running\n# nothing\n\n'
            "cat > f <<'END'\n# x\nEND\nz")
    assert lines_of(text) == [('a "# b"  --c d#e', 'leave it running'),
                              ("cat > f <<'END'\n# x\nEND", ''), ('z', '')]


def test_marks_are_those_right_above_a_block(tmp_path):
    path = tmp_path / 'page.md'
    path.write_text('<!-- needs: gpu, ros -->\n<!-- given: a from b -->\n```bash\nx\n```\n\n'
                    '<!-- heavy: hours -->\ntext\n\n```text\ny\n```\n')
    first, second = read(path).blocks
    assert first.marks == {'needs': 'gpu, ros', 'given': 'a from b'}
    assert first.needs == ('gpu', 'ros') and second.marks == {}


def test_a_shell_keeps_its_folder_and_tells_what_failed(tmp_path):
    with Shell(tmp_path, 0) as shell:
        shell.type('mkdir a && cd a')
        shell.type('export B="1 2"')
        shell.type('[ "$(basename "$PWD")$B" = "a1 2" ]')
        with pytest.raises(AssertionError, match='(?s)exit code 3.*no luck'):
            shell.type('echo no luck; exit 3')
