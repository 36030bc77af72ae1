-- How far `reveille migrate-store` has come, in the database that it fills. Nobody serves one that is not whole.
create table moves (
    name text primary key,
    last_row bigint not null,
    finished_at bigint
);
