-- What live connections are told by, and who has one.

-- What a device may see, or whether a key or token is good, has changed at this position of its app: its connections look anew. A row is of
-- use as long as a connection may be that far behind. subject is a hash of its id, for a row may outlive a device that was erased.
create table view_changes (
    app_id text not null,
    position bigint not null,
    subject bigint not null,
    at bigint not null,
    primary key (app_id, position, subject)
);
create index view_changes_by_age on view_changes (at);

-- Devices with a live connection, until when at the latest, and at which process.
create table presence (
    app_id text not null,
    device_id text not null,
    node text not null,
    until bigint not null,
    primary key (app_id, device_id, node)
);
create index presence_by_end on presence (until);

-- One-time tickets for browsers, by their hashes, and the device token that each stands for.
create table tickets (
    ticket_hash text primary key,
    app_id text not null,
    device_id text not null,
    token_hash text not null,
    expires_at bigint not null
);
create index tickets_by_end on tickets (expires_at);
