# SPDX-License-Identifier: Apache-2.0
"""Whole clips from the bidirectional model: experts, guidance, continuation, memory."""
from dataclasses import replace

import pytest

torch = pytest.importorskip('torch')

from lingbot_world_ros.actions.camera_path import keys_to_path, video_camera  # noqa: E402, I100
from lingbot_world_ros.geometry.camera import PinholeCamera  # noqa: E402
from lingbot_world_ros.models.wan.base import BaseClips, ClipRequest, Experts  # noqa: E402
from lingbot_world_ros.models.wan.camera import clip_steps, RayGrid  # noqa: E402
from lingbot_world_ros.models.wan.condition import condition  # noqa: E402
from lingbot_world_ros.models.wan.dit import WanDiT  # noqa: E402
from lingbot_world_ros.models.wan.releases_and_licences import HIGH, LOW  # noqa: E402
from lingbot_world_ros.models.wan.schedule import BaseRecipe, FlowUniPC  # noqa: E402
from lingbot_world_ros.models.wan.spec import DiTSpec, VideoSize  # noqa: E402
import numpy as np  # noqa: E402
from test_wan_dit import golden, golden_network, needs_golden, relative_error  # noqa: E402

SIZE, CAMERA = VideoSize(32, 48), PinholeCamera(48, 32, 30.0, 30.0, 23.5, 15.5)
TINY = dict(dim=64, ffn_dim=96, num_heads=2, num_layers=2, text_dim=24, text_len=8)
RECIPE = BaseRecipe(num_steps=6, shift=5.0)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


class PlainVae:
    """Latents shown as they are: the first once, the others four times each."""

    def start_condition(self, image, num_latents):
        self.image = image
        rows = torch.nn.functional.interpolate(image[None], SIZE.latent)[0].mean(0)
        fade = torch.linspace(1.0, 0.0, num_latents + 1)[:-1, None, None]
        return (rows * fade).expand(16, -1, -1, -1).contiguous()

    def decode_chunk(self, latents, cache):
        frames = latents[:, :3].repeat_interleave(4, 2)
        frames = torch.nn.functional.interpolate(frames, (frames.shape[2], 32, 48))
        return (frames if cache else frames[:, :, 3:]) / 3, True


def network(name, control_channels=6):
    torch.manual_seed(3 if name == HIGH else 4)
    dit = WanDiT(DiTSpec(control_channels=control_channels, **TINY)).eval()
    for parameter in dit.parameters():
        parameter.requires_grad_(False)
        if parameter.dim() > 1:
            parameter.normal_(0, parameter.shape[-1] ** -0.5)
    return dit


def embeddings(seed, length=5):
    return torch.randn(length, 24, generator=torch.Generator().manual_seed(seed))


def request(keys='w-4,wl-4', seed=0, **changes):
    path = keys_to_path(keys)
    image = torch.rand(3, 32, 48, generator=torch.Generator().manual_seed(9)) * 2 - 1
    values = dict(image=image, text=embeddings(1), negative=embeddings(2), seed=seed,
                  steps=clip_steps(path, len(path) - 1))
    return ClipRequest(**{**values, **changes})


def clips(load=network, offload=False, recipe=RECIPE, vae=None):
    return BaseClips(Experts(load, offload), vae or PlainVae(), SIZE, CAMERA, recipe=recipe)


def frames_of(reports):
    return np.concatenate([report.frames for report in reports if report.frames is not None])


def test_clip_reports_each_step_and_ends_with_its_frames():
    reports = list(clips().clip(request()))
    timesteps = FlowUniPC(6, 5.0).timesteps
    assert [report.step for report in reports] == [1, 2, 3, 4, 5, 6, 6]
    assert [report.expert for report in reports[:6]] == [
        HIGH if t >= 947 else LOW for t in timesteps]
    assert {HIGH, LOW} == {report.expert for report in reports}
    assert [report.frames is None for report in reports] == [True] * 6 + [False]
    frames = reports[-1].frames
    assert frames.shape == (9, 32, 48, 3) and frames.dtype == np.uint8
    assert frames.std() > 1


def test_clip_is_the_recipe_step_by_step():
    """Written out once more, by hand, with all that a clip's class keeps computed anew."""
    made, dits = request(), {name: network(name) for name in (HIGH, LOW)}
    solver, history = FlowUniPC(6, 5.0), None
    x = torch.randn((1, 16, 3, 4, 6), generator=torch.Generator().manual_seed(0))
    given = condition(PlainVae().start_condition(made.image, 3)[None])
    rays = RayGrid(CAMERA).tokens(made.steps)
    with torch.no_grad():
        for i, t in enumerate(solver.timesteps):
            dit = dits[HIGH if t >= 947 else LOW]
            found, away = (dit(torch.cat([x, given], 1), dit.time_context(t),
                               dit.text_context(text[None]), dit.camera_context(rays))
                           for text in (made.text, made.negative))
            x, history = solver.step(x, away + 5.0 * (found - away), i, history)
    video = PlainVae().decode_chunk(x, None)[0][0].permute(1, 2, 3, 0)
    expected = ((video.clamp(-1, 1) + 1) * 127.5).round().numpy()
    assert np.abs(frames_of(clips().clip(made)) - expected).max() <= 1


