#include "dvm/analyze.h"

#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "dvm/sql_parse.h"

#define VIEW "pg_temp.__pgt_definition"

static bool is_true(const char *cell)
{
    return cell != NULL && cell[0] == 't';
}

/* The definition without trailing blanks and semicolons, and without a comment behind these. */
static struct str trimmed_query(const char *query)
{
    size_t start, len;
    struct str s = str_from(query);

    if (sql_statement_extent(query, &start, &len))
        s = (struct str){ query + start, len };
    s = str_trim(s);
    while (s.len > 0 && s.ptr[s.len - 1] == ';') {
        s.len--;
        s = str_trim(s);
    }
    return s;
}

static bool describe_outputs(struct dvm_db *db, struct arena *a, const struct dvm_definition *d,
                             struct catalog *cat, struct err *e)
{
    struct db_rows columns;
    int n_params = 0;
    bool parsed;

    if (!db->ops->describe(db, a, d->query, &columns, &n_params, e))
        return false;
    if (n_params > 0) {
        err_set(e, ERR_REFUSAL, "42P02", "the definition of a stream table can't have parameters");
        err_hint(e, "Write the value into the definition.");
        return false;
    }
    if ((!sql_is_select(d->query, &parsed) && parsed) || columns.n_columns == 0) {
        err_set(e, ERR_REFUSAL, "42601", "the definition of a stream table must be one SELECT");
        return false;
    }
    if (d->n_column_names > columns.n_columns)
        return err_set(e, ERR_REFUSAL, "42601", "too many column names were specified");
    cat->n_outputs = columns.n_columns;
    cat->outputs = arena_new_array(a, struct cat_output, (size_t)columns.n_columns);
    for (int i = 0; i < columns.n_columns; i++) {
        struct cat_output *o = &cat->outputs[i];

        o->name = i < d->n_column_names ? d->column_names[i] : columns.columns[i].name;
        o->type_oid = columns.columns[i].type_oid;
        o->typmod = columns.columns[i].typmod;
        if (strncmp(o->name, "__pgt_", 6) == 0)
            return err_set(e, ERR_REFUSAL, "42939", "column name \"%s\" is reserved", o->name);
        for (int j = 0; j < i; j++) {
            if (strcmp(cat->outputs[j].name, o->name) != 0)
                continue;
            err_set(e, ERR_REFUSAL, "42701", "column \"%s\" specified more than once", o->name);
            err_hint(e, "Give each column of the query a name of its own with AS.");
            return false;
        }
    }
    return true;
}

static bool create_view(struct dvm_db *db, const struct dvm_definition *d, struct catalog *cat,
                        struct err *e)
{
    struct text sql;
    bool ok;

    text_init(&sql);
    text_put(&sql, "CREATE TEMP VIEW __pgt_definition (");
    for (int i = 0; i < cat->n_outputs; i++)
        text_printf(&sql, "%sc%d", i > 0 ? ", " : "", i);
    text_put(&sql, ") AS SELECT * FROM (");
    text_put_str(&sql, trimmed_query(d->query));
    text_put(&sql, "\n) AS q(");
    for (int i = 0; i < cat->n_outputs; i++)
        text_printf(&sql, "%sc%d", i > 0 ? ", " : "", i);
    text_put(&sql, ")");
    ok = db_exec(db, e, "%s", sql.ptr);
    if (!ok)
        e->position = 0; /* it would point into our text */
    text_free(&sql);
    return ok;
}

static bool read_outputs(struct dvm_db *db, struct arena *a, struct catalog *cat, struct err *e)
{
    struct db_rows rows;

    if (!db_query(db, a, &rows, e,
                  "SELECT pg_catalog.pg_get_viewdef('" VIEW "'::pg_catalog.regclass)"))
        return false;
    {
        struct str canonical = trimmed_query(db_cell(&rows, 0, 0));

        cat->canonical = arena_strndup(a, canonical.ptr, canonical.len);
    }
    if (!db_query(db, a, &rows, e,
                  "SELECT pg_catalog.format_type(a.atttypid, a.atttypmod) || "
                  "CASE WHEN a.attcollation <> 0 AND a.attcollation <> t.typcollation THEN "
                  "' COLLATE ' || pg_catalog.quote_ident(n.nspname) || '.' || "
                  "pg_catalog.quote_ident(c.collname) ELSE '' END, a.atttypid, a.atttypmod "
                  "FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid "
                  "LEFT JOIN pg_catalog.pg_collation c ON c.oid = a.attcollation "
                  "LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.collnamespace "
                  "WHERE a.attrelid = '" VIEW "'::pg_catalog.regclass AND a.attnum > 0 "
                  "ORDER BY a.attnum"))
        return false;
    for (int i = 0; i < rows.n_rows && i < cat->n_outputs; i++) {
        cat->outputs[i].type = db_cell(&rows, i, 0);
        cat->outputs[i].type_oid = (uint32_t)strtoul(db_cell(&rows, i, 1), NULL, 10);
        cat->outputs[i].typmod = (int32_t)strtol(db_cell(&rows, i, 2), NULL, 10);
    }
    return true;
}

