//! Runs the program that prints credentials, within a maximum time.
//!
//! A profile may name a program that prints credentials as JSON (`credential_process`). The SDK waits for the program
//! without a limit, and leaves it running when the caller stops waiting. A hung program would run on, and each retry
//! would start another one. This module kills the program and all processes that it started after [`MAXIMUM`], and also
//! when the request that needs the credentials is dropped.
//!
//! A profile may also assume a role (`role_arn`) with the credentials of another profile (`source_profile`), which may
//! do the same. If the last profile of this chain names a program, this module runs it too, and then requests each role
//! with the credentials from the step before. The SDK handles all other profiles; those run no program. A program that
//! has left its process group (`setsid`) is not killed, and not waited for either.

use std::process::Stdio;
use std::time::{Duration, SystemTime};

use aws_config::sts::AssumeRoleProvider;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, Result, future};
use aws_runtime::env_config::file::EnvConfigFiles;
use aws_runtime::env_config::section::{EnvConfigSections, Profile};
use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use aws_types::os_shim_internal::{Env, Fs};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;
use tokio::process::{Child, Command};

use crate::connections::Connections;

/// Maximum time for the program to end.
pub(crate) const MAXIMUM: Duration = Duration::from_secs(20);

/// The maximum number of bytes that are read of the program's output.
const MAXIMUM_OUTPUT: u64 = 64 << 10;

/// The credentials of the profile `name`, or of the profile that the environment selects, if a program prints them.
/// `None`: the credentials have another source, and the SDK finds them. Roles are requested in `region`, or in the
/// region that the environment or the profile names.
pub(crate) async fn of_profile(
    name: Option<&str>,
    region: Option<&str>,
    connections: &Connections,
) -> Option<CredentialProcess> {
    let env = Env::real();
    // The SDK prefers keys in the environment to profiles, even if a profile is named.
    if env.get("AWS_ACCESS_KEY_ID").is_ok() && env.get("AWS_SECRET_ACCESS_KEY").is_ok() {
        return None;
    }
    // If the files cannot be read, the SDK reports the error.
    let files = EnvConfigFiles::default();
    let selected = name.map(|name| name.to_owned().into());
    let profiles = aws_config::profile::load(&Fs::real(), &env, &files, selected)
        .await
        .ok()?;
    let CredentialChain { command, roles } = chain(&profiles)?;
    let sts = if roles.is_empty() {
        None
    } else {
        let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
            .http_client(connections.clone())
            .no_credentials();
        if let Some(name) = name {
            loader = loader.profile_name(name);
        }
        if let Some(region) = region {
            loader = loader.region(Region::new(region.to_owned()));
        }
        Some(loader.load().await)
    };
    Some(CredentialProcess {
        command,
        roles,
        sts,
        maximum: MAXIMUM,
    })
}

/// A program, and the roles to assume with the credentials that it prints, each with the credentials of the one before.
struct CredentialChain {
    command: String,
    roles: Vec<ProfileRole>,
}

/// A role as a profile describes it.
struct ProfileRole {
    arn: String,
    external_id: Option<String>,
    session_name: Option<String>,
}

/// The program at the end of the selected profile's chain. It follows the chain as the SDK does. `None`: the chain ends
/// with another source of credentials, or is invalid; then the SDK reports the error.
fn chain(profiles: &EnvConfigSections) -> Option<CredentialChain> {
    let mut roles = Vec::new();
    let mut visited = Vec::new();
    let mut name = profiles.selected_profile();
    loop {
        let profile = profiles.get_profile(name)?;
        if visited.contains(&name) {
            return None;
        }
        visited.push(name);
        let has_keys = ["aws_access_key_id", "aws_secret_access_key"]
            .iter()
            .all(|key| profile.get(key).is_some());
        if visited.len() > 1 && has_keys {
            return None;
        }
        let text = |key: &str| profile.get(key).map(ToOwned::to_owned);
        if let Some(arn) = text("role_arn") {
            let source = profile.get("source_profile")?;
            roles.push(ProfileRole {
                arn,
                external_id: text("external_id"),
                session_name: text("role_session_name"),
            });
            if source != name {
                name = source;
                continue;
            }
        }
        let command = command(profile)?.to_owned();
        roles.reverse();
        return Some(CredentialChain { command, roles });
    }
}

