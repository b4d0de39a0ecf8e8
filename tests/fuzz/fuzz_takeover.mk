FUZZ_PROGRAMS += $(OBJ)/tests/fuzz/fuzz_takeover
$(OBJ)/tests/fuzz/fuzz_takeover: $(OBJ)/tests/fuzz/fuzz_takeover.o $(OBJ)/tests/proxy/world.o $(ARCHIVES)
	$(CC) $(ALL_CFLAGS) -fsanitize=fuzzer $(LDFLAGS) $^ -lcmocka $(LIBS) -o $@

.PHONY: fuzz-takeover
fuzz-takeover: fuzz-%:
	$(MAKE) VARIANT=fuzz CC=clang fuzz-run FUZZ_PROGRAMS=$(BUILD)/fuzz/tests/fuzz/fuzz_$*