/* Every relation that the definition names, views followed. */
#define REACHED                                                                                    \
    "WITH RECURSIVE reached(oid) AS (SELECT '" VIEW "'::pg_catalog.regclass::oid UNION "           \
    "SELECT d.refobjid FROM reached v JOIN pg_catalog.pg_rewrite r ON r.ev_class = v.oid "         \
    "JOIN pg_catalog.pg_class vc ON vc.oid = v.oid AND vc.relkind = 'v' "                          \
    "JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass "     \
    "AND d.objid = r.oid AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass "           \
    "AND d.refobjid <> v.oid) "

static bool read_tables(struct dvm_db *db, struct arena *a, struct catalog *cat, struct err *e)
{
    struct db_rows rows;

    if (!db_query(
            db, a, &rows, e,
            REACHED
            "SELECT c.oid, n.nspname, c.relname, c.relkind, c.relpersistence = 't', "
            "EXISTS (SELECT FROM pgtrickle._tree(c.oid) x JOIN pg_catalog.pg_class h ON h.oid = "
            "x.relid WHERE h.relpersistence = 'u'), "
            "EXISTS (SELECT FROM pg_catalog.pg_inherits i WHERE i.inhrelid = c.oid), "
            "c.relrowsecurity AND pg_catalog.row_security_active(c.oid), "
            "n.nspname IN ('pg_catalog', 'information_schema', 'pg_toast'), "
            "EXISTS (SELECT FROM pgtrickle.pgt_stream_tables s WHERE s.pgt_relid = c.oid), "
            "CASE WHEN c.relkind = 'v' THEN pg_catalog.pg_get_viewdef(c.oid) END, c.reltuples, "
            "c.relkind = 'p' OR EXISTS (SELECT FROM pg_catalog.pg_inherits i WHERE i.inhparent = "
            "c.oid), "
            "EXISTS (SELECT FROM pgtrickle._tree(c.oid) x JOIN pg_catalog.pg_class h ON h.oid = "
            "x.relid WHERE h.relkind = 'f' AND c.relkind <> 'f'), "
            "EXISTS (SELECT FROM pgtrickle._tree(c.oid) x JOIN pg_catalog.pg_subscription_rel h "
            "ON h.srrelid = x.relid) "
            "FROM reached v JOIN pg_catalog.pg_class c ON c.oid = v.oid "
            "JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace "
            "WHERE c.oid <> '" VIEW "'::pg_catalog.regclass ORDER BY c.oid"))
        return false;
    cat->n_tables = rows.n_rows;
    cat->tables = arena_new_array(a, struct cat_table, (size_t)rows.n_rows);
    for (int i = 0; i < rows.n_rows; i++)
        cat->tables[i] = (struct cat_table){
            .oid = (uint32_t)strtoul(db_cell(&rows, i, 0), NULL, 10),
            .schema = db_cell(&rows, i, 1),
            .name = db_cell(&rows, i, 2),
            .relkind = db_cell(&rows, i, 3)[0],
            .temporary = is_true(db_cell(&rows, i, 4)),
            .unlogged = is_true(db_cell(&rows, i, 5)),
            .has_parent = is_true(db_cell(&rows, i, 6)),
            .row_security = is_true(db_cell(&rows, i, 7)),
            .is_system = is_true(db_cell(&rows, i, 8)),
            .is_stream_table = is_true(db_cell(&rows, i, 9)),
            .view_definition = db_cell(&rows, i, 10),
            .rows = strtod(db_cell(&rows, i, 11), NULL),
            .has_children = is_true(db_cell(&rows, i, 12)),
            .has_foreign_child = is_true(db_cell(&rows, i, 13)),
            .is_subscribed = is_true(db_cell(&rows, i, 14)),
        };
    /* pg_get_viewdef ends with a semicolon; the parser takes it. */
    return true;
}

static struct cat_table *table_of(struct catalog *cat, const char *oid)
{
    uint32_t wanted = (uint32_t)strtoul(oid, NULL, 10);

    for (int i = 0; i < cat->n_tables; i++)
        if (cat->tables[i].oid == wanted)
            return &cat->tables[i];
    return NULL;
}

