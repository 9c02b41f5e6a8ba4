#!/usr/bin/env python3
"""Texts and tokenizers that kiln is compared with the packages `tokenizers` and `sentencepiece` on.

    tokenizers_lab.py text MIB OUT            mixed text of many scripts
    tokenizers_lab.py train SHAPE TEXT OUT    a tokenizer.json in the shape of gpt2, llama3, qwen2 ...
    tokenizers_lab.py spm TEXT PREFIX [OPTION=VALUE]...    a SentencePiece model
    tokenizers_lab.py compare KILN TOKENIZER TEXT [KILN_TOKENIZER] [lossless]
    tokenizers_lab.py compare-spm KILN MODEL TEXT [KILN_TOKENIZER]

`compare` ends with 0 when `kiln tokenize --ids` gives the ids of the package and, with `lossless`,
`--decode` gives the text back. Everything is made from fixed seeds.
"""
import json
import random
import subprocess
import sys
import tempfile

GPT2 = None  # ByteLevel's own
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")

# First and last code points of what the text is made of; all assigned since long before Unicode 12.
SCRIPTS = [(0x41, 0x5A), (0x61, 0x7A), (0xC0, 0x17F), (0x391, 0x3A1), (0x3B1, 0x3C9), (0x410, 0x44F),
           (0x531, 0x556), (0x5D0, 0x5EA), (0x627, 0x64A), (0x905, 0x939), (0x985, 0x98C), (0xE01, 0xE2E),
           (0x10A0, 0x10C5), (0x1100, 0x1112), (0x1E00, 0x1EFF), (0x1F00, 0x1F15), (0x3041, 0x3096),
           (0x30A1, 0x30FA), (0x4E00, 0x9FA5), (0xAC00, 0xD7A3), (0xFF21, 0xFF3A), (0x10400, 0x1044F),
           (0x1D400, 0x1D454), (0x20000, 0x2A6D6), (0xF900, 0xFA0D)]
MARKS = [0x300, 0x301, 0x302, 0x303, 0x308, 0x30A, 0x327, 0x328, 0x338, 0x345, 0x591, 0x5B0, 0x64B, 0x651,
         0x654, 0x93C, 0x94D, 0x9BE, 0xE31, 0xE48, 0x1161, 0x1175, 0x11A8, 0x11C2, 0x20D0, 0x3099, 0x309A]
DIGITS = [(0x30, 0x39), (0x660, 0x669), (0x966, 0x96F), (0x2070, 0x2079), (0x2150, 0x215E), (0x2160, 0x2188),
          (0xFF10, 0xFF19), (0x1D7CE, 0x1D7FF)]
EMOJI = ["\U0001F600", "\U0001F469\u200D\U0001F52C", "\U0001F44D\U0001F3FD", "\U0001F1E9\U0001F1EA", "\u2764\uFE0F",
         "\U0001F9D1\u200D\U0001F91D\u200D\U0001F9D1", "\u2603", "\U0001F680"]
BLANKS = [" ", "  ", "   ", "\t", "\n", "\n\n", "\r\n", "\r", "\v", "\f", "\x85", "\xa0", "\u1680", "\u2003",
          "\u200a", "\u2028", "\u2029", "\u202f", "\u205f", "\u3000", " \n", "\n ", "\t\t", " \t \n", "\u180e",
          "\u200b", "\ufeff"]
CODE = ["for (int i = 0; i < n; i++) {\n        a[i] += b->c[i] * 0x1F;\n}\n", "def f(x):\n    return x**2 != 'a\\n'\n",
        "<a href=\"https://example.org/?q=1&r=%20\">x</a>\n", "SELECT * FROM t WHERE a >= 10.5e-3;\n",
        "{\"key\": [1, 22, 333, 4444, 55555]}\n", "// ---------- ########## ==========\n"]
ENGLISH = ("the of and to in is that it's was for on are as with his they I'm at be this have from or one had by "
           "we'll word but not what all were WE'VE you're when your can said there use an each which she'd do "
           "how their if will up other about out many then them these so some her would make like him into time "
           "has look two more write go see number no way could people my than first water been call who oil its "
           "now find long down day did get come made may part don't DON'T It'S can\u2019t 'tis o'clock \u017Ft'\u017F").split()
