//! Stretches of time, in order and apart: when a phone is offline, when its system lets apps run.

use crate::domain::time::Timestamp;

/// Stretches of time, each from its first moment up to, and without, its last.
#[derive(Debug, Clone, Default)]
pub(super) struct Spans(Vec<(Timestamp, Timestamp)>);

impl Spans {
    /// What all of these cover together.
    pub fn covering(mut spans: Vec<(Timestamp, Timestamp)>) -> Self {
        spans.sort_unstable();
        let mut apart: Vec<(Timestamp, Timestamp)> = Vec::with_capacity(spans.len());
        for (from, until) in spans.into_iter().filter(|(from, until)| from < until) {
            match apart.last_mut() {
                Some((_, last)) if from <= *last => *last = until.max(*last),
                _ => apart.push((from, until)),
            }
        }
        Self(apart)
    }

    /// All of time.
    pub fn always() -> Self {
        Self(vec![(Timestamp::from_ms(i64::MIN), Timestamp::from_ms(i64::MAX))])
    }

    /// The stretches, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Timestamp, Timestamp)> {
        self.0.iter().copied()
    }

    /// Whether a moment lies in one of them.
    pub fn hold(&self, at: Timestamp) -> bool {
        self.around(at).is_some()
    }

    /// The first moment from `at` on that lies in one of them; `None` if there is none.
    pub fn next_inside(&self, at: Timestamp) -> Option<Timestamp> {
        match self.around(at) {
            Some(_) => Some(at),
            None => self.0.get(self.begun(at)).map(|(from, _)| *from),
        }
    }

    /// The first moment from `at` on that lies in none of them.
    pub fn next_outside(&self, at: Timestamp) -> Timestamp {
        self.around(at).map_or(at, |(_, until)| until)
    }

    fn around(&self, at: Timestamp) -> Option<(Timestamp, Timestamp)> {
        self.begun(at).checked_sub(1).map(|last| self.0[last]).filter(|(_, until)| at < *until)
    }

    fn begun(&self, at: Timestamp) -> usize {
        self.0.partition_point(|(from, _)| *from <= at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_touches_is_one() {
        let at = Timestamp::from_ms;
        let spans = Spans::covering(vec![
            (at(30), at(40)),
            (at(10), at(20)),
            (at(15), at(30)),
            (at(50), at(50)),
            (at(60), at(70)),
        ]);
        assert_eq!(spans.iter().collect::<Vec<_>>(), [(at(10), at(40)), (at(60), at(70))]);
        for (moment, inside, outside) in
            [(5, Some(10), 5), (10, Some(10), 40), (39, Some(39), 40), (40, Some(60), 40), (70, None, 70)]
        {
            assert_eq!(spans.next_inside(at(moment)), inside.map(at), "inside after {moment}");
            assert_eq!(spans.next_outside(at(moment)), at(outside), "outside after {moment}");
            assert_eq!(spans.hold(at(moment)), inside == Some(moment));
        }
        assert!(Spans::always().hold(at(0)));
    }
}
