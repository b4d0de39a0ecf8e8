# The lexer, the grammar of the stream-table statements, and what is made of them.
INTERCEPT_TESTS := $(addprefix $(OBJ)/tests/proxy/test_,sql_scan stream_sql intercept)
CHECK_PROGRAMS += $(INTERCEPT_TESTS)
$(INTERCEPT_TESTS): $(OBJ)/%: $(OBJ)/%.o $(call obj,proxy/sql_scan.c proxy/stream_sql.c proxy/intercept.c) \
    $(OBJ)/libbase.a
	$(CC) $(ALL_CFLAGS) $(LDFLAGS) $^ -lcmocka -o $@
