#!/bin/sh
# Writes the SQL side as a C array: one entry a file, in the order given.
echo '#include "dvm/sql/embedded.h"'
echo 'const struct dvm_embedded_sql dvm_embedded_sql[] = {'
for file in "$@"; do
    echo "    { \"${file##*/}\","
    # ISO C promises 4095 bytes a literal; gcc and clang take far more, hence -Wno-overlength below.
    sed -e 's/\\/\\\\/g' -e 's/"/\\"/g' -e 's/^/      "/' -e 's/$/\\n"/' "$file"
    echo '    },'
done
echo '    { 0, 0 },'
echo '};'