/// The program of a profile, unless the profile has another source of credentials that takes precedence.
fn command(profile: &Profile) -> Option<&str> {
    const PRECEDING: [&str; 5] = [
        "credential_source",
        "web_identity_token_file",
        "sso_session",
        "sso_account_id",
        "login_session",
    ];
    if PRECEDING.iter().any(|key| profile.get(key).is_some()) {
        return None;
    }
    profile.get("credential_process")
}

/// Runs the program on each request for credentials. The caller caches the credentials.
pub(crate) struct CredentialProcess {
    command: String,
    roles: Vec<ProfileRole>,
    /// The configuration for requesting roles, if there are any.
    sts: Option<SdkConfig>,
    maximum: Duration,
}

/// Does not print the command: its arguments may be secret.
impl std::fmt::Debug for CredentialProcess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CredentialProcess").finish_non_exhaustive()
    }
}

impl ProvideCredentials for CredentialProcess {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.provide())
    }
}

impl CredentialProcess {
    async fn provide(&self) -> Result {
        let mut credentials = self.run().await?;
        let Some(sts) = &self.sts else {
            return Ok(credentials);
        };
        for role in &self.roles {
            let mut builder = AssumeRoleProvider::builder(&role.arn).configure(sts);
            if let Some(id) = &role.external_id {
                builder = builder.external_id(id);
            }
            if let Some(name) = &role.session_name {
                builder = builder.session_name(name);
            }
            let role = builder.build_from_provider(credentials).await;
            credentials = role.provide_credentials().await?;
        }
        Ok(credentials)
    }

    async fn run(&self) -> Result {
        let mut command = Command::new("sh");
        command
            .args(["-c", &self.command])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // In a process group with everything that it starts, so that the whole group can be killed.
            .process_group(0);
        let child = command
            .spawn()
            .map_err(|error| failed(format!("cannot be run: {error}")))?;
        let mut running = RunningProcess(child);
        let Ok(output) = tokio::time::timeout(self.maximum, running.output()).await else {
            let seconds = self.maximum.as_secs();
            return Err(failed(format!("did not end within {seconds} s and was killed")));
        };
        parse(&output?)
    }
}

/// A running program. Dropping this kills its process group.
struct RunningProcess(Child);

impl RunningProcess {
    async fn output(&mut self) -> std::result::Result<Vec<u8>, CredentialsError> {
        use tokio::io::AsyncReadExt as _;
        let mut output = Vec::new();
        if let Some(stdout) = self.0.stdout.take() {
            let read = stdout.take(MAXIMUM_OUTPUT).read_to_end(&mut output).await;
            read.map_err(|error| failed(format!("cannot be read: {error}")))?;
        }
        // The error does not contain the program's standard error: that may be secret.
        let status = self
            .0
            .wait()
            .await
            .map_err(|error| failed(format!("cannot be waited for: {error}")))?;
        if !status.success() {
            return Err(failed(format!("ended with {status}")));
        }
        Ok(output)
    }
}

