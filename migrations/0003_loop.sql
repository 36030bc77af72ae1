-- What closes the loop: budgets, re-wakes, token life, the timeline, tallies, alarms, and work that goes on after its request.

-- told_expires_at: until when the newest accepted wake may lie at the provider. rewake_from: what the list of re-wakes counts from.
-- rewakes: how many of the unfetched wakes were re-wakes.
-- heads_unfetched: the last three heads that were told and not fetched yet, with their times, as [[head, ms], …].
-- wake_class: the class that the open wake goes out in, for an alert may be repeated as a background wake.
-- waits_for: why due_at lies where it does, so that only a change of reason goes into the timeline.
alter table levels add column told_expires_at bigint not null default 0;
alter table levels add column rewake_from bigint not null default 0;
alter table levels add column rewakes bigint not null default 0;
alter table levels add column heads_unfetched text not null default '[]';
alter table levels add column wake_class text;
alter table levels add column waits_for text;

-- Apps take turns, so each needs its own queue.
drop index levels_due;
create index levels_due on levels (app_id, due_at) where due_at is not null;

-- Retention is each app's own.
drop index attempts_by_age;
create index attempts_by_age on attempts (app_id, started_at);

-- missed: how many of the device's last told heads in a row were still unfetched after 15 minutes.
-- verdict: what put it into its status: 'clear', 'ambiguous' or null; the brake's release looks for it.
alter table devices add column missed bigint not null default 0;
alter table devices add column verdict text;
create index devices_by_status on devices (app_id, status);
create index devices_by_verdict on devices (app_id, transport, environment, status_at) where verdict is not null;

-- What happened to a device beside events and attempts: registrations, decisions, polls, changes of status.
create table timeline (
    app_id text not null,
    device_id text not null,
    id text not null,
    at bigint not null,
    what text not null,
    primary key (app_id, device_id, id)
);
create index timeline_by_age on timeline (app_id, at);

-- Counters per quarter of an hour: at is its beginning, and for what is counted of a push, the quarter in which it was accepted.
create table tallies (
    app_id text not null,
    what text not null,
    at bigint not null,
    transport text not null,
    class text not null,
    n bigint not null,
    primary key (app_id, what, at, transport, class)
);
create index tallies_by_age on tallies (what, at);

-- Devices by what providers said of their push tokens, per minute, for the mass brake (contract §5): a device is counted as attempted in
-- the minute of its newest answer only. A brake that is on has a row.
create table verdicts (
    app_id text not null,
    transport text not null,
    environment text not null,
    minute bigint not null,
    attempted bigint not null,
    ambiguous bigint not null,
    clear bigint not null,
    primary key (app_id, transport, environment, minute)
);
create table brakes (
    app_id text not null,
    transport text not null,
    environment text not null,
    kind text not null,
    window_from bigint not null,
    engaged_at bigint not null,
    primary key (app_id, transport, environment)
);

-- Alarms that stand; each is announced in the feed reveille:alarms when it is raised and when it ends.
create table alarms (
    app_id text not null,
    name text not null,
    data text not null,
    raised_at bigint not null,
    announced_at bigint,
    ended_at bigint,
    primary key (app_id, name)
);
create index alarms_to_announce on alarms (raised_at) where announced_at is null or ended_at is not null;

-- Erasures: what is asked for is worked off in chunks; the subject is forgotten with the last one.
create table operations (
    app_id text not null,
    id text not null,
    kind text not null,
    subject text,
    through bigint not null,
    removed text not null,
    created_at bigint not null,
    finished_at bigint,
    primary key (app_id, id)
);
create index operations_open on operations (created_at) where finished_at is null;
