# SPDX-License-Identifier: Apache-2.0
"""What interfaces/ stands in for has the type hashes and constants of the original, and works."""
from importlib import import_module
import json
from pathlib import Path
import sys
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parent.parent
HASHES = {  # RIHS01 of control_msgs 6.3 to 6.8, simulation_interfaces 2.1 and tf2_msgs
    'control_msgs/action/FollowJointTrajectory':
        'ff29901b2693f5deb847e96084a1c2cdb26e70b7c847be21859b70a55fb29cf0',
    'control_msgs/msg/JointComponentTolerance':
        '739ea7566931944d33830fa10f1bf5e7a7fbdc3172bce7a7eaac642bd6e3ffa4',
    'control_msgs/msg/JointTolerance':
        'c254f9cece0f3b733017b6990fd46d1326e25242d6b8844398c97d9a88e7d648',
    'simulation_interfaces/msg/Bounds':
        'e8624fe51f0f5548197542697d924c5699ac7198f1e4c68e50c3ca2af73f5b3f',
    'simulation_interfaces/msg/EntityCategory':
        '43bdf7933fddf75f6970f7a8fe7078524355d821d390b3954bb46ac36c03dfe1',
    'simulation_interfaces/msg/EntityFilters':
        '8e7b12e8ea062f14c55de4877221fe1b7cd9749665a7ad8a4ab855fc4b148303',
    'simulation_interfaces/msg/EntityInfo':
        '3b9a2e7fa00f9a59d325b6e47904044c421561a385682027c7fc06c359806319',
    'simulation_interfaces/msg/EntityState':
        '2e0464a85eb80a939025075d6c20761eca6a4cb9d6baf2c0ba373467c8b598d0',
    'simulation_interfaces/msg/NamedPose':
        'b32da2a039b1840f605ec025b7991a18efacac662fac272818d1ae6e2b12bc27',
    'simulation_interfaces/msg/Resource':
        '2bb1939cf80f8d2f284afba53cbec60b5ff33759bd39b714128ea8867a34c51a',
    'simulation_interfaces/msg/Result':
        'cf43a306adff3337a0a47143d8f5689933bc70a30478f13b077dc1fe3bc5ad17',
    'simulation_interfaces/msg/SimulationState':
        'bb9f87ccdd98fba113052a512d9801e84ce732d0a2b3c2b0cb281828de36e415',
    'simulation_interfaces/msg/SimulatorFeatures':
        '8b101c8529bc0ea3dcf056078254768f39832b9ef0adaf93bd5cea96c0de3305',
    'simulation_interfaces/msg/SpawnEntity':
        '94a349a865ccf673c18c080520299c88c3d8d5f4842ecf1482d6c997ac4b69f9',
    'simulation_interfaces/msg/SpawnResult':
        'dbc277304b6c24bfb2a631cea8f52e2b005d583ec0a6c86b11613f5ce6486da1',
    'simulation_interfaces/msg/Spawnable':
        '8675aa686f0df1ed7874a6ec210fdce1ac1c07f4e49fc26ec7fb6fe729f6772e',
    'simulation_interfaces/msg/TagsFilter':
        '5c3efc51e8ed04c266c09cb4691ec95b964cd410558e01d8c83646b038826b45',
    'simulation_interfaces/msg/WorldResource':
        'e3b65ecf904b9b115673e4a343c6aa3d28c19e185a71228faa64b783afcf2403',
    'simulation_interfaces/srv/DeleteEntity':
        'ff7e96a5b83dc8e2bb34b8b034480028b3a24d9f8376b2c0590bac3704be3e28',
    'simulation_interfaces/srv/GetAvailableWorlds':
        'ce5589b5523f2732d1969a3c5a7e6b17a387091df8190c62f78d7fdd1109e3e3',
    'simulation_interfaces/srv/GetCurrentWorld':
        '79ed4e910e1b7a1c9f7950ff758bfba3535bf0dec669054e8af115a099724ddd',
    'simulation_interfaces/srv/GetEntities':
        'cb90004c48cd50f37732fb008e22c34c261dd680a723bf0f85d8437ea4498bf7',
    'simulation_interfaces/srv/GetEntitiesStates':
        '0a76170d0c1c90e1eaf805cfab78ea801d1f82df309a28c1f0fae4b570f19754',
    'simulation_interfaces/srv/GetEntityBounds':
        '17be8d36231178a5eed0de0344b55c19975581627a9aec30a4fee9926a35deed',
    'simulation_interfaces/srv/GetEntityInfo':
        '953b7ab6bfc35063f5c9a72463c6ce489baa10249a7fa510926d342a34b0d29e',
    'simulation_interfaces/srv/GetEntityState':
        '749c91f2a2353d98367b64f2995a0f5842ce92a08ec1ffb3e185540a91557fb5',
    'simulation_interfaces/srv/GetNamedPoseBounds':
        '59fa8dd2c68ba6771160cc66a628ac99fa95e2748fa0a43c2cc62a2e5f3f6fdc',
    'simulation_interfaces/srv/GetNamedPoses':
        'c3d12ab920115bfd4733f6d20516adc3968fb438538540997c37e200e02b04e3',
    'simulation_interfaces/srv/GetSimulationState':
        '3362dcebee4b1afebbf9c4beee5c79c1455385aded62092a892d61fde8644f30',
    'simulation_interfaces/srv/GetSimulatorFeatures':
        'abb9439c8cf196722a469fb6c68b44b484f198c2a1356ac38849a29c2a20a794',
    'simulation_interfaces/srv/GetSpawnables':
        '3e25fd827d8bcbd9db5e36ccb190efa22d6f6313897861268ab923bf091a992a',
    'simulation_interfaces/srv/LoadWorld':
        '87d0ded1bfddb40a74d0bedb963fdd592fbedb14d0057d597850404b73c338af',
    'simulation_interfaces/srv/ResetSimulation':
        '4ce285d7ff9b8ac70dcc95161f32bf54c05a6f4b13427990e41ab40c36c39646',
    'simulation_interfaces/srv/SetEntityInfo':
        '867fe2b6812f3e021859171f9b788560d66bb7079d640030baf6c0bb2dd2631e',
    'simulation_interfaces/srv/SetEntityState':
        'fba636c91d38832dbd4f6896ffce54ff98fd9929962b0533546b56ce00f988ac',
    'simulation_interfaces/srv/SetSimulationState':
        'a868b916dce49974f637ba252141258c4b07b0c06858b88af560e3eb6bfbcb30',
    'simulation_interfaces/srv/SpawnEntities':
        '41703a359ee032bf4fc230f144f531705ba039a2e97edeae1f7997dd83b04857',
    'simulation_interfaces/srv/SpawnEntity':
        '66860313e11009faddbfc8568e5d410d1a11607fe75eeb1308671dc0406fe3a7',
    'simulation_interfaces/srv/StepSimulation':
        '913fe0653690ce6bf8f09f316e6a626747012e9fca31e26719910d417aa8565c',
    'simulation_interfaces/srv/UnloadWorld':
        'ac7f9a73df1b5b15015d854c5ac552b7726506e22f886c6792804f0b7f88b30b',
    'simulation_interfaces/action/SimulateSteps':
        'f0837c898e1219cd73bf4c041feab41e8c533e8e1057e982744dba7b093467eb',
    'tf2_msgs/msg/TFMessage':
        'e369d0f05a23ae52508854b66f6aa0437f3449d652e8cbf22d5abe85d020f087',
}
# What differs: control_msgs of Humble and Jazzy, simulation_interfaces 1.4 to 1.6, of Kilted, too.
EARLIER = {
    'control_msgs/action/FollowJointTrajectory':
        '738ebcb7a2d7cfa42f9f1001cc99ce3a4383d1cfe508015d9be8485e4b1c66f6',
    'simulation_interfaces/msg/Spawnable':
        '8c22025d840e7a05ab31ba56f998b06458b549a9744b4695be25b778829fc176',
    'simulation_interfaces/srv/GetSpawnables':
        '3bc0266bf8236058ff589c44512e013afe4f295427c39d44cff363d1c956bf36',
    'simulation_interfaces/srv/LoadWorld':
        'f210682338f195f6f06191b46b20ec4992bddf485d33e2cffab2dd15341b4e3e',
    'simulation_interfaces/srv/SetEntityState':
        'ca210e7d2b66629ae133c8e1edf5246e618106d75c78ed0556c0e7a33c59ee5e',
    'simulation_interfaces/srv/SpawnEntity':
        'd4c086345d4194a5fc4c9ae45095736ca4062b5cdac4d06a42dec93d683e03cf',
}
CONSTANTS = {  # of simulation_interfaces, the same in all of these; no hash covers them
    'msg/Bounds': 'TYPE_EMPTY=0 TYPE_BOX=1 TYPE_CONVEX_HULL=2 TYPE_SPHERE=3',
    'msg/EntityCategory':
        'CATEGORY_OBJECT=0 CATEGORY_ROBOT=1 CATEGORY_HUMAN=2 CATEGORY_DYNAMIC_OBJECT=4 '
        'CATEGORY_STATIC_OBJECT=5',
    'msg/Result':
        'RESULT_FEATURE_UNSUPPORTED=0 RESULT_OK=1 RESULT_NOT_FOUND=2 RESULT_INCORRECT_STATE=3 '
        'RESULT_OPERATION_FAILED=4',
    'msg/SimulationState':
        'STATE_STOPPED=0 STATE_PLAYING=1 STATE_PAUSED=2 STATE_QUITTING=3 STATE_NO_WORLD=4 '
        'STATE_LOADING_WORLD=5',
    'msg/SimulatorFeatures':
        'SPAWNING=0 DELETING=1 NAMED_POSES=2 POSE_BOUNDS=3 ENTITY_TAGS=4 ENTITY_BOUNDS=5 '
        'ENTITY_BOUNDS_BOX=6 ENTITY_BOUNDS_CONVEX=7 ENTITY_CATEGORIES=8 '
        'SPAWNING_RESOURCE_STRING=9 ENTITY_STATE_GETTING=10 ENTITY_STATE_SETTING=11 '
        'ENTITY_INFO_GETTING=12 ENTITY_INFO_SETTING=13 SPAWNABLES=14 SIMULATION_RESET=20 '
        'SIMULATION_RESET_TIME=21 SIMULATION_RESET_STATE=22 SIMULATION_RESET_SPAWNED=23 '
        'SIMULATION_STATE_GETTING=24 SIMULATION_STATE_SETTING=25 SIMULATION_STATE_PAUSE=26 '
        'STEP_SIMULATION_SINGLE=31 STEP_SIMULATION_MULTIPLE=32 STEP_SIMULATION_ACTION=33 '
        'WORLD_LOADING=40 WORLD_RESOURCE_STRING=41 WORLD_TAGS=42 WORLD_UNLOADING=43 '
        'WORLD_INFO_GETTING=44 AVAILABLE_WORLDS=45 SPAWNING_ENTITIES=50',
    'msg/SpawnResult':
        'NAME_NOT_UNIQUE=101 NAME_INVALID=102 UNSUPPORTED_FORMAT=103 NO_RESOURCE=104 '
        'NAMESPACE_INVALID=105 RESOURCE_PARSE_ERROR=106 MISSING_ASSETS=107 '
        'UNSUPPORTED_ASSETS=108 INVALID_POSE=109',
    'msg/TagsFilter': 'FILTER_MODE_ANY=0 FILTER_MODE_ALL=1',
    'srv/GetAvailableWorlds_Response': 'DEFAULT_SOURCES_FAILED=101',
    'srv/GetCurrentWorld_Response': 'NO_WORLD_LOADED=101',
    'srv/LoadWorld_Response':
        'UNSUPPORTED_FORMAT=101 NO_RESOURCE=102 RESOURCE_PARSE_ERROR=103 MISSING_ASSETS=104 '
        'UNSUPPORTED_ASSETS=105 UNSUPPORTED_ELEMENTS=106',
    'srv/ResetSimulation_Request':
        'SCOPE_DEFAULT=0 SCOPE_TIME=1 SCOPE_STATE=2 SCOPE_SPAWNED=4 SCOPE_ALL=255',
    'srv/SetEntityState_Response': 'INVALID_POSE=101',
    'srv/SetSimulationState_Response':
        'ALREADY_IN_TARGET_STATE=101 STATE_TRANSITION_ERROR=102 INCORRECT_TRANSITION=103',
    'srv/SpawnEntities_Response': 'ENTITIES_SPAWN_FAILED=150',
    'srv/SpawnEntity_Response':
        'NAME_NOT_UNIQUE=101 NAME_INVALID=102 UNSUPPORTED_FORMAT=103 NO_RESOURCE=104 '
        'NAMESPACE_INVALID=105 RESOURCE_PARSE_ERROR=106 MISSING_ASSETS=107 '
        'UNSUPPORTED_ASSETS=108 INVALID_POSE=109',
    'srv/UnloadWorld_Response': 'NO_WORLD_LOADED=101',
}
KILTED = (2, 1)  # its action_msgs is of no earlier version
KNOWN = ((1, 4), (1, 5), (1, 6), (2, 1))  # versions of simulation_interfaces
PACKAGES = sorted({name.split('/')[0] for name in HASHES})


