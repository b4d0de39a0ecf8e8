-- Capture: change buffers and the trigger functions that fill them, for sources that DIFFERENTIAL stream tables read
-- (and calculated FULL ones, which only want to know that something happened).
--
-- A buffer is pgtrickle_changes.c_<relid>; its columns are named after attribute numbers, so that a dropped or renamed column of the source
-- never shifts another. The functions here run inside pgtrickle._call's trigger, as the maintenance role, and are of no use to others.

SET LOCAL client_min_messages = warning;

-- The buffers a session may be about to read from a snapshot that no committed catalog row protects yet are held by this lock (shared);
-- _purge takes it exclusively or leaves the buffer alone. Transaction-scoped. "pgtk" in ASCII, 2, then the source.
CREATE OR REPLACE FUNCTION pgtrickle._hold_buffer(relid oid) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $body$
    SELECT pg_advisory_xact_lock_shared(hashtextextended('pgtrickle buffer', relid::bigint))
$body$;
-- The same for the frontier of one stream table: a refresh holds it shared, so that _purge does not give up its rows meanwhile.
CREATE OR REPLACE FUNCTION pgtrickle._hold_frontier(pgt_id bigint) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $body$
    SELECT pg_advisory_xact_lock_shared(hashtextextended('pgtrickle frontier', pgt_id))
$body$;

-- A column as captured: format_type with typmod, COLLATE when it is not the type's own. Of a domain the type beneath: a domain's checks are
-- code of its owner's, which must not run as us, and would refuse a marker.
CREATE OR REPLACE FUNCTION pgtrickle._column_type(relid oid, attnum integer) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    WITH RECURSIVE base(typ, typmod, collation_of) AS (
        SELECT a.atttypid, a.atttypmod, a.attcollation FROM pg_attribute a WHERE a.attrelid = relid AND a.attnum = $2 AND NOT a.attisdropped
        UNION ALL SELECT t.typbasetype, t.typtypmod, b.collation_of FROM base b JOIN pg_type t ON t.oid = b.typ AND t.typtype = 'd')
    SELECT format_type(b.typ, b.typmod)
        || CASE WHEN b.collation_of <> t.typcollation AND b.collation_of <> 0
           THEN (SELECT format(' COLLATE %I.%I', n.nspname, c.collname) FROM pg_collation c JOIN pg_namespace n ON n.oid = c.collnamespace
                 WHERE c.oid = b.collation_of) ELSE '' END
    FROM base b JOIN pg_type t ON t.oid = b.typ AND t.typtype <> 'd'
$body$;

-- Creates or widens the buffer so that it holds attnums, and (re)builds the functions. True when anything was new: then the triggers have to
-- be created or replaced by the caller, whose lock on the source keeps writers of the old shape out.
CREATE OR REPLACE FUNCTION pgtrickle._capture_ensure(relid oid, attnums integer[]) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    had integer[];
    wanted integer[];
    buffer text := format('pgtrickle_changes.c_%s', relid);
    bad text;
    n integer;
    state_before text;
    is_known boolean;
