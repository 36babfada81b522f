//! `ByteStream.Write`.

use crate::support::{Server, bytestream, pattern, read, read_name, write, write_name};

#[tokio::test]
async fn what_is_written_can_be_read() {
    let server = Server::start().await;
    let mut client = bytestream(&server);
    for size in [1, 1000, 65_536, 3 << 20] {
        let blob = pattern(2, size);
        let committed = write(&mut client, &write_name(&blob), &blob).await;
        assert_eq!(committed.unwrap(), i64::try_from(size).unwrap());
        assert_eq!(read(&mut client, &read_name(&blob)).await.unwrap(), blob);
    }
}
