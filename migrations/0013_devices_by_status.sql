-- Devices of one status are listed in the order of their ids: without those in the index, a million had to be looked at to find that none
-- is quarantined.
drop index devices_by_status;
create index devices_by_status on devices (app_id, status, id);