BEGIN
    -- One at a time for a source: two that widen it would each build the functions without the other's columns.
    PERFORM pg_advisory_xact_lock(hashtextextended('pgtrickle capture', relid::bigint));
    SELECT c.attnums, c.state INTO had, state_before FROM pgtrickle.pgt_captures c WHERE c.source_relid = relid;
    IF FOUND THEN
        is_known := coalesce(state_before = pgtrickle._capture_state(relid), true);
        -- Someone may have dropped the triggers by hand, or changed a column: then all is made again.
        IF is_known AND to_regclass(buffer) IS NOT NULL AND had @> attnums AND pgtrickle._is_captured_whole(relid) AND NOT pgtrickle._capture_is_stale(relid) THEN
            RETURN false;
        ELSIF NOT is_known THEN
            -- The buffer may lack what was written without its triggers.
            UPDATE pgtrickle.pgt_stream_tables s SET needs_reinit = true
            WHERE s.pgt_id IN (SELECT d.pgt_id FROM pgtrickle.pgt_dependencies d WHERE d.source_relid = relid AND d.captured);
        END IF;
    END IF;
    SELECT coalesce(array_agg(DISTINCT x ORDER BY x), '{}') INTO wanted FROM unnest(coalesce(had, '{}') || attnums) AS x
    WHERE EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = relid AND a.attnum = x AND NOT a.attisdropped);
    SELECT a.attname INTO bad FROM pg_attribute a WHERE a.attrelid = relid AND a.attnum = ANY (wanted) AND a.attgenerated = 'v' LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'changes of column "%" of table "%" cannot be captured: it is a virtual generated column', bad, relid::regclass
            USING ERRCODE = 'feature_not_supported';
    END IF;

    -- Roles that may create in pgtrickle_changes may have taken the name; the schema is ours, so what is in it is ours to drop.
    IF (SELECT pg_get_userbyid(c.relowner) FROM pg_class c WHERE c.oid = to_regclass(buffer)) <> current_user THEN
        EXECUTE format('DROP TABLE %s CASCADE', buffer);
    END IF;
    IF to_regclass(buffer) IS NULL THEN
        EXECUTE format('CREATE TABLE %s (__pgt_xid xid8 NOT NULL, __pgt_seq bigint NOT NULL, __pgt_w smallint NOT NULL) '
            'WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_analyze_scale_factor = 0.5)', buffer);
        EXECUTE format('CREATE INDEX %I ON %s (__pgt_xid)', 'c_' || relid || '_xid', buffer);
        -- Each refresh asks for markers; nearly always there is none, and this finds none at once.
        EXECUTE format('CREATE INDEX %I ON %s (__pgt_xid) WHERE __pgt_w = 0', 'c_' || relid || '_marker', buffer);
    END IF;
    FOREACH n IN ARRAY wanted LOOP
        IF NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = buffer::regclass AND a.attname = 'a' || n AND NOT a.attisdropped) THEN
            EXECUTE format('ALTER TABLE %s ADD COLUMN a%s %s', buffer, n, pgtrickle._column_type(relid, n));
        ELSIF pgtrickle._column_type(relid, n) IS DISTINCT FROM
              (SELECT pgtrickle._column_type(a.attrelid, a.attnum) FROM pg_attribute a WHERE a.attrelid = buffer::regclass AND a.attname = 'a' || n) THEN
            -- The type changed: what the buffer holds is of no use to anyone, so every reader starts anew.
            EXECUTE format('ALTER TABLE %s DROP COLUMN a%s', buffer, n);
            EXECUTE format('ALTER TABLE %s ADD COLUMN a%s %s', buffer, n, pgtrickle._column_type(relid, n));
            UPDATE pgtrickle.pgt_stream_tables s SET needs_reinit = true
            WHERE s.pgt_id IN (SELECT d.pgt_id FROM pgtrickle.pgt_dependencies d WHERE d.source_relid = relid AND d.captured);
        END IF;
    END LOOP;
    INSERT INTO pgtrickle.pgt_captures (source_relid, attnums) VALUES (relid, wanted)
    ON CONFLICT (source_relid) DO UPDATE SET attnums = EXCLUDED.attnums, state = NULL;
    PERFORM pgtrickle._capture_functions(relid, wanted);
    RETURN true;
END
$body$;

-- A condition that is true as long as the captured columns are what they are now, and the partitions and heirs. What went through one that came
-- and left again is in no table any more.
CREATE OR REPLACE FUNCTION pgtrickle._capture_guard(relid oid, attnums integer[]) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT CASE WHEN EXISTS (SELECT FROM pg_inherits i WHERE i.inhparent = relid) OR (SELECT c.relkind = 'p' FROM pg_class c WHERE c.oid = relid)
                THEN format('pgtrickle._tree_state(%s) = %L AND ', relid, pgtrickle._tree_state(relid))
                ELSE format('NOT EXISTS (SELECT FROM pg_inherits WHERE inhparent = %s) AND ', relid) END
        || CASE WHEN attnums = '{}' THEN 'true' ELSE
        format('(SELECT count(*) = %s FROM pg_attribute WHERE attrelid = %s AND attnum = ANY (%L::int2[]) AND (attnum, attname, atttypid, atttypmod) IN (%s))',
               count(*), relid, attnums, string_agg(format('(%s, %L::name, %s::oid, %s)', a.attnum, a.attname, a.atttypid, a.atttypmod), ', ' ORDER BY a.attnum)) END
    FROM pg_attribute a WHERE a.attrelid = relid AND a.attnum = ANY (attnums) AND NOT a.attisdropped
