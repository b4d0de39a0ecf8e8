FUZZ_PROGRAMS += $(OBJ)/tests/fuzz/fuzz_ini
$(OBJ)/tests/fuzz/fuzz_ini: $(OBJ)/tests/fuzz/fuzz_ini.o \
    $(call obj,proxy/config.c proxy/ini.c proxy/userlist.c) $(OBJ)/libbase.a
	$(CC) $(ALL_CFLAGS) -fsanitize=fuzzer $(LDFLAGS) $^ -lm -o $@
