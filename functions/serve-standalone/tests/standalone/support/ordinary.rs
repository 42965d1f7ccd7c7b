//! Ordinary clients, who must not notice what others do, and how a server stands meanwhile.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use super::h2::{H2, Windows, runtime};
use super::{EMPTY, MANIFEST_TYPE, Server, digest, manifest};

use super::crowd::within_20_s;
pub(crate) use super::crowd::{CROWD as GREEDY, ORDINARY};

/// How ordinary requests fared, one after the other.
#[derive(Debug)]
pub(crate) struct Fared {
    /// How long each of them took; `None`: it was not answered as it should be.
    pub(crate) times: Vec<Option<Duration>>,
}

impl Fared {
    /// At least 95 of 100 were answered within `bound`.
    pub(crate) fn assert_well(&self, bound: Duration) {
        let well = self.times.iter().flatten().filter(|time| **time <= bound).count();
        assert!(!self.times.is_empty());
        assert!(well * 100 >= self.times.len() * 95, "within {bound:?}: {self:?}");
    }
}

/// Does `count` pushes of a layer and a manifest, one after the other, each over a connection of its own.
pub(crate) fn push(server: SocketAddr, count: usize) -> Fared {
    repeat(count, |number| async move {
        let client = H2::try_connect(server, ORDINARY, Windows::default()).await.ok()?;
        let layer: Vec<u8> = (0..100_000_usize)
            .map(|at| (at * (number + 3)).to_le_bytes()[1])
            .collect();
        for bytes in [EMPTY, &layer] {
            let path = format!("/v2/ordinary/blobs/uploads/?digest={}", digest(bytes));
            send(&client, "POST", &path, &[], bytes).await?;
        }
        let path = format!("/v2/ordinary/manifests/t{number}");
        send(&client, "PUT", &path, &[MANIFEST_TYPE], &manifest(&path)).await
    })
}

async fn send(client: &H2, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Option<()> {
    let length = body.len().to_string();
    let headers = [headers, &[("content-length", length.as_str())]].concat();
    let mut stream = client.open(method, path, &headers, false).await.ok()?;
    stream.send(body, true).ok()?;
    let status = stream.answer().await.ok()?.status;
    (status == 201).then_some(())
}

/// Does `count` requests, one after the other, each over a connection of its own; all should be answered with 200.
pub(crate) fn get(server: SocketAddr, path: &str, count: usize) -> Fared {
    repeat(count, |_| async move {
        let client = H2::try_connect(server, ORDINARY, Windows::default()).await.ok()?;
        let answer = client.request("GET", path, &[]).await.ok()?;
        (answer.status == 200).then_some(())
    })
}

fn repeat<F: Future<Output = Option<()>>>(count: usize, one: impl Fn(usize) -> F) -> Fared {
    let times = (0..count).map(|number| {
        let start = Instant::now();
        let done = runtime().block_on(one(number));
        thread::sleep(Duration::from_millis(50));
        done.map(|()| start.elapsed())
    });
    Fared { times: times.collect() }
}

/// What a process takes of memory, in bytes: now, and at most so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Resident {
    pub(crate) now: u64,
    pub(crate) most: u64,
}

impl Server {
    pub(crate) fn resident(&self) -> Resident {
        let (now, most) = super::crowd::memory(self);
        Resident { now, most }
    }

    /// Waits until it takes no more than `bytes`, and has no more than `files` open, for as long as it may take to have
    /// everything back.
    pub(crate) fn wait_for_memory_and_files(&self, bytes: u64, files: usize) {
        let bounds = format!("at most {bytes} bytes and {files} files are taken");
        runtime().block_on(within_20_s(&bounds, async || {
            self.resident().now <= bytes && super::crowd::files(self) <= files
        }));
    }
}