$body$;

-- A captured column was dropped, renamed or changed its type since the functions were built.
CREATE OR REPLACE FUNCTION pgtrickle._capture_is_stale(relid oid) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT coalesce((
        SELECT strpos(p.prosrc, pgtrickle._capture_guard(c.source_relid, c.attnums)) = 0
        FROM pgtrickle.pgt_captures c JOIN pg_proc p ON p.pronamespace = 'pgtrickle_changes'::regnamespace AND p.proname = format('c_%s_ins', relid)
        WHERE c.source_relid = relid), true)
$body$;

-- One INSERT ... SELECT a statement; the sequence is drawn once, by an uncorrelated subquery that runs when the first row comes, so a
-- statement that touched no row draws nothing. When someone has altered a captured column, a marker with weight 0 (as for TRUNCATE) makes
-- every reader start anew: the writer must not fail because of us.
CREATE OR REPLACE FUNCTION pgtrickle._capture_functions(relid oid, attnums integer[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    buffer text := format('pgtrickle_changes.c_%s', relid);
    columns text;
    images text;      -- the columns of a transition table
    differs text;
    stamp text := 'pg_current_xact_id(), (SELECT nextval(''pgtrickle.change_seq''::regclass))';
    marker text := format('INSERT INTO %s (__pgt_xid, __pgt_seq, __pgt_w) SELECT %s, 0', buffer, stamp);
    guard text := pgtrickle._capture_guard(relid, attnums);
    -- Readers of no columns only want to know that there was something.
    once text := CASE WHEN attnums = '{}' THEN ' LIMIT 1' ELSE '' END;
    event text;
    body text;
    source text;
BEGIN
    SELECT string_agg(format(', a%s', a.attnum), '' ORDER BY a.attnum), string_agg(format(', t.%I', a.attname), '' ORDER BY a.attnum)
    INTO columns, images
    FROM pg_attribute a WHERE a.attrelid = relid AND a.attnum = ANY (attnums);
    FOREACH event IN ARRAY '{ins,upd,del,trunc}'::text[] LOOP
        source := CASE event
            WHEN 'ins' THEN format('SELECT %s, 1%s FROM pgt_new AS t', stamp, images) || once
            WHEN 'del' THEN format('SELECT %s, -1%s FROM pgt_old AS t', stamp, images) || once
            WHEN 'upd' THEN format('SELECT %1$s, u.* FROM (SELECT -1%2$s FROM pgt_old AS t UNION ALL SELECT 1%2$s FROM pgt_new AS t) AS u', stamp, images) || once
        END;
        body := CASE WHEN event = 'trunc' THEN marker || ';' ELSE format($f$IF %s THEN
        INSERT INTO %s (__pgt_xid, __pgt_seq, __pgt_w%s) %s;
    ELSE
        %s;
    END IF;$f$, guard, buffer, columns, source, marker) END;
        -- Replaced, another's function would stay another's.
        IF EXISTS (SELECT FROM pg_proc p WHERE p.pronamespace = 'pgtrickle_changes'::regnamespace AND p.proname = format('c_%s_%s', relid, event)
                   AND pg_get_userbyid(p.proowner) <> current_user) THEN
            EXECUTE format('DROP FUNCTION pgtrickle_changes.c_%s_%s() CASCADE', relid, event);
        END IF;
        -- Quoted by %L: a column's name may hold anything, a dollar tag too.
        EXECUTE format('CREATE OR REPLACE FUNCTION pgtrickle_changes.c_%s_%s() RETURNS trigger '
            'LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS %L', relid, event, format($f$
#variable_conflict use_column
BEGIN
    -- Another table's trigger, or one that came from a dump: nothing of it is ours to write down, and the writer must not fail.
    IF TG_RELID <> %1$s::oid AND NOT EXISTS (SELECT FROM pgtrickle._tree(%1$s) AS t WHERE t.relid = TG_RELID) THEN
        RETURN NULL;
    END IF;
    %2$s
    RETURN NULL;
END
$f$, relid, body));
    END LOOP;
END
$body$;

-- For the caller to run: the triggers belong to the source's owner. A statement fires those of the table that it names, with the rows of all
-- below: each partition and heir has its own for what is written to it directly.
CREATE OR REPLACE FUNCTION pgtrickle._capture_trigger_sql(relid oid) RETURNS text[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT array_agg(s.statement ORDER BY s.relid <> $1, s.relid, s.place) FROM (
    -- Of what has left the family.
    SELECT format('DROP TRIGGER %I ON %s', t.tgname, t.tgrelid::regclass), t.tgrelid, 0
    FROM pg_proc p JOIN pg_trigger t ON t.tgfoid = p.oid
    WHERE p.pronamespace = 'pgtrickle_changes'::regnamespace AND p.proname LIKE format('c\_%s\_%%', $1) AND t.tgrelid NOT IN (SELECT x.relid FROM pgtrickle._tree($1) AS x)
    UNION ALL
    SELECT format('CREATE OR REPLACE TRIGGER pgtrickle_capture_%s AFTER %s ON %I.%I %sFOR EACH STATEMENT EXECUTE FUNCTION pgtrickle_changes.c_%s_%s()',
                            CASE WHEN c.oid = $1 THEN '' ELSE $1 || '_' END || e.short, e.event, n.nspname, c.relname, e.tables, $1, e.short), c.oid, e.place
    FROM pgtrickle._tree($1) AS x JOIN pg_class c ON c.oid = x.relid JOIN pg_namespace n ON n.oid = c.relnamespace,
         (VALUES (1, 'ins', 'INSERT', 'REFERENCING NEW TABLE AS pgt_new '), (2, 'upd', 'UPDATE', 'REFERENCING OLD TABLE AS pgt_old NEW TABLE AS pgt_new '),
                 (3, 'del', 'DELETE', 'REFERENCING OLD TABLE AS pgt_old '), (4, 'trunc', 'TRUNCATE', '')) AS e(place, short, event, tables)) AS s(statement, relid, place)
$body$;

-- Takes the capture of a source away when no stream table reads it any more. DROP FUNCTION ... CASCADE takes the triggers along.
CREATE OR REPLACE FUNCTION pgtrickle._capture_release(relid oid) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET client_min_messages = warning AS $body$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('pgtrickle capture', relid::bigint));
    IF EXISTS (SELECT FROM pgtrickle.pgt_dependencies d WHERE d.source_relid = relid AND d.captured)
       OR NOT EXISTS (SELECT FROM pgtrickle.pgt_captures c WHERE c.source_relid = relid) THEN
        RETURN;
    END IF;
    DELETE FROM pgtrickle.pgt_captures c WHERE c.source_relid = relid;
    EXECUTE format('DROP FUNCTION IF EXISTS pgtrickle_changes.c_%1$s_ins(), pgtrickle_changes.c_%1$s_upd(), pgtrickle_changes.c_%1$s_del(), '
                   'pgtrickle_changes.c_%1$s_trunc() CASCADE', relid);
    EXECUTE format('DROP TABLE IF EXISTS pgtrickle_changes.c_%s', relid);
END
$body$;

REVOKE EXECUTE ON FUNCTION pgtrickle._capture_ensure(oid, integer[]), pgtrickle._capture_functions(oid, integer[]), pgtrickle._capture_release(oid) FROM PUBLIC;
