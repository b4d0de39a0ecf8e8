FUZZ_PROGRAMS += $(OBJ)/tests/fuzz/fuzz_sql_scan
$(OBJ)/tests/fuzz/fuzz_sql_scan: $(OBJ)/tests/fuzz/fuzz_sql_scan.o \
    $(call obj,proxy/sql_scan.c proxy/stream_sql.c proxy/intercept.c) $(OBJ)/libbase.a
	$(CC) $(ALL_CFLAGS) -fsanitize=fuzzer $(LDFLAGS) $^ -lpg_query -lprotobuf-c -o $@

.PHONY: fuzz-sql_scan
fuzz-sql_scan: fuzz-%:
	$(MAKE) VARIANT=fuzz CC=clang fuzz-run FUZZ_PROGRAMS=$(BUILD)/fuzz/tests/fuzz/fuzz_$*