impl Drop for RunningProcess {
    fn drop(&mut self) {
        // `None` after the program was waited for: another process may have its id by then.
        let group = self.0.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        if let Some(group) = group {
            // An error means that the program has just ended. The runtime reaps the dropped child.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

fn failed(text: impl std::fmt::Display) -> CredentialsError {
    CredentialsError::provider_error(format!("the credential process of the profile {text}"))
}

/// Parses the program's output. Keys are compared without regard to case, as the SDK does.
fn parse(output: &[u8]) -> Result {
    let unreadable = || failed("did not print credentials of version 1 as JSON");
    let Ok(Value::Object(fields)) = serde_json::from_slice(output) else {
        return Err(unreadable());
    };
    let field = |name: &str| {
        let found = fields.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value).filter(|value| !value.is_null())
    };
    let text = |name: &str| field(name).and_then(Value::as_str);
    if field("Version").and_then(Value::as_u64) != Some(1) {
        return Err(unreadable());
    }
    let (Some(key), Some(secret)) = (text("AccessKeyId"), text("SecretAccessKey")) else {
        return Err(unreadable());
    };
    let end = match text("Expiration") {
        None => None,
        Some(end) => Some(timestamp(end).ok_or_else(unreadable)?),
    };
    let token = text("SessionToken").map(ToOwned::to_owned);
    Ok(Credentials::new(key, secret, token, end, "CredentialProcess"))
}

fn timestamp(text: &str) -> Option<SystemTime> {
    let timestamp = DateTime::from_str(text, Format::DateTimeWithOffset).ok()?;
    SystemTime::try_from(timestamp).ok()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::path::Path;
    use std::time::Instant;

    use super::*;

    fn process(command: String, maximum: Duration) -> CredentialProcess {
        CredentialProcess {
            command,
            roles: Vec::new(),
            sts: None,
            maximum,
        }
    }

    const GOOD: &str = r#"{"Version": 1, "AccessKeyId": "key", "SecretAccessKey": "secret", "SessionToken": "token",
        "Expiration": "2030-01-01T00:00:00Z"}"#;

    #[tokio::test]
    async fn the_printed_credentials_are_returned() {
        let credentials = process(format!("printf '%s' '{GOOD}'"), MAXIMUM).run().await.unwrap();
        assert_eq!(
            (credentials.access_key_id(), credentials.secret_access_key()),
            ("key", "secret")
        );
        assert_eq!(credentials.session_token(), Some("token"));
        assert_eq!(
            credentials.expiry(),
            Some(SystemTime::UNIX_EPOCH + Duration::from_hours(525_960))
        );
        for wrong in [
            "exit 3",
            "echo",
            "echo '{}'",
            "echo '{\"Version\": 2}'",
            "exec /does/not/exist",
        ] {
            let error = process(wrong.to_owned(), MAXIMUM).run().await.unwrap_err();
            assert!(
                format!("{error:?}").contains("credential process"),
                "{wrong}: {error:?}"
            );
        }
    }

    /// The command and the roles of the profile `name` in a configuration file with this text.
    async fn chain_in(text: &str, name: &str) -> Option<(String, Vec<(String, Option<String>)>)> {
        let env = Env::from_slice(&[("AWS_CONFIG_FILE", "/config")]);
        let files = Fs::from_slice(&[("/config", text)]);
        let locations = EnvConfigFiles::default();
        let loaded = aws_config::profile::load(&files, &env, &locations, Some(name.to_owned().into())).await;
        let CredentialChain { command, roles } = chain(&loaded.unwrap())?;
        let roles = roles.into_iter().map(|role| (role.arn, role.external_id));
        Some((command, roles.collect()))
    }

    #[tokio::test]
    async fn a_program_is_found_behind_roles() {
        let text = "[profile base]\ncredential_process = print\n\
            [profile one]\nrole_arn = arn:one\nsource_profile = base\nexternal_id = id\n\
            [profile two]\nrole_arn = arn:two\nsource_profile = one\n\
            [profile self]\nrole_arn = arn:self\nsource_profile = self\ncredential_process = own\n\
            [profile keys]\naws_access_key_id = a\naws_secret_access_key = b\ncredential_process = print\n\
            [profile of-keys]\nrole_arn = arn:one\nsource_profile = keys\n\
            [profile instance]\nrole_arn = arn:one\ncredential_source = Ec2InstanceMetadata\n\
            [profile of-instance]\nrole_arn = arn:one\nsource_profile = instance\n\
            [profile loop]\nrole_arn = arn:one\nsource_profile = pool\n\
            [profile pool]\nrole_arn = arn:one\nsource_profile = loop\n\
            [profile nowhere]\nrole_arn = arn:one\nsource_profile = absent\n\
            [profile web]\nrole_arn = arn:one\nweb_identity_token_file = /t\n";
        let role = |arn: &str, id: Option<&str>| (arn.to_owned(), id.map(ToOwned::to_owned));
        let one = role("arn:one", Some("id"));
        for (name, expected) in [
            ("base", Some(("print", vec![]))),
            ("one", Some(("print", vec![one.clone()]))),
            ("two", Some(("print", vec![one, role("arn:two", None)]))),
            ("self", Some(("own", vec![role("arn:self", None)]))),
            ("of-keys", None),
            ("of-instance", None),
            ("loop", None),
            ("nowhere", None),
            ("web", None),
        ] {
            let found = chain_in(text, name).await;
            let expected = expected.map(|(command, roles)| (command.to_owned(), roles));
            assert_eq!(found, expected, "{name}");
        }
    }

    /// Answers `count` requests for roles, each with different keys, and returns the requests.
    fn roles_of(listener: std::net::TcpListener, count: usize) -> std::thread::JoinHandle<Vec<String>> {
        use std::io::{Read as _, Write as _};
        std::thread::spawn(move || {
            let mut seen = Vec::new();
            for number in 0..count {
                let (mut stream, _) = listener.accept().unwrap();
                let mut text = String::new();
                let mut buffer = [0; 4096];
                while !text.contains("Version=2011-06-15") {
                    let read = stream.read(&mut buffer).unwrap();
                    text += &String::from_utf8_lossy(&buffer[..read]);
                }
                let body = format!(
                    "<AssumeRoleResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleResult>\
                     <Credentials><AccessKeyId>KEY{number}</AccessKeyId><SecretAccessKey>secret</SecretAccessKey>\
                     <SessionToken>token</SessionToken><Expiration>2030-01-01T00:00:00Z</Expiration></Credentials>\
                     </AssumeRoleResult></AssumeRoleResponse>"
                );
                let head = "HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nConnection: close\r\nContent-Length:";
                write!(stream, "{head} {}\r\n\r\n{body}", body.len()).unwrap();
                seen.push(text);
            }
            seen
        })
    }

    #[tokio::test]
    async fn each_role_is_requested_with_the_credentials_of_the_one_before() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let serving = roles_of(listener, 2);
        let loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
            .http_client(Connections::new())
            .no_credentials();
        let sts = loader
            .region(Region::new("us-east-1"))
            .endpoint_url(endpoint)
            .load()
            .await;
        let role = |arn: &str, external_id: Option<&str>| ProfileRole {
            arn: arn.to_owned(),
            external_id: external_id.map(ToOwned::to_owned),
            session_name: Some("roadstead".to_owned()),
        };
        let process = CredentialProcess {
            roles: vec![role("one", Some("id")), role("two", None)],
            sts: Some(sts),
            ..process(format!("printf '%s' '{GOOD}'"), MAXIMUM)
        };
        let credentials = process.provide_credentials().await.unwrap();
        assert_eq!(credentials.access_key_id(), "KEY1");
        let seen = serving.join().unwrap();
        for (request, key, role) in [
            (&seen[0], "Credential=key/", "RoleArn=one"),
            (&seen[1], "Credential=KEY0/", "RoleArn=two"),
        ] {
            assert!(request.contains(key) && request.contains(role), "{request}");
            assert!(request.contains("RoleSessionName=roadstead"), "{request}");
        }
        assert!(seen[0].contains("ExternalId=id") && !seen[1].contains("ExternalId"));
    }

