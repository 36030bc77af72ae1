-- 1: this is a copy that `reveille backup` made; the first to serve it begins a new epoch.
alter table node add column copy bigint not null default 0;
