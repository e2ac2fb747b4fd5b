"""stories260K, a real pretrained Llama of 260 thousand parameters: from llama2.c's format to Hugging Face's."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch


def convert(source: Path, target: Path) -> Path:
    """Write `target`, a folder that `AutoModelForCausalLM` and `AutoTokenizer` load, from llama2.c's two files."""
    from safetensors.torch import save_file
    from transformers import LlamaConfig

    dim, hidden, layers, heads, kv_heads, vocab, context = np.fromfile(
        source / "stories260K.bin", dtype=np.int32, count=7
    ).tolist()
    assert vocab > 0, "a negative size would mean a token head of its own"
    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=dim,
        intermediate_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=context,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        architectures=["LlamaForCausalLM"],
        dtype="float32",
    )
    target.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(target)
    save_file(weights(source / "stories260K.bin", config), target / "model.safetensors", metadata={"format": "pt"})
    tokenizer(source / "tok512.bin", vocab).save_pretrained(target)
    return target


def weights(path: Path, config) -> dict[str, torch.Tensor]:
    data = np.fromfile(path, dtype=np.float32, offset=28)
    position = 0

    def take(*shape: int) -> torch.Tensor:
        nonlocal position
        size = int(np.prod(shape))
        block = data[position : position + size].reshape(shape).copy()
        position += size
        return torch.from_numpy(block)

    dim, hidden, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    kv_dim = dim // heads * kv_heads
    found = {"model.embed_tokens.weight": take(config.vocab_size, dim)}
    # Each block stands there for all layers before the next one begins.
    blocks = {
        "input_layernorm": take(layers, dim),
        "self_attn.q_proj": take(layers, dim, dim),
        "self_attn.k_proj": take(layers, kv_dim, dim),
        "self_attn.v_proj": take(layers, kv_dim, dim),
        "self_attn.o_proj": take(layers, dim, dim),
        "post_attention_layernorm": take(layers, dim),
        "mlp.gate_proj": take(layers, hidden, dim),
        "mlp.down_proj": take(layers, dim, hidden),
        "mlp.up_proj": take(layers, hidden, dim),
    }
    found["model.norm.weight"] = take(dim)
    rotary = config.max_position_embeddings * dim // heads
    assert position + rotary == len(data), "the file is not laid out as expected"
    for layer in range(layers):
        for name, block in blocks.items():
            tensor = block[layer]
            if name.endswith("q_proj"):
                tensor = half_split(tensor, heads)
            elif name.endswith("k_proj"):
                tensor = half_split(tensor, kv_heads)
            found[f"model.layers.{layer}.{name}.weight"] = tensor.contiguous()
    return found


def half_split(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """llama2.c rotates neighbouring pairs of a head's rows, Hugging Face the first half against the second."""
    rows, width = weight.shape
    return weight.view(heads, rows // heads // 2, 2, width).transpose(1, 2).reshape(rows, width)


def pieces(path: Path, vocab: int) -> Iterator[tuple[str, float]]:
    data = path.read_bytes()
    position = 4
    for _ in range(vocab):
        score, length = struct.unpack_from("<fi", data, position)
        position += 8
        yield data[position : position + length].decode("utf-8"), score
        position += length


def tokenizer(path: Path, vocab: int):
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    known: dict[str, int] = {}
    scores: dict[str, float] = {}
    for number, (piece, score) in enumerate(pieces(path, vocab)):
        name = piece.strip("\n") if number in (1, 2) else piece.replace(" ", "▁")
        known[name], scores[name] = number, score
    assert len(known) == vocab
    merges = []
    for name in known:
        splits = [(name[:cut], name[cut:]) for cut in range(1, len(name))]
        splits = [(left, right) for left, right in splits if left in known and right in known]
        merges += sorted(splits, key=lambda pair: (known[pair[0]], known[pair[1]]))
    merges.sort(key=lambda pair: -scores["".join(pair)])
    bpe = Tokenizer(models.BPE(known, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    bpe.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    bpe.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    bpe.add_special_tokens([AddedToken(name, special=True) for name in ("<unk>", "<s>", "</s>")])
    assert json.loads(bpe.to_str())["model"]["type"] == "BPE"
    return PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
