-- One of several values that are known to be alike, of a type that has no = to group by (json[], point[]): (array_agg(x))[1] would take an array of arrays apart.

CREATE OR REPLACE FUNCTION pgtrickle._first(first anyelement, other anyelement) RETURNS anyelement
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $body$ SELECT first $body$;

CREATE OR REPLACE AGGREGATE pgtrickle._any(anyelement) (SFUNC = pgtrickle._first, STYPE = anyelement, PARALLEL = SAFE);
