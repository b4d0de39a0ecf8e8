CHECK_PROGRAMS += $(OBJ)/tests/proxy/test_hba
$(OBJ)/tests/proxy/test_hba: $(OBJ)/tests/proxy/test_hba.o \
    $(call obj,proxy/hba.c proxy/ident.c proxy/rules_file.c proxy/ldap_options.c proxy/ini.c) $(OBJ)/libbase.a
	$(CC) $(ALL_CFLAGS) $(LDFLAGS) $^ -lcmocka -lm -o $@
