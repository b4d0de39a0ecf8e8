FUZZ_PROGRAMS += $(OBJ)/tests/fuzz/fuzz_hba
$(OBJ)/tests/fuzz/fuzz_hba: $(OBJ)/tests/fuzz/fuzz_hba.o \
    $(call obj,proxy/hba.c proxy/ident.c proxy/rules_file.c proxy/ldap_options.c proxy/ini.c) $(OBJ)/libbase.a
	$(CC) $(ALL_CFLAGS) -fsanitize=fuzzer $(LDFLAGS) $^ -lm -o $@
