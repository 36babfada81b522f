//! Traces over OTLP: one request's way through gateway, node and bucket, as spans with W3C context.
//!
//! Whether a request is traced is decided once, where it comes in: as its caller says, else by chance. Whoever is not
//! traced gets [`Span::none`], and so does everybody while no [`Exporter`] is installed: then asking costs one look at a
//! static. Spans have the target [`SPANS`], which no log shows unless there is an exporter. Not here: which parts of a
//! request are worth a span.

use std::{fmt, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::{
    KeyValue, TraceFlags,
    propagation::{Extractor, TextMapPropagator as _},
    trace::{SpanContext, Status, TraceContextExt as _, TracerProvider as _},
};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::{
    Resource,
    propagation::TraceContextPropagator,
    trace::{Sampler, SdkTracer, SdkTracerProvider},
};
use tracing::{Level, Metadata, Span, field::Empty};
use tracing_opentelemetry::{OpenTelemetryLayer, OpenTelemetrySpanExt as _};
use tracing_subscriber::{Layer, filter::filter_fn, registry::LookupSpan};

/// Target of all spans that are sent.
pub const SPANS: &str = "zimcache::span";
/// The header of W3C that carries the context.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// Longest that what is left may take to be sent at the end.
const FAREWELL: Duration = Duration::from_secs(2);

/// Why spans cannot be sent.
#[derive(Debug, thiserror::Error)]
#[error("traces cannot be sent to {endpoint}")]
pub struct Error {
    /// Where they were to go.
    endpoint: String,
    /// What is wrong with it.
    source: ExporterBuildError,
}

/// Sends spans in batches, in the background. Clones are the same one.
#[derive(Clone)]
pub struct Exporter(SdkTracerProvider);

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exporter").finish_non_exhaustive()
    }
}

impl Exporter {
    /// Sends to an OTLP receiver over gRPC. It need not be there yet. Call it on the runtime.
    ///
    /// # Errors
    /// When the endpoint is no URL.
    pub fn start(
        endpoint: &str,
        role: &'static str,
        version: &'static str,
    ) -> Result<Exporter, Error> {
        let exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint);
        let exporter = exporter.build().map_err(|source| Error {
            endpoint: endpoint.to_owned(),
            source,
        })?;
        let resource = Resource::builder_empty()
            .with_service_name(format!("zimcache-{role}"))
            .with_attribute(KeyValue::new("service.version", version))
            // What the standard variables of OpenTelemetry say of this process wins.
            .with_detector(Box::new(
                opentelemetry_sdk::resource::EnvResourceDetector::new(),
            ))
            .build();
        let provider = SdkTracerProvider::builder()
            // Who is not wanted has no span to begin with.
            .with_sampler(Sampler::AlwaysOn)
            .with_resource(resource)
            .with_batch_exporter(exporter)
            .build();
        Ok(Exporter(provider))
    }

    /// What takes spans out of the log's stream.
    pub(crate) fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: tracing::Subscriber + for<'span> LookupSpan<'span>,
    {
        let tracer: SdkTracer = self.0.tracer("zimcache");
        let layer = OpenTelemetryLayer::new(tracer)
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_target(false);
        layer.with_filter(filter_fn(is_span))
    }

    /// Sends what is left.
    pub fn finish(&self) {
        if let Err(error) = self.0.shutdown_with_timeout(FAREWELL) {
            tracing::warn!(%error, "the last traces could not be sent");
        }
    }
}

fn is_span(metadata: &Metadata<'_>) -> bool {
    metadata.target() == SPANS
}

