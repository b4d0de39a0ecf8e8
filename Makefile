# pgtrickle: make | deps | check | test | run | soak | asan | fuzz | bench | format | lint   (see README.md)
VARIANT  ?= release
BUILD    := build
OBJ      := $(BUILD)/$(VARIANT)
CC       ?= gcc
PYTHON   ?= /usr/bin/python3
PG_CONFIG_INC := $(shell pg_config --includedir 2>/dev/null || echo /usr/include/postgresql)

CPPFLAGS += -D_GNU_SOURCE -I. -I$(OBJ)/gen -I$(PG_CONFIG_INC)
WARN     := -Wall -Wextra -Wpedantic -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wswitch-enum -Wno-overlength-strings
CFLAGS_release := -O2 -g
CFLAGS_asan    := -O1 -g -fsanitize=address,undefined -fno-omit-frame-pointer -fno-sanitize-recover=undefined
CFLAGS_tsan    := -O1 -g -fsanitize=thread -fno-omit-frame-pointer
CFLAGS_fuzz    := -O1 -g -fsanitize=fuzzer-no-link,address,undefined -fno-omit-frame-pointer -fno-sanitize-recover=undefined
ALL_CFLAGS := -std=gnu11 $(WARN) $(CFLAGS_$(VARIANT)) -pthread $(CFLAGS)
LIBS := -lpg_query -lprotobuf-c -lpq -levent_core -lssl -lcrypto -lidn -lpam -lldap -llber -lm

