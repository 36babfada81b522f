//! One request: find its dialect, let it answer, settle the body, record how it went.
//!
//! This is the hot path: no allocation, no timer, and no span but for requests that are traced. Not here: dialects (`protocol`) and statuses
//! (`status`). Invariant: a request that was answered before its body was read either has the small rest of it read or
//! has its connection closed, so that the next request is never mistaken for a body.

use std::{
    net::IpAddr,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header, request::Parts};
use hyper::body::Incoming;
use tracing::{Instrument as _, Span};
use zimcache_auth::Principal;
use zimcache_store as store;
use zimcache_telemetry::trace;
use zimcache_types::Namespace;

use crate::{
    Shared,
    body::{Body, Upload},
    call::{Call, Counted, Noted},
    client_address, cors,
    limits::{Admission, Class},
    metrics::{Ended, Verb},
    policy::Policy,
    protocol::{self, Dialect},
    request::{collapse_slashes, split_namespace},
    status, unread,
    watch::{Conn, Peer, Stall},
};

const CLOSE: HeaderValue = HeaderValue::from_static("close");
const ZERO: HeaderValue = HeaderValue::from_static("0");

/// Answers one request.
pub(crate) async fn answer(
    shared: Arc<Shared>,
    conn: Arc<Conn>,
    request: Request<Incoming>,
) -> Response<Body> {
    let (head, incoming) = request.into_parts();
    let in_force = shared.policy.load_full();
    let policy = &in_force.policy;
    let mut record = Record::begin(&shared, &conn, &head, policy);
    let admission = in_force.limiter.as_ref().map(|limiter| {
        let proxies = &shared.config.trusted_proxies;
        let address = client_address::of(conn.peer, &head.headers, proxies);
        limiter.meet(address, record.started)
    });
    let mut upload = Upload::new(incoming, &conn, expects_continue(&head));
    let noted = Noted::default();
    let asked = Asked {
        shared: &shared,
        policy,
        peer: conn.peer,
        head: &head,
        admission: admission.as_ref(),
        noted: &noted,
    };
    let answered = dispatch(&asked, &mut upload).instrument(record.span.clone());
    let (dialect, mut response) = answered.await;
    record.dialect = dialect;
    if let Some(admission) = &admission {
        let denied = noted.denied.load(Ordering::Relaxed);
        admission.answered(response.status(), denied, response.headers_mut());
    }
    record.noted(noted);
    record.received_bytes = upload.received_bytes();
    if !policy.cors_origins.is_empty() {
        cors::allow(&head, &policy.cors_origins, response.headers_mut());
    }
    // What a call leaves unread is not waited for.
    let is_http2 = head.version == Version::HTTP_2;
    if (is_http2 && dialect == Dialect::Reapi) || !upload.settle().await {
        if is_http2 {
            unread::leave(upload);
        } else {
            conn.refuse_early();
            response.headers_mut().insert(header::CONNECTION, CLOSE);
        }
    }
    if response.body().is_nothing() && dialect != Dialect::Reapi {
        finish_empty(&head, &mut response);
    }
    record.answered(&response);
    response.map(|body| body.recorded(record))
}

/// Everything about a request but its body.
#[derive(Debug)]
struct Asked<'a> {
    shared: &'a Arc<Shared>,
    policy: &'a Arc<Policy>,
    peer: Peer,
    head: &'a Parts,
    admission: Option<&'a Admission<'a>>,
    noted: &'a Noted,
}

impl Asked<'_> {
    /// An answer that is no dialect's, if the limits let it pass.
    fn admitted(&self, response: Response<Body>) -> Response<Body> {
        let passed = self.admission.map_or(Ok(()), |it| it.pass(Class::Page));
        passed.map_or_else(|error| status::refuse(&error), |()| response)
    }
}

/// Finds the dialect and lets it answer.
async fn dispatch(asked: &Asked<'_>, upload: &mut Upload) -> (Dialect, Response<Body>) {
    let head = asked.head;
    if let Some(response) = cors::preflight(head, &asked.policy.cors_origins) {
        return (Dialect::Admin, asked.admitted(response));
    }
    let path = collapse_slashes(head.uri.path());
    let (prefix, path) = match split_namespace(&path) {
        Ok(split) => split,
        Err(error) => {
            return (
                Dialect::Admin,
                asked.admitted(status::refuse(&error.into())),
            );
        }
    };
    let call = Call {
        shared: asked.shared,
        policy: asked.policy,
        peer: asked.peer,
        head,
        prefix: prefix.as_ref(),
        admission: asked.admission,
        noted: asked.noted,
        upload,
    };
    let (dialect, response) = protocol::answer(path, call).await;
    if head.method == Method::OPTIONS && !dialect.answers_options() {
        return (dialect, cors::options(response));
    }
    (dialect, response)
}

