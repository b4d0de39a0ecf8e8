# The pure half of the runtime: no database, no threads.
RUNTIME_TESTS := $(addprefix $(OBJ)/tests/dvm/test_,cron schedule)
CHECK_PROGRAMS += $(RUNTIME_TESTS)
$(RUNTIME_TESTS): $(OBJ)/%: $(OBJ)/%.o $(call obj,dvm/runtime/cron.c dvm/runtime/schedule.c) $(OBJ)/libbase.a
	$(CC) $(ALL_CFLAGS) $(LDFLAGS) $^ -lcmocka -o $@
