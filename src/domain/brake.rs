//! The mass brake: if too many push tokens are called dead at once, the fault is likely ours, and no more devices are given up for it
//! (contract §5). Pure.

use std::time::Duration;

use super::{device::DeviceStatus, verdict::Evidence};

/// How long verdicts are counted together.
pub const WINDOW: Duration = Duration::from_secs(600);
/// Fewer verdicts say nothing.
const LEAST: i64 = 20;
/// The share of the devices, in percent, beyond which it is no accident.
const AMBIGUOUS_PERCENT: i64 = 5;
const CLEAR_PERCENT: i64 = 50;

/// Devices of one app, transport and environment that a provider has answered about within [`WINDOW`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// All of them.
    pub attempted: i64,
    /// Those that the provider does not know here.
    pub ambiguous: i64,
    /// Those that it calls dead.
    pub clear: i64,
}

/// What becomes of devices whose tokens are called dead.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Brake {
    /// What has been counted so far.
    pub counts: Counts,
    /// What put the brake on, if it is on. Only people release it.
    pub kind: Option<Evidence>,
}

impl Counts {
    /// Whether so many verdicts put the brake on, and which.
    pub fn alarming(self) -> Option<Evidence> {
        let Self { attempted, ambiguous, clear } = self;
        let too_many = |dead: i64, percent: i64| dead >= LEAST && dead * 100 > attempted * percent;
        if too_many(ambiguous, AMBIGUOUS_PERCENT) {
            Some(Evidence::Ambiguous)
        } else if too_many(clear, CLEAR_PERCENT) {
            Some(Evidence::Clear)
        } else {
            None
        }
    }
}

impl Brake {
    /// Counts a verdict; the device it is about has been counted as attempted before. Answers what the device becomes.
    pub fn condemn(&mut self, evidence: Evidence) -> DeviceStatus {
        match evidence {
            Evidence::Ambiguous => self.counts.ambiguous += 1,
            Evidence::Clear => self.counts.clear += 1,
        }
        self.kind = self.kind.or_else(|| self.counts.alarming());
        self.sentence()
    }

    /// What a device becomes whose verdict has been counted already.
    pub fn sentence(self) -> DeviceStatus {
        if self.kind.is_some() { DeviceStatus::Quarantined } else { DeviceStatus::Gone }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What each answer about another device makes of it; `None` is a push that was accepted.
    fn sentences(brake: &mut Brake, answers: &[Option<Evidence>]) -> Vec<Option<DeviceStatus>> {
        let sentence = |answer: &Option<Evidence>| {
            brake.counts.attempted += 1;
            answer.map(|evidence| brake.condemn(evidence))
        };
        answers.iter().map(sentence).collect()
    }

    fn gone(sentences: &[Option<DeviceStatus>]) -> usize {
        sentences.iter().filter(|sentence| **sentence == Some(DeviceStatus::Gone)).count()
    }

    #[test]
    fn counts_by_table() {
        use Evidence::{Ambiguous, Clear};
        for (attempted, ambiguous, clear, expected) in [
            (0, 0, 0, None),
            (19, 19, 0, None),
            (20, 20, 0, Some(Ambiguous)),
            (399, 20, 0, Some(Ambiguous)),
            (400, 20, 0, None),
            (400, 21, 0, Some(Ambiguous)),
            (19, 0, 19, None),
            (39, 0, 20, Some(Clear)),
            (40, 0, 20, None),
            (100_000, 5_000, 50_000, None),
            (100_000, 5_001, 0, Some(Ambiguous)),
            (100_000, 0, 50_001, Some(Clear)),
            (100, 51, 49, Some(Ambiguous)),
        ] {
            let counts = Counts { attempted, ambiguous, clear };
            assert_eq!(counts.alarming(), expected, "{counts:?}");
        }
    }

    #[test]
    fn of_a_hundred_unknown_tokens_nineteen_are_given_up() {
        let mut brake = Brake::default();
        let sentences = sentences(&mut brake, &[Some(Evidence::Ambiguous); 100]);
        assert_eq!(gone(&sentences), 19);
        assert_eq!(sentences[19..], [Some(DeviceStatus::Quarantined); 81]);
        assert_eq!(brake.kind, Some(Evidence::Ambiguous));
    }

    fn answers() -> impl Strategy<Value = Vec<Option<Evidence>>> {
        let answer = prop_oneof![
            6 => Just(None), 2 => Just(Some(Evidence::Ambiguous)), 3 => Just(Some(Evidence::Clear)),
        ];
        proptest::collection::vec(answer, 0..400)
    }

    proptest! {
        /// Never are more given up than an accident would explain, whatever the order and whatever the share.
        #[test]
        fn no_more_are_given_up_than_the_shares_allow(answers in answers()) {
            let mut brake = Brake::default();
            let sentences = sentences(&mut brake, &answers);
            let attempted = answers.len();
            prop_assert!(gone(&sentences) <= 2 * 19 + attempted * 55 / 100);
            let given_up = |wanted| {
                let both = answers.iter().zip(&sentences);
                both.filter(|(a, s)| **a == Some(wanted) && **s == Some(DeviceStatus::Gone)).count()
            };
            prop_assert!(given_up(Evidence::Ambiguous) <= 19.max(attempted * 5 / 100));
            prop_assert!(given_up(Evidence::Clear) <= 19.max(attempted * 50 / 100));
        }

        /// Once it is on, it stays on, and nobody is given up any more.
        #[test]
        fn a_brake_holds(answers in answers(), kind in prop_oneof![Just(Evidence::Clear), Just(Evidence::Ambiguous)]) {
            let mut brake = Brake { kind: Some(kind), ..Brake::default() };
            prop_assert_eq!(gone(&sentences(&mut brake, &answers)), 0);
            prop_assert_eq!(brake.kind, Some(kind));
        }
    }
}
