//! When URLs are signed, so that everybody gets the same one for a while.
//!
//! A URL is signed not at the time of the request but at the beginning of a window of half its lifetime. All requests
//! of the window, on all instances that share credentials, get the same URL, and caches on the way meet one URL for one
//! blob. When it is handed out, it works for at least half of its lifetime. The windows of different blobs begin at
//! different times, so that not all URLs change at once.

/// For how long URLs work.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Windows {
    /// Seconds.
    lifetime: u64,
}

/// When a URL works, in seconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Validity {
    pub(crate) from: u64,
    pub(crate) until: u64,
}

impl Windows {
    /// `lifetime` in seconds, at least 2.
    pub(crate) fn new(lifetime: u64) -> Self {
        Self {
            lifetime: lifetime.max(2),
        }
    }

    pub(crate) fn lifetime(self) -> u64 {
        self.lifetime
    }

    /// When the URL for `key` that is handed out at `now` works. `credentials_until`: when what signs it ends.
    pub(crate) fn validity(self, key: &str, now: u64, credentials_until: Option<u64>) -> Validity {
        let window = self.lifetime / 2;
        let phase = spread(key) % window;
        let from = match now.checked_sub(phase) {
            Some(since) => since / window * window + phase,
            // At the very beginning of time a window would begin before it.
            None => 0,
        };
        let until = from + self.lifetime;
        Validity {
            from,
            until: credentials_until.map_or(until, |end| end.min(until)),
        }
    }
}

/// FNV-1a; the same on every instance.
fn spread(key: &str) -> u64 {
    key.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_900_000_000;

    #[test]
    fn a_url_is_stable_within_its_window_and_lives_for_half_its_life_at_least() {
        let windows = Windows::new(900);
        for key in ["0abc.1", "1abc.1", "2abc.7"] {
            let mut starts = Vec::new();
            for second in 0..1800 {
                let now = NOW + second;
                let validity = windows.validity(key, now, None);
                assert!(validity.from <= now && now - validity.from < 450, "{second}");
                assert!(validity.until - now > 450 && validity.until - validity.from == 900);
                if starts.last() != Some(&validity.from) {
                    starts.push(validity.from);
                }
            }
            assert!(starts.len() <= 5, "{starts:?}");
            assert!(starts.windows(2).all(|pair| pair[1] - pair[0] == 450));
        }
    }

    #[test]
    fn windows_of_different_blobs_begin_at_different_times() {
        let windows = Windows::new(900);
        let starts: std::collections::BTreeSet<_> = (0..50)
            .map(|number| windows.validity(&format!("{number}.1"), NOW, None).from)
            .collect();
        assert!(starts.len() > 20);
    }

    #[test]
    fn no_url_outlives_its_credentials() {
        let windows = Windows::new(900);
        let validity = windows.validity("1", NOW, Some(NOW + 60));
        assert_eq!(validity.until, NOW + 60);
        let validity = windows.validity("1", NOW, Some(NOW + 6000));
        assert_eq!(validity.until, validity.from + 900);
    }

    #[test]
    fn the_shortest_and_the_earliest_work() {
        for lifetime in [0, 1, 2, 3] {
            let validity = Windows::new(lifetime).validity("1", NOW, None);
            assert!(validity.from <= NOW && validity.until > NOW);
        }
        assert!(Windows::new(900).validity("1", 3, None).from <= 3);
    }
}
