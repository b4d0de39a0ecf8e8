# Fuzz targets of the wire library; built by `make fuzz` (clang, VARIANT=fuzz). `make fuzz-wire_backend`
# builds and runs one of them.
WIRE_FUZZ := $(addprefix $(OBJ)/tests/fuzz/fuzz_,wire_frontend wire_backend scram)
FUZZ_PROGRAMS += $(WIRE_FUZZ)
$(WIRE_FUZZ): $(OBJ)/%: $(OBJ)/%.o $(OBJ)/libprotocol.a $(OBJ)/libbase.a
	$(CC) $(ALL_CFLAGS) -fsanitize=fuzzer $(LDFLAGS) $^ -lcrypto -lidn -o $@

.PHONY: fuzz-wire_frontend fuzz-wire_backend fuzz-scram
fuzz-wire_frontend fuzz-wire_backend fuzz-scram: fuzz-%:
	$(MAKE) VARIANT=fuzz CC=clang fuzz-run FUZZ_PROGRAMS=$(BUILD)/fuzz/tests/fuzz/fuzz_$*
