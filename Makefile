# pgtrickle: make | check | test | run | asan | fuzz | bench | format | lint   (see README.md)
VARIANT  ?= release
BUILD    := build
OBJ      := $(BUILD)/$(VARIANT)
CC       ?= gcc
PG_CONFIG_INC := $(shell pg_config --includedir 2>/dev/null || echo /usr/include/postgresql)

CPPFLAGS += -D_GNU_SOURCE -I. -I$(OBJ)/gen -I$(PG_CONFIG_INC)
WARN     := -Wall -Wextra -Wpedantic -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wswitch-enum -Wno-overlength-strings
CFLAGS_release := -O2 -g
CFLAGS_asan    := -O1 -g -fsanitize=address,undefined -fno-omit-frame-pointer -fno-sanitize-recover=undefined
CFLAGS_tsan    := -O1 -g -fsanitize=thread -fno-omit-frame-pointer
ALL_CFLAGS := -std=gnu11 $(WARN) $(CFLAGS_$(VARIANT)) -pthread $(CFLAGS)
LIBS := -lpg_query -lprotobuf-c -lpq -levent -levent_pthreads -lssl -lcrypto -lidn -lm

BASE_SRC     := $(sort $(wildcard base/*.c))
PROTOCOL_SRC := $(sort $(wildcard protocol/*.c))
DVM_SRC      := $(sort $(wildcard dvm/*.c dvm/delta/*.c dvm/runtime/*.c))
PROXY_SRC    := $(sort $(filter-out proxy/main.c,$(wildcard proxy/*.c proxy/io/*.c)))
SQL_SRC      := $(sort $(wildcard dvm/sql/*.sql))

obj = $(patsubst %.c,$(OBJ)/%.o,$(1))

.PHONY: all deps check test run asan tsan fuzz bench format lint clean
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
	@rm -f $@
	ar rcs $@ $^

# The SQL side, embedded: struct { const char *name, *text; } dvm_embedded_sql[], NULL-terminated.
$(OBJ)/gen/sql_embedded.c: $(SQL_SRC) dvm/sql/embed.sh
	@mkdir -p $(@D)
	sh dvm/sql/embed.sh $(SQL_SRC) > $@
$(OBJ)/gen/sql_embedded.o: $(OBJ)/gen/sql_embedded.c
	$(CC) $(CPPFLAGS) $(ALL_CFLAGS) -c $< -o $@

ARCHIVES := $(OBJ)/libproxy.a $(OBJ)/libdvm.a $(OBJ)/libprotocol.a $(OBJ)/libbase.a
$(PROGRAM): $(call obj,proxy/main.c) $(ARCHIVES)
	$(CC) $(ALL_CFLAGS) $(LDFLAGS) $^ $(LIBS) -o $@

clean:
	rm -rf $(BUILD)

-include $(shell find $(OBJ) -name '*.d' 2>/dev/null)
