//! The challenges of a registry, as the settings say; and what an operator should know about them.

use registry::auth::{Challenge, ChallengeSchemes, PublicUrl};

use crate::access::Exposure;

/// The words of the setting `challenge`, with what they mean.
pub const WORDS: [(&str, ChallengeSchemes); 2] = [("auto", ChallengeSchemes::Auto), ("basic", ChallengeSchemes::Basic)];

/// Parses the value of the setting `challenge`. The error is a text for the operator.
pub fn parse_schemes(text: &str) -> Result<ChallengeSchemes, String> {
    let word = WORDS.into_iter().find(|(word, _)| *word == text);
    word.map(|(_, schemes)| schemes)
        .ok_or_else(|| "expected auto or basic".to_owned())
}

/// The settings that decide about challenges.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChallengeSettings {
    /// The schemes that challenges may use.
    pub schemes: ChallengeSchemes,
    /// The URL at which clients reach the registry, if the operator says it.
    pub public_url: Option<PublicUrl>,
}

/// What else decides whether clients get the challenge that they need.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChallengeContext {
    /// From where clients reach the registry.
    pub exposure: Exposure,
    /// Whether the registry grants tokens.
    pub grants_tokens: bool,
    /// Whether the `X-Forwarded-…` fields of some proxy are trusted.
    pub trusts_a_proxy: bool,
    /// Whether there are users, and clients without credentials may pull.
    pub has_users_and_anonymous_pulls: bool,
}

/// What an operator should know about the challenges.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChallengeProblem {
    /// The public URL is plain http, and leads to another machine: passwords and tokens can be read on the network.
    ReadablePasswords,
    /// Clients without credentials may pull, but docker is asked for a name and a password before it tries.
    NoAnonymousDocker,
}

impl ChallengeSettings {
    /// The challenges.
    #[must_use]
    pub fn challenge(&self) -> Challenge {
        Challenge::new(self.schemes, self.public_url.clone())
    }

    /// What an operator should know about them when the registry starts.
    #[must_use]
    pub fn problems(&self, context: ChallengeContext) -> Vec<ChallengeProblem> {
        let readable = self.public_url.as_ref().is_some_and(PublicUrl::is_exposed);
        // On loopback, clients reach the registry by a host that needs no proof.
        let may_know_url =
            self.public_url.is_some() || context.trusts_a_proxy || context.exposure == Exposure::Loopback;
        let is_basic = self.schemes == ChallengeSchemes::Basic || !may_know_url;
        let no_anonymous = context.grants_tokens && context.has_users_and_anonymous_pulls && is_basic;
        let readable = readable.then_some(ChallengeProblem::ReadablePasswords);
        let no_anonymous = no_anonymous.then_some(ChallengeProblem::NoAnonymousDocker);
        readable.into_iter().chain(no_anonymous).collect()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::settings::CHALLENGE;

    fn settings(schemes: ChallengeSchemes, public_url: Option<&str>) -> ChallengeSettings {
        ChallengeSettings {
            schemes,
            public_url: public_url.map(|url| url.parse().unwrap()),
        }
    }

    const CONTEXT: ChallengeContext = ChallengeContext {
        exposure: Exposure::Public,
        grants_tokens: true,
        trusts_a_proxy: false,
        has_users_and_anonymous_pulls: true,
    };

    #[test]
    fn words() {
        assert_eq!(
            parse_schemes(CHALLENGE.default.unwrap()),
            Ok(ChallengeSchemes::default())
        );
        assert_eq!(parse_schemes("basic"), Ok(ChallengeSchemes::Basic));
        for wrong in ["", "bearer", "Auto", "basic "] {
            assert!(parse_schemes(wrong).is_err(), "{wrong}");
        }
    }

    /// Plain http away from this machine is allowed, but not silently.
    #[test]
    fn s29_a_public_url_of_plain_http_is_warned_of() {
        let quiet = ChallengeContext {
            has_users_and_anonymous_pulls: false,
            ..CONTEXT
        };
        for (url, expected) in [
            (
                Some("http://registry.example"),
                &[ChallengeProblem::ReadablePasswords][..],
            ),
            (Some("http://10.0.0.1:5000"), &[ChallengeProblem::ReadablePasswords]),
            (Some("http://localhost:5000"), &[]),
            (Some("http://127.0.0.1:5000"), &[]),
            (Some("https://registry.example"), &[]),
            (None, &[]),
        ] {
            let settings = settings(ChallengeSchemes::Auto, url);
            assert_eq!(settings.problems(quiet), expected, "{url:?}");
            let realm = settings.challenge().public_url().map(ToString::to_string);
            assert_eq!(realm.as_deref(), url);
        }
    }

    #[test]
    fn docker_cannot_pull_anonymously_where_the_url_is_not_known() {
        let problems = |settings: &ChallengeSettings, context| !settings.problems(context).is_empty();
        let unknown = settings(ChallengeSchemes::Auto, None);
        assert!(problems(&unknown, CONTEXT));
        for context in [
            ChallengeContext {
                exposure: Exposure::Loopback,
                ..CONTEXT
            },
            ChallengeContext {
                grants_tokens: false,
                ..CONTEXT
            },
            ChallengeContext {
                trusts_a_proxy: true,
                ..CONTEXT
            },
            ChallengeContext {
                has_users_and_anonymous_pulls: false,
                ..CONTEXT
            },
        ] {
            assert!(!problems(&unknown, context), "{context:?}");
        }
        let known = settings(ChallengeSchemes::Auto, Some("https://registry.example"));
        assert!(!problems(&known, CONTEXT));
        let basic = settings(ChallengeSchemes::Basic, Some("https://registry.example"));
        assert!(problems(&basic, CONTEXT));
    }
}
