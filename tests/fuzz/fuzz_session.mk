FUZZ_PROGRAMS += $(OBJ)/tests/fuzz/fuzz_session
$(OBJ)/tests/fuzz/fuzz_session: $(OBJ)/tests/fuzz/fuzz_session.o $(OBJ)/tests/proxy/world.o $(ARCHIVES)
	$(CC) $(ALL_CFLAGS) -fsanitize=fuzzer $(LDFLAGS) $^ -lcmocka $(LIBS) -o $@
