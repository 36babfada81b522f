//! Calls that the client library has no stubs for: any path, any messages.

use tonic::{
    Request, Streaming,
    client::Grpc,
    codegen::{http::uri::PathAndQuery, tokio_stream::Stream},
    transport::Channel,
};
use tonic_prost::ProstCodec;
use zimcache_proto::Message;

use crate::support::{Outcome, Server, channel, within};

async fn client(server: &Server) -> Grpc<Channel> {
    let mut client = Grpc::new(channel(server.address));
    within(client.ready()).await.unwrap();
    client
}

/// A call of one message each way.
pub(crate) async fn unary<Q, A>(server: &Server, path: &'static str, question: Q) -> Outcome<A>
where
    Q: Message + Default + 'static,
    A: Message + Default + 'static,
{
    let mut client = client(server).await;
    let path = PathAndQuery::from_static(path);
    let codec = ProstCodec::<Q, A>::default();
    let answer = within(client.unary(Request::new(question), path, codec)).await?;
    Ok(answer.into_inner())
}

/// A call that is answered by many messages.
pub(crate) async fn answers<Q, A>(
    server: &Server,
    path: &'static str,
    question: Q,
) -> Outcome<Streaming<A>>
where
    Q: Message + Default + 'static,
    A: Message + Default + 'static,
{
    let mut client = client(server).await;
    let path = PathAndQuery::from_static(path);
    let codec = ProstCodec::<Q, A>::default();
    let answers = within(client.server_streaming(Request::new(question), path, codec)).await?;
    Ok(answers.into_inner())
}

/// A call of many messages each way.
pub(crate) async fn conversation<Q, A>(
    server: &Server,
    path: &'static str,
    questions: impl Stream<Item = Q> + Send + 'static,
) -> Outcome<Streaming<A>>
where
    Q: Message + Default + 'static,
    A: Message + Default + 'static,
{
    let mut client = client(server).await;
    let path = PathAndQuery::from_static(path);
    let codec = ProstCodec::<Q, A>::default();
    let answers = within(client.streaming(Request::new(questions), path, codec)).await?;
    Ok(answers.into_inner())
}
