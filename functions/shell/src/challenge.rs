//! The challenges of a registry, as the settings say; and what an operator should know about them.

use registry::auth::{Challenge, ChallengeSchemes, PublicUrl};

use crate::access::{ClientAccess, Exposure};

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

/// Which clients a registry asks for credentials.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AskedClients {
    /// None, because there are no users.
    Nobody,
    /// Those that do more than pull.
    AllButPulls,
    /// All, unless the policy lets anyone pull.
    All,
}

impl AskedClients {
    /// The clients that this access asks.
    #[must_use]
    pub fn of<U>(access: &ClientAccess<U>) -> Self {
        match access {
            ClientAccess::Users {
                anonymous_pull: true, ..
            } => Self::AllButPulls,
            ClientAccess::Users {
                anonymous_pull: false, ..
            } => Self::All,
            ClientAccess::Everyone(_) | ClientAccess::ThisMachine => Self::Nobody,
        }
    }
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
    /// Whether the registry has a certificate, which proves the URL.
    pub has_certificate: bool,
    /// Which clients are asked for credentials.
    pub asked: AskedClients,
}

/// What an operator should know about the challenges.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChallengeProblem {
    /// The public URL is plain http, and leads to another machine: passwords and tokens can be read on the network.
    ReadablePasswords,
    /// Clients are asked for their passwords with every request, because the URL of the token endpoint is not known.
    UnknownUrl,
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
        let may_know_url = self.public_url.is_some()
            || context.trusts_a_proxy
            || context.has_certificate
            || context.exposure == Exposure::Loopback;
        let is_wanted = self.schemes == ChallengeSchemes::Basic;
        let asks = context.grants_tokens && context.asked != AskedClients::Nobody;
        let is_unknown = asks && !is_wanted && !may_know_url;
        let no_anonymous = asks && context.asked == AskedClients::AllButPulls && (is_wanted || !may_know_url);
        let problems = [
            readable.then_some(ChallengeProblem::ReadablePasswords),
            is_unknown.then_some(ChallengeProblem::UnknownUrl),
            no_anonymous.then_some(ChallengeProblem::NoAnonymousDocker),
        ];
        problems.into_iter().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::access::AnonymousAccess;
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
        has_certificate: false,
        asked: AskedClients::AllButPulls,
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
            asked: AskedClients::Nobody,
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
        use ChallengeProblem::{NoAnonymousDocker, UnknownUrl};

        let all = ChallengeContext {
            asked: AskedClients::All,
            ..CONTEXT
        };
        let unknown = settings(ChallengeSchemes::Auto, None);
        assert_eq!(unknown.problems(CONTEXT), [UnknownUrl, NoAnonymousDocker]);
        // A rule of the policy may let anyone pull, later too.
        assert_eq!(unknown.problems(all), [UnknownUrl]);
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
                has_certificate: true,
                ..CONTEXT
            },
            ChallengeContext {
                asked: AskedClients::Nobody,
                ..CONTEXT
            },
        ] {
            assert!(unknown.problems(context).is_empty(), "{context:?}");
        }
        let known = settings(ChallengeSchemes::Auto, Some("https://registry.example"));
        assert!(known.problems(CONTEXT).is_empty());
        for url in [None, Some("https://registry.example")] {
            // The operator knows that passwords come with every request.
            let basic = settings(ChallengeSchemes::Basic, url);
            assert_eq!(basic.problems(CONTEXT), [NoAnonymousDocker]);
            assert!(basic.problems(all).is_empty());
        }
    }

    #[test]
    fn who_is_asked_follows_from_who_may_do_what() {
        let users = |users, anonymous_pull| ClientAccess::Users { users, anonymous_pull };
        for (access, expected) in [
            (users(None, false), AskedClients::All),
            (users(Some("file"), false), AskedClients::All),
            (users(None, true), AskedClients::AllButPulls),
            (users(Some("file"), true), AskedClients::AllButPulls),
            (ClientAccess::Everyone(AnonymousAccess::Pull), AskedClients::Nobody),
            (ClientAccess::ThisMachine, AskedClients::Nobody),
        ] {
            assert_eq!(AskedClients::of(&access), expected, "{access:?}");
        }
    }
}
