# kiln: one Makefile. `make help` lists the targets.
#
# Sources are found by wildcard, objects go to $(BUILD)/<mode>/, header dependencies are written
# by the compiler. A file named *_avx2.c or *_avx512.c gets the flags of that instruction set; no
# other file does, so one binary runs on every machine and chooses at run time.

BUILD ?= build
MODE  ?= release
CC    ?= gcc
PREFIX ?= /usr/local
DESTDIR ?=

OBJ := $(BUILD)/$(MODE)

CSTD  := -std=gnu11 -ffp-contract=off -fvisibility=hidden -pthread
WARN  := -Wall -Wextra -Wshadow -Wvla -Wundef -Wstrict-prototypes -Wmissing-prototypes \
         -Wcast-qual -Wdouble-promotion -Wno-sign-conversion -Wno-psabi
INC   := -Iinclude -Isrc
OPT_release := -O3 -g
OPT_debug   := -O0 -g
OPT_asan    := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
OPT_tsan    := -O1 -g -fsanitize=thread
OPT   := $(OPT_$(MODE))
HAVE_DNNL ?= $(shell printf '\#include <oneapi/dnnl/dnnl.h>\nint main(void){return dnnl_version()==0;}' | $(CC) -x c - -o /dev/null -ldnnl >/dev/null 2>&1 && echo 1)
ifeq ($(HAVE_DNNL),1)
DEFS  += -DKILN_HAVE_DNNL=1
LIBS  += -ldnnl
endif
LIBS  += -ljansson -lm -ldl -pthread
CFLAGS_ALL := $(CSTD) $(WARN) $(INC) $(OPT) $(DEFS) $(CFLAGS)

ARCH := $(shell $(CC) -dumpmachine | cut -d- -f1)
ROOMS := $(wildcard src/*) $(wildcard src/*/*/)
LIB_SRC := $(wildcard src/*/*.c src/device/*/*.c src/kernel/ref/*.c)
ifeq ($(ARCH),x86_64)
LIB_SRC += $(wildcard src/kernel/x86/*.c)
endif
ifeq ($(ARCH),aarch64)
LIB_SRC += $(wildcard src/kernel/arm/*.c)
endif
CMD_SRC := $(wildcard cmd/*.c)
TEST_SRC := $(wildcard tests/*.c tests/*/*.c)
BENCH_SRC := $(wildcard bench/*.c)
LIB_OBJ := $(LIB_SRC:%.c=$(OBJ)/%.o)
CMD_OBJ := $(CMD_SRC:%.c=$(OBJ)/%.o)

FLAGS_avx2   := -mavx2 -mfma -mf16c
FLAGS_avx512 := -mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma -mprefer-vector-width=512

.PHONY: all
all: $(BUILD)/kiln

$(BUILD)/kiln: $(OBJ)/kiln
	@cp -f $< $@
$(OBJ)/kiln: $(CMD_OBJ) $(OBJ)/libkiln.a
	$(CC) $(OPT) -o $@ $(CMD_OBJ) $(OBJ)/libkiln.a $(LDFLAGS) $(LIBS)
$(OBJ)/libkiln.a: $(LIB_OBJ)
	@rm -f $@; $(AR) rcs $@ $^
$(OBJ)/%_avx2.o: %_avx2.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS_ALL) $(FLAGS_avx2) -MMD -MP -c -o $@ $<
$(OBJ)/%_avx512.o: %_avx512.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS_ALL) $(FLAGS_avx512) -MMD -MP -c -o $@ $<
$(OBJ)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS_ALL) -MMD -MP -c -o $@ $<

-include $(LIB_OBJ:.o=.d) $(CMD_OBJ:.o=.d)
