-- As in 0005: text is ordered by its bytes.
alter table view_changes alter column app_id type text collate "C";
alter table presence alter column app_id type text collate "C", alter column device_id type text collate "C",
    alter column node type text collate "C";
alter table tickets alter column ticket_hash type text collate "C", alter column app_id type text collate "C",
    alter column device_id type text collate "C", alter column token_hash type text collate "C";
