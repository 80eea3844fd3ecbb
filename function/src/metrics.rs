//! **Metrics**: how calls went, by the names that Go's gRPC servers use, so that dashboards made for other
//! functions show this one. Series start at zero; labels come from closed sets.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;
use tonic::{Code, Status};

/// Go's default buckets (client_golang `DefBuckets`), which dashboards expect.
const BUCKETS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// The only method of either service.
const METHOD: &str = "RunFunction";

/// Names and values of labels.
type Labels<const N: usize> = [(&'static str, &'static str); N];

/// All series.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    started: Family<Labels<3>, Counter>,
    handled: Family<Labels<4>, Counter>,
    seconds: Family<Labels<3>, Histogram, fn() -> Histogram>,
}

impl Metrics {
    /// Series for the services of these names, all at zero.
    pub fn new(services: &[&'static str]) -> Self {
        let mut registry = Registry::default();
        let metrics = Self {
            registry: Arc::default(),
            started: Family::default(),
            handled: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
        };
        for service in services {
            let method = method_labels(service);
            let _ = metrics.started.get_or_create(&method);
            let _ = metrics.seconds.get_or_create(&method);
            for code in 0..=16 {
                let _ = metrics.handled.get_or_create(&handled_labels(service, Code::from(code)));
            }
        }
        registry.register("grpc_server_started", "Calls that began", metrics.started.clone());
        registry.register("grpc_server_handled", "Calls that ended, by gRPC code", metrics.handled.clone());
        registry.register("grpc_server_handling_seconds", "How long calls took", metrics.seconds.clone());
        let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("function_vcluster_backup_build", "The program", build);
        Self { registry: Arc::new(registry), ..metrics }
    }

    /// In the OpenMetrics text form.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }

    /// The same service, with its calls counted.
    pub fn count<S>(&self, service: S) -> Counted<S> {
        Counted { metrics: self.clone(), service }
    }

    fn begin(&self, service: &'static str) -> Call {
        self.started.get_or_create(&method_labels(service)).inc();
        Call { metrics: self.clone(), service, code: Code::Cancelled, began: Instant::now() }
    }
}

/// A call that is under way; counted as ended when dropped, so that no way out forgets it.
struct Call {
    metrics: Metrics,
    service: &'static str,
    /// Until it is known how the call ended, its future may be dropped: the caller has gone.
    code: Code,
    began: Instant,
}

impl Drop for Call {
    fn drop(&mut self) {
        self.metrics.handled.get_or_create(&handled_labels(self.service, self.code)).inc();
        let took = self.began.elapsed().as_secs_f64();
        self.metrics.seconds.get_or_create(&method_labels(self.service)).observe(took);
    }
}

/// A service with its calls counted: outside of the generated code, because that refuses calls by itself, an
/// oversized request for one.
#[derive(Clone)]
pub struct Counted<S> {
    metrics: Metrics,
    service: S,
}

impl<S: NamedService> NamedService for Counted<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Counted<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible> + NamedService,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let call =
            (request.uri().path().rsplit('/').next() == Some(METHOD)).then(|| self.metrics.begin(S::NAME));
        let response = self.service.call(request);
        Box::pin(async move {
            let response = response.await?;
            if let Some(mut call) = call {
                // A unary call that fails says so in its headers; one that does well, in trailers to come.
                call.code =
                    Status::from_header_map(response.headers()).map_or(Code::Ok, |status| status.code());
            }
            Ok(response)
        })
    }
}

fn method_labels(service: &'static str) -> Labels<3> {
    [("grpc_type", "unary"), ("grpc_service", service), ("grpc_method", METHOD)]
}

fn handled_labels(service: &'static str, code: Code) -> Labels<4> {
    // Names as in grpc-go, codes/code_string.go.
    let code = match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    };
    let [kind, service, method] = method_labels(service);
    [kind, service, method, ("grpc_code", code)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_start_at_zero() {
        let text = Metrics::new(&["a.Service"]).encode();
        let zero = "grpc_server_handled_total{grpc_type=\"unary\",grpc_service=\"a.Service\",\
                    grpc_method=\"RunFunction\",grpc_code=\"Internal\"} 0";
        assert!(text.lines().any(|line| line == zero), "{text}");
        assert_eq!(text.lines().filter(|line| line.starts_with("grpc_server_handled_total{")).count(), 17);
        assert!(text.contains("function_vcluster_backup_build_info{version="), "{text}");
    }

    #[test]
    fn a_call_that_is_dropped_was_cancelled() {
        let metrics = Metrics::new(&["a.Service"]);
        drop(metrics.begin("a.Service"));
        let count = |code| metrics.handled.get_or_create(&handled_labels("a.Service", code)).get();
        assert_eq!((count(Code::Cancelled), count(Code::Ok)), (1, 0));
        let page = metrics.encode();
        let timed = page.lines().find(|line| line.starts_with("grpc_server_handling_seconds_count"));
        assert!(timed.is_some_and(|line| line.ends_with(" 1")), "{page}");
    }
}
