BENCH_PROGRAMS += $(OBJ)/bench/wire_forward
$(OBJ)/bench/wire_forward: $(OBJ)/bench/wire_forward.o $(OBJ)/libprotocol.a $(OBJ)/libbase.a
	$(CC) $(ALL_CFLAGS) $(LDFLAGS) $^ -lcrypto -lidn -o $@
