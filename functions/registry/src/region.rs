//! The name of the region that an instance belongs to.

use std::fmt;
use std::str::FromStr;

use crate::text::is_runs;

/// The maximum length of a name, in bytes.
const MAX_LEN: usize = 64;

/// The name of the region that an instance belongs to: `[a-z0-9]+(-[a-z0-9]+)*`, at most 64 bytes.
///
/// Upload sessions are not replicated between regions. So an upload's token is bound to the region in which the upload was
/// opened, and the instances of other regions do not accept it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct RegionName(String);

/// The text is not a valid region name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("expected lower-case letters and digits, with single hyphens between them, at most 64 characters")]
pub struct RegionNameError;

impl RegionName {
    /// The home region: the default, and the only region of a registry without a configured region.
    pub const HOME: &'static str = "home";

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as it is part of the signature of upload tokens. The home region is signed as an empty name, because
    /// older versions signed all tokens so. Such tokens stay valid, and older instances accept new tokens of the home
    /// region. No other region has an empty name.
    pub(crate) fn signed(&self) -> &str {
        if self.0 == Self::HOME { "" } else { &self.0 }
    }
}

/// The home region.
impl Default for RegionName {
    fn default() -> Self {
        Self(Self::HOME.to_owned())
    }
}

impl fmt::Display for RegionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for RegionName {
    type Err = RegionNameError;

    fn from_str(text: &str) -> Result<Self, RegionNameError> {
        if text.len() <= MAX_LEN && is_runs(text, &['-']) {
            Ok(Self(text.to_owned()))
        } else {
            Err(RegionNameError)
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn names_of_regions() {
        let longest = "x".repeat(MAX_LEN);
        for name in ["home", "eu-central-1", "1", &longest] {
            let region: RegionName = name.parse().unwrap();
            assert_eq!((region.as_str(), region.to_string().as_str()), (name, name));
        }
        for name in [
            "",
            "EU",
            "-a",
            "a-",
            "a--b",
            "a b",
            "a.b",
            "\u{e9}",
            &format!("{longest}x"),
        ] {
            assert_eq!(name.parse::<RegionName>(), Err(RegionNameError), "{name:?}");
        }
    }

    #[test]
    fn the_home_region_is_the_default_and_alone_is_signed_as_nothing() {
        assert_eq!(RegionName::default().to_string(), RegionName::HOME);
        for (name, signed) in [("home", ""), ("home-1", "home-1"), ("eu", "eu")] {
            assert_eq!(name.parse::<RegionName>().unwrap().signed(), signed);
        }
    }
}
