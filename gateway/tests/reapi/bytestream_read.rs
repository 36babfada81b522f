//! `ByteStream.Read`.

use tonic::Code;

use crate::support::{Server, bytestream, code, pattern, read, read_name, read_part};

#[tokio::test]
async fn a_blob_is_read_in_messages() {
    let server = Server::start().await;
    let mut client = bytestream(&server);
    for size in [1, 1000, 65_536, 3 << 20] {
        let blob = pattern(1, size);
        server.stock(&blob).await;
        assert_eq!(read(&mut client, &read_name(&blob)).await.unwrap(), blob);
    }
}

#[tokio::test]
async fn a_missing_blob_is_not_found() {
    let server = Server::start().await;
    let mut client = bytestream(&server);
    let name = read_name(b"absent");
    assert_eq!(code(read(&mut client, &name).await), Code::NotFound);
    assert_eq!(
        code(read_part(&mut client, &name, 6, 0).await),
        Code::NotFound
    );
}
