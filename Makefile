# kiln: one Makefile. `make help` lists what it does.
#
# Sources are found by wildcard, objects go to build/<mode>/, header dependencies are written by
# the compiler. A file named *_avx2.c gets FLAGS_avx2, *_avx512.c FLAGS_avx512 and so on; no other
# file gets instruction-set flags, so one binary runs on every machine and chooses at run time.

VERSION := 0.1.0
SOVERSION := 0
# Of the version, for man pages.
VERSION_DATE := 2026-11-22

ifeq ($(MAKELEVEL),0)
MAKEFLAGS += -j$(shell nproc 2>/dev/null || echo 2)
endif
MAKEFLAGS += --no-builtin-rules --no-print-directory
.DELETE_ON_ERROR:

MODE    ?= release
BUILD   ?= build
PREFIX  ?= /usr/local
DESTDIR ?=
ifeq ($(origin CC),default)
CC := gcc
endif

# ---- flags --------------------------------------------------------------------------------------

HAVE_DNNL ?= $(shell $(CC) -E -include oneapi/dnnl/dnnl.h -x c /dev/null >/dev/null 2>&1 && echo 1)
DEFS += -DKILN_HAVE_DNNL=$(if $(filter 1,$(HAVE_DNNL)),1,0)
LIBS += $(if $(filter 1,$(HAVE_DNNL)),-ldnnl)
LIBS += -ljansson -lpcre2-8 -lutf8proc -lz -lzstd -lmicrohttpd -lm -ldl -pthread
# Objective-C: on a Mac apple*.m belong to the library; on Linux they belong to the tests, with fakes
# of Apple's classes, where gobjc and GNUstep are there. Clang builds C, gcc builds Objective-C.
ifeq ($(shell uname -s),Darwin)
LIBS += -framework Foundation -framework IOSurface -lobjc
OBJC := $(CC)
OBJC_FLAGS := -fno-objc-arc
else
OBJC := gcc
OBJC_FLAGS := -isystem /usr/include/GNUstep -Itests/device/fake -fobjc-exceptions -fexceptions \
              -D_NATIVE_OBJC_EXCEPTIONS -fconstant-string-class=NSConstantString \
              -Wno-format-truncation
HAVE_OBJC ?= $(shell $(OBJC) $(OBJC_FLAGS) -E -include Foundation/Foundation.h -x objective-c \
               /dev/null >/dev/null 2>&1 && echo 1)
endif
# More than one process (docs/distributed.md): MPI=1 puts src/ranks/mpi*.c into the library in the
# place of none.c. Where MPI is there, a program with it is made for the tests in any case.
MPI ?= 0
MPI_NAME := $(shell for name in ompi-c mpich; do pkg-config --exists $$name 2>/dev/null && echo $$name; done | head -n 1)
MPI_FLAGS := $(patsubst -I%,-isystem %,$(if $(MPI_NAME),$(shell pkg-config --cflags $(MPI_NAME))))
MPI_LIBS := $(if $(MPI_NAME),$(shell pkg-config --libs $(MPI_NAME)))
ifeq ($(MPI),1)
LIBS += $(or $(MPI_LIBS),$(error MPI=1: pkg-config knows no MPI; scripts/setup --mpi installs Open MPI))
endif
DEFS += -D_GNU_SOURCE= -DKILN_VERSION=\"$(VERSION)\"

OPT_release := -O3 -g
OPT_debug   := -O0 -g
OPT_check   := -O2 -g -Werror
OPT_clang   := -O2 -g -Werror
OPT_asan    := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
OPT_coverage := -O0 -g --coverage
OPT_tsan    := -O1 -g -fsanitize=thread
OPT_fuzz    := -O1 -g -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined
OPT := $(or $(OPT_$(MODE)),$(error MODE=$(MODE): one of release debug check clang asan tsan coverage fuzz))

