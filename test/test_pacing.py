# SPDX-License-Identifier: Apache-2.0
"""When frames leave and steps begin: tables of plain numbers, in milliseconds."""
from lingbot_world_ros.session.pacing import ChunkPacer, Due, Expectation, Turn
import pytest

MS = 1_000_000
NUM_FRAMES, PERIOD = 10, 100  # a step plays for a second


def shown(*durations, rest=0, at=5000, period=PERIOD):
    """Return a pacer whose first step of these durations begins to be shown now."""
    pacer = ChunkPacer(NUM_FRAMES)
    for duration in durations:
        pacer.made(duration * MS)
        pacer.finished(rest * MS)
    pacer.show(at * MS, period * MS, is_ahead=True)
    return pacer


def frames(pacer, period=PERIOD, is_made_from=NUM_FRAMES):
    """Let all frames leave as planned, and return when."""
    times = [pacer._first_ns / MS]
    for index in range(1, NUM_FRAMES):
        due_ns = pacer.turn(NUM_FRAMES - index, is_begun=True, is_made=index >= is_made_from,
                            can_begin=False, is_ahead=True).due_ns
        pacer.left(due_ns)
        times.append(due_ns / MS)
    return times


@pytest.mark.parametrize('durations, expected', [
    ((), 0), ((7,), 7), ((60, 1), 60), ((60, 1, 1), 1), ((5, 5, 9), 5),
    ((1, 2, 3, 4, 5), 4), ((9, 9, 1, 1, 1, 1, 1), 1)])
def test_expected_is_the_second_longest_of_the_last_five(durations, expected):
    expectation = Expectation()
    for duration in durations:
        expectation.add(duration)
    assert expectation.value_ns == expected


@pytest.mark.parametrize('duration, rest, gap', [
    (600, 0, 100), (600, 300, 100), (1000, 0, 100), (2000, 0, 200), (900, 600, 150)])
def test_frames_are_spread_over_what_a_step_takes(duration, rest, gap):
    times = frames(shown(duration, duration, rest=rest))
    assert times == [5000 + gap * n for n in range(NUM_FRAMES)]


@pytest.mark.parametrize('duration, begins', [
    (600, 5340),  # 6000 - 600 - 10 %
    (50, 5940),  # the least margin is 10 ms
    (950, 5000),  # not before the first frame has left
    (2000, 5000)])
def test_next_step_begins_as_late_as_it_can(duration, begins):
    pacer = shown(duration, duration)
    turn = pacer.turn(0, is_ahead=True)
    assert turn == Turn(Due.STEP, begins * MS)
    busy = pacer.turn(0, can_begin=False, is_ahead=True)
    assert busy == Turn(Due.NOTHING, None)


def test_first_step_begins_and_is_shown_at_once():
    pacer = ChunkPacer(NUM_FRAMES)
    assert pacer.turn(0, is_ahead=True) == Turn(Due.STEP, 0)
    made = pacer.turn(0, is_begun=True, is_made=True, can_begin=False, is_ahead=True)
    assert made == Turn(Due.TAKE, 0)


def test_frame_goes_before_what_is_due_at_the_same_time():
    pacer = shown(2000)
    pacer.left(5000 * MS)
    assert pacer.turn(9, is_ahead=True).what == Due.STEP
    assert shown(600, 600).turn(9, is_ahead=True) == Turn(Due.FRAME, 5100 * MS)
    assert shown(500, 500).turn(5, is_ahead=True) == Turn(Due.STEP, 5450 * MS)


def test_step_that_comes_sooner_than_expected_ends_the_slow_motion():
    times = frames(shown(60_000), is_made_from=2)  # the first step of an engine warms it up
    assert times[:3] == [5000, 11000, 11100] and times[-1] == 11800


@pytest.mark.parametrize('late, gap', [(200, 80), (500, 50), (2000, 50)])
def test_delay_up_to_half_a_second_is_caught_up_evenly(late, gap):
    pacer = shown(600, 600)
    pacer.show((6000 + late) * MS, PERIOD * MS, is_ahead=True)
    times = frames(pacer)
    assert times == [6000 + late + gap * n for n in range(NUM_FRAMES)]
    assert pacer.asked_ns(1) == (6000 + max(0, late - 500) + PERIOD) * MS


