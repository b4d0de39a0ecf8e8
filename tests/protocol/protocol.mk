# The wire library: each test links libprotocol and libbase only, so that nothing else creeps in.
PROTOCOL_TESTS := $(patsubst %.c,$(OBJ)/%,$(sort $(wildcard tests/protocol/test_*.c)))
CHECK_PROGRAMS += $(PROTOCOL_TESTS)
$(PROTOCOL_TESTS): $(OBJ)/%: $(OBJ)/%.o $(OBJ)/libprotocol.a $(OBJ)/libbase.a
	$(CC) $(ALL_CFLAGS) $(LDFLAGS) $^ -lcmocka -lcrypto -lidn -o $@
