CHECK_PROGRAMS += $(OBJ)/tests/proxy/test_session_scan
$(OBJ)/tests/proxy/test_session_scan: $(OBJ)/tests/proxy/test_session_scan.o \
    $(call obj,proxy/sql_scan.c proxy/session_scan.c) $(OBJ)/libbase.a
	$(CC) $(ALL_CFLAGS) $(LDFLAGS) $^ -lcmocka -o $@
CHECK_PROGRAMS += $(OBJ)/tests/proxy/test_settings
$(OBJ)/tests/proxy/test_settings: $(OBJ)/tests/proxy/test_settings.o \
    $(call obj,proxy/settings.c) $(OBJ)/libbase.a
	$(CC) $(ALL_CFLAGS) $(LDFLAGS) $^ -lcmocka -o $@
