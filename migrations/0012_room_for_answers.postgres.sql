-- An attempt's end is longer than its beginning: with 30 % of a page left, most found no room beside it, and each made a new entry in
-- all of the table's indexes. The days that are made from now on, a week ahead, leave as much.
alter table attempts_rest set (fillfactor = 40);
