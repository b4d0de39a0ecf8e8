# The whole proxy in virtual time, with faults.
CHECK_PROGRAMS += $(OBJ)/tests/sim/test_simulation
$(OBJ)/tests/sim/test_simulation: $(call obj,tests/sim/test_simulation.c tests/sim/backend.c \
    tests/sim/asker.c tests/proxy/world.c) $(ARCHIVES)
	$(CC) $(ALL_CFLAGS) $(LDFLAGS) $^ -lcmocka $(LIBS) -o $@
