# SPDX-License-Identifier: Apache-2.0
"""The recurrent learned world, from an aligned recording to a folder that runs without torch."""
from dataclasses import replace
import json
from pathlib import Path
import subprocess
import sys

from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.evaluation.learned import evaluate_learned, mean_picture
from lingbot_world_ros.recording.aligned import AlignedWriter, load_aligned
from lingbot_world_ros.recording.delay import command_delays
import numpy as np
import pytest

LAG = 3  # frames from the steering to the picture that follows it
SIZE = 48, 32  # width and height
PIXELS = 2.0  # that the picture moves at full steering in a frame


def drive(folder, num_frames=700, seed=0, pieces=((0, 420), (420, 560), (560, 700))):
    """Record a long textured wall that a car turns past, LAG frames after it was told to."""
    rng = np.random.default_rng(seed)
    wall = np.kron(rng.integers(40, 220, (4, 200, 3)), np.ones((8, 8, 1))).astype(np.float32)
    steering = np.repeat(rng.uniform(-1, 1, num_frames // 5 + 1), 5)[:num_frames]
    writer, place = AlignedWriter(folder), 600.0
    for frame in range(num_frames):
        place -= PIXELS * steering[max(frame - 1 - LAG, 0)]  # to the left: the wall goes right
        columns = (np.arange(SIZE[0]) + place) % wall.shape[1]
        left, share = columns.astype(int), (columns % 1)[None, :, None]
        view = wall[:, left] * (1 - share) + wall[:, (left + 1) % wall.shape[1]] * share
        writer.add(rgb=view.astype(np.uint8), action=np.array([0.5, steering[frame]]))
    return writer.close(name='wall', rate_hz=20.0, segments=pieces,
                        action_names=('linear_x', 'angular_z'))


@pytest.fixture(scope='module')
def recording(tmp_path_factory):
    """Return an aligned recording of three pieces."""
    return drive(tmp_path_factory.mktemp('aligned') / 'wall')


@pytest.fixture(scope='module')
def world(recording, tmp_path_factory):
    """Return the folder of a world that was trained for a moment."""
    pytest.importorskip('torch')
    pytest.importorskip('onnx')
    from lingbot_world_ros.training import export_recurrent, train_recurrent
    base = tmp_path_factory.mktemp('world')
    folder = Path(recording.rgb.filename).parent
    train = ['--recording', str(folder), '--out', str(base / 'run'), '--channels', '16',
             '--rows', '4', '--horizon', '6', '--held-out', '1', '--minutes', '60']
    train_recurrent.main([*train, '--max-steps', '2'])
    train_recurrent.main([*train, '--max-steps', '3'])
    export_recurrent.main(['--run', str(base / 'run'), '--recording', str(folder), '--held-out',
                           '1', '--out', str(base / 'wall'), '--name', 'wall', '--source', 'here',
                           '--licence', 'MIT'])
    return base / 'wall'


@pytest.fixture(scope='module')
def model(world):
    """Return the world, opened."""
    from lingbot_world_ros.models.recurrent.runtime import RecurrentModel
    return RecurrentModel(world)


def copied(state):
    """Return a snapshot."""
    return {name: array.copy() for name, array in state.items()}


def test_delay_is_found_with_sign_and_scale(recording):
    """The wall moves to the right after a turn to the left, LAG frames later."""
    _, steering = command_delays(recording)
    assert abs(steering.lag_frames - LAG) <= 1
    assert steering.found and steering.correlation > 0.8 and steering.sign == 1
    assert steering.scale * (0.5 if steering.by_speed else 1) * SIZE[0] == pytest.approx(
        PIXELS, rel=0.35)


def test_delay_is_not_found_when_commands_do_nothing(recording):
    """Commands of another drive move nothing."""
    other = np.array(recording.action)
    other[:, 1] = np.repeat(np.random.default_rng(5).uniform(-1, 1, 140), 5)
    assert not command_delays(replace(recording, action=other))[1].found


def test_delay_needs_commands_and_a_long_piece(recording):
    """Both errors say what is missing."""
    with pytest.raises(SpecError, match='no commands'):
        command_delays(replace(recording, action=None))
    with pytest.raises(SpecError, match='no stretch'):
        command_delays(replace(recording, segments=((0, 20),)))


def test_split_keeps_everything_after_the_first_held_out_piece_out(recording):
    """What was recorded later teaches nothing, pieces too short to count neither."""
    pytest.importorskip('torch')
    from lingbot_world_ros.training.recurrent_data import split_drives
    pieces = ((0, 300), (300, 420), (420, 440), (440, 560), (560, 700))
    drives = split_drives([replace(recording, segments=pieces)], 3)
    assert drives.training == ((0, 300),)
    assert drives.held_out == ((300, 420), (440, 560), (560, 700))
    with pytest.raises(SpecError, match='record more'):
        split_drives([recording], 3)
    with pytest.raises(SpecError, match='align both'):
        split_drives([recording, replace(recording, rate_hz=10.0)], 1)


def test_training_goes_on_where_it_stopped_and_tells(world):
    """The curve has a row of each attempt; the best weights are told with their score."""
    run = world.parent / 'run'
    rows = [json.loads(line) for line in (run / 'curve.jsonl').read_text().splitlines()]
    assert [row['step'] for row in rows] == [2, 3]
    assert all(np.isfinite(row['psnr_20']) and 'gap' in row for row in rows)
    assert json.loads((run / 'best.json').read_text())['step'] in (2, 3)
    assert (run / 'pictures.png').exists()


def test_training_begins_with_the_weights_of_another_world(world, recording, tmp_path):
    """What fits is taken over, of a larger tensor a corner."""
    from lingbot_world_ros.models.recurrent.network import load_recurrent
    from lingbot_world_ros.training import train_recurrent
    weights = world.parent / 'run' / 'recurrent.safetensors'
    folder = Path(recording.rgb.filename).parent
    train_recurrent.main(['--recording', str(folder), '--out', str(tmp_path), '--channels', '24',
                          '--rows', '4', '--horizon', '2', '--held-out', '1', '--max-steps', '1',
                          '--matrix-rate', '0', '--learning-rate', '0', '--start', str(weights)])
    ours, theirs = (load_recurrent(path).encoder[4].weight.detach().numpy()
                    for path in (tmp_path / 'recurrent.safetensors', weights))
    assert ours.shape[0] == 24
    np.testing.assert_allclose(ours[:16], theirs, rtol=0.01, atol=1e-5)


def test_a_camera_that_has_not_moved_sees_the_same_and_one_that_turned_left_sees_it_to_the_right():
    """Rays are bent and straightened again; what is out of view is told."""
    torch = pytest.importorskip('torch')
    from lingbot_world_ros.models.recurrent.floor import Floor
    picture = torch.rand(1, 3, 48, 64, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.avg_pool2d(picture, 9, 1, 4)
    floor = Floor()
    with torch.no_grad():
        same, is_shown = floor(smooth, torch.zeros(1, 3))
        inner = (slice(None), slice(None), slice(4, -4), slice(6, -6))
        assert torch.allclose(same[inner], smooth[inner], atol=0.01) and is_shown[inner].all()
        turned, is_shown = floor(smooth, torch.tensor([[0.0, 0.0, 0.3]]))
        assert is_shown[0, 0, 24, -8:].all() and not is_shown[0, 0, 24, :8].any()
        shifts = [float((turned[..., 12:-12, 30:50] - smooth[..., 12:-12, 30 - n:50 - n]).abs()
                        .mean()) for n in range(-12, 13)]
        assert np.argmin(shifts) - 12 > 3
        behind, is_shown = floor(smooth, torch.tensor([[-3.0, 0.0, 0.0]]))
        assert not is_shown[0, 0, -4:].any()  # nobody saw the floor before its feet


def test_motion_is_seen_in_pictures_alone(recording):
    """Turns are found, with their sign, where nobody commands them."""
    torch = pytest.importorskip('torch')
    from lingbot_world_ros.models.recurrent.network import RecurrentNetwork, RecurrentSpec
    from lingbot_world_ros.training.odometry import learn_odometry, motions_of
    from lingbot_world_ros.training.recurrent_data import split_drives
    torch.manual_seed(0)
    model = RecurrentNetwork(RecurrentSpec(*SIZE, action_dim=2, channels=16))
    drives = split_drives([recording], 1)
    told = learn_odometry(model, drives, 60.0, 0, max_steps=80)
    assert told['steps'] == 80
    felt = motions_of(model, drives)[:, 2].numpy()
    turns = np.array(recording.action)[:, 1]
    assert np.corrcoef(felt[LAG + 1:], turns[:-LAG - 1])[0, 1] > 0.7


def test_what_is_remembered_is_drawn_anew_row_by_row(model):
    """A row alone does what it does beside one whose picture is of another age."""
    young, old = model.start(0), model.start(1)
    action = np.array([[0.5, 0.2]], np.float32)
    for _ in range(13):
        old = model.step(old, action)
    both = {name: np.concatenate([young[name], old[name]]) for name in young}
    for frame in range(30):
        young, old = model.step(young, action), model.step(old, action)
        both = model.step(both, np.repeat(action, 2, 0))
        assert both['age'].tolist() == [frame + 1, frame + 14]
        anew = both['pose'].any(1)
        assert anew.all() or frame in (0, 7, 20, 27)
    for i, alone in enumerate((young, old)):
        assert np.abs(both['key'][i] - alone['key'][0]).max() < 0.02
        assert np.abs(both['pose'][i] - alone['pose'][0]).max() < 1e-3
    assert np.isfinite(model.draw(both)[1]).all()


def test_steps_of_muon_are_orthogonal():
    """Singular values end near one, whatever they were."""
    torch = pytest.importorskip('torch')
    from lingbot_world_ros.training.orthogonal import orthogonal
    matrix = torch.randn(24, 60, generator=torch.Generator().manual_seed(0))
    for shaped in (matrix, matrix.T):
        values = torch.linalg.svdvals(orthogonal(shaped))
        assert 0.5 < float(values.min()) and float(values.max()) < 1.4


def test_folder_says_what_the_world_is(world, model):
    """Source, licence, ranges and delays are there."""
    assert (model.about['source'], model.about['licence']) == ('here', 'MIT')
    assert model.action_names == ('linear_x', 'angular_z')
    assert model.action_low[1] >= -1 and model.action_high[1] <= 1
    assert set(model.about['delays']) == {'linear_x', 'angular_z'}
    assert model.rate_hz == 20.0 and (model.width_px, model.height_px) == SIZE


def test_same_seed_gives_the_same_drive(model):
    """Two drives of one seed agree to the bit, those of two seeds do not."""
    def pictures(seed):
        state, rng = model.start(3), np.random.default_rng(seed)
        for _ in range(5):
            state = model.step(state, np.array([[0.5, 0.3]]), rng)
        return model.draw(state)[0]

    assert np.array_equal(pictures(1), pictures(1))
    assert not np.array_equal(pictures(1), pictures(2))


def test_snapshot_is_untouched_when_the_world_goes_on(model):
    """A step changes no array that it was given, and shares none."""
    state = model.start(0)
    before = copied(state)
    after = model.step(state, np.array([[0.5, 1.0]]))
    for name, array in before.items():
        assert np.array_equal(array, state[name])
        assert not np.shares_memory(state[name], after[name])
    once, _ = model.draw(model.step(before, np.array([[0.5, 1.0]])))
    assert np.array_equal(once, model.draw(after)[0])


def test_rows_do_not_know_of_each_other(model):
    """A batch draws what its rows would draw alone."""
    states = [model.start(seed) for seed in range(3)]
    actions = np.array([[0.5, 0.1], [0.4, -0.5], [0.5, 0.9]], np.float32)
    batch = {name: np.concatenate([state[name] for state in states]) for name in states[0]}
    together, doubt = model.draw(model.step(batch, actions))
    assert together.shape == (3, SIZE[1], SIZE[0], 3) and together.dtype == np.uint8
    assert doubt.shape == (3,) and np.all((doubt >= 0) & (doubt <= 1))
    for i, state in enumerate(states):
        alone, _ = model.draw(model.step(state, actions[i:i + 1]))
        assert np.abs(alone[0].astype(int) - together[i]).max() <= 1


def test_true_pictures_correct_the_state(model, recording):
    """What is seen changes what is drawn, and how well it is redrawn is told."""
    state = model.blank()
    other = copied(state)
    for frame in range(model.num_context):
        state = model.observe(state, recording.rgb[frame:frame + 1], np.array([[0.5, 0.0]]))
        other = model.observe(other, recording.rgb[200:201], np.array([[0.5, 0.0]]))
    assert not np.array_equal(model.draw(state)[0], model.draw(other)[0])
    assert 0 <= state['surprise'][0] < other['surprise'][0] + 1


def test_minutes_stay_finite(model):
    """However long and whatever the command, values stay within their bounds."""
    state, rng = model.start(0), np.random.default_rng(0)
    for _ in range(1500):
        state = model.step(state, np.array([[5.0, -5.0]]), rng)
    assert all(np.isfinite(array).all() for array in state.values())
    assert np.abs(state['field']).max() <= 1.0 and np.abs(state['hidden']).max() <= 1.0


def test_unheard_of_commands_raise_doubt(model):
    """A command far outside of the recording is flagged, one out of it is not."""
    def doubt(throttle):
        state = model.start(5)
        for _ in range(8):
            state = model.step(state, np.array([[throttle, 0.0]]))
        return model.draw(state)[1][0]

    assert doubt(9.0) > model.calibration.familiar
    assert doubt(9.0) > doubt(0.5)


def test_pictures_of_another_place_raise_doubt(model, recording):
    """What was never seen is flagged as long as it is looked at, what was seen is not."""
    def doubt(pictures):
        state = model.blank()
        for frame in range(model.num_context):
            sent = recording.action[300 + frame:301 + frame]
            state = model.observe(state, pictures[frame:frame + 1], sent)
        return state['surprise'][0] / model.calibration.limits['surprise'], model.draw(state)[1][0]

    rng = np.random.default_rng(0)
    foreign = rng.integers(0, 256, (model.num_context, SIZE[1], SIZE[0], 3), np.uint8)
    known, _ = doubt(recording.rgb[301:])
    strange, expected = doubt(np.sort(foreign, 2))
    assert known < 1 < strange and expected > model.calibration.familiar


def test_runtime_needs_no_torch():
    """A robot that only runs a learned world need not have it."""
    code = ('import sys; import lingbot_world_ros.models.recurrent.runtime, '
            'lingbot_world_ros.evaluation.recurrent_world; assert "torch" not in sys.modules')
    subprocess.run([sys.executable, '-c', code], check=True, timeout=120)


def test_broken_folders_are_told(world, tmp_path):
    """Nothing there, no YAML, another kind: each has its words."""
    from lingbot_world_ros.models.recurrent.runtime import RecurrentModel
    with pytest.raises(SpecError, match='is missing'):
        RecurrentModel(tmp_path)
    (tmp_path / 'world.yaml').write_text('kind: [')
    with pytest.raises(SpecError, match='is corrupt'):
        RecurrentModel(tmp_path)
    (tmp_path / 'world.yaml').write_text('kind: mapped\nformat: 1\n')
    with pytest.raises(SpecError, match='kind mapped'):
        RecurrentModel(tmp_path)
    (tmp_path / 'world.yaml').write_text((world / 'world.yaml').read_text())
    with pytest.raises(SpecError, match='starts.safetensors'):
        RecurrentModel(tmp_path)


class Told:
    """A world that copies the frame its commands belong to: perfect, and it heeds commands."""

    num_context = 4

    def reset_from(self, recording, begins, seed):
        """Begin."""
        self.recording, self.frame = recording, begins + self.num_context - 1

    def step(self, action):
        """Go where the recording has this command."""
        self.frame = self.frame + 1
        self.action = action

    def draw(self):
        """Show it, wrong by as much as the command is another one's."""
        rgb = self.recording.rgb[self.frame]
        off = np.abs(self.action - self.recording.action[self.frame - 1]).max(1) > 0
        rgb = np.where(off[:, None, None, None], 255 - rgb, rgb)
        return rgb, np.full(len(rgb), 0.01)


def test_measures_tell_a_perfect_world_from_idle_ones(recording):
    """No error, a large gain over what stands still, and a price for commands of others."""
    pieces = recording.segments[1:]
    told = evaluate_learned(Told(), recording, pieces=pieces, num_starts=40,
                            mean_rgb=mean_picture(recording, recording.segments[:1]))
    assert list(told['horizons']) == [1, 5, 20, 60]  # no piece has room for 200
    second = told['horizons'][20]
    assert second['world']['psnr'] == (60.0, 60.0, 60.0)
    assert second['world']['sharpness'][0] == pytest.approx(1)
    assert second['gain_db'][1] > 20 and second['shuffling_costs_db'][1] > 20
    assert second['mean_picture']['sharpness'][0] < 0.8
    assert second['uncertainty']['covered'] == 1.0
    assert json.loads(json.dumps(told))['num_starts'] == 40


def test_measures_refuse_what_they_cannot_use(recording):
    """Both errors name the recording."""
    with pytest.raises(SpecError, match='wall has no commands'):
        evaluate_learned(Told(), replace(recording, action=None))
    with pytest.raises(SpecError, match='wall has no piece'):
        evaluate_learned(Told(), recording, pieces=((0, 4),))


def test_learned_world_is_measured_like_any_other(model, recording):
    """A recording of other pictures is refused in words."""
    from lingbot_world_ros.evaluation.recurrent_world import RecurrentWorld
    told = evaluate_learned(RecurrentWorld(model), recording, pieces=recording.segments[2:],
                            horizons=(1, 5), num_starts=6)
    assert np.isfinite(told['horizons'][5]['world']['psnr']).all()
    with pytest.raises(SpecError, match='align the recording'):
        evaluate_learned(RecurrentWorld(model), replace(recording, rate_hz=10.0), horizons=(1,))


def test_aligned_recording_survives_the_disk(recording):
    """What the training reads is what was written."""
    again = load_aligned(Path(recording.rgb.filename).parent)
    assert again.segments == recording.segments
    assert np.array_equal(again.action, recording.action)


def test_world_begins_where_a_recording_does_and_the_recording_goes_on(world, recording):
    """A seed names a piece: the world has seen the true pictures up to where it begins."""
    from lingbot_world_ros.evaluation.drive import open_drive
    from lingbot_world_ros.evaluation.recurrent_world import RecurrentWorld
    from lingbot_world_ros.models.recurrent.runtime import RecurrentModel
    from lingbot_world_ros.recording.drive import RecordedWorld
    opened = open_drive(world, recording)
    engine, truth = opened.make_world(), RecordedWorld(opened.drive)
    begin, end = recording.segments[1]
    first, last = opened.drive.piece(4)
    told = RecurrentWorld(RecurrentModel(world))
    assert (first, last) == (begin + told.num_context - 1, end)
    told.reset_from(recording, np.array([begin]), 0)
    (scene,) = engine.spec.scenes
    for frame in range(first, first + 4):
        if frame == first:
            imagined, true = (it.reset(scene, 4) for it in (engine, truth))
        else:
            action = recording.action[frame - 1][None]
            imagined, true = (it.step(action[None]) for it in (engine, truth))
            told.step(action)
        assert np.array_equal(true.rgb[0, 0], recording.rgb[frame])
        assert np.array_equal(imagined.rgb[:, 0], told.draw()[0])
    assert engine.spec.model != world.name and not truth.spec.knows_base
