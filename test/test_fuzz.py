# SPDX-License-Identifier: Apache-2.0
"""
Malformed and hostile input: nothing of it ends a node, moves the robot or reads other files.

Some cases here, 100 in ``make thorough``; ``make fuzz`` tries 10 000. What was ever found is in
``fuzz/corpus.py``.
"""
import pytest

pytest.importorskip('hypothesis', '6.88')  # earlier ones name the options of characters otherwise
pytest.importorskip('rclpy')
pytest.importorskip('lingbot_world_ros.msg')

from fuzz.__main__ import run_rounds  # noqa: E402, I100
from fuzz.campaign import Campaign  # noqa: E402
from fuzz.system import Died, System  # noqa: E402
from fuzz.targets import TARGETS  # noqa: E402


@pytest.mark.parametrize('num_cases', [25, pytest.param(100, marks=pytest.mark.slow)])
def test_nothing_is_found(tmp_path, num_cases):
    with Campaign(tmp_path, print) as campaign:
        campaign.run_corpus()
        run_rounds(campaign, TARGETS, num_cases, seed=0)
    assert campaign.findings == []
    assert campaign.num_cases >= num_cases
    assert not campaign.restarts
    for counts in campaign.outcomes.values():
        assert counts, 'every target had its turn'


@pytest.fixture(scope='module')
def system(tmp_path_factory):
    with System(tmp_path_factory.mktemp('system'), slow_s=2.0) as system:
        system.call('watch', True)
        yield system


@pytest.mark.parametrize('deed, words', [
    ('read', 'touched open'), ('list', 'touched os.listdir'), ('write', 'for writing'),
    ('run', 'touched subprocess.Popen'), ('raise', 'failed: ZeroDivisionError'),
    ('tell', 'may not be read'), ('lines', 'not one line'), ('pages', 'an error of'),
    ('sleep', 'took')])
def test_the_harness_notices_what_must_not_be(system, deed, words):
    _, problem = system.call('misbehave', deed)
    assert words in problem


def test_the_harness_notices_a_traceback_in_the_log(system):
    assert system.wrong_log() == ''
    system.call('misbehave', 'log')
    assert 'Traceback' in system.wrong_log()


def test_the_harness_notices_a_process_that_ends(tmp_path):
    with System(tmp_path) as system, pytest.raises(Died, match='exit code 3'):
        system.call('misbehave', 'end')


@pytest.mark.parametrize('there, missing', [
    ('file://{outside}/secret.yaml', 'file://{outside}/absent.yaml'),
    ('file://{worlds}/link_out.yaml', 'file://{worlds}/link_gone.yaml'),
    ('file://{worlds}/../outside/secret.yaml', 'file://{worlds}/../outside/absent.yaml'),
    ('file:///etc/passwd.yaml/../passwd.yaml', 'file:///etc/absent.yaml/../absent.yaml')])
def test_an_answer_does_not_tell_whether_a_file_outside_exists(system, there, missing):
    """One sentence for both, but for the name."""
    answers = [system.call('world_uri', uri)[0] for uri in (there, missing)]
    assert [answer['outcome'] for answer in answers] == ['refused'] * 2
    texts = [answer['text'].replace(system.filled_in(uri), 'URI')
             for answer, uri in zip(answers, (there, missing))]
    assert texts[0] == texts[1] and 'URI' in texts[0]
