//! Calls without TLS: answers, limits, health, reflection, metrics, drain.

use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use function_vcluster_backup::server::{Function, ServeError};
use prost_types::value::Kind;
use prost_types::{Struct, Value};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_stream::StreamExt as _;
use tonic::Code;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_reflection::pb::{v1 as reflection, v1alpha as reflection_alpha};
use vcluster_backup_proto::v1;
use vcluster_backup_proto::v1::function_runner_service_client::FunctionRunnerServiceClient;
use vcluster_backup_proto::v1beta1;
use vcluster_backup_proto::v1beta1::function_runner_service_client::FunctionRunnerServiceClient as ClientV1Beta1;

use crate::running::{MIB, Running, call, call_v1beta1, echo, request};
use crate::within;

const V1: &str = "apiextensions.fn.proto.v1.FunctionRunnerService";
const V1BETA1: &str = "apiextensions.fn.proto.v1beta1.FunctionRunnerService";

fn text(key: &str, value: String) -> Struct {
    let value = Value { kind: Some(Kind::StringValue(value)) };
    Struct { fields: [(key.to_owned(), value)].into() }
}

/// A function that waits to be released, and tells when it has begun.
fn held() -> (Function, Arc<Notify>, mpsc::Sender<()>) {
    let (release, released) = mpsc::channel::<()>();
    let (begun, released) = (Arc::new(Notify::new()), Mutex::new(released));
    let (told, answer) = (Arc::clone(&begun), echo());
    let function: Function = Arc::new(move |request| {
        told.notify_one();
        let _ = released.lock().unwrap().recv();
        answer(request)
    });
    (function, begun, release)
}

