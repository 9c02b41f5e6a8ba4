#!/usr/bin/env bash
# kiln mil run: a program on files; what does not fit is refused with both sides named.
. "$ROOT/tests/lib.sh"

cat >p.mil <<'MIL'
program(1.3)
[buildInfo = dict<string, string>({{"coremltools-version", "9.0"}})]
{
    func main<ios18>(tensor<fp16, [1,1,1,16]> a, tensor<fp16, [1,1,1,16]> x) {
        tensor<fp16, [1,1,1,16]> y = mul(x = a, y = x)[name = string("y")];
        tensor<fp16, [1,1,1,16]> z = sub(x = a, y = x)[name = string("z")];
    } -> (y, z);
}
MIL

# fp16, little-endian: 16 times 300, 16 times -2, 16 times -600, 16 times 302.
repeat() { for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do printf '%b' "$1"; done; }
repeat '\xb0\x5c' >a.f16
repeat '\x00\xc0' >x.f16
repeat '\xb0\xe0' >want_y.f16
repeat '\xb8\x5c' >want_z.f16
expect 0 "$KILN" mil run p.mil --in a=a.f16 --in x=x.f16 --out y=y.f16 --out z=z.f16
cmp y.f16 want_y.f16 || fail '300 by -2 is another number'
cmp z.f16 want_z.f16 || fail '300 less -2 is another number'
says stdout 'tensor<fp16, [1,1,1,16]>, 32 bytes to z.f16'

# 300 by 300 is beyond fp16: infinity. An output that is not named is not written.
rm z.f16
repeat '\x00\x7c' >want_y.f16
expect 0 "$KILN" mil run p.mil --in a=a.f16 --in x=a.f16 --out y=y.f16 --json
cmp y.f16 want_y.f16 || fail '300 by 300 is finite'
[ ! -e z.f16 ] || fail 'z was not asked for'
says stdout '"outputs": [{"name": "y", "type": "tensor<fp16, [1,1,1,16]>", "bytes": 32, "file": "y.f16"}'
says stdout '{"name": "z", "type": "tensor<fp16, [1,1,1,16]>", "bytes": 32, "file": null}]'

head -c 30 x.f16 >short.f16
rm y.f16
expect 1 "$KILN" mil run p.mil --in a=a.f16 --in x=short.f16 --out y=y.f16
says stderr 'short.f16 has 30 bytes, but input x'
says stderr 'has 32'
expect 1 "$KILN" mil run p.mil --in a=a.f16 --in x=nowhere.f16 --out y=y.f16
says stderr nowhere.f16
expect 1 "$KILN" mil run p.mil --in a=a.f16 --in x=x.f16 --out y=y.f16 --limit width-multiple=32
says stderr 'limit width-multiple'
expect 2 "$KILN" mil run p.mil --in a=a.f16 --in b=x.f16 --out y=y.f16
says stderr 'no input b; it has a, x'
expect 2 "$KILN" mil run p.mil --in a=a.f16 --in x=x.f16 --out x=y.f16
says stderr 'no output x; it has y, z'
expect 2 "$KILN" mil run p.mil --in a=a.f16 --out y=y.f16
says stderr 'input x of p.mil has no file'
expect 2 "$KILN" mil run p.mil --in a=a.f16 --in x=x.f16
says stderr '--out NAME=FILE'
expect 2 "$KILN" mil run p.mil --in a=a.f16 --in a=x.f16 --out y=y.f16
says stderr 'twice'
expect 2 "$KILN" mil run p.mil --in a --out y=y.f16
says stderr 'expected NAME=FILE'
[ ! -e y.f16 ] || fail 'a run that failed wrote its output'
