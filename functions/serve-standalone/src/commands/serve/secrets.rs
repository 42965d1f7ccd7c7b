//! Secrets of the operator: from a file that a flag names, or from the environment. There are no flags for the secrets
//! themselves, because other users of the host see flags.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use auth::accounts::BootstrapSecret;
use shell::edge::{Edge, EdgeSecrets};

use crate::cli::ServeArgs;
use crate::failure::Failure;
use crate::reload::Reload;

/// The environment variable of the bootstrap secret.
const BOOTSTRAP_SECRET: &str = "ROADSTEAD_BOOTSTRAP_SECRET";
/// The environment variable of the secrets of the edge.
const ORIGIN_SECRET: &str = "ROADSTEAD_ORIGIN_SECRET";
/// The largest file of a secret or of keys, in bytes.
const MAX_FILE: u64 = 64 << 10;

/// The bootstrap secret.
pub(super) fn bootstrap(args: &ServeArgs) -> Result<Option<BootstrapSecret>, Failure> {
    let Some(secret) = Secret::read(args.bootstrap_secret_file.as_deref(), BOOTSTRAP_SECRET)? else {
        return Ok(None);
    };
    let parsed = BootstrapSecret::new(&secret.text);
    parsed.map(Some).map_err(|error| secret.unusable(error))
}

/// The edge in front of the registry.
pub(super) struct EdgeInFront {
    pub(super) edge: Arc<Edge>,
    /// The file of its secrets, if they are in a file.
    pub(super) file: Option<EdgeFile>,
}

/// The edge in front of the registry; `None`: there is none.
pub(super) fn edge(args: &ServeArgs) -> Result<Option<EdgeInFront>, Failure> {
    let file = args.origin_secret_file.as_deref();
    // A script that finds no secret must not open the server to everyone who knows its address.
    if file.is_none() && std::env::var_os(ORIGIN_SECRET).is_some_and(|text| text.to_str().is_none_or(str::is_empty)) {
        return Err(Failure::Failed(format!(
            "cannot use {ORIGIN_SECRET}: it is empty, or not text. Remove the variable if there is no edge"
        )));
    }
    let Some(secret) = Secret::read(file, ORIGIN_SECRET)? else {
        return Ok(None);
    };
    let secrets: EdgeSecrets = secret.text.parse().map_err(|error| secret.unusable(error))?;
    let edge = Arc::new(Edge::new(secrets));
    let file = file.map(|path| EdgeFile {
        path: path.to_owned(),
        edge: edge.clone(),
    });
    Ok(Some(EdgeInFront { edge, file }))
}

/// The file of the secrets of the edge.
pub(super) struct EdgeFile {
    path: PathBuf,
    edge: Arc<Edge>,
}

#[async_trait]
impl Reload for EdgeFile {
    async fn reload(&self) {
        let path = self.path.clone();
        let read = tokio::task::spawn_blocking(move || read_file(&path)).await;
        let secrets = match read {
            Ok(Ok(text)) => text.parse::<EdgeSecrets>().map_err(|error| error.to_string()),
            Ok(Err(problem)) => Err(problem),
            Err(error) => Err(error.to_string()),
        };
        match secrets {
            Ok(secrets) => {
                let has_changed = self.edge.replace(secrets);
                tracing::info!(file = ?self.path, has_changed, "the secrets of the edge were read again");
            }
            Err(problem) => tracing::error!(
                file = ?self.path,
                "the secrets of the edge cannot be used: {problem}; the previous ones stay valid"
            ),
        }
    }
}

/// A secret, and where it comes from.
struct Secret {
    text: String,
    place: String,
}

impl Secret {
    /// The secret in a file if there is one, else in the environment. `None`: there is none.
    fn read(file: Option<&Path>, variable: &str) -> Result<Option<Self>, Failure> {
        if let Some(path) = file {
            return Ok(Some(Self {
                text: read_file(path).map_err(Failure::Failed)?,
                place: path.display().to_string(),
            }));
        }
        let text = std::env::var(variable).ok().filter(|text| !text.is_empty());
        Ok(text.map(|text| Self {
            text,
            place: variable.to_owned(),
        }))
    }

    fn unusable(&self, error: impl std::error::Error + 'static) -> Failure {
        Failure::failed(format!("cannot use {}", self.place), error)
    }
}

/// Reads a file of secrets or of keys. The error is a text for the operator.
pub(super) fn read_file(path: &Path) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
    if std::fs::metadata(path).map_err(failed)?.len() > MAX_FILE {
        return Err(format!(
            "cannot use {}: it is larger than {MAX_FILE} bytes",
            path.display()
        ));
    }
    std::fs::read_to_string(path).map_err(failed)
}