static bool read_columns(struct dvm_db *db, struct arena *a, struct catalog *cat, struct err *e)
{
    struct db_rows rows;

    /* PostgreSQL 18 marks a column NOT NULL while NOT VALID: believe only a validated one. */
    if (!db_query(
            db, a, &rows, e,
            REACHED
            "SELECT a.attrelid, a.attnum, a.attname, pg_catalog.format_type(a.atttypid, "
            "a.atttypmod) || CASE WHEN a.attcollation <> 0 AND a.attcollation <> t.typcollation "
            "THEN ' COLLATE ' || pg_catalog.quote_ident(n.nspname) || '.' || "
            "pg_catalog.quote_ident(co.collname) ELSE '' END, a.attnotnull AND NOT EXISTS (SELECT "
            "FROM pg_catalog.pg_constraint k WHERE k.conrelid = a.attrelid AND k.contype = 'n' AND "
            "NOT k.convalidated AND k.conkey = ARRAY[a.attnum]), a.attgenerated = 'v', a.atttypid, "
            "a.atttypid = 'pg_catalog.numeric'::pg_catalog.regtype AND a.atttypmod >= 0 "
            "FROM reached v JOIN pg_catalog.pg_attribute a ON a.attrelid = v.oid "
            "JOIN pg_catalog.pg_type t ON t.oid = a.atttypid "
            "LEFT JOIN pg_catalog.pg_collation co ON co.oid = a.attcollation "
            "LEFT JOIN pg_catalog.pg_namespace n ON n.oid = co.collnamespace "
            "WHERE a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attrelid, a.attnum"))
        return false;
    for (int i = 0; i < rows.n_rows; i++) {
        struct cat_table *t = table_of(cat, db_cell(&rows, i, 0));

        if (t == NULL)
            continue;
        if (t->columns == NULL)
            t->columns = arena_new_array(a, struct cat_column, (size_t)(rows.n_rows - i));
        t->columns[t->n_columns++] = (struct cat_column){
            .attnum = atoi(db_cell(&rows, i, 1)),
            .name = db_cell(&rows, i, 2),
            .type = db_cell(&rows, i, 3),
            .not_null = is_true(db_cell(&rows, i, 4)),
            .is_virtual = is_true(db_cell(&rows, i, 5)),
            .type_oid = (uint32_t)strtoul(db_cell(&rows, i, 6), NULL, 10),
            .exact = is_true(db_cell(&rows, i, 7)),
        };
    }
    return true;
}

static bool read_column_types(struct dvm_db *db, struct arena *a, struct catalog *cat,
                              struct err *e)
{
    uint32_t *oids;
    struct type_facts *facts;
    int n = 0, at = 0;

    for (int i = 0; i < cat->n_tables; i++)
        n += cat->tables[i].n_columns;
    oids = arena_new_array(a, uint32_t, (size_t)n);
    facts = arena_new_array(a, struct type_facts, (size_t)n);
    for (int i = 0; i < cat->n_tables; i++)
        for (int c = 0; c < cat->tables[i].n_columns; c++)
            oids[at++] = cat->tables[i].columns[c].type_oid;
    if (n > 0 && !analyze_types(db, a, oids, n, facts, e))
        return false;
    at = 0;
    for (int i = 0; i < cat->n_tables; i++)
        for (int c = 0; c < cat->tables[i].n_columns; c++, at++) {
            cat->tables[i].columns[c].has_equality = facts[at].has_equality;
            cat->tables[i].columns[c].exact |= facts[at].exact;
        }
    return true;
}

