#!/usr/bin/env bash
# kiln mil check takes anybody's program with its weight files, and says what is wrong and where.
. "$ROOT/tests/lib.sh"

head='program(1.3) { func main<ios18>(tensor<fp16, [1,4,1,16]> x) {'
blob='tensor<fp16, [6,4,1,1]>(BLOBFILE(path = string("@model_path/weights/w.bin"), offset = uint64(64)))'
cat >p.mil <<END
$head
tensor<fp16, [6,4,1,1]> w = const()[val = $blob];
tensor<fp16, [1,6,1,16]> y = conv(x = x, weight = w);
} -> (y); }
END
# One blob of 24 fp16 zeros.
{
    printf '\1\0\0\0\2\0\0\0'
    head -c 56 /dev/zero
    printf '\357\276\255\336\1\0\0\0\60\0\0\0\0\0\0\0\200\0\0\0\0\0\0\0'
    head -c 88 /dev/zero
} >w.bin

expect 0 "$KILN" mil check p.mil
says stdout 'p.mil: accepted: program(1.3), ios18, 1 operations, 1 constants (1 from files)'
says stdout 'tensor<fp16, [1,6,1,16]>, 192 bytes'
mkdir -p folder/weights
mv w.bin folder/weights
expect 1 "$KILN" mil check p.mil
says stderr 'p.mil:2:43: expected a weight file @model_path/weights/w.bin, found none'
expect 0 "$KILN" mil check p.mil --weights folder
expect 0 "$KILN" mil check p.mil --weights folder/weights --json
says stdout '"accepted": true'
expect 1 "$KILN" mil check p.mil --weights folder --limit rank=off --limit width-multiple=32 --json
says stdout '"limit": "width-multiple"'
says stderr 'p.mil:1:58: limit width-multiple: input x: a last axis of 16'
expect 2 "$KILN" mil check p.mil --weights folder --limit width=32
says stderr 'limit width=32: unknown; use NAME=on|off|NUMBER with one of compile-budget'
sed 's/weights\/w.bin/..\/folder\/weights\/w.bin/' p.mil >out.mil
mkdir below
mv out.mil below
expect 1 "$KILN" mil check below/out.mil --weights below
says stderr 'found none'
expect 2 "$KILN" mil
says stderr 'what to do is missing; use one of check'
expect 2 "$KILN" mil chek
says stderr 'chek is unknown; use one of check'
# Document masks and adapters are inputs: more columns behind the activations.
for kernel in attn_fwd ffn_bwd sdpa_fwd; do
    emit=(mil emit --model stories15m --layer 1 --kernel "$kernel" --seq 64 -o made)
    expect 0 "$KILN" "${emit[@]}"
    mv stdout plain
    expect 0 "$KILN" "${emit[@]}" --doc-mask --lora 4 --lora-targets all
    ! cmp -s stdout plain || fail "$kernel: neither mask nor adapters"
    expect 0 "$KILN" mil check made/model.mil
done
expect 2 "$KILN" mil emit --model stories15m --kernel attn_fwd -o made --lora-targets q
expect 0 "$KILN" mil limits
says stdout 'width-multiple             16  the last axis of an input or output divides by it'
for part in check emit run limits; do
    expect 0 "$KILN" mil "$part" --help
    says stdout "kiln mil $part"
done

# inspect reads a weight file, too: 24 zeros.
expect 0 "$KILN" inspect folder/weights/w.bin
says stdout 'offset 64       fp16, 24 elements from 0 to 0'
head -c 170 folder/weights/w.bin >cut.bin
expect 1 "$KILN" inspect cut.bin
says stderr 'blob at offset 64: 48 payload bytes from 128 on, but the file has 42'
