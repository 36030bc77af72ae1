-- A batch is taken apart once, and not once more for each column: SQLite's jsonb_each gives rows that are parsed already. PostgreSQL's own
-- function of that name takes jsonb; this one takes text. json_each stays for processes of the version before.
create function jsonb_each(batch text) returns table (value jsonb, atom text) language sql immutable parallel safe as
    'select e, e #>> ''{}'' from jsonb_array_elements(batch::jsonb) as e';
