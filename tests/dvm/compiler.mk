# The pure half of the compiler: a hand-made catalog, no database.
COMPILER_TEST := $(OBJ)/tests/dvm/test_compiler
CHECK_PROGRAMS += $(COMPILER_TEST)
$(COMPILER_TEST): $(OBJ)/%: $(OBJ)/%.o $(OBJ)/libdvm.a $(OBJ)/libbase.a
	$(CC) $(ALL_CFLAGS) $(LDFLAGS) $^ -lcmocka -lpg_query -lprotobuf-c -lpq -lm -o $@
