#!/usr/bin/env bash
# The key/values of a .gguf, read by the gguf package under the names that llama.cpp knows.
. "$ROOT/tests/lib.sh"

need "$KILN_DATA/hf-story"
need_python gguf

# A run by its folder, a file by its name, a folder by its own; no folder of this machine.
for i in $(seq 300); do echo "The $i birds sang to the $((i * 7 % 100)) old trees."; done >text.txt
expect 0 "$KILN" train --data text.txt --dim 32 --hidden 64 --heads 2 --kv-heads 1 --layers 1 --seq 64 \
    --batch 1 --steps 1 --rope-theta 50000 --out runs/birds
mkdir story
cp "$KILN_DATA"/hf-story/* story
cat >story/chat_template.jinja <<'T'
{% for m in messages %}{{ m.content }}{% endfor %}
T
sed -i 's/"rope_scaling": null/"rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}/' story/config.json
expect 0 "$KILN" convert runs/birds birds.gguf --dtype q8_0
expect 0 "$KILN" convert runs/birds/model.bin file.gguf --dtype bf16
expect 0 "$KILN" convert "$PWD/story/" story.gguf --dtype f16

cat >keys.py <<'E2'
import gguf

K = gguf.Keys


def read(path):
    return {k: f.contents() for k, f in gguf.GGUFReader(path).fields.items()}


def check(path, want):
    have = read(path)
    for key, value in want.items():
        got = have.get(key)
        same = got == value if not isinstance(value, float) else abs(got - value) <= 1e-6 * abs(value)
        assert same, f"{path}: {key} is {got!r}, not {value!r}"


def of(key):
    return key.format(arch="llama")


birds = {
    K.General.ARCHITECTURE: "llama", K.General.TYPE: "model", K.General.NAME: "birds",
    K.General.FILE_TYPE: int(gguf.LlamaFileType.MOSTLY_Q8_0),
    K.General.QUANTIZATION_VERSION: gguf.GGML_QUANT_VERSION,
    of(K.LLM.CONTEXT_LENGTH): 64, of(K.LLM.EMBEDDING_LENGTH): 32, of(K.LLM.BLOCK_COUNT): 1,
    of(K.LLM.FEED_FORWARD_LENGTH): 64, of(K.LLM.VOCAB_SIZE): 259,
    of(K.Attention.HEAD_COUNT): 2, of(K.Attention.HEAD_COUNT_KV): 1,
    of(K.Attention.LAYERNORM_RMS_EPS): 1e-5,
    of(K.Rope.DIMENSION_COUNT): 16, of(K.Rope.FREQ_BASE): 50000.0,
}
check("birds.gguf", birds)
check("file.gguf", {**birds, K.General.FILE_TYPE: int(gguf.LlamaFileType.MOSTLY_BF16)})
check("story.gguf", {
    K.General.NAME: "story", K.General.FILE_TYPE: int(gguf.LlamaFileType.MOSTLY_F16),
    of(K.Rope.SCALING_TYPE): "yarn", of(K.Rope.SCALING_FACTOR): 4.0,
    of(K.Rope.SCALING_ORIG_CTX_LEN): 128,
    K.Tokenizer.MODEL: "llama", K.Tokenizer.BOS_ID: 1, K.Tokenizer.EOS_ID: 2,
    K.Tokenizer.UNK_ID: 0, K.Tokenizer.PAD_ID: 0,
    K.Tokenizer.ADD_BOS: True, K.Tokenizer.ADD_EOS: False,
    K.Tokenizer.CHAT_TEMPLATE: open("story/chat_template.jinja").read(),
})
have = read("story.gguf")
for key in (K.Tokenizer.LIST, K.Tokenizer.SCORES, K.Tokenizer.TOKEN_TYPE):
    assert len(have[key]) == 2048, key
E2
"$PYTHON" keys.py || fail 'the gguf package reads other keys'

# What pads comes through, to a folder.
expect 0 "$KILN" convert story.gguf again
says again/tokenizer_config.json '"pad_token": "<unk>"'