/// Whether anybody wants spans.
pub fn is_on() -> bool {
    tracing::enabled!(target: SPANS, Level::INFO)
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

/// The context that a caller sent; `None` when there is none, or none that can be read.
fn caller(headers: &HeaderMap) -> Option<SpanContext> {
    headers.get(&TRACEPARENT)?;
    let context = TraceContextPropagator::new().extract(&Headers(headers));
    let caller = context.span().span_context().clone();
    caller.is_valid().then_some(caller)
}

fn follow(span: &Span, caller: Option<SpanContext>) {
    if let Some(caller) = caller {
        let context = opentelemetry::Context::new().with_remote_span_context(caller);
        // Fails for a span that began already, which this one has not.
        span.set_parent(context).ok();
    }
    if let Some(id) = trace_of(span) {
        span.record("trace_id", id);
    }
}

/// The span of a client's request, if it is traced: as its caller says, else with this probability.
pub fn of_request(headers: &HeaderMap, ratio: f64) -> Span {
    if !is_on() {
        return Span::none();
    }
    let caller = caller(headers);
    let wanted = match &caller {
        Some(caller) => caller.is_sampled(),
        None => ratio > 0.0 && chance() < ratio,
    };
    if !wanted {
        return Span::none();
    }
    let span = tracing::info_span!(
        target: SPANS, parent: None, "request", otel.kind = "server", trace_id = Empty,
        http.request.method = Empty, url.path = Empty, http.response.status_code = Empty,
        zimcache.dialect = Empty, zimcache.namespace = Empty,
    );
    follow(&span, caller);
    span
}

/// The span of a call between gateways and nodes, if its caller is traced.
pub fn of_call(headers: &HeaderMap, name: &'static str) -> Span {
    if !is_on() {
        return Span::none();
    }
    let Some(caller) = caller(headers).filter(SpanContext::is_sampled) else {
        return Span::none();
    };
    let span = tracing::info_span!(
        target: SPANS, parent: None, "call", otel.kind = "server", otel.name = name, trace_id = Empty,
    );
    follow(&span, Some(caller));
    span
}

/// A question to somebody else on behalf of what is traced here; nothing while nothing is.
pub fn asking(name: &'static str) -> Span {
    if !is_on() || !is_within() {
        return Span::none();
    }
    tracing::info_span!(target: SPANS, "asking", otel.kind = "client", otel.name = name)
}

/// Whether the current span is one of ours.
fn is_within() -> bool {
    Span::current().metadata().is_some_and(is_span)
}

/// The context for the header [`TRACEPARENT`] of a question that is asked now; `None` while nothing is traced.
pub fn traceparent() -> Option<HeaderValue> {
    if !is_on() || !is_within() {
        return None;
    }
    let context = Span::current().context();
    let span = context.span();
    let span = span.span_context();
    let (trace, id, flags) = (span.trace_id(), span.span_id(), TraceFlags::SAMPLED.to_u8());
    HeaderValue::from_str(&format!("00-{trace}-{id}-{flags:02x}")).ok()
}

/// Says what a request turned out to be, and whether it failed for a reason of ours.
pub fn describe(span: &Span, name: String, failed: bool) {
    span.context().span().update_name(name);
    if failed {
        span.set_status(Status::error(""));
    }
}

/// The trace that a span is part of, as people write it.
pub fn trace_of(span: &Span) -> Option<String> {
    if span.is_disabled() {
        return None;
    }
    let context = span.context();
    let span = context.span();
    let span = span.span_context();
    span.is_valid().then(|| span.trace_id().to_string())
}

/// A number from 0 to 1, not for secrets.
fn chance() -> f64 {
    f64::from(getrandom::u32().unwrap_or(0)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn headers(text: &str) -> HeaderMap {
        HeaderMap::from_iter([(TRACEPARENT, HeaderValue::from_str(text).unwrap())])
    }

    #[test]
    fn a_context_is_read_as_w3c_says_and_nonsense_is_none() {
        let read = caller(&headers(PARENT)).unwrap();
        assert_eq!(
            read.trace_id().to_string(),
            "0af7651916cd43dd8448eb211c80319c"
        );
        assert!(read.is_sampled() && read.is_remote());
        let unsampled = caller(&headers(&PARENT.replace("-01", "-00"))).unwrap();
        assert!(!unsampled.is_sampled());
        for nonsense in [
            "",
            "00-xyz",
            "00-0-0-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert!(caller(&headers(nonsense)).is_none(), "{nonsense}");
        }
        assert!(caller(&HeaderMap::new()).is_none());
    }

    #[test]
    fn without_an_exporter_there_is_no_span() {
        assert!(of_request(&headers(PARENT), 1.0).is_disabled());
        assert!(of_call(&headers(PARENT), "read").is_disabled());
        assert!(asking("read").is_disabled() && traceparent().is_none());
    }

    #[tokio::test]
    async fn a_request_is_traced_as_its_caller_says_and_its_questions_carry_the_context() {
        let exporter = Exporter::start("http://127.0.0.1:1", "test", "1").unwrap();
        let subscriber = tracing_subscriber::layer::SubscriberExt::with(
            tracing_subscriber::registry(),
            exporter.layer(),
        );
        let _guard = tracing::subscriber::set_default(subscriber);
        assert!(of_request(&headers(&PARENT.replace("-01", "-00")), 1.0).is_disabled());
        assert!(of_request(&HeaderMap::new(), 0.0).is_disabled());
        assert!(asking("read").is_disabled(), "nothing is traced here");
        let request = of_request(&headers(PARENT), 0.0);
        let trace = "0af7651916cd43dd8448eb211c80319c";
        assert_eq!(trace_of(&request).as_deref(), Some(trace));
        request.in_scope(|| {
            let question = asking("read");
            let sent = question.in_scope(traceparent).unwrap();
            let call = of_call(&headers(sent.to_str().unwrap()), "read");
            assert_eq!(trace_of(&call).as_deref(), Some(trace));
            assert!(sent.to_str().unwrap().starts_with(&format!("00-{trace}-")));
        });
        let by_chance = of_request(&HeaderMap::new(), 1.0);
        assert!(trace_of(&by_chance).is_some_and(|other| other != trace));
    }
}