FLAGS_avx2   := -mavx2 -mfma -mf16c
FLAGS_avx512 := -mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma -mprefer-vector-width=512
FLAGS_avx512bf16 := $(FLAGS_avx512) -mavx512bf16
FLAGS_amx    := $(FLAGS_avx512bf16) -mamx-tile -mamx-bf16
FLAGS_neon   := # every arm64 has it
FLAGS_neonbf16 := -march=armv8.2-a+bf16
isa_flags = $(FLAGS_$(lastword $(subst _, ,$(basename $(notdir $<)))))
test_flags = $(if $(filter tests/%,$<),$(TEST_FLAGS))

STD   := -std=gnu11 -ffp-contract=off -fvisibility=hidden -fPIC -pthread
WARN  := -Wall -Wextra -Wshadow -Wvla -Wundef -Wstrict-prototypes -Wmissing-prototypes \
         -Wcast-qual -Wdouble-promotion -Wno-sign-conversion -Wno-psabi
# Paths are cut by snprintf only beyond lengths that are refused at the edge; gcc cannot know.
WARN += $(if $(findstring clang,$(CC)),,-Wno-format-truncation)
MADE  := $(BUILD)/made
FLAGS := $(STD) $(WARN) -Iinclude -Isrc -Itests -I$(MADE) $(DEFS)
COMPILE := $(CC) $(FLAGS) $(OPT) $(CPPFLAGS) $(CFLAGS)
COMPILE_OBJC := $(OBJC) $(FLAGS) $(OBJC_FLAGS) $(OPT) $(CPPFLAGS) $(CFLAGS)
# Names what is made; with V=1 shows the command.
Q = $(if $(V),,@echo "  $@";)

# ---- what is built from what ---------------------------------------------------------------------

CPU := $(shell $(CC) -dumpmachine | cut -d- -f1)
OTHER_CPU := $(if $(filter x86_64,$(CPU)),,src/kernel/x86/%) $(if $(filter aarch64 arm64,$(CPU)),,src/kernel/arm/%)
MPI_SRC := $(wildcard src/ranks/mpi*.c)
OTHER_RANKS := $(if $(filter 1,$(MPI)),src/ranks/none.c,$(MPI_SRC))
LIB_SRC   := $(filter-out $(OTHER_CPU) $(OTHER_RANKS),$(wildcard src/*/*.c src/*/*/*.c))
CMD_SRC   := $(wildcard cmd/*.c)
TEST_SRC  := $(filter-out tests/device/fake_% tests/program_% tests/plain_runner.c $(OTHER_CPU:src/%=tests/%),\
               $(wildcard tests/*.c tests/*/*.c tests/*/*/*.c))