def share(package):
    """Find what is installed of a package, or skip where it is of a version not known here."""
    index = pytest.importorskip('ament_index_python.packages')
    try:
        folder = Path(index.get_package_share_directory(package))
    except LookupError:
        pytest.skip(f'{package} is not installed')
    if package == 'simulation_interfaces' and version(folder) not in KNOWN:
        pytest.skip(f'{package} {".".join(map(str, version(folder)))} is not known here')
    return folder


def version(folder):
    """Read major and minor version of what is installed in a folder."""
    text = ElementTree.parse(folder / 'package.xml').findtext('version')
    return tuple(int(number) for number in text.split('.')[:2])


def load(name):
    """Import the classes behind an interface: itself, or the messages it is made of."""
    package, kind, short_name = name.split('/')
    share(package)
    interface = getattr(import_module(f'{package}.{kind}'), short_name)
    if kind == 'msg':
        return [interface]
    if kind == 'srv':
        return [interface.Request, interface.Response]
    inside = interface.Impl
    return [inside.SendGoalService.Request, inside.GetResultService.Response,
            inside.FeedbackMessage]


def interfaces(folder, suffixes):
    """List interfaces as package/kind/Name."""
    return {f'{folder.name}/{path.parent.name}/{path.stem}'
            for path in folder.glob('*/*') if path.suffix in suffixes}


