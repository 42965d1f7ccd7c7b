//! Limits connections and requests to the number of files that the process may open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::connections::{LEAVING, WAITING_AREA};

/// File descriptors in addition to those of connections and requests: for the database, the log and the runtime; for reads
/// from local disk, which have a limit of their own; for connections that wait for a slot or are being closed.
const OTHER_FILES: u64 = 256 + (store_embedded::READ_FILES + WAITING_AREA + LEAVING) as u64;

/// Maximum numbers of connections and requests. Each connection takes a file. Each request may take one too: an upload that
/// pauses keeps its segment open, and a pull from S3 through the registry keeps a socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Bounds {
    pub(super) connections: u32,
    pub(super) requests: u32,
}

impl Bounds {
    /// Raises the limit of open files if necessary, and reduces the bounds if that is not enough.
    pub(super) fn within_files(self) -> Self {
        let wanted = self.files();
        let limit = getrlimit(Resource::Nofile);
        // The usual soft limit is low for the sake of old programs (`select`), and may be raised up to the hard limit.
        let raised = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
        if limit.current.is_some_and(|current| current < raised) {
            let raised = Rlimit {
                current: Some(raised),
                maximum: limit.maximum,
            };
            if let Err(error) = setrlimit(Resource::Nofile, raised) {
                tracing::warn!(%error, "cannot raise the limit of open files");
            }
        }
        let files = getrlimit(Resource::Nofile).current.unwrap_or(wanted);
        let possible = self.within(files);
        if possible != self {
            tracing::warn!(
                files,
                wanted,
                connections = possible.connections,
                requests = possible.requests,
                "fewer connections and requests are allowed than configured, because the process may open too few files: \
                 raise its limit of open files (ulimit -H -n)"
            );
        }
        possible
    }

    fn files(self) -> u64 {
        u64::from(self.connections) + u64::from(self.requests) + OTHER_FILES
    }

    /// Reduces both numbers in the same proportion if they need more than `files`; each is at least one.
    fn within(self, files: u64) -> Self {
        if files >= self.files() {
            return self;
        }
        let free = files.saturating_sub(OTHER_FILES);
        let all = self.files() - OTHER_FILES;
        let part = |asked: u32| {
            let part = u64::from(asked) * free / all.max(1);
            u32::try_from(part).unwrap_or(asked).max(1)
        };
        Self {
            connections: part(self.connections),
            requests: part(self.requests),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_and_requests_fit_into_the_limit_of_files() {
        let asked = Bounds {
            connections: 1024,
            requests: 4096,
        };
        assert_eq!(asked.within(asked.files()), asked);
        for files in [5_000, 2_688, 1_024, OTHER_FILES + 5] {
            let fits = asked.within(files);
            assert!(fits.files() <= files, "{fits:?} in {files}");
            assert!(
                fits.connections >= 1 && fits.requests >= 4 * fits.connections,
                "{fits:?}"
            );
        }
        let least = asked.within(0);
        assert_eq!((least.connections, least.requests), (1, 1));
    }
}
