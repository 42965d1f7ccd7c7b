//! The receive buffers of connections, whose total size is limited.

use registry::budget::{Budget, ClientKey, Grant};

use super::socket;

/// Memory for the large buffers of all connections together, in bytes. The minimum of each connection is not included.
const ALL: u64 = 64 << 20;

/// The minimum buffer of a connection, in bytes: HTTP/2 allows no less, and it has room for two heads of the maximum size.
const LEAST: u32 = 64 << 10;

/// The large buffer of an HTTP/1.1 connection, in bytes. A larger one would not make it faster.
const LARGE_READS: u32 = 256 << 10;

/// The large window of an HTTP/2 connection, in bytes: its client sends this many bytes before an acknowledgement arrives.
const LARGE_WINDOW: u32 = 1 << 20;

/// Maximum memory of TLS, in bytes: for bytes that wait for the socket, and for encrypted and decrypted records that were not
/// read yet.
const TLS: u64 = (socket::PENDING + socket::READ_AHEAD + (32 << 10)) as u64;

/// Memory for the large buffers of connections, shared fairly between clients. If there is none left, further connections get
/// small buffers and are slower.
#[derive(Debug)]
pub(crate) struct Buffers(Budget);

/// The number of bytes that one connection may receive before they are read.
#[derive(Debug)]
pub(crate) struct Buffer {
    pub(crate) bytes: u32,
    /// Held as long as the connection lives.
    memory: Option<Grant>,
}

impl Buffer {
    /// Whether there is memory for a fast connection.
    pub(crate) fn is_large(&self) -> bool {
        self.memory.is_some()
    }
}

impl Buffers {
    pub(crate) fn new() -> Self {
        Self(Budget::new(ALL, 0))
    }

    /// The buffer of a connection of `client`.
    pub(crate) fn take(&self, client: ClientKey, multiplexed: bool, tls: bool) -> Buffer {
        let (bytes, cost) = if multiplexed {
            (LARGE_WINDOW, u64::from(LARGE_WINDOW))
        } else {
            // One buffer is filled while a chunk of another one is used.
            (LARGE_READS, 2 * u64::from(LARGE_READS))
        };
        let memory = self.0.try_take(client, cost + if tls { TLS } else { 0 });
        Buffer {
            bytes: if memory.is_some() { bytes } else { LEAST },
            memory,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_buffers_are_bounded_and_shared() {
        let buffers = Buffers::new();
        let client = |number| ClientKey::of([10, 0, 0, number].into());
        for (multiplexed, large, most) in [(true, LARGE_WINDOW, 48), (false, LARGE_READS, 96)] {
            let mut held: Vec<_> = (0..most).map(|_| buffers.take(client(1), multiplexed, false)).collect();
            assert!(held.iter().all(|buffer| buffer.bytes == large));
            held.push(buffers.take(client(1), multiplexed, false));
            assert_eq!(held[most].bytes, LEAST, "one client leaves a quarter to the others");
            assert_eq!(buffers.take(client(2), multiplexed, false).bytes, large);
            held.clear();
            assert_eq!(buffers.take(client(1), multiplexed, false).bytes, large);
        }
    }

    #[test]
    fn what_tls_holds_counts_too() {
        let buffers = Buffers::new();
        let client = ClientKey::of([10, 0, 0, 1].into());
        let held: Vec<_> = (0..100).map(|_| buffers.take(client, false, true)).collect();
        let large = held.iter().filter(|buffer| buffer.bytes == LARGE_READS).count() as u64;
        let cost = 2 * u64::from(LARGE_READS) + TLS;
        assert_eq!(large, ALL / 4 * 3 / cost);
        for buffer in held {
            assert_eq!(buffer.is_large(), buffer.bytes == LARGE_READS, "{buffer:?}");
        }
    }
}
