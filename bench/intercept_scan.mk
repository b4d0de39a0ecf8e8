BENCH_PROGRAMS += $(OBJ)/bench/intercept_scan
$(OBJ)/bench/intercept_scan: $(OBJ)/bench/intercept_scan.o \
    $(call obj,proxy/sql_scan.c proxy/stream_sql.c proxy/intercept.c) $(OBJ)/libbase.a
	$(CC) $(ALL_CFLAGS) $(LDFLAGS) $^ -o $@
