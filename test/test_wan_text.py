# SPDX-License-Identifier: Apache-2.0
"""The text encoder against golden numbers and transformers; tokens, cache and errors."""
import json
import os
from pathlib import Path

import pytest

torch = pytest.importorskip('torch')
pytest.importorskip('safetensors')
transformers = pytest.importorskip('transformers')
pytest.importorskip('ftfy')

from lingbot_world_ros.errors import SpecError  # noqa: E402, I100
from lingbot_world_ros.models.wan import umt5  # noqa: E402
from lingbot_world_ros.models.wan.embedding_cache import EmbeddingCache  # noqa: E402
from lingbot_world_ros.models.wan.text import load_text_encoder  # noqa: E402
from lingbot_world_ros.models.wan.tokenizer import (clean_prompt, MAX_TOKENS,  # noqa: E402
                                                    Tokenizer)
from lingbot_world_ros.models.wan.umt5 import load_network, UMT5Spec  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

GOLDEN = Path(__file__).resolve().parents[2] / 'shared' / 'golden' / 'umt5_tiny.safetensors'
needs_golden = pytest.mark.skipif(not GOLDEN.is_file(), reason='golden vectors are not here')
SPEC = UMT5Spec(vocab_size=40, dim=16, attention_dim=24, ffn_dim=20, num_heads=3, num_layers=2,
                num_buckets=32)
WORDS = ('<pad>', '</s>', '<unk>', 'a', 'robot', 'in', 'an', 'office', 'rain', 'warm', 'light')
HF_BLOCK = {new: old for old, new in umt5.BLOCK_NAMES.items()}


@pytest.fixture(autouse=True, scope='module')
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def public_name(name):
    """Return the original name of a tensor of transformers."""
    fixed = {new: old for old, new in umt5.NAMES.items()}
    if name in fixed:
        return fixed[name]
    _, _, number, rest = name.split('.', 3)
    return f'blocks.{number}.{HF_BLOCK[rest]}'


