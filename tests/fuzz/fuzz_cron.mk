FUZZ_PROGRAMS += $(OBJ)/tests/fuzz/fuzz_cron
$(OBJ)/tests/fuzz/fuzz_cron: $(OBJ)/%: $(OBJ)/%.o $(call obj,dvm/runtime/cron.c) $(OBJ)/libbase.a
	$(CC) $(ALL_CFLAGS) -fsanitize=fuzzer $(LDFLAGS) $^ -o $@
