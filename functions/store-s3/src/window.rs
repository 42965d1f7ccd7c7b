//! The times at which URLs are signed.
//!
//! Time is divided into windows of half the lifetime of a URL. All requests for a blob in one window get the same URL,
//! signed for the start of the window, on all instances that share credentials. So caches see one URL for one blob. A
//! URL works for at least half of its lifetime after it is returned. The windows of different blobs begin at different
//! times, so not all URLs change at once.

/// Calculates the validity of URLs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SigningWindows {
    /// In seconds.
    lifetime: u64,
}

/// The period in which a URL works, in seconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Validity {
    pub(crate) from: u64,
    pub(crate) until: u64,
}

impl SigningWindows {
    /// `lifetime` in seconds, at least 2.
    pub(crate) fn new(lifetime: u64) -> Self {
        Self {
            lifetime: lifetime.max(2),
        }
    }

    pub(crate) fn lifetime(self) -> u64 {
        self.lifetime
    }

    /// The validity of the URL for `key` that is returned at `now`. `credentials_until`: when the signing credentials
    /// expire.
    pub(crate) fn validity(self, key: &str, now: u64, credentials_until: Option<u64>) -> Validity {
        let window = self.lifetime / 2;
        let phase = hash(key) % window;
        let from = match now.checked_sub(phase) {
            Some(since) => since / window * window + phase,
            // Near the Unix epoch, the window would begin before it.
            None => 0,
        };
        let until = from + self.lifetime;
        Validity {
            from,
            until: credentials_until.map_or(until, |end| end.min(until)),
        }
    }
}

/// FNV-1a, which is the same on every instance.
fn hash(key: &str) -> u64 {
    key.bytes().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_900_000_000;

    #[test]
    fn a_url_is_stable_within_its_window_and_valid_for_at_least_half_its_lifetime() {
        let windows = SigningWindows::new(900);
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
        let windows = SigningWindows::new(900);
        let starts: std::collections::BTreeSet<_> = (0..50)
            .map(|number| windows.validity(&format!("{number}.1"), NOW, None).from)
            .collect();
        assert!(starts.len() > 20);
    }

    #[test]
    fn a_url_expires_no_later_than_its_credentials() {
        let windows = SigningWindows::new(900);
        let validity = windows.validity("1", NOW, Some(NOW + 60));
        assert_eq!(validity.until, NOW + 60);
        let validity = windows.validity("1", NOW, Some(NOW + 6000));
        assert_eq!(validity.until, validity.from + 900);
    }

    #[test]
    fn the_shortest_lifetime_and_the_earliest_time_work() {
        for lifetime in [0, 1, 2, 3] {
            let validity = SigningWindows::new(lifetime).validity("1", NOW, None);
            assert!(validity.from <= NOW && validity.until > NOW);
        }
        assert!(SigningWindows::new(900).validity("1", 3, None).from <= 3);
    }
}
