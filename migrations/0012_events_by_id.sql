-- Ids begin with the time, so events_by_id serves for age as well; an index of its own cost every event one more write.
drop index events_by_age;
