-- Attempts and the timeline grow for ever and are forgotten by age, so PostgreSQL keeps them by the day: an old day is a table to drop.
-- Ids begin with their time (UUIDv7), so a day is a range of ids, and the key alone leads to the one partition. What no day has been
-- made for goes to the rest. Rows that are rewritten on the way of every push leave room for their new version beside the old one.

drop table attempts;
create table attempts (
    app_id text collate "C" not null,
    id text collate "C" not null,
    wake_id text collate "C" not null,
    device_id text collate "C" not null,
    transport text collate "C" not null,
    class text collate "C" not null,
    try bigint not null,
    after_position bigint not null,
    head bigint not null,
    token_version bigint not null,
    started_at bigint not null,
    duration_ms bigint,
    outcome text collate "C",
    status bigint,
    reason text collate "C",
    provider_id text collate "C",
    retry_at bigint,
    bytes bigint,
    primary key (app_id, id)
) partition by range (id);
create index attempts_by_device on attempts (app_id, device_id, id);
create index attempts_by_wake on attempts (app_id, wake_id);
create index attempts_by_head on attempts (app_id, head);
create index attempts_by_age on attempts (app_id, started_at);
create index attempts_under_way on attempts (started_at) where outcome is null;
create table attempts_rest partition of attempts default with (fillfactor = 70);

drop table timeline;
create table timeline (
    app_id text collate "C" not null,
    device_id text collate "C" not null,
    id text collate "C" not null,
    at bigint not null,
    what text collate "C" not null,
    primary key (app_id, device_id, id)
) partition by range (id);
create index timeline_by_age on timeline (app_id, at);
create table timeline_rest partition of timeline default;

alter table levels set (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02);
alter table devices set (fillfactor = 85);
alter table apps set (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
alter table tallies set (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02);