ODD = ["\0", "\x01", "\x07", "\x1b[0m", "\x7f", "\u200d", "\u200f", "\u202e", "\u2066", "\ufffd", "\ue000", "\U0010FFFD",
       "\u212a", "\u2126", "\u212b", "\u0340", "\u0374", "\u037e", "\u2000", "\u2001", "\ufb01", "\u1e9b\u0323", "\u2581",
       "\u2581\u2581", "\u0344", "\u0958", "\u2adc", "\u0130", "\u00df", "\u01c4", "..", "...", "!!", "?!", "\u2014", "\u201cx\u201d",
       "\u00bfqu\u00e9?", "\u20ac5", "$1,234.56", "12345678901234567890", "3.14159", "\u00bd", "\u2460", "_", "__init__", "a_b"]


def one_of(r, ranges):
    low, high = r.choice(ranges)
    return chr(r.randint(low, high))


def mixed_piece(r):
    kind = r.random()
    if kind < 0.42:
        return " ".join(r.choice(ENGLISH) for _ in range(r.randint(1, 12))) + r.choice([" ", ", ", ". ", "\n", " "])
    if kind < 0.57:
        low, high = r.choice(SCRIPTS)
        word = "".join(chr(r.randint(low, high)) + (chr(r.choice(MARKS)) if r.random() < 0.1 else "")
                       for _ in range(r.randint(1, 9)))
        return word + r.choice([" ", "", "\n", "'s ", "!"])
    if kind < 0.63:
        return one_of(r, SCRIPTS) + "".join(chr(r.choice(MARKS)) for _ in range(r.randint(1, 4)))
    if kind < 0.70:
        return "".join(one_of(r, DIGITS) for _ in range(r.randint(1, 12)))
    if kind < 0.76:
        return r.choice(EMOJI) * r.randint(1, 3)
    if kind < 0.88:
        return r.choice(BLANKS) * r.choice([1, 1, 1, 2, 3, 7, 40])
    if kind < 0.94:
        return r.choice(CODE)
    return r.choice(ODD) * r.choice([1, 1, 2, 3])


def text(mib, out):
    r = random.Random(7)
    size, limit = 0, int(float(mib) * (1 << 20))
    with open(out, "wb") as f:
        while size < limit:
            size += f.write("".join(mixed_piece(r) for _ in range(64)).encode())
        f.write((" " * 3000 + "x" * 3000 + "\n" * 500 + "\u00e9\u0301" * 400 + "=" * 2000).encode())


