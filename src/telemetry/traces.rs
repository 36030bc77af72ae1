//! Traces: one for each update, from the backend's request through the wake and the provider's call to the poll that confirmed it.
//! OpenTelemetry over OTLP/HTTP, with the W3C Trace Context; off unless a collector is named.

use std::{collections::HashMap, sync::OnceLock, time::Duration};

use anyhow::Context as _;
use opentelemetry::{
    Context, KeyValue,
    propagation::TextMapPropagator as _,
    trace::{TraceContextExt as _, TracerProvider as _},
};
use opentelemetry_otlp::{Protocol, WithExportConfig as _};
use opentelemetry_sdk::{
    Resource,
    propagation::TraceContextPropagator,
    trace::{SdkTracerProvider, Tracer},
};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// What spans of a trace are told from the log by.
pub const TARGET: &str = "reveille::trace";
const TRACEPARENT: &str = "traceparent";
/// What a collector may take before its batch is given up; nothing else waits for it.
const EXPORT: Duration = Duration::from_secs(10);

static PROVIDER: OnceLock<SdkTracerProvider> = OnceLock::new();

/// Starts the export to a collector, named by its base URL (`http://host:4318`).
pub(super) fn start(collector: &str) -> anyhow::Result<Tracer> {
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(format!("{}/v1/traces", collector.trim_end_matches('/')))
        .with_timeout(EXPORT)
        .build()
        .context("traces cannot be exported")?;
    let attributes = [KeyValue::new("service.version", env!("CARGO_PKG_VERSION"))];
    let resource = Resource::builder().with_service_name("reveille").with_attributes(attributes).build();
    let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build();
    let tracer = provider.tracer("reveille");
    PROVIDER.set(provider).map_err(|_| anyhow::anyhow!("traces were started before"))?;
    Ok(tracer)
}

/// Sends what is left.
pub(super) fn end() {
    if let Some(Err(error)) = PROVIDER.get().map(SdkTracerProvider::shutdown) {
        tracing::warn!(%error, "the last spans could not be exported");
    }
}

/// Whether anybody collects them.
pub fn are_on() -> bool {
    PROVIDER.get().is_some()
}

/// Whether a text is a `traceparent` (W3C Trace Context §3.2): version, trace id, parent id, flags, in lower-case hexadecimal digits; ids of
/// zeros and the version ff are none.
pub fn is_traceparent(text: &str) -> bool {
    let is_hex = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    let is_id = |part: &str| is_hex(part) && part.bytes().any(|byte| byte != b'0');
    let parts: Vec<&str> = text.split('-').collect();
    let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
    matches!((parts.as_slice(), lengths.as_slice()), ([version, trace, parent, flags], [2, 32, 16, 2])
        if is_hex(version) && *version != "ff" && is_id(trace) && is_id(parent) && is_hex(flags))
}

/// Has a span go on from where a `traceparent` comes from; one that is malformed is passed over, as W3C Trace Context §3.2 has it.
pub fn continue_from(span: &Span, traceparent: &str) {
    let carrier = HashMap::from([(TRACEPARENT.to_owned(), traceparent.to_owned())]);
    let parent = TraceContextPropagator::new().extract_with_context(&Context::new(), &carrier);
    if parent.span().span_context().is_valid() {
        // It fails only where nobody collects.
        let _ = span.set_parent(parent);
    }
}

/// Notes that a span has to do with another, in a trace of its own.
pub fn link(span: &Span, other: &Span) {
    let other = other.context().span().span_context().clone();
    if other.is_valid() {
        span.add_link(other);
    }
}

/// Where the present span is, as a `traceparent`; none if nobody collects.
pub fn here() -> Option<String> {
    if !are_on() {
        return None;
    }
    let mut carrier = HashMap::new();
    TraceContextPropagator::new().inject_context(&Span::current().context(), &mut carrier);
    carrier.remove(TRACEPARENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traceparents_by_table() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        for (text, expected) in [
            (format!("00-{trace}-00f067aa0ba902b7-01"), true),
            (format!("cc-{trace}-00f067aa0ba902b7-00"), true),
            (format!("ff-{trace}-00f067aa0ba902b7-01"), false),
            (format!("00-{trace}-0000000000000000-01"), false),
            (format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)), false),
            (format!("00-{}-00f067aa0ba902b7-01", trace.to_uppercase()), false),
            (format!("00-{trace}-00f067aa0ba902b7-01-more"), false),
            (format!("00-{trace}-00f067aa0ba902b7-1"), false),
            ("x".repeat(55), false),
            (String::new(), false),
        ] {
            assert_eq!(is_traceparent(&text), expected, "{text}");
        }
    }
}
