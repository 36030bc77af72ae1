-- Positions are in the order of acceptance, so they serve for age as well; an index of its own cost every event one more write.
drop index events_by_age;