@pytest.mark.parametrize('name', HASHES)
def test_installed_type_is_the_original_one(name):
    """DDS matches both sides of a topic or service by name, ROS tells types apart by hash."""
    package, kind, short_name = name.split('/')
    folder = share(package)
    if not list(folder.glob('msg/*.json')):
        pytest.skip(f'{package} is installed without type hashes, as distributions before Iron do')
    hashes = {entry['type_name']: entry['hash_string'] for entry in
              json.loads((folder / kind / f'{short_name}.json').read_text())['type_hashes']}
    is_older = {'simulation_interfaces': lambda: version(folder) < (2, 0),
                'control_msgs': lambda: version(share('action_msgs')) < KILTED}
    wanted = {**HASHES, **EARLIER} if is_older.get(package, bool)() else HASHES
    assert hashes[name] == f'RIHS01_{wanted[name]}'


def test_every_package_of_the_checkout_is_compared():
    """A package added under interfaces/ needs its hashes in the table above."""
    assert PACKAGES == sorted(path.parent.name for path in ROOT.glob('interfaces/*/package.xml'))


@pytest.mark.parametrize('package', PACKAGES)
def test_checkout_has_the_compared_interfaces_and_no_other(package):
    """Clients find all of simulation_interfaces; of the others what is used here."""
    sources = interfaces(ROOT / 'interfaces' / package, ('.msg', '.srv', '.action'))
    assert sources == {name for name in HASHES if name.startswith(f'{package}/')}


