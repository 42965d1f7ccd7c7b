//! How many connections and requests the system has files for.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::connections::{LEAVING, LOBBY};

/// File descriptors for other things than connections and requests: the database, the log, the runtime; what is read from
/// local disk, which is a number of its own however many requests ask for it; connections that wait for a place, or leave
/// theirs.
const OTHER_FILES: u64 = 256 + (store_embedded::READ_FILES + LOBBY + LEAVING) as u64;

/// What clients may have at once. Each connection is a file; and so is what each request writes, or reads from another
/// host: an upload that pauses keeps its segment open, and a blob that comes through from S3 a socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Bounds {
    pub(super) connections: u32,
    pub(super) requests: u32,
}

impl Bounds {
    /// As much as was asked for and as the system has files for.
    pub(super) fn within_files(self) -> Self {
        let wanted = self.files();
        let limit = getrlimit(Resource::Nofile);
        // The usual soft limit is there for programs that cannot handle more, not to keep others from more.
        let raised = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
        if limit.current.is_some_and(|current| current < raised) {
            let raised = Rlimit {
                current: Some(raised),
                maximum: limit.maximum,
            };
            if let Err(error) = setrlimit(Resource::Nofile, raised) {
                tracing::warn!(%error, "the limit of open files cannot be raised");
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
                "fewer connections and requests than asked for: too few files may be open"
            );
        }
        possible
    }

    fn files(self) -> u64 {
        u64::from(self.connections) + u64::from(self.requests) + OTHER_FILES
    }

    /// Both in the same proportion, where `files` are fewer than they take; one of each at least.
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
    fn connections_and_requests_fit_into_the_files_that_there_are() {
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
