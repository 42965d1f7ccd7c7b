//! The steps of every request: route, authorize, dispatch, respond.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt as _;
use http::{Method, Request, Response};
use oci::{Reference, RepositoryName, Tag};

use crate::access::{Access, Caller};
use crate::auth::{Credentials, Identity, Origin, Principal, Scope};
use crate::body::{RequestBody, ResponseBody};
use crate::call::Call;
use crate::environment::random_u64;
use crate::error::Error;
use crate::operations::home;
use crate::operations::session::{FinalSession, OpenSession};
use crate::registry::Registry;
use crate::response;
use crate::route::{Endpoint, Route};
use crate::store::StoreError;

/// What the core knows about a request, for the log and the metrics of a shell. It is an extension of every response.
#[derive(Clone, Debug, Default)]
pub struct RequestRecord {
    /// The endpoint. `None`: the request line matches no endpoint.
    pub endpoint: Option<Endpoint>,
    /// The principal, if authentication succeeded.
    pub principal: Option<Principal>,
}

impl Registry {
    /// Answers one request.
    ///
    /// A shell runs this future to its end, also when the client disconnects. Dropping it during an upload, a
    /// publication or a deletion has the effect of a crash: it leaves garbage for collection.
    pub async fn handle(&self, request: Request<RequestBody>) -> Response<ResponseBody> {
        let mut record = RequestRecord::default();
        let (head, body) = request.into_parts();
        // A panic is answered like any other fault. The other requests of the connection go on.
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
        record: &mut RequestRecord,
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

    /// Maps each route to its operation. The type of an operation's permit states the action that must be allowed.
    ///
    /// The larger operations are boxed. A future is moved several times before it runs, so without boxes every request
    /// would pay for the size of the largest operation.
    async fn dispatch(
        &self,
        route: Route,
        caller: Caller,
        head: &http::request::Parts,
        body: RequestBody,
    ) -> Result<Response<ResponseBody>, Error> {
        let access = Access::new(&self.authenticator, head);
        let headers = &head.headers;
        let head_only = head.method == Method::HEAD;
        match route {
            // The page is the same for every client, and reveals nothing about the content of the registry.
            Route::Home => Ok(home::page(headers)),
            // end-1
            Route::Base => {
                access.check_base(caller)?;
                Ok(response::json("application/json", "{}".into()))
            }
            Route::ListRepositories { page } => self.list_repositories(&access.identify(caller)?, page).await,
            Route::GetBlob { repository, digest } => {
                self.get_blob(access.permit(caller, &repository)?, digest, head).await
            }
            Route::DeleteBlob { repository, digest } => {
                self.delete_blob(access.permit(caller, &repository)?, digest).await
            }
            Route::GetManifest { repository, reference } => {
                self.get_manifest(access.permit(caller, &repository)?, reference, headers, head_only)
                    .await
            }
            Route::PutManifest {
                repository,
                reference,
                tags,
            } => {
                let permit = access.permit_tags(caller, &repository, all_tags(&reference, &tags))?;
                Box::pin(self.put_manifest(permit, reference, tags, headers, body)).await
            }
            Route::DeleteManifest { repository, reference } => {
                self.delete_manifest(access.permit(caller, &repository)?, reference)
                    .await
            }
            Route::ListTags { repository, page } => self.list_tags(access.permit(caller, &repository)?, page).await,
            Route::ListReferrers {
                repository,
                subject,
                artifact_type,
                page,
            } => {
                let permit = access.permit(caller, &repository)?;
                Box::pin(self.list_referrers(permit, subject, artifact_type, page)).await
            }
            Route::OpenUpload { repository, open } => {
                let permit = access.permit(caller, &repository)?;
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
                let session = self.reauthorize(session, &access).await?;
                Box::pin(self.finish_upload(session, digest, headers, body)).await
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

    /// Opens the session of an upload's path. The token authorizes the request, because some clients send no
    /// credentials to that path. Absent and invalid credentials are ignored. Valid credentials of another principal are
    /// refused.
    async fn session(&self, caller: Caller, repository: &RepositoryName, text: &str) -> Result<OpenSession, Error> {
        let token = self
            .tokens()
            .await?
            .verify(repository, text, self.environment.now())
            .ok_or(Error::UploadUnknown)?;
        if let Ok(identity) = caller
            && !identity.principal().is_anonymous()
            && *identity.principal() != token.principal
        {
            return Err(Error::Denied { rule: None });
        }
        // A verified token grants uploads to its repository, and nothing else.
        let identity = Identity::new(token.principal.clone(), Scope::upload(repository));
        let permit = identity.permit(repository).map_err(|_| Error::Denied { rule: None })?;
        OpenSession::new(permit, token, text)
    }

    /// Authorizes the principal of an upload again: if the permission was revoked after the upload was opened, the blob
    /// must not be published.
    async fn reauthorize(&self, session: OpenSession, access: &Access<'_>) -> Result<FinalSession, Error> {
        let identity = access.identify(self.authenticator.reauthorize(session.principal()).await)?;
        let session = session.reauthorized(&identity);
        session.map_err(|denied| access.refusal(&identity, denied))
    }
}

/// The tags that a push of a manifest publishes: those of its query, then that of its path.
fn all_tags(reference: &Reference, queried: &[Tag]) -> Vec<Tag> {
    let mut tags = queried.to_vec();
    if let Reference::Tag(tag) = reference
        && !tags.contains(tag)
    {
        tags.push(tag.clone());
    }
    tags
}
