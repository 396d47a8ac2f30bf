//! Calls by name, with the bytes of messages as they are.

use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes};
use http::uri::PathAndQuery;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

/// No call of a test takes longer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Calls a method by its path with one message, and gives the first message of the answer, empty when there is none.
///
/// # Errors
/// The status of the call, or `DeadlineExceeded` after twenty seconds.
pub async fn call(channel: &Channel, path: &str, message: Bytes) -> Result<Bytes, Status> {
    let path: PathAndQuery = path.parse().expect("the path must be one");
    let mut client = Grpc::new(channel.clone());
    let calling = async {
        client
            .ready()
            .await
            .map_err(|error| Status::unavailable(format!("{error:?}")))?;
        let request = Request::new(tokio_stream::once(message));
        let mut answers = client.streaming(request, path, Raw).await?.into_inner();
        Ok(answers.message().await?.unwrap_or_default())
    };
    let late = Status::new(Code::DeadlineExceeded, "no answer came");
    tokio::time::timeout(PATIENCE, calling)
        .await
        .unwrap_or(Err(late))
}

struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
