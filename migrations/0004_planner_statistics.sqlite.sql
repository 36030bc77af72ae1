-- As in 0002, for the indexes that came since. noskipscan: that an index is led by app_id is no way to look at all apps.
delete from sqlite_stat1 where idx in ('levels_due', 'attempts_by_age');
insert into sqlite_stat1 (tbl, idx, stat) values
    ('levels', 'levels_due', '1000 100 2'),
    ('attempts', 'attempts_by_age', '9000000 900000 2'),
    ('devices', 'devices_by_status', '1000000 100000 25000'),
    ('devices', 'devices_by_verdict', '100000 10000 5000 4000 2'),
    ('timeline', 'sqlite_autoindex_timeline_1', '9000000 900000 200 1'),
    ('timeline', 'timeline_by_age', '9000000 900000 2'),
    ('tallies', 'sqlite_autoindex_tallies_1', '200000 20000 1000 4 2 1 noskipscan'),
    ('tallies', 'tallies_by_age', '200000 10000 10'),
    ('verdicts', 'sqlite_autoindex_verdicts_1', '100 20 10 10 1'),
    ('brakes', 'sqlite_autoindex_brakes_1', '4 2 1 1'),
    ('alarms', 'sqlite_autoindex_alarms_1', '20 2 1'),
    ('alarms', 'alarms_to_announce', '4 1'),
    ('operations', 'sqlite_autoindex_operations_1', '100 10 1'),
    ('operations', 'operations_open', '4 1');
analyze sqlite_schema;
