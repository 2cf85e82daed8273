# SPDX-License-Identifier: Apache-2.0
"""The pictures that ship with the package, and the sentences that describe them."""
from pathlib import Path
import subprocess
import sys

from lingbot_world_ros.worlds.scenes import SCENES
from lingbot_world_ros.worlds.start_images import start_images
from needs import need_engine
import numpy as np
import pytest
from waiting import PATIENCE_S

cv2 = pytest.importorskip('cv2')


def test_every_scene_has_a_picture_and_a_prompt():
    assert set(start_images()) == set(SCENES)
    for path, prompt in start_images().values():
        assert Path(path).is_absolute() and Path(path).is_file()
        assert prompt == ' '.join(prompt.split()) and 60 < len(prompt) < 400


def test_no_picture_is_without_a_prompt():
    folder = Path(next(iter(start_images().values()))[0]).parent
    assert {path.stem for path in folder.glob('*.jpg')} == set(start_images())


@pytest.mark.parametrize('name', sorted(SCENES))
def test_pictures_have_the_size_of_a_stream_and_are_neither_dark_nor_flat(name):
    path = Path(start_images()[name][0])
    image = cv2.imread(str(path))
    assert image.shape == (464, 832, 3)
    assert path.stat().st_size < 150_000
    assert 70 < image.mean() < 180 and image.std() > 30
    assert (image > 250).all(-1).mean() < 0.02, 'overexposed'


def test_listing_needs_neither_numpy_nor_torch():
    code = ('import sys; from lingbot_world_ros.worlds.start_images import start_images; '
            'start_images(); print({"numpy", "cv2", "torch"} & set(sys.modules))')
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True,
                            timeout=PATIENCE_S)
    assert result.stdout.strip() == 'set()', result.stderr


@pytest.mark.slow
def test_the_script_draws_what_ships():
    need_engine('reference')
    from lingbot_world_ros.engines.reference.start_images import draw, VIEWS
    assert set(VIEWS) == set(SCENES)
    drawn = draw('office')
    shipped = cv2.imread(start_images()['office'][0])[..., ::-1]
    assert drawn.shape == shipped.shape and drawn.dtype == np.uint8
    assert np.abs(drawn.astype(int) - shipped).mean() < 3.0
