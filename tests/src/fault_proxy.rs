//! A **proxy that fails**, on loopback between a client and an S3 server: the network that a test wants.
//!
//! Requests go through as they came, Host included, because they are signed.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::dice::Dice;
use crate::fault::{self, Body, Closed, Fault};

/// What a mix is made of: every way in which a network or a server fails and is well again a moment later.
pub const WAYS: [Fault; 9] = [
    Fault::Drop,
    Fault::LoseAnswer,
    Fault::Status(500),
    Fault::Status(503),
    Fault::Refuse("AccessDenied"),
    Fault::Refuse("RequestTimeTooSkewed"),
    Fault::CutRequest,
    Fault::CutBody,
    Fault::Slow(Duration::from_millis(700)),
];

/// What becomes of requests from now on.
#[derive(Debug, Clone, Copy)]
pub enum Rule {
    /// All go through.
    Pass,
    /// All fail in this way.
    All(Fault),
    /// So many of a hundred fail, each in one of [`WAYS`].
    Mix(u64),
}

struct State {
    rule: Rule,
    dice: Dice,
    met: Vec<Fault>,
}

/// A running proxy.
pub struct FaultProxy {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

impl FaultProxy {
    /// Starts it on a free port before `server`, which is `http://HOST:PORT`. At first everything goes through.
    pub async fn start(server: &str, dice: Dice) -> Result<Self> {
        let server: Uri = server.parse().with_context(|| format!("{server} is no URL"))?;
        let listener = TcpListener::bind("127.0.0.1:0").await.context("cannot listen")?;
        let address = listener.local_addr()?;
        let state = Arc::new(Mutex::new(State { rule: Rule::Pass, dice, met: Vec::new() }));
        let task = tokio::spawn(serve(listener, server, state.clone()));
        Ok(Self { address, state, task })
    }

    /// Where it listens, as `http://127.0.0.1:PORT`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on this holds; requests under way end as they began.
    pub fn set(&self, rule: Rule) {
        lock(&self.state).rule = rule;
    }

    /// The faults that requests met so far.
    pub fn met(&self) -> Vec<Fault> {
        lock(&self.state).met.clone()
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl State {
    fn next_fault(&mut self) -> Option<Fault> {
        let fault = match self.rule {
            Rule::Pass => None,
            Rule::All(fault) => Some(fault),
            Rule::Mix(percent) => (self.dice.below(100) < percent).then(|| self.dice.one_of(&WAYS)),
        };
        self.met.extend(fault);
        fault
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(listener: TcpListener, server: Uri, state: Arc<Mutex<State>>) {
    let client = Client::builder(TokioExecutor::new()).build_http();
    while let Ok((socket, _)) = listener.accept().await {
        let (client, server, state) = (client.clone(), server.clone(), state.clone());
        let answer = service_fn(move |request| {
            let fault = lock(&state).next_fault();
            answer(client.clone(), server.clone(), fault, request)
        });
        tokio::spawn(async move {
            // A client may go away at any time.
            let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), answer).await;
        });
    }
}

async fn answer(
    client: Client<HttpConnector, Body>,
    server: Uri,
    fault: Option<Fault>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Closed> {
    fault::meet(fault, request, async |mut request| {
        let mut to = server.into_parts();
        to.path_and_query = request.uri().path_and_query().cloned();
        *request.uri_mut() = Uri::from_parts(to).map_err(|_| Closed)?;
        // A server that does not answer is one that closes the connection.
        let answer = client.request(request).await.map_err(|_| Closed)?;
        Ok(answer.map(|body| body.map_err(|error| Box::from(error.to_string())).boxed_unsync()))
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicU64, Ordering};

    use http_body_util::Full;
    use hyper::StatusCode;
    use hyper::body::Bytes;

    use super::*;

    /// A server that answers with Host, path and body of the request, and counts what it carried out.
    async fn echo() -> Result<(String, Arc<AtomicU64>)> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let server = format!("http://{}", listener.local_addr()?);
        let carried = Arc::new(AtomicU64::new(0));
        let counted = carried.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let counted = counted.clone();
                let answer = service_fn(move |request: Request<Incoming>| {
                    let counted = counted.clone();
                    async move {
                        let (head, body) = request.into_parts();
                        let Ok(body) = body.collect().await else { return Err(Closed) };
                        counted.fetch_add(1, Ordering::SeqCst);
                        let host = head.headers["host"].to_str().unwrap_or_default();
                        let text =
                            format!("{host} {} {}", head.uri, String::from_utf8_lossy(&body.to_bytes()));
                        Ok(Response::new(Full::new(Bytes::from(text))))
                    }
                });
                tokio::spawn(async move {
                    let _ = Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(socket), answer)
                        .await;
                });
            }
        });
        Ok((server, carried))
    }

    async fn post(proxy: &FaultProxy) -> Result<(StatusCode, String)> {
        let client = Client::builder(TokioExecutor::new()).build_http();
        let body = Full::new(Bytes::from("the body")).map_err(|never: Infallible| match never {});
        let request = Request::post(format!("{}/a%2Fb?c=d%20e", proxy.endpoint()))
            .header("host", "signed.example:9000")
            .body(body)?;
        let answer = client.request(request).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        Ok((status, String::from_utf8(body.to_vec())?))
    }

    #[tokio::test]
    async fn requests_go_through_as_they_came() -> Result<()> {
        let (server, carried) = echo().await?;
        let proxy = FaultProxy::start(&server, Dice::with_seed(1)).await?;
        let (status, body) = post(&proxy).await?;
        assert_eq!((status.as_u16(), &body[..]), (200, "signed.example:9000 /a%2Fb?c=d%20e the body"));
        assert_eq!((carried.load(Ordering::SeqCst), proxy.met().len()), (1, 0));
        Ok(())
    }

    #[tokio::test]
    async fn each_fault_is_what_it_says() -> Result<()> {
        let (server, carried) = echo().await?;
        let proxy = FaultProxy::start(&server, Dice::with_seed(1)).await?;
        for (fault, is_carried_out, expected) in [
            (Fault::Drop, 0, None),
            (Fault::LoseAnswer, 1, None),
            (Fault::Status(503), 0, Some((503, ""))),
            (Fault::Refuse("RequestTimeTooSkewed"), 0, Some((403, "<Code>RequestTimeTooSkewed</Code>"))),
            (Fault::CutRequest, 0, None),
            (Fault::CutBody, 1, None),
            (Fault::Slow(Duration::from_millis(50)), 1, Some((200, "the body"))),
        ] {
            proxy.set(Rule::All(fault));
            let before = carried.load(Ordering::SeqCst);
            match (post(&proxy).await, expected) {
                (Err(_), None) => {}
                (Ok((status, body)), Some((code, part))) => {
                    assert!(status.as_u16() == code && body.contains(part), "{fault:?}: {status} {body}");
                }
                (answer, _) => panic!("{fault:?}: {answer:?}"),
            }
            assert_eq!(carried.load(Ordering::SeqCst) - before, is_carried_out, "{fault:?}");
        }
        Ok(())
    }

    #[tokio::test]
    async fn a_mix_is_as_thick_as_it_was_ordered() -> Result<()> {
        let (server, _) = echo().await?;
        let proxy = FaultProxy::start(&server, Dice::with_seed(1)).await?;
        proxy.set(Rule::Mix(30));
        for _ in 0..1000 {
            lock(&proxy.state).next_fault();
        }
        let met = proxy.met();
        assert!((250..350).contains(&met.len()), "{} of 1000", met.len());
        assert!(WAYS.iter().all(|way| met.contains(way)), "{met:?}");
        Ok(())
    }
}