fn expects_continue(head: &Parts) -> bool {
    let expect = head.headers.get(header::EXPECT);
    expect.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// HTTP/1 answers get `Content-Length: 0` on the way out, except to HEAD; HTTP/2 answers never.
fn finish_empty(head: &Parts, response: &mut Response<Body>) {
    let implied = head.version < Version::HTTP_2 && head.method != Method::HEAD;
    let headers = response.headers();
    let has_one = headers.contains_key(header::CONTENT_LENGTH);
    if !implied && !has_one && response.status() != StatusCode::NOT_MODIFIED {
        response.headers_mut().insert(header::CONTENT_LENGTH, ZERO);
    }
}

/// A request under way; dropped when its answer was handed over or its connection ended.
#[derive(Debug)]
pub(crate) struct Record {
    shared: Arc<Shared>,
    conn: Arc<Conn>,
    started: Instant,
    dialect: Dialect,
    namespace: Option<Namespace>,
    verb: Verb,
    status: Option<StatusCode>,
    rpc: Option<Counted>,
    sent_bytes: u64,
    received_bytes: u64,
    stall: Option<Arc<Stall>>,
    line: Option<Box<Line>>,
    /// Nothing, for a request that is not traced.
    span: Span,
}

/// What the access log says beyond the figures.
#[derive(Debug)]
struct Line {
    /// Tells requests apart within a process.
    id: u64,
    method: Method,
    path: String,
    /// Who asks, behind proxies that are trusted.
    client: Option<IpAddr>,
    principal: Option<Principal>,
}

impl Record {
    fn begin(shared: &Arc<Shared>, conn: &Arc<Conn>, head: &Parts, policy: &Policy) -> Record {
        conn.begin();
        let span = trace::of_request(&head.headers, policy.trace_ratio);
        if !span.is_disabled() {
            span.record("http.request.method", head.method.as_str());
            span.record("url.path", head.uri.path());
        }
        let line = policy.access_log.then(|| {
            Box::new(Line {
                id: shared.logged.fetch_add(1, Ordering::Relaxed),
                method: head.method.clone(),
                path: head.uri.path().to_owned(),
                client: client_address::of(
                    conn.peer,
                    &head.headers,
                    &shared.config.trusted_proxies,
                ),
                principal: None,
            })
        });
        Record {
            shared: Arc::clone(shared),
            conn: Arc::clone(conn),
            started: Instant::now(),
            dialect: Dialect::Admin,
            namespace: None,
            verb: Verb::of(&head.method),
            status: None,
            rpc: None,
            sent_bytes: 0,
            received_bytes: 0,
            stall: None,
            line,
            span,
        }
    }

    /// Tells the span what the request was.
    fn describe(&self) {
        let dialect = self.dialect.as_str();
        let name = format!("{} {dialect}", self.verb.as_str());
        let failed = self.status.is_none_or(|status| status.is_server_error());
        trace::describe(&self.span, name, failed);
        self.span.record("zimcache.dialect", dialect);
        if let Some(namespace) = &self.namespace {
            self.span.record("zimcache.namespace", namespace.as_str());
        }
        if let Some(status) = self.status {
            let status = i64::from(status.as_u16());
            self.span.record("http.response.status_code", status);
        }
    }

    /// What the dialect learnt about the request.
    fn noted(&mut self, noted: Noted) {
        self.namespace = noted.namespace.into_inner();
        self.rpc = noted.rpc.into_inner();
        if let Some(rpc) = self.rpc {
            self.verb = rpc.verb;
        }
        if let Some(line) = &mut self.line {
            line.principal = noted.principal.into_inner();
        }
    }

    fn answered(&mut self, response: &Response<Body>) {
        self.status = Some(self.rpc.map_or(response.status(), |rpc| rpc.status));
        if self.conn.is_http2() && !response.body().is_nothing() {
            let stall = self.conn.stall();
            stall.wait_write(&self.conn);
            self.stall = Some(stall);
        }
    }

    /// The next chunk is wanted: the peer reads.
    pub(crate) fn asked(&self) {
        if let Some(stall) = &self.stall {
            stall.moved();
        }
    }

    /// A chunk was handed out.
    pub(crate) fn sent(&mut self, bytes: u64) {
        self.sent_bytes += bytes;
        if let Some(stall) = &self.stall {
            stall.wait_write(&self.conn);
        }
    }

    /// The body failed in the middle.
    pub(crate) fn broke(&mut self, error: &store::Error) {
        tracing::error!(%error, code = error.code().as_str(), "an answer broke off");
        self.status = None;
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let took = self.started.elapsed();
        if let Some(stall) = &self.stall {
            self.conn.release(stall);
        }
        self.conn.end();
        let trace = trace::trace_of(&self.span);
        if trace.is_some() {
            self.describe();
        }
        let metrics = &self.shared.metrics;
        metrics.record(&Ended {
            dialect: self.dialect,
            namespace: self.namespace.as_ref(),
            verb: self.verb,
            status: self.status,
            sent_bytes: self.sent_bytes,
            received_bytes: self.received_bytes,
            took,
            trace: trace.as_deref(),
        });
        if let Some(line) = &self.line {
            tracing::info!(
                target: "zimcache::access",
                id = line.id,
                trace_id = trace,
                peer = %self.conn.peer,
                client = line.client.map(tracing::field::display),
                method = %line.method,
                path = line.path,
                dialect = self.dialect.as_str(),
                namespace = self.namespace.as_ref().map(Namespace::as_str),
                principal = line.principal.as_ref().map(|who| &**who.name()),
                status = self.status.map_or(0, |status| status.as_u16()),
                sent_bytes = self.sent_bytes,
                micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
                "request"
            );
        }
    }
}