BASE_SRC     := $(sort $(wildcard base/*.c))
PROTOCOL_SRC := $(sort $(wildcard protocol/*.c))
DVM_SRC      := $(sort $(wildcard dvm/*.c dvm/delta/*.c dvm/runtime/*.c))
PROXY_SRC    := $(sort $(filter-out proxy/main.c,$(wildcard proxy/*.c proxy/io/*.c)))
SQL_SRC      := $(sort $(wildcard dvm/sql/*.sql))
OUR_C        := $(sort $(wildcard base/*.[ch] protocol/*.[ch] dvm/*.[ch] dvm/*/*.[ch] proxy/*.[ch] proxy/*/*.[ch] \
                  tests/*/*.[ch] bench/*.[ch]))

obj = $(patsubst %.c,$(OBJ)/%.o,$(1))

.PHONY: all deps check test run soak asan tsan fuzz bench format format-check lint clean \
        check-programs demo fuzz-run bench-run asan-run tsan-run
ifeq ($(VARIANT),release)
PROGRAM := $(BUILD)/pgtrickle
else
PROGRAM := $(OBJ)/pgtrickle
endif
all: $(PROGRAM)

$(OBJ)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(ALL_CFLAGS) -MMD -MP -c $< -o $@

$(OBJ)/libbase.a: $(call obj,$(BASE_SRC))
$(OBJ)/libprotocol.a: $(call obj,$(PROTOCOL_SRC))
$(OBJ)/libdvm.a: $(call obj,$(DVM_SRC)) $(OBJ)/gen/sql_embedded.o
$(OBJ)/libproxy.a: $(call obj,$(PROXY_SRC))
$(OBJ)/%.a:
	@rm -f $@ $@.new
	ar rcs $@.new $^ && mv $@.new $@

# The SQL side, embedded: struct { const char *name, *text; } dvm_embedded_sql[], NULL-terminated.
$(OBJ)/gen/sql_embedded.c: $(SQL_SRC) dvm/sql/embed.sh
	@mkdir -p $(@D)
	sh dvm/sql/embed.sh $(SQL_SRC) > $@
$(OBJ)/gen/sql_embedded.o: $(OBJ)/gen/sql_embedded.c
	$(CC) $(CPPFLAGS) $(ALL_CFLAGS) -c $< -o $@

ARCHIVES := $(OBJ)/libproxy.a $(OBJ)/libdvm.a $(OBJ)/libprotocol.a $(OBJ)/libbase.a
$(PROGRAM): $(call obj,proxy/main.c) $(ARCHIVES)
	$(CC) $(ALL_CFLAGS) $(LDFLAGS) $^ $(LIBS) -o $@

# ---- tests ---------------------------------------------------------------------------------------
# tests/<folder>/*.mk adds cmocka programs to CHECK_PROGRAMS and libFuzzer programs to FUZZ_PROGRAMS, each
# with the rule that links it (with the archives of its layer only), and programs to BENCH_PROGRAMS.
CHECK_PROGRAMS :=
FUZZ_PROGRAMS  :=
BENCH_PROGRAMS :=
include $(sort $(wildcard tests/*/*.mk bench/*.mk))

check-programs: $(CHECK_PROGRAMS)
check: check-programs
	$(PYTHON) tests/run --layers $(addprefix --program=,$(CHECK_PROGRAMS))

# Everything: what check does, then the suites against real servers.
test: deps
	$(MAKE) -j$(shell nproc) all check-programs
	$(PYTHON) tests/run --layers $(addprefix --program=,$(CHECK_PROGRAMS)) --pg=15,18 --smoke=16,17

# The random testers for as long as one likes, on every version.
soak: deps
	$(MAKE) all
	$(PYTHON) tests/run --pg=15,16,17,18 --only=differential.random,concurrency \
	    --seconds=$(or $(SOAK_SECONDS),3600)

asan:
	$(MAKE) VARIANT=asan asan-run
asan-run: all check-programs
	$(PYTHON) tests/run $(addprefix --program=,$(CHECK_PROGRAMS)) --daemon=$(PROGRAM) --pg=15 \
	    --only=differential,ddl --seconds=$(or $(ASAN_SECONDS),30)
tsan:
	$(MAKE) VARIANT=tsan tsan-run
tsan-run: all check-programs
	$(PYTHON) tests/run $(addprefix --program=,$(CHECK_PROGRAMS)) --daemon=$(PROGRAM) --pg=15 \
	    --only=threads --seconds=$(or $(TSAN_SECONDS),60)

FUZZ_SECONDS ?= 30
fuzz:
	$(MAKE) VARIANT=fuzz CC=clang fuzz-run
fuzz-run: $(FUZZ_PROGRAMS)
	@set -e; for p in $^; do name=$$(basename $$p); corpus=$(BUILD)/corpus/$$name; mkdir -p $$corpus; \
	    seeds=tests/fuzz/corpus/$$name; [ -d $$seeds ] || seeds=; \
	    echo "fuzz $$name for $(FUZZ_SECONDS) s"; \
	    $$p -max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=2048 -timeout=10 -print_final_stats=1 \
	        -artifact_prefix=$(BUILD)/corpus/$$name- $$corpus $$seeds; done

bench: deps
	$(MAKE) all bench-run
bench-run: $(BENCH_PROGRAMS)
	@set -e; for p in $^ $(sort $(wildcard bench/*.py bench/*.sh)); do echo "== $$p"; \
	    case $$p in *.py) $(PYTHON) $$p;; *.sh) bash $$p;; *) $$p;; esac; done

# ---- a demo, and the machine it needs ------------------------------------------------------------
run: deps
	$(MAKE) all demo
demo:
	@$(PYTHON) bench/demo/demo.py

deps:
	@bash tests/support/deps.sh

format:
	clang-format -i $(OUR_C)
format-check:
	clang-format --dry-run -Werror $(OUR_C)
lint: $(OBJ)/gen/sql_embedded.c
	bash tests/layers.sh
	cppcheck --quiet --std=c11 --enable=warning,portability,performance --inline-suppr --error-exitcode=1 \
	    --suppress=missingIncludeSystem --suppress=normalCheckLevelMaxBranches --suppress=uninitvar \
	    --suppress=ctuuninitvar --suppress=ctunullpointer -D_GNU_SOURCE -I. \
	    base protocol dvm proxy
	@# One process a file: the analyzer of clang 14 takes a va_list of the second file for uninitialized.
	printf '%s\n' $(filter %.c,$(filter-out tests/% bench/%,$(OUR_C))) | xargs -P $(shell nproc) -I{} \
	    clang-tidy --quiet --warnings-as-errors='*' {} -- -std=gnu11 $(CPPFLAGS)

clean:
	rm -rf $(BUILD)

-include $(shell find $(OBJ) -name '*.d' 2>/dev/null)
