//! The upload that a request names, and its state in responses.

use std::ops::Deref;

use http::{HeaderValue, Response, StatusCode};
use oci::Algorithm;

use crate::auth::{CredentialId, Denied, Identity, Permit, Principal, Push, RepositorySettings};
use crate::body::ResponseBody;
use crate::error::Error;
use crate::response::{self, UploadPosition};
use crate::store::sessions::{Session, SessionKey};
use crate::store::{SessionId, StoreError, Timestamp};
use crate::token::{TokenKeys, UploadToken};

/// The maximum value of `Retry-After`, in seconds.
const MAX_RETRY_AFTER: u64 = 5;

/// The upload of a verified token. It takes bodies, and can be cancelled.
pub(crate) struct OpenSession {
    pub(super) token: UploadToken,
    permit: Permit<Push>,
    /// The settings that the policy has for the repository, as far as the request knows the policy.
    settings: RepositorySettings,
    location: HeaderValue,
    uuid: HeaderValue,
}

/// An upload that its request may publish. Its permit comes from an authorization of this request, and not from the
/// upload's token, which is valid for longer than the permission may be.
pub(crate) struct FinalSession(OpenSession);

impl Deref for FinalSession {
    type Target = OpenSession;

    fn deref(&self) -> &OpenSession {
        &self.0
    }
}

impl FinalSession {
    /// A new upload of the permit's principal to the permit's repository. `keys` sign its token.
    pub(super) fn open(
        permit: Permit<Push>,
        session: SessionKey,
        algorithm: Algorithm,
        keys: &TokenKeys,
    ) -> Result<Self, Error> {
        let token = UploadToken {
            session,
            algorithm,
            principal: permit.principal().clone(),
            credential: permit.credential(),
        };
        let text = keys.sign(permit.repository(), &token);
        let text = text.ok_or_else(|| StoreError::failed("there is no key to sign upload tokens with"))?;
        let settings = permit.settings();
        OpenSession::new(permit, settings, token, &text).map(Self)
    }

    /// The permit to publish the blob.
    pub(super) fn permit(&self) -> &Permit<Push> {
        &self.0.permit
    }
}

impl OpenSession {
    /// `settings` are those of the permit's repository; the default ones if the request does not know the policy. `text` is
    /// the token as it was signed for the permit's repository and principal.
    pub(crate) fn new(
        permit: Permit<Push>,
        settings: RepositorySettings,
        token: UploadToken,
        text: &str,
    ) -> Result<Self, Error> {
        let location = header(&format!("/v2/{}/blobs/uploads/{text}", permit.repository()))?;
        let uuid = header(&uuid(token.session.id))?;
        Ok(Self {
            token,
            permit,
            settings,
            location,
            uuid,
        })
    }

    pub(crate) fn principal(&self) -> &Principal {
        self.permit.principal()
    }

    /// The settings that the policy has for the repository, if the request knows the policy. The last request of an upload
    /// always does.
    pub(super) fn repository_settings(&self) -> RepositorySettings {
        self.settings
    }

    /// The key by which the principal opened the upload, if it was a key.
    pub(crate) fn credential(&self) -> Option<CredentialId> {
        self.token.credential
    }

    /// The same upload, if `identity` is its principal, and may push to its repository now.
    pub(crate) fn reauthorized(self, identity: &Identity) -> Result<FinalSession, Denied> {
        if identity.principal() != self.principal() {
            return Err(Denied::OtherPrincipal);
        }
        let permit = identity.permit(self.permit.repository())?;
        let settings = permit.settings();
        Ok(FinalSession(Self {
            permit,
            settings,
            ..self
        }))
    }

    /// The position of the upload. `Range` is inclusive and never empty: without stored bytes it looks like one byte,
    /// because clients take an end before the start for an error.
    pub(super) fn position(&self, offset: u64) -> Result<UploadPosition, Error> {
        let range = header(&format!("0-{}", offset.saturating_sub(1)))?;
        Ok(UploadPosition {
            location: self.location.clone(),
            range,
            uuid: self.uuid.clone(),
        })
    }

    pub(super) fn refused(&self, offset: u64) -> Error {
        match self.position(offset) {
            Ok(position) => Error::UploadRange(Box::new(position)),
            Err(error) => error,
        }
    }