def shape_of(name):
    from tokenizers import AddedToken, Regex, normalizers, pre_tokenizers, processors

    def split(pattern):
        return pre_tokenizers.Sequence([
            pre_tokenizers.Split(Regex(pattern), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)])
    qwen = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|vision_pad|>"]
    shapes = {
        "gpt2": (None, pre_tokenizers.ByteLevel(add_prefix_space=False), ["<|endoftext|>"], []),
        "gpt2-prefix": (None, pre_tokenizers.ByteLevel(add_prefix_space=True), ["<|endoftext|>"], []),
        "llama3": (None, split(LLAMA3), ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"], []),
        "qwen2": (normalizers.NFC(), split(QWEN2), qwen, []),
        "qwen3": (normalizers.NFC(), split(QWEN2), qwen,
                  [AddedToken(t, normalized=False) for t in ("<tool_call>", "</tool_call>", "<think>", "</think>")]),
        "digits": (normalizers.NFKC(), pre_tokenizers.Sequence([
            pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]),
            ["<|endoftext|>"],
            [AddedToken(" the", single_word=True), AddedToken("[X]", lstrip=True, rstrip=True, normalized=False),
             AddedToken("\n\n\n", normalized=True)]),
    }
    for behavior in ("removed", "merged_with_previous", "merged_with_next", "contiguous"):
        shapes["split-" + behavior] = (normalizers.Replace(Regex("[0-9]{4,}"), "#"), pre_tokenizers.Sequence([
            pre_tokenizers.Split(" ", behavior=behavior, invert=behavior == "contiguous"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]), ["<|endoftext|>"], [])
    return shapes[name]


def train(shape, source, out):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    normalizer, cut, special, added = shape_of(shape)
    tok = Tokenizer(models.BPE(ignore_merges=shape == "llama3"))
    if normalizer is not None:
        tok.normalizer = normalizer
    tok.pre_tokenizer = cut
    tok.decoder = decoders.ByteLevel()
    with open(source, encoding="utf-8", newline="") as f:
        lines = f.read(2000000).split("\n")
    tok.train_from_iterator(lines, trainers.BpeTrainer(
        vocab_size=3000, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    tok.add_special_tokens(special)
    tok.add_tokens(added)
    if shape == "llama3":
        tok.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), processors.TemplateProcessing(
            single="<|begin_of_text|> $A", pair="<|begin_of_text|> $A <|begin_of_text|>:1 $B:1",
            special_tokens=[("<|begin_of_text|>", tok.token_to_id("<|begin_of_text|>"))])])
    else:
        tok.post_processor = processors.ByteLevel(trim_offsets=False)
    tok.save(out)


def spm(source, prefix, *options):
    import sentencepiece
    settings = dict(option.split("=") for option in options)
    with tempfile.NamedTemporaryFile("wb") as f:
        f.write(open(source, "rb").read(1500000).replace(b"\0", b" "))
        f.flush()
        sentencepiece.SentencePieceTrainer.train(
            input=f.name, model_prefix=prefix, **{"model_type": "bpe", "vocab_size": 2000, "minloglevel": 2,
            "byte_fallback": True, "normalization_rule_name": "identity", "remove_extra_whitespaces": False,
            "character_coverage": 0.98, "hard_vocab_limit": False, "split_digits": True, **settings})


def kiln(program, source, tokenizer, flag):
    return subprocess.run([program, "tokenize", source, "--tokenizer", tokenizer, flag], check=True,
                          stdout=subprocess.PIPE).stdout


def judge(program, source, tokenizer, want, lossless=None):
    got = [int(x) for x in kiln(program, source, tokenizer, "--ids").split()]
    if got != want:
        at = next((i for i, (a, b) in enumerate(zip(got, want)) if a != b), min(len(got), len(want)))
        sys.exit(f"{tokenizer}: id {at} of {len(got)} and {len(want)}: {got[at - 3:at + 6]}, expected {want[at - 3:at + 6]}")
    if lossless is not None:
        with tempfile.NamedTemporaryFile("w") as f:
            f.write("\n".join(map(str, got)))
            f.flush()
            if kiln(program, f.name, tokenizer, "--decode") != lossless:
                sys.exit(f"{tokenizer}: decoding does not give the text back")
    print(f"{tokenizer}: {len(got)} ids are equal")


def load(path):
    """The file; where pieces have blanks, as in one copy of Llama's, its merges become pairs."""
    from tokenizers import Tokenizer
    data = json.load(open(path, encoding="utf-8"))
    vocab, merges = data["model"]["vocab"], data["model"]["merges"]
    if any(isinstance(merge, str) and merge.count(" ") != 1 for merge in merges):
        data["model"]["merges"] = [next(
            [m[:k], m[k + 1:]] for k in range(1, len(m) - 1)
            if m[k] == " " and all(x in vocab for x in (m[:k], m[k + 1:], m[:k] + m[k + 1:]))) for m in merges]
    return Tokenizer.from_str(json.dumps(data))


def compare(program, tokenizer, source, mine=None, *flags):
    data = open(source, "rb").read()
    tok = load(tokenizer)
    want = tok.encode(data.decode(), add_special_tokens=False).ids
    judge(program, source, mine or tokenizer, want, data if "lossless" in flags else None)


def compare_spm(program, model, source, mine=None):
    import sentencepiece
    sp = sentencepiece.SentencePieceProcessor(model_file=model)
    judge(program, source, mine or model, sp.encode(open(source, "rb").read().decode()))


if __name__ == "__main__":
    {"text": text, "train": train, "spm": spm, "compare": compare, "compare-spm": compare_spm}[sys.argv[1]](*sys.argv[2:])
