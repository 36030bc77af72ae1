//! The log: structured, to stderr, as text for people or JSON for machines. And traces, if somebody collects them.

pub mod traces;

use std::{io::IsTerminal, str::FromStr};

use anyhow::{Context, anyhow};
use tracing_subscriber::{
    EnvFilter, Layer as _,
    filter::{FilterExt as _, filter_fn},
    fmt,
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// A line per record, in colour on a terminal.
    Text,
    /// A JSON object per record.
    Json,
}

impl FromStr for LogFormat {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("it must be text or json"),
        }
    }
}

/// What this process tells; when it is dropped, the last of it is sent.
#[must_use]
#[derive(Debug)]
pub struct Telemetry(());

impl Drop for Telemetry {
    fn drop(&mut self) {
        traces::end();
    }
}

/// Starts the log of this process, and its traces if a collector is named. `filter` is a level, or directives such as
/// `info,reveille=debug`.
///
/// # Errors
/// A filter that does not parse, or a log that was started before.
pub fn init(filter: &str, format: LogFormat, collector: Option<&str>) -> anyhow::Result<Telemetry> {
    let filter = EnvFilter::builder().parse(filter).with_context(|| format!("bad log filter `{filter}`"))?;
    let log = fmt::layer().with_writer(std::io::stderr);
    let log = match format {
        LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => log.json().flatten_event(true).boxed(),
    };
    let started = match collector {
        // One filter for all: with one for each layer every span of the log costs more, and there is one for each request.
        None => {
            let no_traces =
                format!("{}=off", traces::TARGET).parse().context("the target of traces is no directive")?;
            tracing_subscriber::registry().with(log).with(filter.add_directive(no_traces)).try_init()
        }
        Some(collector) => {
            let is_trace = |metadata: &tracing::Metadata<'_>| metadata.target() == traces::TARGET;
            let log = log.with_filter(filter.and(filter_fn(move |metadata| !is_trace(metadata))));
            let spans = tracing_opentelemetry::layer().with_tracer(traces::start(collector)?);
            tracing_subscriber::registry().with(log).with(spans.with_filter(filter_fn(is_trace))).try_init()
        }
    };
    started.map_err(|error| anyhow!("cannot start the log: {error}"))?;
    Ok(Telemetry(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_filter_is_named() {
        let error = init("reveille=loudly", LogFormat::Text, None).unwrap_err();
        assert!(format!("{error:#}").starts_with("bad log filter `reveille=loudly`: "), "{error:#}");
    }

    #[test]
    fn formats_are_text_and_json() {
        assert_eq!("text".parse(), Ok(LogFormat::Text));
        assert_eq!("json".parse(), Ok(LogFormat::Json));
        assert!("xml".parse::<LogFormat>().is_err());
    }
}
