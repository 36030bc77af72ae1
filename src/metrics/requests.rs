//! Requests, counted without looking for their counters each time: beside a poll that is felt.

use std::{sync::OnceLock, time::Duration};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, histogram::Histogram},
};

use super::Metrics;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Answered {
    method: &'static str,
    route: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Route {
    method: &'static str,
    route: String,
}

/// The requests of a route.
#[derive(Debug)]
pub struct Requests {
    metrics: Metrics,
    method: &'static str,
    route: String,
    duration: Histogram,
    /// The first of its statuses, which are all that most routes have.
    by_status: [OnceLock<(u16, Counter)>; 4],
}

impl Requests {
    /// One was answered.
    pub fn answered(&self, status: u16, took: Duration) {
        self.duration.observe(took.as_secs_f64());
        let of_status = || {
            let answered = Answered { method: self.method, route: self.route.clone(), status };
            self.metrics.0.requests.get_or_create_owned(&answered)
        };
        let mut known = self.by_status.iter().map(|place| place.get_or_init(|| (status, of_status())));
        match known.find(|(of, _)| *of == status) {
            Some((_, counter)) => drop(counter.inc()),
            None => drop(of_status().inc()),
        }
    }

    /// Whose they are.
    pub fn route(&self) -> &str {
        &self.route
    }

    /// By which method.
    pub fn method(&self) -> &'static str {
        self.method
    }
}

impl Metrics {
    /// The requests of a route, to be counted without looking for them each time.
    pub fn requests(&self, method: &'static str, route: &str) -> Requests {
        let duration = self.0.request_duration.get_or_create_owned(&Route { method, route: route.to_owned() });
        Requests { metrics: self.clone(), method, route: route.to_owned(), duration, by_status: Default::default() }
    }
}
