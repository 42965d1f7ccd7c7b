//! The line that every request follows: route, authorize, dispatch, answer.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt as _;
use http::{Method, Request, Response};
use oci::RepositoryName;

use crate::auth::{Action, AuthenticationError, Credentials, Identity, Origin, Permit, Principal, Scope};
use crate::body::{RequestBody, ResponseBody};
use crate::call::Call;
use crate::environment::random_u64;
use crate::error::Error;
use crate::operations::home;
use crate::operations::session::OpenSession;
use crate::overload::Overload;
use crate::registry::Registry;
use crate::response;
use crate::route::{Endpoint, Route};
use crate::store::{Reason, StoreError};

/// What the core found out about a request, for a shell's log and counters: an extension of every response.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// The endpoint; `None` when the request line names none.
    pub endpoint: Option<Endpoint>,
    /// Who asked, if that was found out.
    pub principal: Option<Principal>,
}

impl Registry {
    /// Answers one request.
    ///
    /// A shell runs it to its end also when the client hangs up: dropping it in the middle of an upload, a publication
    /// or a removal is the same as a crash, and leaves garbage.
    pub async fn handle(&self, request: Request<RequestBody>) -> Response<ResponseBody> {
        let mut record = Record::default();
        let (head, body) = request.into_parts();
        // A defect met by one request is answered like any other fault, and costs no other request of its connection.
        let answered = AssertUnwindSafe(Call::new(self, &head).answer(&head, body, &mut record))
            .catch_unwind()
            .await;
        let answered = answered.unwrap_or_else(|_| Err(StoreError::failed("the operation panicked").into()));
        let answered = answered.unwrap_or_else(|error| error.into_response(|| random_u64(&*self.environment)));
        let mut response = response::complete(answered);
        if head.method == Method::HEAD {
            *response.body_mut() = ResponseBody::empty();
        }
        response.extensions_mut().insert(record);
        response
    }
}

