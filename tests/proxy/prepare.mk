CHECK_PROGRAMS += $(OBJ)/tests/proxy/test_sql_prepare
$(OBJ)/tests/proxy/test_sql_prepare: $(OBJ)/tests/proxy/test_sql_prepare.o \
    $(call obj,proxy/sql_scan.c proxy/sql_prepare.c) $(OBJ)/libbase.a
	$(CC) $(ALL_CFLAGS) $(LDFLAGS) $^ -lcmocka -o $@