def test_same_seed_gives_the_same_clip_and_another_seed_another():
    first, again, other = (frames_of(clips().clip(request(seed=seed))) for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


@pytest.mark.parametrize('changes', ({'text': embeddings(7)}, {'negative': embeddings(7)},
                                     {'steps': np.tile(np.eye(4), (3, 1, 1))},
                                     {'image': torch.zeros(3, 32, 48)}))
def test_prompts_camera_and_image_all_matter(changes):
    assert not np.array_equal(frames_of(clips().clip(request())),
                              frames_of(clips().clip(request(**changes))))


def test_guidance_of_one_needs_no_negative_prompt():
    recipe = BaseRecipe(num_steps=6, shift=5.0, guidance_high=1.0, guidance_low=1.0)
    a, b = (frames_of(clips(recipe=recipe).clip(request(negative=embeddings(seed))))
            for seed in (2, 7))
    assert np.array_equal(a, b)


def test_guidance_is_of_the_expert():
    recipe = BaseRecipe(num_steps=6, shift=5.0, guidance_high=1.0)
    assert not np.array_equal(frames_of(clips(recipe=recipe).clip(request())),
                              frames_of(clips().clip(request())))


class Loads:
    """Count loads, and networks that are alive when one is loaded."""

    def __init__(self):
        self.names, self.alive, self._references = [], [], []

    def __call__(self, name):
        import gc
        import weakref
        gc.collect()
        self.names.append(name)
        self.alive.append(sum(reference() is not None for reference in self._references))
        dit = network(name)
        self._references.append(weakref.ref(dit))
        return dit


def test_offloading_keeps_one_network_at_a_time():
    loads = Loads()
    list(clips(loads, offload=True).clips(request('w-8'), 2))
    assert loads.names == [HIGH, LOW, HIGH, LOW]
    assert loads.alive == [0] * 4


def test_networks_stay_where_there_is_room():
    loads = Loads()
    list(clips(loads).clips(request('w-8'), 2))
    assert loads.names == [HIGH, LOW]


def test_offloading_changes_no_pixel():
    a, b = (frames_of(clips(offload=offload).clip(request())) for offload in (True, False))
    assert np.array_equal(a, b)


def test_longer_videos_go_on_from_the_last_frame():
    vae = PlainVae()
    reports = list(clips(vae=vae).clips(request('w-21'), 3))
    frames = [report.frames for report in reports if report.frames is not None]
    assert [len(part) for part in frames] == [9, 8, 4]  # 21 = 9 + 8 + 4
    assert [report.clip for report in reports] == [0] * 7 + [1] * 7 + [2] * 7
    last = torch.from_numpy(frames[1][-1]).permute(2, 0, 1) / 127.5 - 1
    torch.testing.assert_close(vae.image, last)


def test_later_clip_takes_its_part_of_the_path_beginning_at_rest():
    whole = request('w-4,l-4,wd-4,a-5')
    part = whole.part(1, 2, 4, whole.image)
    assert np.array_equal(part.steps[0], np.eye(4))
    assert np.array_equal(part.steps[1:], whole.steps[3:5])
    assert part.seed == whole.seed + 1 and part.num_latents == 3


def test_video_of_one_clip_is_that_clip():
    video, clip = clips().clips(request(), 3), clips().clip(request())
    assert np.array_equal(frames_of(video), frames_of(clip))


def test_image_alone_is_a_clip_of_one_frame():
    made = request(steps=np.eye(4)[None])
    assert frames_of(clips().clips(made, 5)).shape == (1, 32, 48, 3)


def test_networks_with_keys_take_them():
    def load(name):
        return network(name, control_channels=7)

    held = np.zeros((3, 4))
    held[1:, 0] = 1
    none, zeros, forward = (frames_of(clips(load).clip(replace(request(), keys=keys)))
                            for keys in (None, np.zeros((3, 4)), held))
    assert np.array_equal(none, zeros) and not np.array_equal(zeros, forward)


def test_networks_without_adapters_ignore_the_camera():
    def load(name):
        return network(name, control_channels=0)

    a, b = (frames_of(clips(load).clip(request(steps=steps)))
            for steps in (request().steps, np.tile(np.eye(4), (3, 1, 1))))
    assert np.array_equal(a, b)


def test_latents_that_are_not_finite_are_told():
    def load(name):
        dit = network(name)
        dit.head.head.bias.fill_(float('nan'))
        return dit

    with pytest.raises(FloatingPointError):
        list(clips(load).clip(request()))


@needs_golden
def test_networks_see_the_public_rays():
    """The path from poses to the network's velocity, with golden weights."""
    tensors, meta = golden('lingbot_world_base_tiny')
    dit = golden_network(tensors, meta['config'])
    size = VideoSize(int(meta['height']), int(meta['width']))
    rays = RayGrid(video_camera(tensors['camera.intrinsics'][0].tolist(), size.width_px,
                                size.height_px))
    with torch.no_grad():
        camera = dit.camera_context(rays.tokens(tensors['camera.relative'].numpy()))
        x = torch.cat([tensors['input.x'], tensors['input.y']])[None]
        velocity = dit(x, dit.time_context(float(tensors['input.t'])),
                       dit.text_context(tensors['input.text'][None]), camera)
    assert relative_error(velocity[0], tensors['output.velocity_with_camera']) < 1e-4