def test_what_is_caught_up_at_once_is_all_due_now():
    """A chunk of 0.4 s that is half a second late ends in the past."""
    pacer = shown(300, 300, period=40)
    pacer.show(5900 * MS, 40 * MS, is_ahead=True)
    assert frames(pacer, 40) == [5900] * NUM_FRAMES
    taken = pacer.turn(0, is_begun=True, is_made=True, can_begin=False, is_ahead=True)
    assert taken == Turn(Due.TAKE, 5900 * MS)


def test_nothing_is_caught_up_after_time_stood_still():
    pacer = shown(600, 600)
    pacer.start_over()
    assert pacer.turn(0, is_ahead=True).due_ns == 0
    pacer.show(9000 * MS, PERIOD * MS, is_ahead=True)
    assert frames(pacer)[:2] == [9000, 9100]


def test_full_speed_spreads_frames_and_lets_them_go_once_the_next_are_there():
    assert frames(shown(500, 500, period=0))[:3] == [5000, 5050, 5100]
    assert frames(shown(500, 500, period=0), is_made_from=1) == [5000] * NUM_FRAMES


def one_by_one(*late, num_frames=1, period=PERIOD):
    """Return when steps begin (ms) that are not made ahead and whose last frame leaves so late."""
    pacer, begun = ChunkPacer(num_frames), []
    pacer.wait_until(5000 * MS)
    for delay in late:
        turn = pacer.turn(0, is_ahead=False)
        assert turn.what == Due.STEP
        begun.append(turn.due_ns / MS)
        pacer.show(turn.due_ns, period * MS, is_ahead=False)
        for index in range(num_frames):
            last = index == num_frames - 1
            pacer.left(pacer.asked_ns(index) + (delay * MS if last else 0))
    return [*begun, pacer.turn(0, is_ahead=False).due_ns / MS]


@pytest.mark.parametrize('late, begun', [
    ((0, 0), [5000, 5100, 5200]),
    ((300, 0), [5000, 5100, 5200]),  # caught up at once: the next is due in the past
    ((600, 0), [5000, 5100, 5200]),
    ((700, 0), [5000, 5200, 5300]),  # half a second can be caught up
    ((2000, 0), [5000, 6500, 6600])])
def test_step_that_is_not_made_ahead_begins_when_the_frame_before_had_its_period(late, begun):
    assert ChunkPacer(1).turn(0, is_ahead=False) == Turn(Due.STEP, 0)
    assert one_by_one(*late) == begun


def test_chunk_that_is_not_made_ahead_plays_out_before_the_next_step_begins():
    assert one_by_one(0, 0, num_frames=4) == [5000, 5400, 5800]
    assert one_by_one(0, 0, period=0) == [5000, 5000, 5000]
    pacer = ChunkPacer(4)
    pacer.wait_until(5000 * MS)
    pacer.show(5020 * MS, PERIOD * MS, is_ahead=False)
    pacer.left(5020 * MS)
    assert [pacer.asked_ns(index) / MS for index in range(4)] == [5000, 5100, 5200, 5300]
    turns = [pacer.turn(num_left, is_ahead=False) for num_left in (3, 2, 1)]
    assert turns == [Turn(Due.FRAME, due * MS) for due in (5100, 5200, 5300)]


def test_what_was_due_while_time_stood_still_is_due_now():
    pacer = ChunkPacer(1)
    pacer.wait_until(5000 * MS)
    pacer.go_on(4000 * MS)
    assert pacer.turn(0, is_ahead=False).due_ns == 5000 * MS  # it still has its time
    pacer.go_on(6000 * MS)
    assert pacer.turn(0, is_ahead=False).due_ns == 6000 * MS
    pacer.start_over()  # for steps made ahead only
    assert pacer.turn(0, is_ahead=False).due_ns == 6000 * MS


def test_step_that_is_called_for_begins_at_once():
    pacer = ChunkPacer(1)
    pacer.wait_until(5000 * MS)
    assert pacer.turn(0, is_called=True, is_ahead=False) == Turn(Due.STEP, 0)
    assert pacer.turn(0, can_begin=False, is_ahead=False).due_ns == 5000 * MS  # waits its turn
