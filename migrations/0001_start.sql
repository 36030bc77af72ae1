-- The tables of Reveille, in the SQL that SQLite and PostgreSQL share. Times are milliseconds since the epoch; app_id comes first in every key.

-- One row: what this database belongs to.
create table node (
    id bigint primary key check (id = 1),
    epoch bigint not null,
    key_check text not null,
    created_at bigint not null
);

create table apps (
    id text primary key,
    name text not null,
    overrides text not null,
    confirm text not null,
    head bigint not null default 0,
    created_at bigint not null,
    deleted_at bigint
);

create table app_keys (
    app_id text not null references apps (id),
    id text not null,
    name text not null,
    secret_hash text not null unique,
    scopes text not null,
    created_at bigint not null,
    expires_at bigint,
    primary key (app_id, id)
);

create table credentials (
    app_id text not null references apps (id),
    transport text not null,
    name text not null,
    version bigint not null,
    scope text not null,
    fingerprint text not null,
    sealed text not null,
    created_at bigint not null,
    updated_at bigint not null,
    primary key (app_id, transport, name)
);

create table devices (
    app_id text not null references apps (id),
    id text not null,
    installation_id text not null,
    transport text not null,
    platform text not null,
    token text,
    token_kind text not null,
    token_version bigint not null,
    environment text not null,
    topic text,
    user_id text,
    app_version text,
    os text,
    locale text,
    status text not null,
    status_reason text,
    status_at bigint not null,
    registered_at bigint not null,
    created_at bigint not null,
    seen_at bigint not null,
    fetched bigint not null,
    acked bigint not null,
    primary key (app_id, id)
);
create unique index devices_by_installation on devices (app_id, installation_id);
create unique index devices_by_token on devices (app_id, transport, token);
create index devices_by_user on devices (app_id, user_id);

create table device_tokens (
    secret_hash text primary key,
    app_id text not null,
    device_id text not null,
    created_at bigint not null,
    used_at bigint,
    expires_at bigint
);
create index device_tokens_by_device on device_tokens (app_id, device_id);
create index device_tokens_by_end on device_tokens (expires_at) where expires_at is not null;

create table follows (
    app_id text not null,
    device_id text not null,
    feed text not null,
    since bigint not null,
    primary key (app_id, device_id, feed)
);
create index follows_by_feed on follows (app_id, feed, device_id, since);

create table events (
    app_id text not null,
    position bigint not null,
    id text not null,
    feed text not null,
    kind text not null,
    key text,
    op text,
    href text,
    data text,
    occurred_at bigint not null,
    accepted_at bigint not null,
    expires_at bigint not null,
    wake text not null,
    wake_class text not null,
    cancel_on text not null,
    bytes bigint not null,
    traceparent text,
    counts text,
    primary key (app_id, position)
);
create unique index events_by_id on events (app_id, id);
create index events_by_feed on events (app_id, feed, position);
create index events_by_key on events (app_id, feed, key, position) where key is not null;
create index events_by_alert on events (app_id, feed, position) where wake_class = 'alert';
create index events_by_age on events (app_id, accepted_at);

-- Up to where retention has dropped events of a feed.
create table feed_drops (
    app_id text not null,
    feed text not null,
    dropped_through bigint not null,
    primary key (app_id, feed)
);

-- Events whose followers are still being worked off; after_device is how far that has come.
create table fanouts (
    app_id text not null,
    position bigint not null,
    after_device text not null,
    primary key (app_id, position)
);

create table idempotency (
    app_id text not null,
    key text not null,
    fingerprint text not null,
    event_ids text not null,
    first_position bigint not null,
    accepted_at bigint not null,
    primary key (app_id, key)
);
create index idempotency_by_age on idempotency (accepted_at);

-- How far a device should be, per class, and the one wake that may be open. The row is the whole state of the level loop:
-- due_at is when to look at it next, whether for a new wake, a retry, or a lease that has run out.
create table levels (
    app_id text not null,
    device_id text not null,
    class text not null,
    head bigint not null,
    sticky_head bigint not null,
    feed text,
    expires_at bigint not null,
    told bigint not null default 0,
    told_at bigint,
    due_at bigint,
    -- the open wake
    wake_id text,
    wake_head bigint,
    wake_feed text,
    wake_expires_at bigint,
    wake_cancel_on text,
    tries bigint not null default 0,
    lease text,
    -- alerts up to here have been given up; told must stay true
    passed bigint not null default 0,
    -- wakes since the device last came; the token bucket of contract §8 as one instant (when it will be full again)
    wakes_unfetched bigint not null default 0,
    budget_full_at bigint not null default 0,
    primary key (app_id, device_id, class)
);
create index levels_due on levels (due_at) where due_at is not null;

create table attempts (
    app_id text not null,
    id text not null,
    wake_id text not null,
    device_id text not null,
    transport text not null,
    class text not null,
    try bigint not null,
    -- the wake announces what lies above after_position, up to head
    after_position bigint not null,
    head bigint not null,
    token_version bigint not null,
    started_at bigint not null,
    duration_ms bigint,
    outcome text,
    status bigint,
    reason text,
    provider_id text,
    retry_at bigint,
    bytes bigint,
    primary key (app_id, id)
);
create index attempts_by_device on attempts (app_id, device_id, id);
create index attempts_by_wake on attempts (app_id, wake_id);
create index attempts_by_head on attempts (app_id, head);
create index attempts_by_age on attempts (started_at);
create index attempts_under_way on attempts (started_at) where outcome is null;
