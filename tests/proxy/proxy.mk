# The session machines, in a world without sockets.
SESSION_TESTS := $(addprefix $(OBJ)/tests/proxy/test_,session hostile prepared login tls pool random cancel hosts replication limits shutdown workers takeover balance)
CHECK_PROGRAMS += $(SESSION_TESTS)
$(SESSION_TESTS): $(OBJ)/%: $(OBJ)/%.o $(OBJ)/tests/proxy/world.o $(ARCHIVES)
	$(CC) $(ALL_CFLAGS) $(LDFLAGS) $^ -lcmocka $(LIBS) -o $@
