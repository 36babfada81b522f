//! `grpc.reflection`: the questions that grpcurl and ghz ask, in their order.

use std::collections::BTreeSet;

use prost::Message as _;
use prost_types::FileDescriptorProto;
use tokio::sync::mpsc;
use tonic::{Streaming, codegen::tokio_stream::Stream};
use zimcache_proto::reflection::{
    ServerReflectionRequest as Question, ServerReflectionResponse as Answer,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use crate::{
    calls::conversation,
    support::{Server, within},
    wire::guarded,
};

const V1: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
const V1ALPHA: &str = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";
const NOT_FOUND: i32 = 5;

/// A conversation whose questions are sent one by one.
struct Conversation {
    questions: mpsc::Sender<Question>,
    answers: Streaming<Answer>,
}

impl Conversation {
    async fn begin(server: &Server, path: &'static str) -> Conversation {
        let (questions, asked) = mpsc::channel(1);
        let answers = conversation(server, path, stream(asked)).await.unwrap();
        Conversation { questions, answers }
    }

    /// Asks, and waits for the answer before anything else is sent.
    async fn ask(&mut self, question: MessageRequest) -> MessageResponse {
        let question = Question {
            host: "cache.example".to_owned(),
            message_request: Some(question),
        };
        self.questions.send(question.clone()).await.unwrap();
        let answer = within(self.answers.message()).await.unwrap().unwrap();
        assert_eq!(answer.original_request, Some(question));
        answer.message_response.unwrap()
    }

    async fn file(&mut self, question: MessageRequest) -> FileDescriptorProto {
        match self.ask(question).await {
            MessageResponse::FileDescriptorResponse(files) => {
                let encoded = files.file_descriptor_proto.first().unwrap();
                FileDescriptorProto::decode(encoded.clone()).unwrap()
            }
            other => panic!("{other:?}"),
        }
    }

    async fn refusal(&mut self, question: MessageRequest) -> i32 {
        match self.ask(question).await {
            MessageResponse::ErrorResponse(error) => error.error_code,
            other => panic!("{other:?}"),
        }
    }
}

fn stream(mut asked: mpsc::Receiver<Question>) -> impl Stream<Item = Question> {
    futures_util::stream::poll_fn(move |cx| asked.poll_recv(cx))
}

fn symbol(name: &str) -> MessageRequest {
    MessageRequest::FileContainingSymbol(name.to_owned())
}

fn named(name: &str) -> MessageRequest {
    MessageRequest::FileByFilename(name.to_owned())
}

#[tokio::test]
async fn a_tool_learns_every_service_and_type_without_credentials() {
    let (policy, _) = guarded("default");
    let server = Server::with_policy(policy).await;
    for path in [V1, V1ALPHA] {
        let mut tool = Conversation::begin(&server, path).await;
        let listed = tool.ask(MessageRequest::ListServices("*".to_owned())).await;
        let MessageResponse::ListServicesResponse(list) = listed else {
            panic!("{listed:?}");
        };
        let services: BTreeSet<_> = list.service.into_iter().map(|one| one.name).collect();
        assert!(services.contains("build.bazel.remote.execution.v2.ActionCache"));
        assert!(services.contains("google.bytestream.ByteStream"));
        let (mut todo, mut known) = (Vec::new(), BTreeSet::new());
        for service in &services {
            let file = tool.file(symbol(service)).await;
            known.insert(file.name().to_owned());
            todo.extend(file.dependency);
        }
        while let Some(name) = todo.pop() {
            if known.insert(name.clone()) {
                let file = tool.file(named(&name)).await;
                assert_eq!(file.name(), name);
                todo.extend(file.dependency);
            }
        }
        assert!(known.contains("google/protobuf/any.proto"), "{known:?}");
    }
    server.finish().await;
}

#[tokio::test]
async fn methods_nested_messages_and_fields_are_symbols_too() {
    let server = Server::start().await;
    let mut tool = Conversation::begin(&server, V1).await;
    for name in [
        "build.bazel.remote.execution.v2.ActionCache.GetActionResult",
        "build.bazel.remote.execution.v2.BatchReadBlobsResponse.Response",
        "build.bazel.remote.execution.v2.Digest.hash",
        "build.bazel.remote.execution.v2.DigestFunction.Value.SHA256",
    ] {
        let file = tool.file(symbol(name)).await;
        assert!(
            file.name().ends_with("remote_execution.proto"),
            "{name}: {}",
            file.name()
        );
    }
    server.finish().await;
}

#[tokio::test]
async fn what_is_not_described_is_refused_and_the_conversation_goes_on() {
    let server = Server::start().await;
    let mut tool = Conversation::begin(&server, V1).await;
    assert_eq!(tool.refusal(symbol("no.such.Thing")).await, NOT_FOUND);
    assert_eq!(tool.refusal(named("no/such.proto")).await, NOT_FOUND);
    let file = tool.file(symbol("grpc.health.v1.Health")).await;
    assert_eq!(file.package(), "grpc.health.v1");
    let Conversation {
        questions,
        mut answers,
    } = tool;
    drop(questions);
    assert_eq!(within(answers.message()).await.unwrap(), None);
    server.finish().await;
}
