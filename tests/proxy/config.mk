# Configuration, users, statistics, the console.
CONFIG_TESTS := $(addprefix $(OBJ)/tests/proxy/test_,ini config userlist stats admin)
CHECK_PROGRAMS += $(CONFIG_TESTS)
$(CONFIG_TESTS): $(OBJ)/%: $(OBJ)/%.o \
    $(call obj,proxy/admin.c proxy/admin_show.c proxy/config.c proxy/ini.c proxy/stats.c proxy/userlist.c) \
    $(OBJ)/libprotocol.a $(OBJ)/libbase.a
	$(CC) $(ALL_CFLAGS) $(LDFLAGS) $^ -lcmocka -lcrypto -lm -o $@

$(OBJ)/tests/base/test_log: $(OBJ)/tests/base/test_log.o $(OBJ)/libbase.a
	$(CC) $(ALL_CFLAGS) $(LDFLAGS) $^ -lcmocka -o $@
CHECK_PROGRAMS += $(OBJ)/tests/base/test_log

CONFIG_REFERENCE := $(OBJ)/tests/proxy/test_config_reference
CHECK_PROGRAMS += $(CONFIG_REFERENCE)
$(CONFIG_REFERENCE): $(CONFIG_REFERENCE).o $(OBJ)/libbase.a
	$(CC) $(ALL_CFLAGS) $(LDFLAGS) $^ -lcmocka -o $@

.PHONY: docs
docs: $(CONFIG_REFERENCE)
	$(CONFIG_REFERENCE) --write
