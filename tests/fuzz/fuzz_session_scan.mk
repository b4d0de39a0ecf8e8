FUZZ_PROGRAMS += $(OBJ)/tests/fuzz/fuzz_session_scan
$(OBJ)/tests/fuzz/fuzz_session_scan: $(OBJ)/tests/fuzz/fuzz_session_scan.o \
    $(call obj,proxy/sql_scan.c proxy/session_scan.c) $(OBJ)/libbase.a
	$(CC) $(ALL_CFLAGS) -fsanitize=fuzzer $(LDFLAGS) $^ -lpg_query -lprotobuf-c -o $@

.PHONY: fuzz-session_scan
fuzz-session_scan: fuzz-%:
	$(MAKE) VARIANT=fuzz CC=clang fuzz-run FUZZ_PROGRAMS=$(BUILD)/fuzz/tests/fuzz/fuzz_$*
