# SPDX-License-Identifier: Apache-2.0
"""Reports: one HTML file that loads nothing, says what the recording says, and escapes it."""
import argparse
import base64
from dataclasses import replace
from html.parser import HTMLParser
import json
import logging
from pathlib import Path
import re
from types import SimpleNamespace

from needs import need_engine
import pytest

pytest.importorskip('matplotlib')
pytest.importorskip('jinja2')
pytest.importorskip('PIL')
pytest.importorskip('cv2')
pytest.importorskip('rclpy')
pytest.importorskip('lingbot_world_ros.msg')
pytest.importorskip('rosbags')

from fake_world import FakeClock, FakeWorld  # noqa: E402, I100
from lingbot_world_ros.cli import main as cli, report as verb  # noqa: E402
from lingbot_world_ros.engines.registry import make_world  # noqa: E402
from lingbot_world_ros.environment import NOTE, to_note  # noqa: E402
from lingbot_world_ros.errors import SpecError  # noqa: E402
from lingbot_world_ros.evaluation import metrics  # noqa: E402
from lingbot_world_ros.messages.image import image_to_msg  # noqa: E402
from lingbot_world_ros.messages.world import world_spec_to_msg, world_status_to_msg  # noqa: E402
from lingbot_world_ros.recording.bag import BagWriter  # noqa: E402
from lingbot_world_ros.recording.definitions import message_definition  # noqa: E402
from lingbot_world_ros.recording.replay import RecordedActions  # noqa: E402
from lingbot_world_ros.report import figures  # noqa: E402
from lingbot_world_ros.report.compare import Comparer, errors, integrate  # noqa: E402
from lingbot_world_ros.report.gather import Event, gather, merged  # noqa: E402
from lingbot_world_ros.report.page import check_target, render, write  # noqa: E402
from lingbot_world_ros.report.pictures import difference, evenly, movie  # noqa: E402
from lingbot_world_ros.report.run_page import run_page  # noqa: E402
from lingbot_world_ros.session.observer import SessionObserver  # noqa: E402
from lingbot_world_ros.session.session import Session  # noqa: E402
from lingbot_world_ros.session.spec import SessionSpec  # noqa: E402
from lingbot_world_ros.worlds.definition import WorldDefinition  # noqa: E402
import numpy as np  # noqa: E402
from PIL import Image as PillowImage  # noqa: E402
from rclpy.serialization import serialize_message  # noqa: E402
from waiting import PATIENCE_S  # noqa: E402

HOSTILE = '<script>alert(1)</script><img src="http://evil.example/x.png"> "\'&{{ 7*7 }}'
LATENCIES_S = (0.05, 0.07, 0.11)
IMAGE = '/camera/image_raw'
KINDS = {'/world_spec': 'lingbot_world_ros/msg/WorldSpec',
         '/world_status': 'lingbot_world_ros/msg/WorldStatus', IMAGE: 'sensor_msgs/msg/Image'}


def cdr_of(msg, kind):
    """Serialise a message as it travels; rclpy leaves unused bytes behind an empty float64[]."""
    from rosbags.typesys import get_types_from_msg
    from rosbags.typesys.store import Typestore
    store, cdr = Typestore(), serialize_message(msg)
    store.register(get_types_from_msg(message_definition(kind)[0], kind))
    for end in range(len(cdr), len(cdr) - 8, -1):
        try:
            store.deserialize_cdr(cdr[:end], kind)
            return cdr[:end]
        except Exception as error:  # rosbags: CDR message size mismatch
            problem = error
    raise problem