PROGRAM_SRC := tests/kill_points.c $(wildcard tests/program_*.c)
# The tests of kernels and what they stand on, with nothing but the C library (make test-arm64); the
# block of AMX, which no Arm has, is tested on the machine itself.
PLAIN_SRC := $(filter src/base/% src/kernel/%,$(LIB_SRC)) $(patsubst %,src/model/%.c,dims init lora numbers pieces presets table) \
             $(filter-out %_amx_block.c,$(wildcard tests/kernel/*.c)) \
             $(patsubst %,tests/base/test_%.c,crc32c random sizes) tests/kiln_checks.c tests/plain_runner.c
BENCH_SRC := $(filter-out $(if $(MPI_NAME),,bench/bench_mpi.c) $(if $(filter Linux,$(shell uname -s)),,bench/link.c),\
               $(wildcard bench/*.c))
EXAMPLE_SRC := $(wildcard examples/*.c)
APPLE_SRC := $(wildcard src/device/ane/apple*.m)
ifneq ($(filter Darwin,$(shell uname -s)),)
LIB_SRC   += $(APPLE_SRC)
else ifeq ($(HAVE_OBJC),1)
# Apple's runtime over the fakes: part of the tests and of the program that tests run.
FAKE_SRC  := $(APPLE_SRC) $(wildcard tests/device/fake_*.[cm])
FAKE_LIBS := -lobjc -lgnustep-base
TEST_FLAGS := -DKILN_FAKE_ANE=1 -Itests/device/fake
endif
FUZZ_SRC  := $(wildcard fuzz/*.c)
HEADERS   := $(wildcard include/kiln/*.h src/*/*.h src/*/*/*.h cmd/*.h tests/*.h tests/*/*.h \
               tests/*/*/*/*.h bench/*.h)
SHELL_SRC := $(shell grep -rlIE '^.!.*(ba)?sh$$' scripts .ci bench tests 2>/dev/null) $(wildcard tests/*.sh tests/documented/*.sh)

OBJ := $(BUILD)/$(MODE)
objects = $(patsubst %.m,$(OBJ)/%.o,$(1:%.c=$(OBJ)/%.o))
LIB_OBJ := $(call objects,$(LIB_SRC) $(MADE)/profiles.c $(MADE)/pages.c)

# The release build is what people use: it lies in build/ itself.
BIN   := $(if $(filter release,$(MODE)),$(BUILD),$(OBJ))
KILN  := $(if $(CMD_SRC),$(BIN)/kiln)
TESTS := $(OBJ)/kiln-tests
PLAIN_TESTS := $(OBJ)/kiln-tests-plain
# The program with kill points that the environment arms (tests/kill_points.h).
TEST_PROGRAM := $(if $(CMD_SRC),$(OBJ)/kiln-test)
MPI_PROGRAM := $(if $(MPI_NAME),$(OBJ)/kiln-mpi)
BENCH_BIN := $(BENCH_SRC:%.c=$(OBJ)/%)

.PHONY: all
## all: build/kiln, build/libkiln.so (the default)
all: $(KILN) $(BIN)/libkiln.so

$(BIN)/kiln: $(call objects,$(CMD_SRC)) $(OBJ)/libkiln.a $(OBJ)/sources
	$(Q)$(CC) $(OPT) $(LDFLAGS) -o $@ $(filter %.o %.a,$^) $(LIBS)
$(OBJ)/libkiln.a: $(LIB_OBJ) $(OBJ)/sources
	@rm -f $@
	$(Q)$(AR) rcs $@ $(filter %.o,$^)
$(BIN)/libkiln.so: $(LIB_OBJ) $(OBJ)/sources
	$(Q)$(CC) $(OPT) $(LDFLAGS) -shared -Wl,-soname,libkiln.so.$(SOVERSION) -o $@ $(filter %.o,$^) $(LIBS)
$(OBJ)/kiln-test: $(call objects,$(CMD_SRC) $(PROGRAM_SRC) $(FAKE_SRC)) $(OBJ)/libkiln.a $(OBJ)/sources
	$(Q)$(CC) $(OPT) $(LDFLAGS) -o $@ $(filter %.o %.a,$^) $(FAKE_LIBS) $(LIBS)
$(OBJ)/kiln-mpi: $(call objects,$(CMD_SRC) $(PROGRAM_SRC) $(FAKE_SRC) $(MPI_SRC)) $(OBJ)/libkiln.a $(OBJ)/sources
	$(Q)$(CC) $(OPT) $(LDFLAGS) -o $@ $(filter %.o %.a,$^) $(FAKE_LIBS) $(LIBS) $(MPI_LIBS)
$(TESTS): $(call objects,$(TEST_SRC) $(FAKE_SRC)) $(OBJ)/libkiln.a $(OBJ)/sources
	$(Q)$(CC) $(OPT) $(LDFLAGS) -o $@ $(filter %.o %.a,$^) $(shell pkg-config --libs check) $(FAKE_LIBS) $(LIBS)
$(PLAIN_TESTS): $(call objects,$(PLAIN_SRC)) $(OBJ)/sources
	$(Q)$(CC) $(OPT) $(LDFLAGS) -o $@ $(filter %.o,$^) -lm -pthread
$(BENCH_BIN): $(OBJ)/%: $(OBJ)/%.o $(OBJ)/libkiln.a
	$(Q)$(CC) $(OPT) $(LDFLAGS) -o $@ $^ $(LIBS)
$(OBJ)/fuzz/fuzz_%: $(OBJ)/fuzz/fuzz_%.o $(OBJ)/libkiln.a
	$(Q)$(CC) $(OPT) -fsanitize=fuzzer $(LDFLAGS) -o $@ $^ $(LIBS)
$(OBJ)/%.o: %.c $(OBJ)/flags
	@mkdir -p $(@D)
	$(Q)$(COMPILE) $(isa_flags) $(test_flags) $(own_flags) -MMD -MP -c -o $@ $<

$(OBJ)/%.o: %.m $(OBJ)/flags
	@mkdir -p $(@D)
	$(Q)$(COMPILE_OBJC) -MMD -MP -c -o $@ $<

# The profiles that ship, as C: their texts for the library, the M4's times for the simulator.
$(MADE)/profiles.c: $(wildcard profiles/*.json) Makefile
	@mkdir -p $(@D)
	@{ echo '#include "plan/profile_file.h"'; \
	   echo 'const struct kiln_shipped_profile kiln_shipped_profiles[] = {'; \
	   for file in $(sort $(wildcard profiles/*.json)); do \
	       echo "{\"$$(basename $$file .json)\","; \
	       sed -e 's/\\/\\\\/g' -e 's/"/\\"/g' -e 's/^/"/' -e 's/$$/\\n"/' $$file; echo '},'; \
	   done; echo '{0, 0}};'; } >$@
$(MADE)/m4_times.h: profiles/m4.json Makefile
	@mkdir -p $(@D)
	@sed -nE 's/^ *"(compile_s|compile_gb_s|load_s|dispatch_s|tflops|beside)": \{"value": ([0-9.e-]+),.*/#define M4_\1 \2/p' $< >$@
# What browsers are given, as bytes (src/report/page.h).
PAGES := $(sort $(wildcard src/report/page/*))
$(MADE)/pages.c: $(PAGES) Makefile
	@mkdir -p $(@D)
	@{ echo '#include "report/page.h"'; i=0; \
	   for file in $(PAGES); do i=$$((i + 1)); \
	       echo "static const unsigned char page_$$i[] = {"; \
	       od -An -v -tu1 $$file | sed -E 's/[0-9]+/&,/g'; echo '0};'; \
	   done; i=0; echo 'const struct kiln_page_file kiln_page_files[] = {'; \
	   for file in $(PAGES); do i=$$((i + 1)); \
	       echo "{\"$$(basename $$file)\", page_$$i, sizeof page_$$i - 1},"; \
	   done; echo '{0, 0, 0}};'; } >$@
$(OBJ)/src/device/sim/options.o $(BUILD)/lint/src/device/sim/options.c.ok: $(MADE)/m4_times.h

# What was built, for kiln bench: one file is compiled anew when it changes.
COMMIT = $(shell git describe --always --dirty 2>/dev/null || echo unknown)
$(MADE)/commit.h: FORCE
	@mkdir -p $(@D)
	@echo '#define KILN_COMMIT "$(COMMIT)"' | cmp -s - $@ || echo '#define KILN_COMMIT "$(COMMIT)"' >$@
$(OBJ)/cmd/bench.o $(BUILD)/lint/cmd/bench.c.ok: $(MADE)/commit.h

# The only ones that call MPI.
$(call objects,$(MPI_SRC)) $(MPI_SRC:%=$(BUILD)/lint/%.ok): own_flags := $(MPI_FLAGS)
$(OBJ)/bench/bench_mpi.o $(BUILD)/lint/bench/bench_mpi.c.ok: own_flags := $(MPI_FLAGS)
$(OBJ)/bench/bench_mpi: private LIBS += $(MPI_LIBS)

# What man pages say of their age.
$(OBJ)/cmd/manual.o: own_flags := -DKILN_DATE=\"$(VERSION_DATE)\"

# Two small files change when the compiler, its flags or the list of sources do, and only then.
$(OBJ)/flags: now = $(COMPILE) $(FLAGS_avx2) $(FLAGS_avx512) $(FLAGS_avx512bf16) $(FLAGS_amx) $(FLAGS_neonbf16) $(TEST_FLAGS) $(COMPILE_OBJC)
$(OBJ)/sources: now = $(LIB_SRC) $(CMD_SRC) $(TEST_SRC) $(PROGRAM_SRC) $(FAKE_SRC) $(PLAIN_SRC) $(LDFLAGS) $(LIBS)
$(OBJ)/flags $(OBJ)/sources: FORCE
	@mkdir -p $(@D)
	@echo '$(now)' | cmp -s - $@ || echo '$(now)' >$@
.PHONY: FORCE
FORCE:

.SECONDARY:
-include $(patsubst %.o,%.d,$(LIB_OBJ) $(call objects,$(CMD_SRC) $(TEST_SRC) $(PROGRAM_SRC) $(FAKE_SRC) $(MPI_SRC) $(PLAIN_SRC) $(BENCH_SRC) $(FUZZ_SRC)))

# ---- to use it -----------------------------------------------------------------------------------

.PHONY: demo bench install install-files
## demo: install what is missing, build, train a small model, read its stories
demo:
	@scripts/setup
	@$(MAKE) all
	@$(BUILD)/kiln demo

BENCH ?= --model stories110m --batch 8 --seq 256 --accum 4
## bench: time the kernels and the parts of a training step (BENCH="--model ...")
bench: $(BENCH_BIN) $(KILN)
	@$(OBJ)/bench/bench_kernels
	$(KILN) bench $(BENCH)

define PKGCONFIG
prefix=$(PREFIX)
libdir=$${prefix}/lib
Name: kiln
Description: trains Llama-family language models on one machine
Version: $(VERSION)
Cflags: -I$${prefix}/include
Libs: -L$${libdir} -lkiln
Libs.private: $(LIBS)
endef
export PKGCONFIG
ROOT = $(DESTDIR)$(PREFIX)
SHARE = $(ROOT)/share
## install: program, headers, libraries, kiln.pc, man pages, completion under DESTDIR and PREFIX
install: all $(OBJ)/libkiln.a
	@$(MAKE) install-files
# What is built already.
install-files:
	install -d $(ROOT)/bin $(ROOT)/include/kiln $(ROOT)/lib/pkgconfig
	$(if $(KILN),install $(KILN) $(ROOT)/bin/)
	install -m 644 include/kiln/*.h $(ROOT)/include/kiln/
	install -m 644 $(OBJ)/libkiln.a $(ROOT)/lib/
	install -m 644 $(BIN)/libkiln.so $(ROOT)/lib/libkiln.so.$(VERSION)
	ln -sf libkiln.so.$(VERSION) $(ROOT)/lib/libkiln.so.$(SOVERSION)
	ln -sf libkiln.so.$(SOVERSION) $(ROOT)/lib/libkiln.so
	echo "$$PKGCONFIG" >$(ROOT)/lib/pkgconfig/kiln.pc
	install -d $(SHARE)/man/man1 $(SHARE)/bash-completion/completions $(SHARE)/zsh/site-functions \
	    $(SHARE)/fish/vendor_completions.d
	$(KILN) manual --out $(SHARE)/man/man1
	$(KILN) completion bash >$(SHARE)/bash-completion/completions/kiln
	$(KILN) completion zsh >$(SHARE)/zsh/site-functions/_kiln
	$(KILN) completion fish >$(SHARE)/fish/vendor_completions.d/kiln.fish

# ---- to trust it ---------------------------------------------------------------------------------

.PHONY: test run-tests coverage torture check check-format check-lint check-shell check-build san fuzz test-fresh
# Tests that run at once.
JOBS ?= 2
## test: install what is missing, build, run every test (T=part of a name runs some; JOBS=2 at once)
test:
	@scripts/setup --mpi
	@$(MAKE) all
	@$(MAKE) run-tests
run-tests: $(TESTS) $(KILN) $(TEST_PROGRAM) $(MPI_PROGRAM)
	@KILN_TEST_JOBS=$(JOBS) ROOT=$(CURDIR) KILN=$(abspath $(KILN)) KILN_TEST_PROGRAM=$(abspath $(TEST_PROGRAM)) KILN_MPI_PROGRAM=$(abspath $(MPI_PROGRAM)) $(RUN_ENV) $(TESTS) $(T)

ARM64_CC   ?= aarch64-linux-gnu-gcc
ARM64_QEMU ?= qemu-aarch64
.PHONY: test-arm64 check-arm64 build-arm64 run-arm64-max run-arm64-cortex-a57
## test-arm64: the tests of kernels for 64-bit Arm, cross-compiled and run by qemu
test-arm64:
	@scripts/setup --arm64
	@$(MAKE) build-arm64
# gcc 12 for Arm dies of an internal error where it makes vectors of some loops of the tests.
build-arm64:
	@$(MAKE) CC='$(ARM64_CC)' BUILD=$(BUILD)/arm64 MODE=release HAVE_DNNL=0 HAVE_OBJC=0 LDFLAGS=-static \
	    CFLAGS=-Werror TEST_FLAGS=-fno-tree-vectorize -O run-arm64-max run-arm64-cortex-a57
# Every tier on a processor with all that qemu knows; on an Armv8.0 without bf16, that the choice
# stops at neon and that nothing newer is needed.
run-arm64-max: $(PLAIN_TESTS)
	@KILN_BEST_TIER=neonbf16 CK_TIMEOUT_MULTIPLIER=10 $(ARM64_QEMU) -cpu max $< $(T)
run-arm64-cortex-a57: $(PLAIN_TESTS)
	@KILN_BEST_TIER=neon CK_TIMEOUT_MULTIPLIER=10 $(ARM64_QEMU) -cpu cortex-a57 $< best_tier attention
check-arm64:
	@if $(ARM64_CC) -E -include stdio.h -x c /dev/null >/dev/null 2>&1 && \
	    command -v $(ARM64_QEMU) >/dev/null; then $(MAKE) build-arm64; \
	else echo "check-arm64: skipped, this machine cannot build or run for 64-bit Arm;" \
	    "scripts/setup --arm64 installs what it lacks"; fi

## check: format, lint, order of rooms, headers, symbols, two compilers with -Werror, kernels for Arm
check:
	@scripts/setup --lint
	@$(MAKE) -O check-format check-lint check-shell check-build check-arm64

C_FILES := $(filter %.c,$(LIB_SRC) $(if $(MPI_NAME),$(MPI_SRC)) $(CMD_SRC) $(sort $(TEST_SRC) $(PROGRAM_SRC)) $(filter tests/plain%,$(PLAIN_SRC)) $(FAKE_SRC) $(BENCH_SRC) $(FUZZ_SRC) $(EXAMPLE_SRC))
ALL_C_FILES := $(sort $(C_FILES) $(MPI_SRC) $(HEADERS) $(wildcard src/*/*/*.c) $(APPLE_SRC) $(wildcard tests/device/fake_*))
check-format:
	@scripts/check-style
	@scripts/check-rooms
	@clang-format --dry-run -Werror $(ALL_C_FILES)
check-lint: $(C_FILES:%=$(BUILD)/lint/%.ok)
	@mkdir -p $(BUILD)/lint/cppcheck
	@cppcheck --quiet --std=c11 --language=c --inline-suppr --error-exitcode=1 \
	    --cppcheck-build-dir=$(BUILD)/lint/cppcheck --enable=warning,performance,portability \
	    $(DEFS) -Iinclude -Isrc $(filter %.c,$(LIB_SRC)) $(CMD_SRC)
$(BUILD)/lint/%.ok: % $(HEADERS) .clang-tidy Makefile
	@mkdir -p $(@D)
	@clang-tidy --quiet $< -- $(FLAGS) $(isa_flags) $(test_flags) $(own_flags) 2>$@.log || { cat $@.log; exit 1; }
	@touch $@
check-shell:
	@shellcheck $(SHELL_SRC)
check-build: $(BUILD)/libkiln.so
	@CC="$(CC)" scripts/check-headers
	@CC="$(CC)" scripts/check-symbols $<
	@$(MAKE) MODE=check $(BUILD)/check/kiln-tests all >/dev/null
	@$(MAKE) MODE=clang CC=clang $(BUILD)/clang/kiln-tests all >/dev/null

SAN_ENV := CK_TIMEOUT_MULTIPLIER=10 UBSAN_OPTIONS=print_stacktrace=1 OMP_NUM_THREADS=1 \
           LSAN_OPTIONS=suppressions=$(CURDIR)/tests/lsan.supp:print_suppressions=0 \
           TSAN_OPTIONS=suppressions=$(CURDIR)/tests/tsan.supp:history_size=4
## san: every test under address+undefined sanitizers, then under the thread sanitizer
san:
	@scripts/setup
	@$(MAKE) MODE=asan RUN_ENV="$(SAN_ENV)" run-tests
	@$(MAKE) MODE=tsan RUN_ENV="$(SAN_ENV)" run-tests

COVERED := device/apple device/staging
## coverage: the tests of Apple's runtime run at least 95 of 100 of its lines
coverage:
	@scripts/setup
	@rm -f $(BUILD)/coverage/src/device/ane/*.gcda
	@$(MAKE) MODE=coverage RUN_ENV="CK_TIMEOUT_MULTIPLIER=10" T="$(COVERED)" run-tests
	@for file in apple.m apple_program.m staging.c self_test.c; do \
	    gcov -n -o $(BUILD)/coverage/src/device/ane $$file | awk -v file=src/device/ane/$$file -F"[:%']" \
	        '/^File/ { mine = $$2 == file } mine && /^Lines/ { part = $$2 } \
	        END { print file ": " part "% of its lines run"; exit !(part >= 95) }' || exit 1; \
	done

## torture: deaths at every point and at 300 random moments, power cuts at every write, every plan
torture: all
	@KILN_KILL_STRIDE=1 KILN_KILLS=300 KILN_POWER_CUTS=all KILN_PLAN_TABLE=all KILN_RELAY_KILLS=100 \
	    $(MAKE) run-tests T="train/kill power_cut plan_table cli/relay_kill"

SECS ?= 60
## fuzz: fuzz the parser of fuzz/fuzz_T.c for SECS seconds (T=name SECS=60)
fuzz:
	@test -f fuzz/fuzz_$(T).c || { echo "T=name of: $(FUZZ_SRC:fuzz/fuzz_%.c=%)"; exit 2; }
	@scripts/setup --fuzz
	@$(MAKE) MODE=fuzz CC=clang $(BUILD)/fuzz/fuzz/fuzz_$(T)
	@mkdir -p $(BUILD)/fuzz/corpus/$(T)
	$(BUILD)/fuzz/fuzz/fuzz_$(T) -max_total_time=$(SECS) -artifact_prefix=$(BUILD)/fuzz/$(T)- \
	    $(BUILD)/fuzz/corpus/$(T) $(wildcard fuzz/corpus/$(T))

## test-fresh: both README commands in a bare Debian made for it (as root)
test-fresh:
	@scripts/test-fresh

# ---- to tend it ----------------------------------------------------------------------------------

.PHONY: format clean help
## format: let clang-format lay out every C file
format:
	clang-format -i $(ALL_C_FILES)
## clean: remove everything that was built
clean:
	rm -rf $(BUILD)
## help: this list
help:
	@sed -n 's/^## \([a-z0-9-]*\): /\1\t/p' $(firstword $(MAKEFILE_LIST)) | awk -F'\t' '{printf "make %-11s %s\n", $$1, $$2}'
	@echo 'MODE=release|debug|asan|tsan|coverage  CC=gcc|clang  HAVE_DNNL=0 (without oneDNN)  BUILD=folder'
