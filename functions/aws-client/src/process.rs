//! Credentials that another program prints, within a maximum time.
//!
//! A profile may name a program that prints credentials as JSON (`credential_process`). The SDK waits for it without a
//! bound and leaves it behind when nobody waits any more: one that hangs would stay, and one more with each try. Here
//! the program and whatever it has started are killed after [`MAXIMUM`], and when the request that needs the
//! credentials is given up.
//!
//! A profile may also take a role (`role_arn`) with the credentials of another one (`source_profile`), and so on: where the
//! last of them names a program, it is run here too, and each role is asked for with what came before. What is left to the
//! SDK runs no program. A program that has left its process group (`setsid`) is not ended, but not waited for either.

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

/// How long the program may take.
pub const MAXIMUM: Duration = Duration::from_secs(20);

/// The most that is read of what the program prints, in bytes.
const OUTPUT: u64 = 64 << 10;

/// The credentials of the profile `name`, or of the one that the environment selects, if a program prints them. `None`:
/// they come from elsewhere, and the SDK finds them. Roles are asked for in `region`, or in the one that the environment or
/// the profile names.
pub async fn of_profile(name: Option<&str>, region: Option<&str>) -> Option<CredentialProcess> {
    let env = Env::real();
    // Before profiles, the SDK looks for keys in the environment, also when a profile is named.
    if env.get("AWS_ACCESS_KEY_ID").is_ok() && env.get("AWS_SECRET_ACCESS_KEY").is_ok() {
        return None;
    }
    // What cannot be read is the SDK's to tell.
    let files = EnvConfigFiles::default();
    let selected = name.map(|name| name.to_owned().into());
    let profiles = aws_config::profile::load(&Fs::real(), &env, &files, selected)
        .await
        .ok()?;
    let Chain { command, roles } = chain(&profiles)?;
    let sts = if roles.is_empty() {
        None
    } else {
        let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
            .http_client(crate::http_client())
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

/// A program, and the roles that are taken with what it prints, one with the credentials of the other.
struct Chain {
    command: String,
    roles: Vec<Role>,
}

/// A role as a profile names it.
struct Role {
    arn: String,
    external_id: Option<String>,
    session_name: Option<String>,
}

/// The program at the end of the selected profile's chain, which is followed as the SDK does. `None`: the chain ends with
/// something else, or is wrong, which is the SDK's to tell.
fn chain(profiles: &EnvConfigSections) -> Option<Chain> {
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
            roles.push(Role {
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
        return Some(Chain { command, roles });
    }
}

/// The program of a profile that has no other source of credentials which comes before it.
fn command(profile: &Profile) -> Option<&str> {
    const BEFORE: [&str; 5] = [
        "credential_source",
        "web_identity_token_file",
        "sso_session",
        "sso_account_id",
        "login_session",
    ];
    if BEFORE.iter().any(|key| profile.get(key).is_some()) {
        return None;
    }
    profile.get("credential_process")
}

/// Runs the program each time that it is asked; whoever asks keeps what it answers.
pub struct CredentialProcess {
    command: String,
    roles: Vec<Role>,
    /// How roles are asked for, if there are any.
    sts: Option<SdkConfig>,
    maximum: Duration,
}

/// Without the command: its arguments may be secret.
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
            // With all that it starts, so that all of that can be ended.
            .process_group(0);
        let child = command
            .spawn()
            .map_err(|error| failed(format!("cannot be run: {error}")))?;
        let mut running = RunningProcess(child);
        let Ok(output) = tokio::time::timeout(self.maximum, running.output()).await else {
            let seconds = self.maximum.as_secs();
            return Err(failed(format!("has not ended in {seconds} s, and was killed")));
        };
        parse(&output?)
    }
}

/// The program's group, which ends with this.
struct RunningProcess(Child);

impl RunningProcess {
    async fn output(&mut self) -> std::result::Result<Vec<u8>, CredentialsError> {
        use tokio::io::AsyncReadExt as _;
        let mut output = Vec::new();
        if let Some(stdout) = self.0.stdout.take() {
            let read = stdout.take(OUTPUT).read_to_end(&mut output).await;
            read.map_err(|error| failed(format!("cannot be read: {error}")))?;
        }
        // What it says on standard error is not repeated: it may be secret.
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
        // `None` once it was waited for: its number may be another's by then.
        let group = self.0.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        if let Some(group) = group {
            // An error means that it has just ended. The runtime reaps what is dropped.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

fn failed(text: impl std::fmt::Display) -> CredentialsError {
    CredentialsError::provider_error(format!("the credential process of the profile {text}"))
}

/// Reads what the program has printed. Keys are compared as the SDK does, without regard to case.
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
    async fn what_is_printed_are_the_credentials() {
        let ran = process(format!("printf '%s' '{GOOD}'"), MAXIMUM).run().await.unwrap();
        assert_eq!((ran.access_key_id(), ran.secret_access_key()), ("key", "secret"));
        assert_eq!(ran.session_token(), Some("token"));
        assert_eq!(
            ran.expiry(),
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

    /// The command and the roles of the profile `name` in a file.
    async fn chain_in(text: &str, name: &str) -> Option<(String, Vec<(String, Option<String>)>)> {
        let env = Env::from_slice(&[("AWS_CONFIG_FILE", "/config")]);
        let files = Fs::from_slice(&[("/config", text)]);
        let places = EnvConfigFiles::default();
        let loaded = aws_config::profile::load(&files, &env, &places, Some(name.to_owned().into())).await;
        let Chain { command, roles } = chain(&loaded.unwrap())?;
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

    /// Answers so many requests for roles, each with other keys; the bodies that came.
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
    async fn roles_are_taken_one_with_the_credentials_of_the_other() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let serving = roles_of(listener, 2);
        let loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
            .http_client(crate::http_client())
            .no_credentials();
        let sts = loader
            .region(Region::new("us-east-1"))
            .endpoint_url(endpoint)
            .load()
            .await;
        let role = |arn: &str, external_id: Option<&str>| Role {
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
    fn only_version_1_is_read() {
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

    /// Writes its own number and that of what it has started, then hangs.
    fn hanging(folder: &Path) -> String {
        let file = folder.join("running").display().to_string();
        format!("sleep 1000 & echo $$ $! > {file}.new; mv {file}.new {file}; wait")
    }

    async fn assert_ends(folder: &Path) {
        let numbers = std::fs::read_to_string(folder.join("running")).unwrap();
        for number in numbers.split_whitespace() {
            let running = || {
                let stat = std::fs::read_to_string(format!("/proc/{number}/stat")).unwrap_or_default();
                // A zombie has ended.
                !stat.is_empty() && !stat.contains(") Z ")
            };
            let began = Instant::now();
            while running() {
                assert!(began.elapsed() < Duration::from_secs(20), "{number} runs on");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_process_that_hangs_is_ended_with_all_that_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let error = process(hanging(folder.path()), Duration::from_secs(2))
            .run()
            .await
            .unwrap_err();
        assert!(format!("{error:?}").contains("was killed"), "{error:?}");
        assert_ends(folder.path()).await;
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_process_that_nobody_waits_for_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let command = hanging(folder.path());
        let waiting = tokio::spawn(async move { process(command, MAXIMUM).run().await });
        while !folder.path().join("running").exists() {
            assert!(!waiting.is_finished());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        waiting.abort();
        assert!(waiting.await.is_err());
        assert_ends(folder.path()).await;
    }
}
