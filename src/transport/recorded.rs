//! Recorded provider answers (`tests/it/testdata/{apns,fcm}`), each with what it must mean.

use std::{collections::HashMap, path::Path};

use hyper::{
    HeaderMap, StatusCode,
    header::{HeaderName, HeaderValue},
};
use serde::Deserialize;

use super::{apns, fcm, provider::retry_after};
use crate::domain::{push::Meaning, time::Timestamp};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    status: u16,
    headers: HashMap<String, String>,
    body: String,
    expect: Expect,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Expect {
    /// The `Debug` form of the [`Meaning`].
    meaning: String,
    reason: Option<String>,
    provider_id: Option<String>,
    /// Seen from 2026-11-22T00:00:00Z.
    retry_after_ms: Option<u64>,
}

fn cases(provider: &str) -> Vec<(String, Case)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/testdata").join(provider);
    let mut cases: Vec<(String, Case)> = Vec::new();
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let name = path.display().to_string();
        let case = serde_json::from_slice(&std::fs::read(&path).unwrap());
        cases.push((name.clone(), case.unwrap_or_else(|error| panic!("{name}: {error}"))));
    }
    cases
}

fn headers(case: &Case) -> HeaderMap {
    let pairs = case.headers.iter();
    pairs.map(|(name, value)| (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap())).collect()
}

fn found(meaning: Meaning, reason: Option<String>, provider_id: Option<String>, headers: &HeaderMap) -> Expect {
    let now: Timestamp = "2026-11-22T00:00:00Z".parse().unwrap();
    let retry_after_ms = retry_after(headers, now).map(|after| u64::try_from(after.as_millis()).unwrap());
    Expect { meaning: format!("{meaning:?}"), reason, provider_id, retry_after_ms }
}

#[test]
fn every_recorded_answer_of_apns() {
    let cases = cases("apns");
    assert!(cases.len() >= 35, "{}", cases.len());
    for (name, case) in cases {
        let headers = headers(&case);
        let verdict = apns::read(StatusCode::from_u16(case.status).unwrap(), &headers, case.body.as_bytes());
        assert_eq!(found(verdict.meaning, verdict.reason, verdict.provider_id, &headers), case.expect, "{name}");
    }
}

#[test]
fn every_recorded_answer_of_fcm() {
    let cases = cases("fcm");
    assert!(cases.len() >= 20, "{}", cases.len());
    for (name, case) in cases {
        let headers = headers(&case);
        let verdict = fcm::read(StatusCode::from_u16(case.status).unwrap(), case.body.as_bytes());
        assert_eq!(found(verdict.meaning, verdict.reason, verdict.provider_id, &headers), case.expect, "{name}");
    }
}

/// Apple's own list has 32 reasons.
#[test]
fn all_documented_reasons_are_recorded() {
    let reasons = cases("apns").into_iter().filter_map(|(_, case)| case.expect.reason);
    let known: std::collections::BTreeSet<String> =
        reasons.filter(|reason| apns::documented(reason).is_some()).collect();
    assert_eq!(known.len(), 33, "32 and one spelling seen on the wire: {known:?}");
}