#[tokio::test]
async fn both_versions_answer_with_the_tag() {
    let server = Running::start(None, echo()).await;
    let channel = server.connect(None).await.unwrap();
    assert_eq!(call(channel.clone(), "one").await.unwrap(), "one");
    assert_eq!(call_v1beta1(channel, "two").await.unwrap(), "two");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn v1beta1_carries_everything() {
    let server = Running::start(None, echo()).await;
    let channel = server.connect(None).await.unwrap();
    let resource = v1beta1::Resource {
        resource: Some(text("kind", "Secret".to_owned())),
        connection_details: [("key".to_owned(), vec![0, 255])].into(),
        ready: v1beta1::Ready::True.into(),
    };
    let desired = v1beta1::State { resources: [("a".to_owned(), resource)].into(), composite: None };
    let context = text("where", "here".to_owned());
    let request = v1beta1::RunFunctionRequest {
        desired: Some(desired.clone()),
        context: Some(context.clone()),
        ..Default::default()
    };
    let answer = within(ClientV1Beta1::new(channel).run_function(request)).await.unwrap().into_inner();
    assert_eq!((answer.desired, answer.context), (Some(desired), Some(context)));
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_request_of_5_mb_is_accepted_and_one_over_the_limit_is_refused_and_counted() {
    let server = Running::start(None, echo()).await;
    let channel = server.connect(None).await.unwrap();
    let sized =
        |bytes| v1::RunFunctionRequest { context: Some(text("large", "x".repeat(bytes))), ..request("") };
    let mut client = FunctionRunnerServiceClient::new(channel).max_decoding_message_size(64 * MIB);

    let answer = within(client.run_function(sized(5 * MIB))).await.unwrap().into_inner();
    assert_eq!(answer.context, sized(5 * MIB).context);
    assert_eq!(server.handled(V1, "OK").await, 1);

    let refused = within(client.run_function(sized(8 * MIB))).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange, "{refused}");
    assert_eq!(server.handled(V1, "OutOfRange").await, 1);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_panic_ends_its_call_alone_and_tells_nothing() {
    let function: Function = Arc::new(|request| match request.meta.unwrap_or_default().tag.as_str() {
        "bad" => panic!("s3cret"),
        tag => v1::RunFunctionResponse {
            meta: Some(v1::ResponseMeta { tag: tag.to_owned(), ttl: None }),
            ..Default::default()
        },
    });
    let server = Running::start(None, function).await;
    let channel = server.connect(None).await.unwrap();
    let failed = call(channel.clone(), "bad").await.unwrap_err();
    assert_eq!(failed.code(), Code::Internal);
    assert!(!format!("{failed:?}").contains("s3cret"), "{failed:?}");
    assert_eq!(call_v1beta1(channel.clone(), "bad").await.unwrap_err().code(), Code::Internal);
    assert_eq!(call(channel, "good").await.unwrap(), "good");
    assert_eq!(server.handled(V1, "Internal").await, 1);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn health_is_serving() {
    let server = Running::start(None, echo()).await;
    let mut client = HealthClient::new(server.connect(None).await.unwrap());
    for service in ["", V1, V1BETA1] {
        let asked = HealthCheckRequest { service: service.to_owned() };
        let HealthCheckResponse { status } = within(client.check(asked)).await.unwrap().into_inner();
        assert_eq!(status, i32::from(ServingStatus::Serving), "{service}");
    }
    server.stop().await.unwrap();
}

#[tokio::test]
async fn reflection_lists_the_services() {
    let server = Running::start(None, echo()).await;
    let channel = server.connect(None).await.unwrap();
    // The two versions have the same messages in different packages.
    macro_rules! listed {
        ($version:ident) => {{
            use $version::server_reflection_client::ServerReflectionClient;
            use $version::server_reflection_request::MessageRequest;
            use $version::server_reflection_response::MessageResponse;
            let message_request = Some(MessageRequest::ListServices(String::new()));
            let asked = $version::ServerReflectionRequest { message_request, ..Default::default() };
            let mut client = ServerReflectionClient::new(channel.clone());
            let answers = within(client.server_reflection_info(tokio_stream::iter([asked]))).await.unwrap();
            let answer = within(answers.into_inner().next()).await.unwrap().unwrap();
            let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
                panic!("{answer:?}");
            };
            list.service.into_iter().map(|service| service.name).collect::<Vec<_>>()
        }};
    }
    for names in [listed!(reflection), listed!(reflection_alpha)] {
        for service in [V1, V1BETA1, "grpc.health.v1.Health"] {
            assert!(names.iter().any(|name| name == service), "{service} is not in {names:?}");
        }
    }
    server.stop().await.unwrap();
}

#[tokio::test]
async fn calls_are_counted() {
    let server = Running::start(None, echo()).await;
    assert_eq!((server.handled(V1, "OK").await, server.handled(V1BETA1, "OK").await), (0, 0));
    let channel = server.connect(None).await.unwrap();
    for tag in ["a", "b", "c"] {
        call(channel.clone(), tag).await.unwrap();
    }
    call_v1beta1(channel, "d").await.unwrap();
    assert_eq!((server.handled(V1, "OK").await, server.handled(V1BETA1, "OK").await), (3, 1));
    let page = server.scrape().await;
    assert!(page.starts_with("HTTP/1.1 200"), "{page}");
    assert!(page.contains("content-type: application/openmetrics-text"), "{page}");
    let took = format!(
        "grpc_server_handling_seconds_count{{grpc_type=\"unary\",grpc_service=\"{V1}\",\
         grpc_method=\"RunFunction\"}} 3"
    );
    assert!(page.lines().any(|line| line == took), "{page}");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_stop_lets_a_running_call_finish() {
    let (function, begun, release) = held();
    let server = Running::start(None, function).await;
    let channel = server.connect(None).await.unwrap();
    let running = tokio::spawn(async move { call(channel, "last").await });
    within(begun.notified()).await;

    server.stop.cancel();
    // The socket is closed at once, while the call goes on.
    within(async {
        while TcpStream::connect(server.grpc).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert!(!running.is_finished() && !server.ended.is_finished());

    release.send(()).unwrap();
    assert_eq!(within(running).await.unwrap().unwrap(), "last");
    within(server.ended).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_call_that_never_ends_does_not_hold_up_a_stop() {
    let (function, begun, release) = held();
    let server = Running::start_with(None, function, Duration::from_millis(100)).await;
    let channel = server.connect(None).await.unwrap();
    let running = tokio::spawn(async move { call(channel, "never").await });
    within(begun.notified()).await;
    let outcome = server.stop().await;
    assert!(matches!(outcome, Err(ServeError::Drain(_))), "{outcome:?}");
    // The runtime of the test waits for its threads.
    drop(release);
    running.abort();
}