class Recorder(SessionObserver):
    """Writes what a session tells into a bag, as the recorder of a running world would."""

    def __init__(self, spec, bag, *, images=True, change=lambda msg: None):
        """Announce the topics."""
        self.spec, self.bag, self.images, self.change = spec, bag, images, change
        self.at_ns, self.frames = 10 ** 18, []
        for topic in KINDS if images else list(KINDS)[:2]:
            bag.add_topic(topic, KINDS[topic], latched=topic == '/world_spec')

    def write(self, topic, msg):
        """Append a message."""
        self.bag.write(topic, self.at_ns, cdr_of(msg, KINDS[topic]))

    def on_reset(self, status):
        """Keep the description."""
        self.write('/world_spec', world_spec_to_msg(self.spec, status, 'base_link'))

    def on_frame(self, frame):
        """Keep the picture."""
        self.at_ns += 66_000_000
        self.frames.append(frame.rgb.copy())
        if self.images:
            self.write(IMAGE, image_to_msg(frame.rgb, frame.stamp_ns, 'camera'))

    def on_status(self, status):
        """Keep the status, with a latency that changes now and then."""
        msg = world_status_to_msg(status)
        msg.command_latency = LATENCIES_S[min(status.step // 2, 2)] if status.step else 0.0
        msg.real_time_factor, msg.frame_rate = 0.98, 14.7
        self.change(msg)
        self.at_ns += 1_000_000
        self.write('/world_status', msg)


class Driver:
    """Asks for a gentle arc."""

    def __init__(self, spec):
        self._actions, self._spec = RecordedActions(spec), spec

    def catch_up(self):
        """Nothing comes in."""

    def pull(self, sim_ns, joint_position, by_step=False):
        """Return the same action for every step."""
        action = np.zeros((self._spec.frames_per_step, len(self._spec.action.low)), np.float32)
        action[:, :3] = 0.3, 0.4, -0.2
        self._actions.put([SimpleNamespace(index=self._actions.step_at(sim_ns), actions=action)])
        return self._actions.pull(sim_ns, joint_position)


def make_recording(folder, world, scene, num_steps=20, *, spec=None, note=None, again=False,
                   **options):
    """Let a world run and record it; return the recorder."""
    bag = BagWriter(folder)
    if note is not None:
        bag.note(NOTE, note)
    recorder = Recorder(spec or world.spec, bag, **options)
    session = Session(world, SessionSpec(mode='stepped', initial_state='paused'),
                      observers=[recorder], log=logging.getLogger('test'), clock=FakeClock())
    session.link(Driver(world.spec))
    session.start(WorldDefinition(scene, scene, seed=3)).result(PATIENCE_S)
    session.advance(num_steps).result(PATIENCE_S)
    if again:
        session.reset(seed=4).result(PATIENCE_S)
        session.advance(5).result(PATIENCE_S)
    session.close()
    bag.close()
    return recorder


class Page(HTMLParser):
    """Collects what a browser would load, and the text it would show."""

    def __init__(self, html):
        super().__init__()
        self.loads, self.tags, self.text = [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        """Keep what is loaded."""
        self.tags.append(tag)
        for name, value in attrs:
            if name in ('src', 'srcset', 'href', 'data', 'poster') or name.endswith(':href'):
                self.loads.append(value)
            assert not name.startswith('on'), f'{tag} has a handler {name}'

    def handle_data(self, data):
        """Keep the text."""
        self.text.append(data)


def opened(path):
    html = Path(path).read_text()
    page = Page(html)
    assert 'script' not in page.tags and 'iframe' not in page.tags and 'link' not in page.tags
    assert page.loads and all(load.startswith(('data:image/', '#')) for load in page.loads)
    assert not re.findall(r'@import|url\((?!#)', html)
    assert "default-src 'none'" in html
    return page, ' '.join(' '.join(page.text).split())


def report(*args):
    parser = argparse.ArgumentParser()
    verb.add_arguments(parser)
    return verb.run(parser.parse_args([str(arg) for arg in args]))


@pytest.fixture(autouse=True)
def fewer_states_behind_the_mean_image(monkeypatch):
    monkeypatch.setattr('lingbot_world_ros.report.compare.NUM_MEAN_STATES', 10)


@pytest.fixture(scope='module')
def reference():
    need_engine('reference')
    return make_world('reference')


@pytest.fixture(scope='module')
def recorded(reference, tmp_path_factory):
    """Record 20 steps of the reference world; it stands in for an imagination that is perfect."""
    folder = tmp_path_factory.mktemp('run') / 'run'
    recorder = make_recording(folder, reference, 'office', note=to_note(
        {'command': 'lingbot-world record -o run --reset', 'processor': 'A <b>CPU</b>'}))
    return folder, recorder


@pytest.fixture(scope='module')
def fake_run(tmp_path_factory):
    """Record a world that no reference knows, with two segments."""
    folder = tmp_path_factory.mktemp('fake') / 'run'

    def trouble(msg):
        if msg.step >= 10:
            msg.rejected_commands, msg.message = 3, f'cmd_vel: refused {HOSTILE}'
        msg.late_frames = 2 if msg.step >= 5 else 0

    make_recording(folder, FakeWorld(), 'a', again=True, change=trouble)
    return folder


def test_a_run_becomes_one_file_that_loads_nothing(recorded, tmp_path, capsys):
    folder, _ = recorded
    out = tmp_path / 'x.html'
    assert report(folder, '-o', out, '--verify') == 0
    assert re.fullmatch(r'Written: .*x.html \([\d.]+ MB, made in [\d.]+ s\)\n',
                        capsys.readouterr().out)
    page, text = opened(out)
    assert out.stat().st_size < 1_000_000
    for words in ('office', 'truth beside imagination', 'lingbot-world record -o run --reset',
                  'A <b>CPU</b>', 'Command-to-frame latency', 'same', 'Film strip'):
        assert words in text
    images = [load for load in page.loads if load.startswith('data:image/')]
    assert len(images) >= 3 * 8 + 2
    for load in images:
        kind, _, data = load.partition(';base64,')
        with PillowImage.open(__import__('io').BytesIO(base64.b64decode(data))) as image:
            image.load()
            assert kind == f'data:image/{image.format.lower()}' and image.size[0] >= 64
    assert page.tags.count('svg') >= 6


def test_numbers_are_those_of_the_recording(recorded):
    folder, recorder = recorded
    recording = gather(folder)
    assert (recording.num_frames, len(recording.episodes)) == (21, 1)
    assert recording.sim_s == pytest.approx(20 / 15)
    assert recording.latencies_s == pytest.approx(LATENCIES_S)
    comparison = Comparer(recording).compare(recording.episodes[0])
    assert comparison.imagined.num_images == 21 and not comparison.no_truth
    assert all(np.array_equal(a, b) for a, b in zip(comparison.imagined.rgb, recorder.frames))
    found = comparison.errors
    assert found['psnr_db'].tolist() == [60.0] * 21  # the engine is the truth here
    first = metrics.psnr(recorder.frames[0], recorder.frames[20])
    assert found['psnr_first_db'][20] == pytest.approx(float(first))
    assert found['psnr_mean_db'].max() < 40
    html = render(run_page(recording, Comparer(recording)))
    assert f'{float(first):.1f}' in html
    low, high = np.percentile(np.array(LATENCIES_S) * 1e3, (50, 95))
    assert f'{low:.0f} ms' in html and f'p95 {high:.0f} ms' in html


@pytest.mark.slow
def test_without_images_the_imagination_is_made_again(reference, tmp_path):
    recorder = make_recording(tmp_path / 'run', reference, 'workshop', 6, images=False)
    recording = gather(tmp_path / 'run')
    comparison = Comparer(recording, '').compare(recording.episodes[0])
    assert 'computed again' in comparison.imagined.source
    assert all(np.array_equal(a, b) for a, b in zip(comparison.imagined.rgb, recorder.frames))
    assert comparison.no_truth == 'it was not asked for.'


@pytest.mark.slow
def test_a_world_the_reference_does_not_know_has_no_truth(fake_run, tmp_path):
    assert report(fake_run, '-o', tmp_path / 'x.html', '--title', HOSTILE) == 0
    _, text = opened(tmp_path / 'x.html')
    assert 'No truth: ' in text and 'none of the reference world' in text
    assert 'Segment 2: a, seed 4' in text
    assert HOSTILE in text  # as words, in title and message
    assert 'late frames 4' in text and 'of 27' in text


def test_counters_and_events_come_from_the_status(fake_run):
    recording = gather(fake_run)
    assert recording.counts['refused'] == 3 and recording.counts['late frames'] == 4
    kinds = [event.kind for event in recording.events]
    assert kinds.count('start') == 2 and kinds.count('refused') >= 1


def test_events_of_one_kind_are_put_together():
    events = [Event(1.0, 'clipped', '1 command clipped'), Event(1.5, 'state', 'paused'),
              Event(2.0, 'clipped', '2 commands clipped: too fast'),
              Event(9.0, 'clipped', '1 command clipped')]
    assert [(e.wall_s, e.kind) for e in merged(events)] == [
        (1.0, 'clipped'), (1.5, 'state'), (9.0, 'clipped')]
    assert merged(events)[0].text == '3 commands clipped in 1.0 s: too fast'


def test_a_truth_that_is_not_installed_is_told(recorded, tmp_path, monkeypatch):
    from lingbot_world_ros.report import compare

    def missing(engine, **options):
        raise SpecError(f'Engine {engine!r} needs the Python package mujoco: pip install mujoco.')

    monkeypatch.setattr(compare, 'make_world', missing)
    assert report(recorded[0], '-o', tmp_path / 'x.html') == 0
    assert "No truth: Engine 'reference' needs" in opened(tmp_path / 'x.html')[1]


@pytest.mark.slow
def test_a_recording_without_its_beginning_shows_what_it_has(reference, tmp_path):
    make_recording(tmp_path / 'run', reference, 'office', 12)
    whole = gather(tmp_path / 'run').episodes[0]
    bag = BagWriter(tmp_path / 'late')
    recorder = Recorder(reference.spec, bag)
    session = Session(reference, SessionSpec(mode='stepped', initial_state='paused'),
                      observers=[recorder], log=logging.getLogger('test'), clock=FakeClock())
    session.link(Driver(reference.spec))
    write_message, recorder.write = recorder.write, lambda topic, msg: (
        write_message(topic, msg) if topic == '/world_spec' or session.status.step >= 5 else None)
    session.start(WorldDefinition('office', 'office', seed=3)).result(PATIENCE_S)
    session.advance(12).result(PATIENCE_S)
    session.close()
    bag.close()
    assert report(tmp_path / 'late', '-o', tmp_path / 'x.html') == 0
    text = opened(tmp_path / 'x.html')[1]
    assert 'No truth: its first' in text and 'What the engine was told' in text
    assert len(whole.step) == 13


@pytest.mark.slow
def test_long_segments_are_cut_and_that_is_told(recorded, tmp_path):
    assert report(recorded[0], '-o', tmp_path / 'x.html', '--seconds', '0.5') == 0
    assert '13 frames beyond the limit of this report' in opened(tmp_path / 'x.html')[1]


# Files


def test_foreign_files_are_not_overwritten(recorded, tmp_path):
    out = tmp_path / 'x.html'
    out.write_text('<html>my thesis</html>')
    with pytest.raises(SpecError, match='--force'):
        report(recorded[0], '-o', out, '--engine', 'none')
    assert out.read_text() == '<html>my thesis</html>'
    assert report(recorded[0], '-o', out, '--engine', 'none', '--force') == 0
    assert report(recorded[0], '-o', out, '--engine', 'none') == 0  # ours may be made again


def test_places_that_cannot_be_written_are_one_error(tmp_path):
    for path, words in ((tmp_path, 'is a folder'), (tmp_path / 'no' / 'x.html', 'no folder')):
        with pytest.raises(SpecError, match=words):
            check_target(path, False)
    with pytest.raises(SpecError, match='cannot be written'):
        write('x', Path('/proc/nothing.html'))


@pytest.mark.parametrize('content, words', [
    (None, 'There is no'), ({}, 'not a recording'), ({'metadata.yaml': 'x: ['}, 'cannot be read'),
    ({'evaluation.json': '{'}, 'cannot be read'), ({'evaluation.json': '[]'}, 'no evaluation'),
    ({'evaluation.json': '{"methods": 1, "settings": {}, "targets": 0}'}, 'no whole evaluation')])
def test_damaged_runs_end_in_one_sentence(tmp_path, capsys, content, words):
    run = tmp_path / 'run'
    if content is not None:
        run.mkdir()
        for name, text in content.items():
            (run / name).write_text(text)
    assert cli.main(['report', str(run)]) == 2
    said = capsys.readouterr().err
    assert said.startswith('error: ') and words in said and said.count('\n') == 1
    assert not (tmp_path / 'run.html').exists()


def test_a_recording_that_broke_off_is_one_sentence(recorded, tmp_path, capsys):
    data = next(recorded[0].glob('*.mcap')).read_bytes()
    (tmp_path / 'broken.mcap').write_bytes(data[:len(data) // 2])
    assert cli.main(['report', str(tmp_path / 'broken.mcap')]) == 2
    assert 'the recorder did not get to end it' in capsys.readouterr().err


def test_missing_packages_are_named_with_the_pip_line(recorded, monkeypatch):
    monkeypatch.setitem(verb.PACKAGES, 'no_such_package_here', 'no-such-thing')
    with pytest.raises(SpecError, match='pip install no-such-thing'):
        report(recorded[0])


# Evaluation


@pytest.mark.slow
def test_an_evaluation_becomes_one_file(reference, tmp_path):
    from lingbot_world_ros.evaluation.evaluate import evaluate, EvaluationSpec
    from lingbot_world_ros.evaluation.tables import write_report
    results, rollouts = evaluate(EvaluationSpec(
        engine='reference', num_sequences=3, num_sets=1, horizons=(1, 5), num_trials=0,
        batch_size=1, num_mean_states=2), tmp_path / 'truth')
    assert list(results['by_scene']) == results['scenes']
    results['made_by'] = {'command': f'lingbot-world evaluate {HOSTILE}'}
    write_report(results, rollouts[0], tmp_path / 'run')
    assert report(tmp_path / 'run') == 0
    _, text = opened(tmp_path / 'run.html')
    assert 'reference against the reference world' in text and HOSTILE in text
    entry = results['methods']['copy last']['psnr_db']['5']
    assert f'{entry["mean"]:.2f}' in text
    assert f'({entry["low"]:.2f} to {entry["high"]:.2f})' in text
    for scene in results['scenes']:
        assert text.count(scene) >= 4
    (tmp_path / 'run' / 'strip.png').unlink()
    old = json.loads((tmp_path / 'run' / 'evaluation.json').read_text())
    del old['by_scene'], old['made_by']
    (tmp_path / 'run' / 'evaluation.json').write_text(json.dumps(old))
    assert report(tmp_path / 'run' / 'evaluation.json', '-o', tmp_path / 'run.html') == 0
    assert 'written by an older version' in opened(tmp_path / 'run.html')[1]


def test_evaluations_with_names_of_before_are_read(tmp_path):
    from lingbot_world_ros.report.evaluation_page import read_results
    file = tmp_path / 'evaluation.json'
    file.write_text(json.dumps({
        'methods': {'textbook': {'psnr_db': 1}}, 'settings': {'textbook': 'textbook.safetensors'},
        'targets': [], 'obedience': {'forward': {'right': 1.0}}, 'obedience_worst': 0.9}))
    assert read_results(file) == {
        'methods': {'baseline': {'psnr_db': 1}}, 'settings': {'baseline': 'textbook.safetensors'},
        'targets': [], 'command_fidelity': {'forward': {'right': 1.0}},
        'command_fidelity_worst': 0.9}


# Parts


def test_the_path_is_drawn_without_words_from_matplotlib(caplog):
    poses = np.array([[0.0, 1.0, 0.0], [0.4, 1.7, 1.0]])
    assert 'Path of the base' in figures.path(poses, poses + 0.01, None)
    assert not caplog.records


def test_commands_integrate_to_an_arc(recorded):
    episode = gather(recorded[0]).episodes[0]
    poses = integrate(episode, np.zeros(3))
    t = 20 / 15
    assert poses.shape == (21, 3) and poses[-1, 2] == pytest.approx(0.4 * t)
    assert poses[-1, :2] == pytest.approx([0.75 * np.sin(0.4 * t), 0.75 * (1 - np.cos(0.4 * t))],
                                          abs=1e-5)


def test_state_errors_by_hand(recorded):
    recording = gather(recorded[0])
    frames = Comparer(recording).compare(recording.episodes[0]).truth
    moved = replace(frames, pose=frames.pose + [0.3, 0.4, np.radians(2) + 2 * np.pi],
                    joints=frames.joints + [0.1, -0.1, 0.1, 0.1, 9.0])
    found = errors(moved, frames, recording.episodes[0].spec)
    assert found['position_m'] == pytest.approx(np.full(21, 0.5))
    assert found['yaw_deg'] == pytest.approx(np.full(21, 2.0))
    assert found['joint_rad'] == pytest.approx(np.full(21, 0.1))  # the gripper is in metres


def test_pictures_by_hand():
    black, grey = np.zeros((6, 8, 3), np.uint8), np.full((6, 8, 3), 20, np.uint8)
    assert (difference(black, grey) == 60).all() and difference(black, None) is None
    assert evenly(300, 3) == [0, 150, 299] and evenly(1, 8) == [0] and evenly(2, 8) == [0, 1]
    shown = movie([(None,), (black,), (grey,)], 0.1)
    assert shown.speed == pytest.approx(1.0) and shown.width_px == 8
    fast = movie([(black, grey)] * 330, 1 / 15)
    assert fast.speed == pytest.approx(3 / 15 / 0.08)


@pytest.mark.slow
def test_frames_of_long_steps_find_their_place(tmp_path):
    recorder = make_recording(tmp_path / 'run', FakeWorld(frames_per_step=4), 'a', 5, again=True)
    recording = gather(tmp_path / 'run')
    assert [c.num_frames for c in recording.episodes] == [21, 21]
    assert recording.num_frames == 42 and recording.sim_s == pytest.approx(
        40 / FakeWorld(frames_per_step=4).spec.frame_rate_hz)
    frames = [Comparer(recording).compare(episode).imagined.rgb for episode in recording.episodes]
    assert all(np.array_equal(a, b) for a, b in zip(frames[0] + frames[1], recorder.frames))


@pytest.mark.slow
def test_a_teleport_moves_truth_and_imagination(reference, tmp_path):
    bag = BagWriter(tmp_path / 'run')
    recorder = Recorder(reference.spec, bag, images=False)
    session = Session(reference, SessionSpec(mode='stepped', initial_state='paused'),
                      observers=[recorder], log=logging.getLogger('test'), clock=FakeClock())
    session.link(Driver(reference.spec))
    session.start(WorldDefinition('office', 'office', seed=3)).result(PATIENCE_S)
    session.advance(4).result(PATIENCE_S)
    session.move('robot', pose=(0.5, 0.4, 1.0)).result(PATIENCE_S)
    session.advance(4).result(PATIENCE_S)
    session.close()
    bag.close()
    recording = gather(tmp_path / 'run')
    found = Comparer(recording).compare(recording.episodes[0])
    assert found.truth.pose[5, :2] == pytest.approx([0.5, 0.4], abs=0.05)
    assert found.integrated[5, :2] == pytest.approx([0.5, 0.4], abs=0.05)
    assert found.errors['position_m'].max() == 0.0
    assert 'moved' in [event.kind for event in recording.events]


def test_a_report_lies_beside_its_run_under_the_same_name(tmp_path, capsys):
    """Those of run.1 and run.2 were one file."""
    (tmp_path / 'run.1').mkdir()
    assert verb._beside(tmp_path / 'run.1') == tmp_path / 'run.1.html'
    assert verb._beside(tmp_path / 'run.2.mcap') == tmp_path / 'run.2.html'
    assert cli.main(['report', str(tmp_path / ('n' * 300))]) == 2
    assert 'There is no' in capsys.readouterr().err
