//! A **fault**: how one HTTP exchange goes wrong, as networks and servers make it go wrong.

use std::convert::Infallible;
use std::error::Error;
use std::time::Duration;

use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::{Request, Response, StatusCode};

/// How one request fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The connection is closed in place of an answer; the request was not carried out.
    Drop,
    /// The request was carried out and the connection closed in place of the answer.
    LoseAnswer,
    /// This status in place of an answer; the request was not carried out.
    Status(u16),
    /// 403 with this S3 code in place of an answer; the request was not carried out.
    Refuse(&'static str),
    /// The server gets half of the request's body, then the end of the connection; so does the client.
    CutRequest,
    /// Half of the answer's body, then the end of the connection; an answer without a body is lost.
    CutBody,
    /// The answer comes so late.
    Slow(Duration),
}

/// A body that may break off.
pub type Body = UnsyncBoxBody<Bytes, Box<dyn Error + Send + Sync>>;

/// Closes the connection.
#[derive(Debug, thiserror::Error)]
#[error("the connection is closed, as the test asked for")]
pub struct Closed;

/// What a client gets who meets `fault`, of a server that answers as `carry_out` does.
pub async fn meet<F>(
    fault: Option<Fault>,
    request: Request<Incoming>,
    carry_out: impl FnOnce(Request<Body>) -> F,
) -> Result<Response<Body>, Closed>
where
    F: Future<Output = Result<Response<Body>, Closed>>,
{
    let request = request.map(|body| body.map_err(|error| Box::from(error.to_string())).boxed_unsync());
    match fault {
        None => carry_out(request).await,
        Some(Fault::Drop) => Err(Closed),
        Some(Fault::LoseAnswer) => {
            // Carried out is what the server has answered whole.
            if let Ok(answer) = carry_out(request).await {
                let _ = answer.into_body().collect().await;
            }
            Err(Closed)
        }
        Some(Fault::Status(status)) => {
            let mut answer = Response::new(whole(Bytes::new()));
            *answer.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            Ok(answer)
        }
        Some(Fault::Refuse(code)) => Ok(refusal(code)),
        Some(Fault::CutRequest) => {
            let (head, body) = request.into_parts();
            let body = body.collect().await.map_err(|_| Closed)?.to_bytes();
            if !body.is_empty() {
                let _ = carry_out(Request::from_parts(head, half(&body))).await;
            }
            Err(Closed)
        }
        Some(Fault::CutBody) => {
            let (head, body) = carry_out(request).await?.into_parts();
            let body = body.collect().await.map_err(|_| Closed)?.to_bytes();
            if body.is_empty() {
                return Err(Closed);
            }
            Ok(Response::from_parts(head, half(&body)))
        }
        Some(Fault::Slow(delay)) => {
            tokio::time::sleep(delay).await;
            carry_out(request).await
        }
    }
}

/// The head promises the whole length; the stream then ends in an error.
fn half(body: &Bytes) -> Body {
    let cut = [Ok(Frame::data(body.slice(..body.len() / 2))), Err(Box::from(Closed))];
    StreamBody::new(futures::stream::iter(cut)).boxed_unsync()
}

fn refusal(code: &str) -> Response<Body> {
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>as the test asked for</Message></Error>"
    );
    let mut answer = Response::new(whole(text.into()));
    *answer.status_mut() = StatusCode::FORBIDDEN;
    answer.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/xml"));
    answer
}

fn whole(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never: Infallible| match never {}).boxed_unsync()
}
