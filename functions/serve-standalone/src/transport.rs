//! The transport of one connection, with the timeouts of its client: the socket, the bodies of requests, and answers.
//!
//! Read in this order: `activity` (what a connection is doing), `socket`, `handshake` and `stream` (its socket, with TLS or
//! without), `request_body`, `transfer` and `response_body` (an answer until its last byte is written).

mod activity;
mod buffers;
mod handshake;
mod request_body;
mod response_body;
mod socket;
mod stream;
mod streams;
mod timeouts;
mod timer;
mod transfer;

pub(crate) use activity::{Activity, Exchange, LOOK, Pace, StallCheck};
pub(crate) use buffers::Buffers;
pub(crate) use handshake::shake;
pub(crate) use request_body::receive;
pub(crate) use response_body::SentBody;
pub(crate) use socket::Socket;
pub(crate) use stream::GuardedStream;
pub(crate) use streams::StreamExecutor;
pub(crate) use timeouts::Timeouts;