    /// The error for a session that another request has claimed, with its row `row`.
    pub(super) fn busy(&self, row: &Session, now: Timestamp, is_last: bool) -> Error {
        // A claim that is renewed ends with its request. The claim of a crashed request ends when it expires.
        let left = row.claimed_until().map_or(0, |until| until.millis_since(now));
        match self.position(row.progress.offset) {
            Ok(position) => Error::UploadBusy {
                position: Box::new(position),
                retry_after: left.div_ceil(1000).clamp(1, MAX_RETRY_AFTER),
                is_last,
            },
            Err(error) => error,
        }
    }

    pub(super) fn answer(&self, status: StatusCode, offset: u64) -> Result<Response<ResponseBody>, Error> {
        let mut response = response::empty(status);
        self.position(offset)?.write(response.headers_mut());
        Ok(response)
    }
}

fn header(text: &str) -> Result<HeaderValue, Error> {
    HeaderValue::from_str(text).map_err(|error| StoreError::failed(error).into())
}

/// The id of a session, in the form that clients expect.
fn uuid(id: SessionId) -> String {
    let hex = id.to_string();
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use oci::RepositoryName;

    use super::*;
    use crate::auth::{Rules, Scope};
    use crate::region::RegionName;
    use crate::store::sessions::SigningKey;

    /// The last request of an upload needs a new authorization, of the same principal, for the repository of the upload.
    #[test]
    fn only_the_principal_of_an_upload_may_finish_it() {
        let here: RepositoryName = "a/b".parse().unwrap();
        let identity = |user: &str, scope| {
            Identity::new(Principal::user(user).unwrap(), Rules::everything()).with_token_scope(scope)
        };
        let key = SigningKey {
            id: 1,
            secret: [1; 32],
            created: Timestamp(0),
        };
        let keys = TokenKeys::new(&RegionName::default(), vec![key]);
        for (identity, expected) in [
            (identity("alice", Scope::EVERYTHING), true),
            (identity("alice", Scope::upload(&here)), true),
            (identity("alice", Scope::upload(&"a/c".parse().unwrap())), false),
            (identity("alice", Scope::PULL_ONLY), false),
            (identity("bob", Scope::EVERYTHING), false),
            (Identity::new(Principal::ANONYMOUS, Rules::everything()), false),
        ] {
            let alice = Identity::new(Principal::user("alice").unwrap(), Rules::everything());
            let permit = alice.permit(&here).unwrap();
            let session = SessionKey {
                expires: Timestamp(1),
                id: SessionId(1),
            };
            let FinalSession(session) = FinalSession::open(permit, session, Algorithm::Sha256, &keys).unwrap();
            let reauthorized = session.reauthorized(&identity);
            assert_eq!(reauthorized.is_ok(), expected, "{identity:?}");
            if let Ok(session) = reauthorized {
                assert_eq!(session.permit().repository(), &here);
                assert_eq!(session.permit().principal(), identity.principal());
            }
        }
    }

    /// So that a key that is removed takes its uploads with it.
    #[test]
    fn the_token_of_an_upload_has_the_key_that_opened_it() {
        let here: RepositoryName = "a/b".parse().unwrap();
        let key = SigningKey {
            id: 1,
            secret: [1; 32],
            created: Timestamp(0),
        };
        let keys = TokenKeys::new(&RegionName::default(), vec![key]);
        let alice = Identity::new(Principal::user("alice").unwrap(), Rules::everything());
        let id: CredentialId = "3f9aK2dQ".parse().unwrap();
        for (identity, expected) in [(alice.clone(), None), (alice.with_credential(id).unwrap(), Some(id))] {
            let session = SessionKey {
                expires: Timestamp(1),
                id: SessionId(1),
            };
            let permit = identity.permit(&here).unwrap();
            let session = FinalSession::open(permit, session, Algorithm::Sha256, &keys).unwrap();
            assert_eq!(session.credential(), expected);
            let location = session.location.to_str().unwrap();
            let text = location.rsplit('/').next().unwrap();
            let token = keys.verify(&here, text, Timestamp(0)).unwrap();
            assert_eq!(token.credential, expected);
        }
    }
}
