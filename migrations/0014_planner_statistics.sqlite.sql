-- As in 0002, for the index of 0013.
delete from sqlite_stat1 where idx = 'devices_by_status';
insert into sqlite_stat1 (tbl, idx, stat) values ('devices', 'devices_by_status', '1000000 100000 25000 1');
analyze sqlite_schema;