static bool read_keys(struct dvm_db *db, struct arena *a, struct catalog *cat, struct err *e)
{
    struct db_rows rows;

    /* Immediate, unconditional, on plain columns, unique by the columns' own equality; the fewest
     * columns first. */
    if (!db_query(db, a, &rows, e,
                  REACHED
                  "SELECT i.indrelid, i.indisprimary, pg_catalog.array_to_string((i.indkey::int2[])"
                  "[0:i.indnkeyatts - 1], ' ') FROM reached v "
                  "JOIN pg_catalog.pg_index i ON i.indrelid = v.oid "
                  "WHERE i.indisunique AND NOT i.indisexclusion AND i.indisvalid AND i.indislive "
                  "AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL "
                  "AND NOT EXISTS (SELECT FROM pg_catalog.generate_series(0, i.indnkeyatts - 1) n "
                  "JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = "
                  "i.indkey[n] JOIN pg_catalog.pg_opclass o ON o.oid = i.indclass[n] WHERE NOT "
                  "o.opcdefault OR a.attcollation <> i.indcollation[n]) "
                  "ORDER BY i.indrelid, i.indisprimary DESC, i.indnkeyatts, i.indexrelid"))
        return false;
    for (int i = 0; i < rows.n_rows; i++) {
        struct cat_table *t = table_of(cat, db_cell(&rows, i, 0));
        struct cat_key key = { .primary = is_true(db_cell(&rows, i, 1)) };
        const char *at = db_cell(&rows, i, 2);
        bool usable = t != NULL;

        key.columns = arena_new_array(a, int, strlen(at) / 2 + 1);
        while (usable && *at != '\0') {
            char *end;
            int attnum = (int)strtol(at, &end, 10);
            int index = -1;

            for (int c = 0; c < t->n_columns; c++)
                if (t->columns[c].attnum == attnum)
                    index = c;
            usable = index >= 0 && t->columns[index].not_null && end != at;
            if (usable)
                key.columns[key.n++] = index;
            at = *end == ' ' ? end + 1 : end;
        }
        if (!usable)
            continue;
        if (t->keys == NULL)
            t->keys = arena_new_array(a, struct cat_key, (size_t)(rows.n_rows - i));
        t->keys[t->n_keys++] = key;
    }
    return true;
}

static bool read_functions(struct dvm_db *db, struct arena *a, struct catalog *cat, struct err *e)
{
    struct db_rows rows;

    /* An aggregate is as volatile as its parts (i < s < v). The rewrite rule's tree names each
     * function by OID, builtin ones too (pg_depend does not). \M: in PostgreSQL's regular
     * expressions one non-greedy part would make the number so. */
    if (!db_query(db, a, &rows, e,
                  REACHED
                  "SELECT DISTINCT n.nspname, p.proname, CASE WHEN p.prokind = 'a' THEN (SELECT "
                  "pg_catalog.max(f.provolatile::text) FROM pg_catalog.pg_aggregate g JOIN "
                  "pg_catalog.pg_proc f ON f.oid IN (g.aggtransfn, g.aggfinalfn) WHERE "
                  "g.aggfnoid = p.oid) ELSE p.provolatile::text END, p.prokind = 'a', "
                  "n.nspname = 'pg_catalog', EXISTS (SELECT FROM pg_catalog.pg_operator o WHERE "
                  "o.oprcode = p.oid), p.proretset, p.oid FROM reached v "
                  "JOIN pg_catalog.pg_rewrite r ON r.ev_class = v.oid CROSS JOIN LATERAL "
                  "pg_catalog.regexp_matches(r.ev_action::text, "
                  "':(?:funcid|opfuncid|aggfnoid|winfnoid) (\\d+)\\M', 'g') m "
                  "JOIN pg_catalog.pg_proc p ON p.oid = m[1]::oid "
                  "JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace ORDER BY 1, 2, 3"))
        return false;
    cat->n_functions = rows.n_rows;
    cat->functions = arena_new_array(a, struct cat_function, (size_t)rows.n_rows);
    for (int i = 0; i < rows.n_rows; i++)
        cat->functions[i] = (struct cat_function){
            .schema = db_cell(&rows, i, 0),
            .name = db_cell(&rows, i, 1),
            .volatility = db_cell(&rows, i, 2)[0],
            .aggregate = is_true(db_cell(&rows, i, 3)),
            .builtin = is_true(db_cell(&rows, i, 4)),
            .is_operator = is_true(db_cell(&rows, i, 5)),
            .returns_set = is_true(db_cell(&rows, i, 6)),
            .oid = (uint32_t)strtoul(db_cell(&rows, i, 7), NULL, 10),
        };
    return true;
}

bool analyze(struct dvm_db *db, struct arena *a, const struct dvm_definition *d,
             struct catalog *cat, struct err *e)
{
    *cat = (struct catalog){ 0 };
    return describe_outputs(db, a, d, cat, e) && db_exec(db, e, "SAVEPOINT __pgt_analyze") &&
           create_view(db, d, cat, e) && db_exec(db, e, "SET LOCAL search_path = ''") &&
           read_outputs(db, a, cat, e) && read_tables(db, a, cat, e) &&
           read_columns(db, a, cat, e) && read_column_types(db, a, cat, e) &&
           read_keys(db, a, cat, e) && read_functions(db, a, cat, e) &&
           db_exec(db, e, "ROLLBACK TO SAVEPOINT __pgt_analyze") &&
           db_exec(db, e, "RELEASE SAVEPOINT __pgt_analyze");
}