    #[test]
    fn only_version_1_is_accepted() {
        assert!(parse(GOOD.as_bytes()).is_ok());
        assert!(
            parse(
                GOOD.to_lowercase()
                    .replace("00t00", "00T00")
                    .replace("01t", "01T")
                    .replace("00z", "00Z")
                    .as_bytes()
            )
            .is_ok()
        );
        for (from, to) in [
            ("\"Version\": 1", "\"Version\": 2"),
            ("AccessKeyId", "Other"),
            ("2030-", "x-"),
            ("{", ""),
        ] {
            assert!(parse(GOOD.replacen(from, to, 1).as_bytes()).is_err(), "{to}");
        }
    }

    /// A command that writes its own process id and that of a child process, then hangs.
    fn hanging(folder: &Path) -> String {
        let file = folder.join("running").display().to_string();
        format!("sleep 1000 & echo $$ $! > {file}.new; mv {file}.new {file}; wait")
    }

    async fn assert_processes_end(folder: &Path) {
        let numbers = std::fs::read_to_string(folder.join("running")).unwrap();
        for number in numbers.split_whitespace() {
            let running = || {
                let stat = std::fs::read_to_string(format!("/proc/{number}/stat")).unwrap_or_default();
                // A zombie has ended.
                !stat.is_empty() && !stat.contains(") Z ")
            };
            let began = Instant::now();
            while running() {
                assert!(began.elapsed() < Duration::from_secs(20), "process {number} still runs");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_process_that_hangs_is_killed_with_all_processes_that_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let error = process(hanging(folder.path()), Duration::from_secs(2))
            .run()
            .await
            .unwrap_err();
        assert!(format!("{error:?}").contains("was killed"), "{error:?}");
        assert_processes_end(folder.path()).await;
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_process_is_killed_when_its_request_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let command = hanging(folder.path());
        let waiting = tokio::spawn(async move { process(command, MAXIMUM).run().await });
        while !folder.path().join("running").exists() {
            assert!(!waiting.is_finished());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        waiting.abort();
        assert!(waiting.await.is_err());
        assert_processes_end(folder.path()).await;
    }
}