impl Call<'_> {
    /// Answers the request.
    pub(crate) async fn answer(
        &self,
        head: &http::request::Parts,
        body: RequestBody,
        record: &mut Record,
    ) -> Result<Response<ResponseBody>, Error> {
        self.settings.hosts.check(head)?;
        let route = Route::parse(&head.method, &head.uri, &self.settings.limits)?;
        record.endpoint = Some(route.endpoint());
        let caller = self
            .authenticator
            .authenticate(
                Origin { client: self.client() },
                &Credentials::from_headers(&head.headers),
            )
            .await;
        record.principal = caller.as_ref().ok().map(|identity| identity.principal().clone());
        self.dispatch(route, caller, head, body).await
    }

    /// The one match from routes to operations. The type of an operation's permit says what the request must be allowed.
    ///
    /// The larger operations are boxed: a future is moved some times before it runs, and every request would pay for the
    /// size of the largest.
    async fn dispatch(
        &self,
        route: Route,
        caller: Result<Identity, AuthenticationError>,
        head: &http::request::Parts,
        body: RequestBody,
    ) -> Result<Response<ResponseBody>, Error> {
        let headers = &head.headers;
        let head_only = head.method == Method::HEAD;
        match route {
            // The same for every client: it says nothing of what is stored here.
            Route::Home => Ok(home::page(headers)),
            Route::Base => self.base(&self.identify(caller)?),
            Route::ListRepositories { page } => self.list_repositories(&self.identify(caller)?, page).await,
            Route::GetBlob { repository, digest } => {
                self.get_blob(self.authorize(caller, &repository)?, digest, head).await
            }
            Route::DeleteBlob { repository, digest } => {
                self.delete_blob(self.authorize(caller, &repository)?, digest).await
            }
            Route::GetManifest { repository, reference } => {
                self.get_manifest(self.authorize(caller, &repository)?, reference, headers, head_only)
                    .await
            }
            Route::PutManifest {
                repository,
                reference,
                tags,
            } => {
                let permit = self.authorize(caller, &repository)?;
                Box::pin(self.put_manifest(permit, reference, tags, headers, body)).await
            }
            Route::DeleteManifest { repository, reference } => {
                self.delete_manifest(self.authorize(caller, &repository)?, reference)
                    .await
            }
            Route::ListTags { repository, page } => self.list_tags(self.authorize(caller, &repository)?, page).await,
            Route::ListReferrers {
                repository,
                subject,
                artifact_type,
                page,
            } => {
                let permit = self.authorize(caller, &repository)?;
                Box::pin(self.list_referrers(permit, subject, artifact_type, page)).await
            }
            Route::OpenUpload { repository, open } => {
                let permit = self.authorize(caller, &repository)?;
                Box::pin(self.open_upload(permit, open, headers, body)).await
            }
            Route::PatchUpload { repository, token } => {
                let session = self.session(caller, &repository, &token).await?;
                Box::pin(self.patch_upload(session, headers, body)).await
            }
            Route::FinishUpload {
                repository,
                token,
                digest,
            } => {
                let session = self.session(caller, &repository, &token).await?;
                // Policy is asked again: a principal that has lost its right since the upload was opened must not publish.
                let caller = self.authenticator.reauthorize(session.principal()).await;
                let permit = self.authorize(caller, &repository)?;
                Box::pin(self.finish_upload(permit, session, digest, headers, body)).await
            }
            Route::GetUpload { repository, token } => {
                self.get_upload(self.session(caller, &repository, &token).await?).await
            }
            Route::CancelUpload { repository, token } => {
                let session = self.session(caller, &repository, &token).await?;
                Box::pin(self.cancel_upload(session)).await
            }
        }
    }

    fn identify(&self, caller: Result<Identity, AuthenticationError>) -> Result<Identity, Error> {
        caller.map_err(|error| match error {
            AuthenticationError::Unauthenticated => Error::Unauthenticated(self.authenticator.challenge()),
            AuthenticationError::TooManyRequests => Error::TooManyRequests(Overload::Passwords),
            AuthenticationError::Unavailable(cause) => Error::Store(StoreError::because(Reason::Credentials, cause)),
        })
    }

    fn permit<A: Action>(&self, identity: &Identity, repository: &RepositoryName) -> Result<Permit<A>, Error> {
        identity.permit(repository).map_err(|_| self.refusal(identity))
    }

    /// The refusal of what an identity may not do. An anonymous client is asked for credentials, where these can help.
    fn refusal(&self, identity: &Identity) -> Error {
        match self.authenticator.challenge() {
            Some(challenge) if identity.principal().is_anonymous() => Error::Unauthenticated(Some(challenge)),
            _ => Error::Denied,
        }
    }

    fn authorize<A: Action>(
        &self,
        caller: Result<Identity, AuthenticationError>,
        repository: &RepositoryName,
    ) -> Result<Permit<A>, Error> {
        self.permit(&self.identify(caller)?, repository)
    }

    /// The token decides on an upload's path, because some clients send no credentials there. Credentials that are absent or
    /// wrong are ignored; valid ones of another principal are refused.
    async fn session(
        &self,
        caller: Result<Identity, AuthenticationError>,
        repository: &RepositoryName,
        text: &str,
    ) -> Result<OpenSession, Error> {
        let token = self
            .tokens()
            .await?
            .verify(repository, text, self.environment.now())
            .ok_or(Error::UploadUnknown)?;
        match caller {
            Ok(identity) if !identity.principal().is_anonymous() && *identity.principal() != token.principal => {
                Err(Error::Denied)
            }
            _ => {
                // A verified token grants pushes to the repository that it names, and nothing else.
                let scope = Scope::upload(repository.clone());
                let permit = self.permit(&Identity::new(token.principal.clone(), scope), repository)?;
                OpenSession::new(&permit, token, text)
            }
        }
    }

    /// end-1. `docker login` finds out here whether credentials are right, so that anonymous clients are asked for some,
    /// unless they may do everything.
    fn base(&self, identity: &Identity) -> Result<Response<ResponseBody>, Error> {
        match self.authenticator.challenge() {
            Some(challenge) if identity.principal().is_anonymous() && !identity.is_unrestricted() => {
                Err(Error::Unauthenticated(Some(challenge)))
            }
            _ => Ok(response::json("application/json", "{}".into())),
        }
    }
}
