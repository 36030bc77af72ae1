-- What PostgreSQL needs to speak the same SQL as SQLite, and to order as it does.

-- A batch is one JSON array; SQLite has this function built in. One line, so that it is inlined into the statement that calls it.
create function json_each(batch text) returns table (value jsonb, atom text) language sql immutable parallel safe as
    'select e, e #>> ''{}'' from jsonb_array_elements(batch::jsonb) as e';

-- Text is ordered by its bytes, as ids, feeds and pages expect it, whatever the database's own collation is.
do $$
declare
    wrong record;
begin
    for wrong in
        select c.table_name, c.column_name from information_schema.columns c
        where c.table_schema = current_schema() and c.data_type = 'text' and c.collation_name is distinct from 'C'
          and c.table_name not like '\_sqlx%'
    loop
        execute format('alter table %I alter column %I type text collate "C"', wrong.table_name, wrong.column_name);
    end loop;
end
$$;
