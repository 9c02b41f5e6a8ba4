#!/usr/bin/env bash
# make install puts everything in its place, and examples/ build and run against what it installed.
. "$ROOT/tests/lib.sh"

[ "$KILN" = "$ROOT/build/kiln" ] || skip 'the release build is what is installed'
command -v pkg-config >/dev/null || skip 'pkg-config is absent'
stage=$PWD/stage
make -C "$ROOT" install-files DESTDIR="$stage" PREFIX=/opt/kiln >install.log 2>&1 ||
    { cat install.log; fail 'make install'; }
for file in bin/kiln lib/libkiln.so lib/libkiln.a lib/pkgconfig/kiln.pc include/kiln/train.h \
    share/man/man1/kiln.1 share/man/man1/kiln-train.1 share/man/man1/kiln-mil-emit.1 \
    share/bash-completion/completions/kiln share/zsh/site-functions/_kiln \
    share/fish/vendor_completions.d/kiln.fish; do
    [ -s "$stage/opt/kiln/$file" ] || fail "$file is not installed"
done
[ "$(find "$stage/opt/kiln/include" -name '*.h' | wc -l)" = \
    "$(find "$ROOT/include" -name '*.h' | wc -l)" ] || fail 'headers are missing'
! grep -rqF "$stage" "$stage/opt/kiln/share" "$stage/opt/kiln/lib/pkgconfig" ||
    fail 'the folder of the installation is written into what it installs'

export PKG_CONFIG_PATH=$stage/opt/kiln/lib/pkgconfig PKG_CONFIG_SYSROOT_DIR=$stage
export LD_LIBRARY_PATH=$stage/opt/kiln/lib
[ "$(pkg-config --modversion kiln)" = "$("$KILN" --version | cut -d ' ' -f 2)" ] ||
    fail 'kiln.pc has another version'
cp "$ROOT/examples/"*.c .
lines=$(awk '/^#include/ { code = 1 } code && NF' finetune.c | wc -l)
[ "$lines" -le 40 ] || fail "finetune.c has $lines lines of code; 40 were promised"
# As its own comment says.
build=$(sed -n 's/^ \*   \(cc finetune.c .*\)/\1/p' finetune.c)
[ -n "$build" ] || fail 'finetune.c does not say how to build it'
eval "$build -Wall -Wextra -Werror" || fail "$build"
if command -v g++ >/dev/null; then
    # shellcheck disable=SC2046 # several words
    g++ -std=c++20 -Wall -Wpedantic -Werror -x c++ finetune.c -o finetune++ \
        $(pkg-config --cflags --libs kiln) || fail 'finetune.c is not C++, too'
fi
expect 2 ./finetune
expect 1 ./finetune no.bin no.tok no.txt runs/mine
says stderr 'no.txt'
[ ! -e runs ] || fail 'a run of nothing is left'

need "$KILN_DATA/stories260K.bin"
head -c 60000 "$KILN_DATA/tinystories_val.txt" >stories.txt
expect 0 ./finetune "$KILN_DATA/stories260K.bin" "$KILN_DATA/tok512.bin" stories.txt runs/mine
[ "$(grep -c '^step [0-9]*: loss [0-9.]*, [0-9]* tokens/s$' stdout)" = 20 ] ||
    { cat stdout; fail 'not every step was told'; }
says stdout 'the model: runs/mine/model.bin'
expect 0 "$KILN" inspect runs/mine/model.bin
expect 0 "$KILN" train --resume runs/mine --steps 22 --json
says stdout '"step": 22'
expect 1 ./finetune "$KILN_DATA/stories260K.bin" "$KILN_DATA/tok512.bin" stories.txt runs/mine
says stderr 'runs/mine'
# A run's folder is a tokenizer where it holds one. What examples/README.md says of PREFIX: a program
# that finds its library by itself.
expect 0 ./finetune runs/mine runs/mine stories.txt runs/ft3
grep -qF 'runs/mine runs/mine' "$ROOT/examples/README.md" || fail 'README.md of examples says otherwise'
link=$(sed -n 's/^cc finetune.c .* kiln) \(-Wl,.*\)/\1/p' "$ROOT/examples/README.md")
[ -n "$link" ] || fail 'README.md of examples does not say how a program finds the library'
sed -i "s|^prefix=.*|prefix=$stage/opt/kiln|" "$PKG_CONFIG_PATH/kiln.pc"
(unset PKG_CONFIG_SYSROOT_DIR && eval "cc finetune.c -o alone \$(pkg-config --cflags --libs kiln) $link") ||
    fail 'the library is not linked by its place'
expect 2 env -u LD_LIBRARY_PATH ./alone
says stderr 'finetune MODEL TOKENIZER TEXT RUN'
if [ -e finetune++ ]; then
    expect 0 ./finetune++ "$KILN_DATA/stories260K.bin" "$KILN_DATA/tok512.bin" stories.txt runs/cpp
    [ -s runs/cpp/model.bin ] || fail 'the C++ program trained nothing'
fi
