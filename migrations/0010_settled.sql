-- Up to which attempt the janitor has seen to it that each has ended. An index of those under way would cost every push two more writes, and
-- PostgreSQL a new entry in each of the table's indexes when an attempt ends. Ids begin with the time, so they serve for age as well.
create table settled (
    app_id text primary key,
    through text not null
);
drop index attempts_by_age;
drop index attempts_under_way;