bool analyze_types(struct dvm_db *db, struct arena *a, const uint32_t *oids, int n,
                   struct type_facts *facts, struct err *e)
{
    struct db_rows rows;
    struct text list;
    bool ok;

    text_init(&list);
    for (int i = 0; i < n; i++) {
        facts[i] = (struct type_facts){ .oid = oids[i] };
        text_printf(&list, "%s%u", i > 0 ? "," : "", oids[i]);
    }
    /* Domains count as their base types, arrays as their elements, ranges and multiranges as their
     * bounds, enums as comparable; composites as not, since that depends on their fields. Our SQL
     * runs with pg_catalog alone in its search path: a type whose = lies elsewhere (citext) would
     * be compared by another. */
    ok = db_query(
        db, a, &rows, e,
        "WITH RECURSIVE base(asked, oid) AS (SELECT o, o FROM pg_catalog.unnest('{%s}'::oid[]) o "
        "UNION SELECT b.asked, CASE t.typtype WHEN 'd' THEN t.typbasetype WHEN 'r' THEN (SELECT "
        "r.rngsubtype FROM pg_catalog.pg_range r WHERE r.rngtypid = t.oid) WHEN 'm' THEN (SELECT "
        "r.rngsubtype FROM pg_catalog.pg_range r WHERE r.rngmultitypid = t.oid) ELSE t.typelem END "
        "FROM base b JOIN pg_catalog.pg_type t ON t.oid = b.oid WHERE t.typtype IN ('d', 'r', 'm') "
        "OR "
        "(t.typcategory = 'A' AND t.typelem <> 0)), "
        "leaf AS (SELECT b.asked, t.oid, t.typtype FROM base b JOIN pg_catalog.pg_type t ON "
        "t.oid = b.oid WHERE t.typtype NOT IN ('d', 'r', 'm') AND NOT (t.typcategory = 'A' AND "
        "t.typelem <> 0)), "
        "class AS (SELECT l.asked, am.amname, o.opcfamily, o.opcintype FROM leaf l CROSS JOIN "
        "pg_catalog.pg_am am JOIN pg_catalog.pg_opclass o ON o.opcmethod = am.oid AND o.opcdefault "
        "AND (o.opcintype = l.oid OR l.typtype = 'e' AND o.opcintype = 'anyenum'::regtype OR NOT "
        "EXISTS (SELECT FROM pg_catalog.pg_opclass x WHERE x.opcmethod = am.oid AND x.opcdefault "
        "AND "
        "x.opcintype = l.oid) AND EXISTS (SELECT FROM pg_catalog.pg_cast k WHERE k.castsource = "
        "l.oid AND k.casttarget = o.opcintype AND k.castmethod = 'b' AND k.castcontext = 'i')) "
        "WHERE am.amname IN ('btree', 'hash')) "
        "SELECT asked, pg_catalog.bool_or(amname = 'btree' AND EXISTS (SELECT FROM "
        "pg_catalog.pg_amop p JOIN pg_catalog.pg_operator q ON q.oid = p.amopopr WHERE "
        "p.amopfamily "
        "= opcfamily AND p.amoplefttype = opcintype AND p.amoprighttype = opcintype AND "
        "p.amopstrategy = 3 AND q.oprnamespace = 'pg_catalog'::regnamespace)), "
        "pg_catalog.bool_or(amname = 'hash' AND EXISTS (SELECT FROM pg_catalog.pg_amproc p WHERE "
        "p.amprocfamily = opcfamily AND p.amproclefttype = opcintype AND p.amprocnum = 2)), "
        "pg_catalog.bool_or(amname = 'btree' AND EXISTS (SELECT FROM pg_catalog.pg_amproc p JOIN "
        "pg_catalog.pg_proc f ON f.oid = p.amproc WHERE p.amprocfamily = opcfamily AND "
        "p.amproclefttype = opcintype AND p.amprocnum = 4 AND (f.proname = 'btequalimage' OR NOT "
        "EXISTS (SELECT FROM pg_catalog.pg_collation c WHERE NOT c.collisdeterministic)))) "
        "FROM class GROUP BY asked",
        list.len > 0 ? list.ptr : "");
    text_free(&list);
    if (!ok)
        return false;
    for (int i = 0; i < rows.n_rows; i++)
        for (int j = 0; j < n; j++)
            if (facts[j].oid == (uint32_t)strtoul(db_cell(&rows, i, 0), NULL, 10)) {
                facts[j].has_equality = is_true(db_cell(&rows, i, 1));
                facts[j].has_hash = is_true(db_cell(&rows, i, 2));
                facts[j].exact = is_true(db_cell(&rows, i, 3));
            }
    return true;
}
