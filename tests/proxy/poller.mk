CHECK_PROGRAMS += $(OBJ)/tests/proxy/test_poller
$(OBJ)/tests/proxy/test_poller: $(OBJ)/tests/proxy/test_poller.o $(call obj,proxy/io/poller.c) $(OBJ)/libbase.a
	$(CC) $(ALL_CFLAGS) $(LDFLAGS) $^ -lcmocka -levent_core -o $@
