# SPDX-License-Identifier: Apache-2.0
"""What tools of ROS read when a maintainer releases the package: manifest and changelog."""
from pathlib import Path
import re

import pytest

package = pytest.importorskip('catkin_pkg.package')
changelog = pytest.importorskip('catkin_pkg.changelog')

ROOT = Path(__file__).resolve().parent.parent


def test_the_manifest_is_valid_and_says_where_to_turn_to():
    warnings = []
    manifest = package.parse_package(str(ROOT / 'package.xml'), warnings=warnings)
    manifest.validate(warnings=warnings)
    assert warnings == []
    assert {url.type for url in manifest.urls} == {'website', 'bugtracker', 'repository'}
    assert (ROOT / manifest.licenses[0].file).is_file()


def test_the_changelog_can_be_read_once_its_next_version_has_a_number(tmp_path):
    """What catkin_prepare_release does with the heading."""
    heading = '0.1.0 (2026-01-01)'
    text = re.sub(r'(?m)^Forthcoming\n-+$', f'{heading}\n{"-" * len(heading)}',
                  (ROOT / 'CHANGELOG.rst').read_text())
    (tmp_path / 'CHANGELOG.rst').write_text(text)
    read = changelog.get_changelog_from_path(str(tmp_path), 'lingbot_world_ros')
    version, _, content = next(iter(read.foreach_version()))
    assert version == '0.1.0' and len(content) > 1


def test_no_dependency_comes_from_pip():
    """Bloom takes keys that end so for Debian packages, which then cannot be installed."""
    manifest = package.parse_package(str(ROOT / 'package.xml'))
    named = [depend.name for kind in ('build', 'buildtool', 'build_export', 'exec', 'test', 'doc')
             for depend in getattr(manifest, f'{kind}_depends')]
    assert named and [name for name in named if name.endswith('-pip')] == []
