BENCH_PROGRAMS += $(OBJ)/bench/core_forward
$(OBJ)/bench/core_forward: $(OBJ)/bench/core_forward.o $(OBJ)/tests/proxy/world.o $(ARCHIVES)
	$(CC) $(ALL_CFLAGS) $(LDFLAGS) $^ -lcmocka $(LIBS) -o $@