def weights(spec=SPEC, seed=0):
    """Return random weights under the original names."""
    generator = torch.Generator().manual_seed(seed)
    return {public_name(name): 0.3 * torch.randn(shape, generator=generator)
            for name, shape in spec.shapes.items()}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Return a folder with an encoder and a tokenizer."""
    path = tmp_path_factory.mktemp('checkpoint')
    torch.save(weights(), path / 'encoder.pth')
    make_tokenizer(path / 'tokenizer')
    return path


def make_tokenizer(folder):
    from tokenizers import models, pre_tokenizers, processors, Tokenizer as Fast
    folder.mkdir()
    fast = Fast(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token='<unk>'))
    fast.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast.post_processor = processors.TemplateProcessing(
        single='$A </s>', special_tokens=[('</s>', WORDS.index('</s>'))])
    fast.enable_truncation(4)  # some files come with settings of their last use
    fast.enable_padding(length=9)
    fast.save(str(folder / 'tokenizer.json'))


@pytest.fixture
def encoder(folder, tmp_path):
    return new_encoder(folder, tmp_path)


def new_encoder(folder, tmp_path, log=None, **changes):
    args = {'path': folder / 'encoder.pth', 'tokenizer_path': folder / 'tokenizer',
            'cache_dir': tmp_path / 'cache', 'log': log or (lambda text: None), **changes}
    return load_text_encoder(**args)


def entries(tmp_path):
    return sorted((tmp_path / 'cache' / 'text').glob('*.safetensors'))


@needs_golden
@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_the_network_matches_golden_numbers_with_a_padded_row(tmp_path, suffix):
    golden = load_file(GOLDEN)
    prefix, path = 'weights.', tmp_path / f'encoder{suffix}'
    tensors = {name[len(prefix):]: tensor for name, tensor in golden.items()
               if name.startswith(prefix)}
    (torch.save if suffix == '.pth' else save_file)(tensors, path)
    mask = golden['input.mask']
    assert 0 < mask[1].sum() < mask.shape[1] or 0 < mask[0].sum() < mask.shape[1]
    with torch.no_grad():
        hidden = load_network(path)(input_ids=golden['input.ids'],
                                    attention_mask=mask).last_hidden_state
    real = mask.bool()
    error = (hidden - golden['output.hidden'])[real].abs().max()
    assert error <= 1e-4 * golden['output.hidden'][real].abs().max()


@needs_golden
def test_a_prompt_alone_equals_its_row_among_padded_ones(tmp_path):
    golden = load_file(GOLDEN)
    prefix, path = 'weights.', tmp_path / 'encoder.safetensors'
    save_file({name[len(prefix):]: tensor for name, tensor in golden.items()
               if name.startswith(prefix)}, path)
    network = load_network(path)
    for ids, mask, hidden in zip(*(golden[name] for name in (
            'input.ids', 'input.mask', 'output.hidden'))):
        count = int(mask.sum())
        with torch.no_grad():
            alone = network(input_ids=ids[None, :count],
                            attention_mask=mask[None, :count]).last_hidden_state[0]
        assert torch.allclose(alone, hidden[:count], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize('layout', ['safetensors', 'shards', 'bin'])
def test_a_folder_of_transformers_gives_the_same(folder, tmp_path, layout):
    hf = tmp_path / 'text_encoder'
    hf.mkdir()
    plain = load_network(folder / 'encoder.pth')
    tensors = {name: tensor for name, tensor in plain.state_dict().items()
               if name != umt5.TIED or layout == 'bin'}
    (hf / 'config.json').write_text(json.dumps({'feed_forward_proj': 'gated-gelu', 'd_kv': 8}))
    if layout == 'safetensors':
        save_file(tensors, hf / 'model.safetensors')
    elif layout == 'bin':
        torch.save({**tensors, 'lm_head.weight': torch.zeros(2)}, hf / 'pytorch_model.bin')
    else:
        parts = [dict(list(tensors.items())[i::2]) for i in range(2)]
        for i, part in enumerate(parts):
            save_file(part, hf / f'part_{i}.safetensors')
        (hf / 'model.safetensors.index.json').write_text(json.dumps({'weight_map': {
            name: f'part_{i}.safetensors' for i, part in enumerate(parts) for name in part}}))
    first = new_encoder(folder, tmp_path / '1').encode('a robot')
    second = new_encoder(folder, tmp_path / '2', path=hf).encode('a robot')
    assert torch.equal(first, second)


def test_what_transformers_saves_is_read_as_transformers_reads_it(folder, tmp_path):
    config = transformers.UMT5Config(
        vocab_size=40, d_model=16, d_kv=8, d_ff=20, num_layers=2, num_heads=3,
        relative_attention_max_distance=20)
    torch.manual_seed(0)
    network = transformers.UMT5EncoderModel(config).eval()
    network.save_pretrained(tmp_path / 'hf')
    ids = torch.arange(30)[None] % 40
    ones = torch.ones_like(ids)
    with torch.no_grad():
        want = network(input_ids=ids, attention_mask=ones).last_hidden_state
        got = load_network(tmp_path / 'hf')(input_ids=ids, attention_mask=ones).last_hidden_state
    assert torch.allclose(got, want, atol=1e-5)


def test_the_large_encoder_has_the_parameters_of_its_file():
    import math
    shapes = UMT5Spec(256_384, 4096, 4096, 10_240, 64, 24, 32).shapes
    assert sum(map(math.prod, shapes.values())) == 5_680_910_336
    assert len(shapes) == 2 + 24 * 10


def test_weights_keep_their_dtype_and_are_not_copied(folder, tmp_path):
    path = tmp_path / 'half.pth'
    torch.save({name: tensor.bfloat16() for name, tensor in weights().items()}, path)
    network = load_network(path)
    assert {p.dtype for p in network.parameters()} == {torch.bfloat16}
    assert not any(p.requires_grad for p in network.parameters())
    assert network.shared.weight.data_ptr() == network.encoder.embed_tokens.weight.data_ptr()
    assert new_encoder(folder, tmp_path, path=path).encode('rain').dtype is torch.bfloat16


def test_an_embedding_has_one_row_per_token_and_ends_with_the_end_mark(encoder, folder):
    assert encoder.encode('a robot in an office').shape == (6, SPEC.dim)
    assert encoder.encode('').shape == (1, SPEC.dim)
    assert Tokenizer(folder / 'tokenizer')('a robot') == ([3, 4, 1], 3)


def test_tokens_equal_those_of_transformers(folder):
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(folder / 'tokenizer' / 'tokenizer.json'), eos_token='</s>',
        pad_token='<pad>', unk_token='<unk>')
    for text in ('a robot in rain', 'warm', ''):
        assert Tokenizer(folder / 'tokenizer')(text)[0] == fast(text, truncation=True,
                                                                max_length=512)['input_ids']


def test_a_sentencepiece_model_alone_will_do(folder, tmp_path):
    sentencepiece = pytest.importorskip('sentencepiece')
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(['a robot in an office', 'rain and warm light'] * 20),
        model_prefix=str(tmp_path / 'spiece'), vocab_size=30, pad_id=0, eos_id=1, unk_id=2,
        bos_id=-1, hard_vocab_limit=False, minloglevel=2)
    tokens, count = Tokenizer(tmp_path)('a robot')
    assert tokens[-1] == 1 and count == len(tokens) > 2
    tokens, count = Tokenizer(tmp_path)('a robot ' * 400)
    assert len(tokens) == MAX_TOKENS < count


def test_a_long_prompt_is_cut_and_the_log_says_so_each_time(folder, tmp_path):
    lines = []
    encoder = new_encoder(folder, tmp_path, lines.append)
    for _ in range(2):  # computed, then from the cache
        embedding = encoder.encode('robot ' * 600)
        assert embedding.shape == (MAX_TOKENS, SPEC.dim)
    assert len(lines) == 2 and '601 tokens' in lines[0]
    encoder.encode('robot ' * 511)
    assert len(lines) == 2


@pytest.mark.parametrize('given, cleaned', [
    ('  a \n\t robot  ', 'a robot'), ('rain &amp;amp; fog', 'rain & fog'),
    ('sun&nbsp;shine', 'sun shine'), ('cafÃ©', 'café'), ('\ud800x', '?x'), ('', '')])
def test_prompts_are_cleaned(given, cleaned):
    assert clean_prompt(given) == cleaned


def test_the_second_run_needs_neither_encoder_nor_tokenizer(folder, tmp_path):
    import shutil
    copy = tmp_path / 'copy'
    shutil.copytree(folder, copy)
    first = new_encoder(copy, tmp_path)
    embedding = first.encode('a  robot')
    assert first.is_loaded
    second = new_encoder(copy, tmp_path)
    assert torch.equal(second.encode(' a robot '), embedding)
    assert not second.is_loaded
    shutil.rmtree(copy)
    assert torch.equal(new_encoder(copy, tmp_path).encode('a robot'), embedding)


@pytest.mark.parametrize('lost', ['encoder.pth', 'tokenizer'])
def test_a_missing_file_is_an_error_at_the_first_new_prompt_only(folder, tmp_path, lost):
    key = 'tokenizer_path' if lost == 'tokenizer' else 'path'
    for value in (tmp_path / lost, None):
        encoder = new_encoder(folder, tmp_path, **{key: value})
        with pytest.raises(SpecError, match='hf download robbyant') as caught:
            encoder.encode('never heard')
        assert 'never heard' in str(caught.value)


def test_another_encoder_or_tokenizer_has_other_entries(folder, tmp_path):
    first = new_encoder(folder, tmp_path).encode('rain')
    torch.save(weights(seed=1), tmp_path / 'other.pth')
    second = new_encoder(folder, tmp_path, path=tmp_path / 'other.pth').encode('rain')
    assert not torch.equal(first, second)
    os.utime(tmp_path / 'other.pth', ns=(1, 1))
    again = new_encoder(folder, tmp_path, path=tmp_path / 'other.pth')
    again.encode('rain')
    assert again.is_loaded and len(entries(tmp_path)) == 3


@pytest.mark.parametrize('content', [b'', b'\xff' * 200, None])
def test_a_damaged_entry_is_written_again(folder, tmp_path, content):
    embedding = new_encoder(folder, tmp_path).encode('rain')
    entry, = entries(tmp_path)
    good = entry.read_bytes()
    entry.write_bytes(good[:-3] if content is None else content)
    assert torch.equal(new_encoder(folder, tmp_path).encode('rain'), embedding)
    assert entries(tmp_path) == [entry] and entry.read_bytes() == good


def test_the_cache_keeps_the_entries_used_last(tmp_path):
    cache = EmbeddingCache(tmp_path, max_entries=3)
    for i in range(5):
        cache.write(str(i), torch.full((2, 4), float(i)), 2)
        os.utime(tmp_path / f'{i}.safetensors', (i, i))
        if i == 3:
            assert cache.read('1') is not None  # now used later than 2 and 3
    assert {path.stem for path in tmp_path.iterdir()} == {'1', '3', '4'}
    assert cache.read('0') is None
    assert torch.equal(cache.read('4')[0], torch.full((2, 4), 4.0))


def test_a_folder_that_cannot_be_written_costs_only_time(folder, tmp_path):
    (tmp_path / 'cache').write_text('a file in its place')
    lines = []
    encoder = new_encoder(folder, tmp_path, lines.append)
    assert encoder.encode('rain').shape == (2, SPEC.dim)
    assert len(lines) == 1 and 'not kept' in lines[0]


def test_released_memory_is_read_again_when_needed(encoder):
    first = encoder.encode('rain')
    encoder.release()
    assert not encoder.is_loaded
    assert torch.equal(encoder.encode('rain'), first) and not encoder.is_loaded
    encoder.encode('warm')
    assert encoder.is_loaded


def changed(**changes):
    """Return weights with some replaced, or left out where None."""
    tensors = {**weights(), **changes}
    return {name: tensor for name, tensor in tensors.items() if tensor is not None}


@pytest.mark.parametrize('tensors, words', [
    (changed(**{'norm.weight': None}), 'lacks encoder.final_layer_norm.weight'),
    (changed(**{'blocks.1.attn.q.weight': torch.zeros(3, 4)}), 'is (3, 4), not (24, 16)'),
    (changed(**{'blocks.0.attn.q.weight': None}), 'is not an UMT5 encoder'),
    (changed(**{'token_embedding.weight': None}), 'lacks token_embedding.weight'),
    (changed(**{'conv1.weight': torch.zeros(1)}), "holds 'conv1.weight'"),
    (changed(**{'blocks.3.norm1.weight': torch.zeros(16)}), 'and 10 more'),
    (changed(**{f'blocks.{i}.pos_embedding.embedding.weight': torch.zeros(32, 5)
                for i in range(2)}), '5 heads in 24'),
    ({'epoch': 3}, 'not a plain state_dict'), ([1, 2], 'not a plain state_dict')])
def test_weights_of_something_else_are_refused(tmp_path, tensors, words):
    torch.save(tensors, tmp_path / 'encoder.pth')
    with pytest.raises(SpecError) as caught:
        load_network(tmp_path / 'encoder.pth')
    assert words in str(caught.value)
    assert '\n' not in str(caught.value) and len(str(caught.value)) < 500


@pytest.mark.parametrize('name, content, words', [
    ('x.pth', b'', 'is empty'), ('x.pth', b'junk' * 100, 'cannot be read as weights'),
    ('x.safetensors', b'junk' * 100, 'no safetensors file'),
    ('x.pth', b'version https://git-lfs.github.com/spec/v1', 'pointer of git LFS')])
def test_damaged_files_are_refused(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SpecError, match=words):
        load_network(tmp_path / name)


def test_folders_of_something_else_are_refused(folder, tmp_path):
    with pytest.raises(SpecError, match='holds none of'):
        load_network(tmp_path)
    (tmp_path / 'config.json').write_text('{"feed_forward_proj": "relu"}')
    save_file(weights(), tmp_path / 'model.safetensors')
    with pytest.raises(SpecError, match="feed_forward_proj='relu'"):
        load_network(tmp_path)
    (tmp_path / 'model.safetensors.index.json').write_text('[]')
    with pytest.raises(SpecError, match='no JSON object'):
        load_network(tmp_path)


def test_a_tokenizer_of_something_else_is_refused(folder, tmp_path):
    with pytest.raises(SpecError, match='holds neither'):
        Tokenizer(tmp_path)
    (tmp_path / 'tokenizer.json').write_text('{}')
    with pytest.raises(SpecError, match='cannot be read as a tokenizer'):
        Tokenizer(tmp_path)
    content = json.loads((folder / 'tokenizer' / 'tokenizer.json').read_text())
    content['model']['vocab']['giant'] = 77
    (tmp_path / 'tokenizer.json').write_text(json.dumps(content))
    encoder = new_encoder(folder, tmp_path, tokenizer_path=tmp_path)
    with pytest.raises(SpecError, match='makes token 77, the encoder knows 40'):
        encoder.encode('giant')
    content['model']['vocab'] = {'<unk>': 0, 'x': 1}
    content['post_processor'] = None
    (tmp_path / 'tokenizer.json').write_text(json.dumps(content))
    with pytest.raises(SpecError, match='has no token </s>'):
        Tokenizer(tmp_path)


def test_a_prompt_must_be_a_text(encoder):
    with pytest.raises(SpecError, match='expected a text'):
        encoder.encode(None)