@pytest.mark.parametrize('package', PACKAGES)
def test_installed_package_has_what_the_checkout_has(package):
    """A stale installation lacks an interface, or keeps one that is gone."""
    folder = share(package)
    if not Path(sys.prefix).resolve() in folder.resolve().parents:
        pytest.skip(f'{package} comes from a distribution, which may have more')
    assert interfaces(folder, ('.json',)) == {name for name in HASHES
                                              if name.startswith(f'{package}/')}


@pytest.mark.parametrize('name', HASHES)
def test_installed_type_can_be_sent(name):
    """The compiled type support loads and finds all its parts."""
    serialization = pytest.importorskip('rclpy.serialization')
    for message in (part() for part in load(name)):
        data = serialization.serialize_message(message)
        assert serialization.deserialize_message(data, type(message)) == message


@pytest.mark.parametrize('name', CONSTANTS)
def test_constants_are_the_original_ones(name):
    """A client compares with numbers, and a type with other numbers has the same hash."""
    share('simulation_interfaces')
    kind, part = name.split('/')
    message = getattr(import_module(f'simulation_interfaces.{kind}'), part)
    expected = dict(pair.split('=') for pair in CONSTANTS[name].split())
    assert {key: str(getattr(message, key, None)) for key in expected} == expected


def test_constants_of_control_msgs_are_the_original_ones():
    """The result codes, and the components of a joint."""
    share('control_msgs')
    from control_msgs.action import FollowJointTrajectory
    from control_msgs.msg import JointComponentTolerance
    result = FollowJointTrajectory.Result
    assert [result.SUCCESSFUL, result.INVALID_GOAL, result.INVALID_JOINTS,
            result.OLD_HEADER_TIMESTAMP, result.PATH_TOLERANCE_VIOLATED,
            result.GOAL_TOLERANCE_VIOLATED] == [0, -1, -2, -3, -4, -5]
    of = JointComponentTolerance
    assert [of.X_AXIS, of.Y_AXIS, of.Z_AXIS, of.TRANSLATION, of.ROTATION] == [1, 2, 3, 4, 5]


def test_step_simulation_steps_once_by_default():
    """The one default value there is; no hash covers it."""
    request, _ = load('simulation_interfaces/srv/StepSimulation')
    assert request().steps == 1
