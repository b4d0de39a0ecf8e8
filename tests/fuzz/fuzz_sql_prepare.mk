FUZZ_PROGRAMS += $(OBJ)/tests/fuzz/fuzz_sql_prepare
$(OBJ)/tests/fuzz/fuzz_sql_prepare: $(OBJ)/tests/fuzz/fuzz_sql_prepare.o \
    $(call obj,proxy/sql_scan.c proxy/sql_prepare.c) $(OBJ)/libbase.a
	$(CC) $(ALL_CFLAGS) -fsanitize=fuzzer $(LDFLAGS) $^ -lpg_query -lprotobuf-c -o $@
