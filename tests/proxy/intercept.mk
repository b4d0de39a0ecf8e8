# The lexer, the grammar of the stream-table statements, and what is made of them.
INTERCEPT_TESTS := $(addprefix $(OBJ)/tests/proxy/test_,sql_scan stream_sql intercept)
CHECK_PROGRAMS += $(INTERCEPT_TESTS)
$(INTERCEPT_TESTS): $(OBJ)/%: $(OBJ)/%.o $(call obj,proxy/sql_scan.c proxy/stream_sql.c proxy/intercept.c) \
    $(OBJ)/libbase.a
	$(CC) $(ALL_CFLAGS) $(LDFLAGS) $^ -lcmocka -o $@

# The test has a dvm of its own.
CHECK_PROGRAMS += $(OBJ)/tests/proxy/test_lend
$(OBJ)/tests/proxy/test_lend: $(OBJ)/tests/proxy/test_lend.o \
    $(call obj,proxy/lend.c proxy/wire_db.c proxy/sql_scan.c proxy/stream_sql.c dvm/runtime/db.c) \
    $(OBJ)/libprotocol.a $(OBJ)/libbase.a
	$(CC) $(ALL_CFLAGS) $(LDFLAGS) $^ -lcmocka -lcrypto -lidn -o $@
