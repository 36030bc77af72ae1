-- What SQLite's planner is to think of the tables: many rows per app, few per device and feed. Without statistics it takes a covering
-- index over all of an app's rows for as good as an index that leads straight to a device's; and what ANALYZE finds depends on the day.
-- The columns of stat: rows in the index, then rows per value of its first column, its first two, … (sqlite.org/fileformat2.html#stat1tab).
analyze;
delete from sqlite_stat1;
insert into sqlite_stat1 (tbl, idx, stat) values
    ('apps', 'sqlite_autoindex_apps_1', '100 1'),
    ('app_keys', 'sqlite_autoindex_app_keys_1', '300 3 1'),
    ('app_keys', 'sqlite_autoindex_app_keys_2', '300 1'),
    ('credentials', 'sqlite_autoindex_credentials_1', '300 3 2 1'),
    ('devices', 'sqlite_autoindex_devices_1', '1000000 100000 1'),
    ('devices', 'devices_by_installation', '1000000 100000 1'),
    ('devices', 'devices_by_token', '1000000 100000 50000 1'),
    ('devices', 'devices_by_user', '1000000 100000 2'),
    ('device_tokens', 'sqlite_autoindex_device_tokens_1', '2000000 1'),
    ('device_tokens', 'device_tokens_by_device', '2000000 200000 2'),
    ('device_tokens', 'device_tokens_by_end', '1000000 2'),
    ('follows', 'sqlite_autoindex_follows_1', '4000000 400000 4 1'),
    ('follows', 'follows_by_feed', '4000000 400000 10 1 1'),
    ('events', 'sqlite_autoindex_events_1', '9000000 900000 1'),
    ('events', 'events_by_id', '9000000 900000 1'),
    ('events', 'events_by_feed', '9000000 900000 20 1'),
    ('events', 'events_by_key', '9000000 900000 20 5 1'),
    ('events', 'events_by_alert', '900000 90000 5 1'),
    ('events', 'events_by_age', '9000000 900000 2'),
    ('feed_drops', 'sqlite_autoindex_feed_drops_1', '1000000 100000 1'),
    ('fanouts', 'sqlite_autoindex_fanouts_1', '10 5 1'),
    ('idempotency', 'sqlite_autoindex_idempotency_1', '1000000 100000 1'),
    ('idempotency', 'idempotency_by_age', '1000000 2'),
    ('levels', 'sqlite_autoindex_levels_1', '1500000 150000 2 1'),
    ('levels', 'levels_due', '1000 2'),
    ('attempts', 'sqlite_autoindex_attempts_1', '9000000 900000 1'),
    ('attempts', 'attempts_by_device', '9000000 900000 10 1'),
    ('attempts', 'attempts_by_wake', '9000000 900000 2'),
    ('attempts', 'attempts_by_head', '9000000 900000 10'),
    ('attempts', 'attempts_by_age', '9000000 2'),
    ('attempts', 'attempts_under_way', '5000 2');
analyze sqlite_schema;
