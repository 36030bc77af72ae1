-- As in 0005: text is ordered by its bytes.
alter table settled alter column app_id type text collate "C", alter column through type text collate "C";
