# SPDX-License-Identifier: Apache-2.0
"""The report of a judging: one file that says what is in judge.json, and escapes it."""
import json
import re

import pytest

pytest.importorskip('matplotlib')
pytest.importorskip('jinja2')
pytest.importorskip('PIL')
pytest.importorskip('gymnasium', minversion='1.4')
from lingbot_world_ros.cli import main as cli  # noqa: E402, I100
from lingbot_world_ros.errors import SpecError  # noqa: E402
from lingbot_world_ros.evaluation import judge as module  # noqa: E402
from lingbot_world_ros.evaluation.episodes import Episode  # noqa: E402
from lingbot_world_ros.evaluation.judge import judge, JudgeSpec  # noqa: E402
from lingbot_world_ros.evaluation.judge_file import write_judged  # noqa: E402
from lingbot_world_ros.report.judge_page import is_judging, judge_page  # noqa: E402
from lingbot_world_ros.report.page import render  # noqa: E402
import numpy as np  # noqa: E402

SKILL = {'random': 0.1, 'scripted:0.5': 0.4, 'scripted': 0.7, 'expert': 1.0}
HOSTILE = '<script>alert(1)</script>'


@pytest.fixture
def results(monkeypatch):
    """Judge policies whose episodes are drawn, so that nothing has to be played."""
    def drawn(job):
        rng = np.random.default_rng([len(job.policy), len(job.engine)])
        return [Episode(start, bool(rng.random() < SKILL[job.policy]), 0.0, 9, 0)
                for start in job.starts]
    monkeypatch.setattr(module, 'play_job', drawn)
    return judge(JudgeSpec(tuple(SKILL), ('RoomNav', 'RoomReach'), episodes=40))


def test_a_judging_becomes_one_file_that_loads_nothing(results, tmp_path, capsys):
    path = tmp_path / 'judge.json'
    write_judged(path, results)
    assert cli.main(['report', str(path)]) == 0
    text = (tmp_path / 'judge.html').read_text()
    assert 'Written' in capsys.readouterr().out
    assert not re.search(r'<script|<link|@import|(src|href)="(?!data:|#)', text)
    assert text.count('<svg') == 4 and 'prefers-color-scheme: dark' in text
    nominal, unusual = text.index('>Nominal starts<'), text.index('>Unusual starts<')
    assert nominal < unusual
    for kind, part in (('nominal', text[nominal:unusual]), ('unusual', text[unusual:])):
        for score in results['scores']:
            if score['starts'] == kind:
                low, high = (100 * bound for bound in score['true']['interval'])
                assert f'{100 * score["true"]["success"]:.0f} <small>({low:.0f} to {high:.0f})' \
                    in part
        value = results['agreement'][kind]['RoomNav']['pearson']['value']
        assert f'{value:.3f} <small>' in part
    assert cli.main(['report', str(tmp_path), '-o', str(tmp_path / 'other.html')]) == 0


def test_names_from_a_file_are_escaped_and_old_files_are_read(results, tmp_path):
    told = json.loads(json.dumps(results).replace('scripted:0.5', HOSTILE))
    for name in ('weights_sha256', 'policies_sha256', 'made_by'):
        told.pop(name, None)  # a file of before has none
    write_judged(tmp_path / 'of_before.json', told)
    assert is_judging(tmp_path / 'of_before.json')
    text = render(judge_page(tmp_path / 'of_before.json', HOSTILE))
    assert HOSTILE not in text and '&lt;script&gt;alert(1)' in text


def test_what_cannot_be_computed_has_a_page_too(results, tmp_path):
    for kind in results['agreement'].values():
        kind['all']['pearson'] = {'value': None, 'interval': None}
        kind.pop('RoomNav')
    results['agreement']['unusual'] = {}
    write_judged(tmp_path / 'judge.json', results)
    assert 'cannot be computed' in render(judge_page(tmp_path))


@pytest.mark.parametrize('spoil, said', [
    (lambda r: r.pop('scores'), 'not finished, it has 1280 episodes so far'),
    (lambda r: r.pop('agreement'), 'no whole judging'),
    (lambda r: r['scores'][0].pop('true'), 'no whole judging'),
    (lambda r: r.pop('spec'), 'no judging')])
def test_what_is_no_whole_judging_is_one_sentence(results, tmp_path, capsys, spoil, said):
    spoil(results)
    write_judged(tmp_path / 'judge.json', results)
    with pytest.raises(SpecError, match=said):
        judge_page(tmp_path)
    assert cli.main(['report', str(tmp_path / 'judge.json')]) == 2
    assert said in capsys.readouterr().err and not (tmp_path / 'judge.html').exists()
    (tmp_path / 'judge.json').write_text('{')
    with pytest.raises(SpecError, match='cannot be read'):
        judge_page(tmp_path)
