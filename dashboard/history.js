// The rows of a device's timeline as they come in: the newest page again and again, older ones when asked for, each row once.

/** Rows kept at most; who reads further back loads again. */
const MOST_ROWS = 2000;

/** A growing list of rows, newest first. */
export function rowsOf() {
  let rows = [];
  let states = [];
  let older = null;

  // An attempt comes twice, when it starts and when it ends: its id stays.
  const keyed = page => page.items.filter(row => row.kind !== "state").map(row => ({ ...row, key: row.id }));

  /** The page's own order is the relay's, so the pages are joined, not sorted. */
  function join(newer, rest) {
    const known = new Set(newer.map(row => row.key));
    return [...newer, ...rest.filter(row => !known.has(row.key))].slice(0, MOST_ROWS);
  }

  return {
    get size() {
      return rows.length;
    },
    all: () => rows,
    states: () => states,
    older: () => (rows.length >= MOST_ROWS ? null : older),
    takeNewest(page) {
      const newest = keyed(page);
      states = page.items.filter(row => row.kind === "state");
      const known = new Set(rows.map(row => row.key));
      const meets = rows.length === 0 || newest.some(row => known.has(row.key)) || !page.next;
      if (rows.length === 0 || !meets) {
        // More has happened than a page holds: what was known no longer joins on, so it is loaded again from here.
        rows = newest;
        older = page.next;
        return;
      }
      rows = join(newest, rows);
    },
    takeOlder(page) {
      rows = join(rows, keyed(page));
      older = page.next;
    },
  };
}
