//! What access by token costs roadstead: the same reads of the same content without credentials and with a token, and the
//! requests for tokens themselves.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use crate::address::Target;
use crate::client::{BenchClient, Failure, Take};
use crate::daemon::{Daemon, Trouble, answers, free_port, system};
use crate::measure::Sample;
use crate::peers::Program;
use crate::report::Report;
use crate::rows::{MIB, Row, Work};
use crate::site::{Plan, Site};
use crate::task::{Read, Task, Wanted, text_of};

/// The sides of a row, in the order of the report. Figures of the second one are multiples of the first one's.
pub(crate) const SIDES: [&str; 2] = ["anonymous", "logged in"];

const ROBOT: &str = "bench";
const USER: &str = "driver";
const PASSWORD: &str = "correct horse battery staple";
/// All clients may pull. What is read is pushed by the robot.
const POLICY: &str = "syntax = 1

[[allow]]
name = \"everyone pulls\"
who = [\"anyone\"]
repositories = [\"**\"]
actions = [\"pull\"]

[[allow]]
name = \"the driver pushes\"
who = [\"robot:bench\"]
repositories = [\"**\"]
actions = [\"pull\", \"push\"]
";
/// A request for a token, for one repository.
const TOKEN_PATH: &str = "/token?service=roadstead&scope=repository:bench/token:pull";

/// How a client asks for a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Secret {
    Key,
    Password,
}

/// What one operation of a row does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TokenWork {
    /// That of a row of the comparison, with a token.
    Read(Row),
    /// GET of `/token`.
    Issue(Secret),
}

/// A row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TokenRow {
    name: &'static str,
    work: TokenWork,
}

const fn read(name: &'static str, work: Work) -> TokenRow {
    let group = "tokens";
    TokenRow {
        name,
        work: TokenWork::Read(Row { name, group, work }),
    }
}

const GET_MANIFEST: Work = Work::Manifest {
    head: false,
    by_digest: false,
};

const ROWS: [TokenRow; 5] = [
    read("HEAD blob", Work::HeadBlob),
    read("GET manifest by tag", GET_MANIFEST),
    read("pull blob 1 MB", Work::PullBlob(MIB)),
    TokenRow {
        name: "GET /token by key",
        work: TokenWork::Issue(Secret::Key),
    },
    TokenRow {
        name: "GET /token by password",
        work: TokenWork::Issue(Secret::Password),
    },
];

/// The names of all rows.
pub(crate) fn names() -> Vec<&'static str> {
    ROWS.iter().map(|row| row.name).collect()
}

/// The rows whose name contains one of `only`, whatever the case; all if there is none.
pub(crate) fn chosen(only: &[String]) -> Vec<TokenRow> {
    let only: Vec<String> = only.iter().map(|part| part.to_lowercase()).collect();
    let wanted = |row: &&TokenRow| only.is_empty() || only.iter().any(|part| row.name.to_lowercase().contains(part));
    ROWS.iter().filter(wanted).copied().collect()
}

/// A server with a robot, a user and a policy. Dropping it stops it; its folder remains.
struct Guarded {
    daemon: Daemon,
    /// The server, asked with the robot's key.
    robot: Target,
    /// The server, asked with the user's password.
    user: Target,
}

impl Guarded {
    fn start(program: &Program, folder: &Path) -> Result<Self, Trouble> {
        let data = folder.join("data");
        let policy = folder.join("policy.toml");
        std::fs::write(&policy, POLICY).map_err(system(&policy))?;
        let administer = |words: &[&str], input: &str| administer(program, &data, words, input);
        // First, because only this command makes a registry.
        administer(&["user", "add", USER, "--password-stdin"], PASSWORD)?;
        let added = administer(&["robot", "add", ROBOT, "--expires", "never", "--json"], "")?;
        let key = text_of(added.as_bytes(), "key")
            .ok_or_else(|| Failure::Unready("`roadstead robot add` printed no key".to_owned()))?;
        administer(&["policy", "set", &policy.to_string_lossy()], "")?;
        let port = free_port()?;
        let mut command = Command::new(&program.path);
        command.args(["serve", "--listen", &format!("127.0.0.1:{port}"), "--data"]);
        command.arg(&data);
        let ready = || answers(SocketAddr::from(([127, 0, 0, 1], port)), "/readyz", "HTTP/1.1 200");
        let daemon = Daemon::start("roadstead", command, folder, ready)?;
        let target = |name: &str, secret: &str| {
            Target::new(
                &format!("http://127.0.0.1:{port}"),
                Some(&format!("{name}:{secret}")),
                false,
            )
        };
        Ok(Self {
            daemon,
            robot: target(ROBOT, &key)?,
            user: target(USER, PASSWORD)?,
        })
    }
}

/// Runs a command of the operator on a registry, and returns what it prints.
fn administer(program: &Program, data: &Path, words: &[&str], input: &str) -> Result<String, Trouble> {
    let what = format!("roadstead {}", words.join(" "));
    let failed = |why: String| Trouble::Command(what.clone(), why);
    let mut child = Command::new(&program.path)
        .args(words)
        .arg("--data")
        .arg(data)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A command that reads nothing may have ended before.
        let _ = stdin.write_all(input.as_bytes());
    }
    let done = child.wait_with_output().map_err(|error| failed(error.to_string()))?;
    if done.status.success() {
        Ok(String::from_utf8_lossy(&done.stdout).into_owned())
    } else {
        let told = String::from_utf8_lossy(&done.stderr);
        Err(failed(format!("{}: {}", done.status, told.trim())))
    }
}

/// Runs `rows` and adds what was measured to `report`. The sides take turns at being first.
pub(crate) async fn measure(
    plan: &mut Plan,
    rows: &[TokenRow],
    program: &Program,
    rounds: u64,
    folder: &Path,
    report: &mut Report,
) -> Result<(), Trouble> {
    let server = Guarded::start(program, folder)?;
    let anonymous = Arc::new(server.robot.with_token(None)?);
    let robot = server.robot.clone();
    let mut reader = Site::new(robot, Some(server.daemon.process()), "tokens");
    for round in 0..rounds {
        for row in rows {
            eprintln!("{} (round {} of {rounds})", row.name, round + 1);
            let (task, logged_in, bound) = match row.work {
                TokenWork::Read(read) => {
                    let task = Arc::new(in_one_repository(&*reader.ready(plan, &read).await?));
                    let token = token_for(&server.robot, &task).await?;
                    let logged_in = server.robot.with_token(Some(&token))?;
                    (task, logged_in, plan.scale.bound(&read))
                }
                TokenWork::Issue(secret) => {
                    let logged_in = match secret {
                        Secret::Key => &server.robot,
                        Secret::Password => &server.user,
                    };
                    let bound = plan.scale.bound(&Row {
                        name: row.name,
                        group: "tokens",
                        work: Work::HeadBlob,
                    });
                    (Arc::new(issue()), logged_in.clone(), bound)
                }
            };
            let pair = [Arc::clone(&anonymous), Arc::new(logged_in)];
            let mut samples = [Sample::default(), Sample::default()];
            for turn in 0..2 {
                let side = usize::from((round + turn) % 2 == 1);
                samples[side] = reader.read_as(&pair[side], plan, &task, bound).await;
            }
            for (side, sample) in samples.into_iter().enumerate() {
                report.add(row.name, side, sample);
            }
        }
    }
    Ok(())
}

/// Requests for a token.
fn issue() -> Task {
    Task::Reads(vec![Read {
        path: TOKEN_PATH.to_owned(),
        head: false,
        wanted: Wanted::Text("token"),
    }])
}

/// What a task reads from the first of its repositories: clients ask for a token for the repository that they pull.
fn in_one_repository(task: &Task) -> Task {
    let Task::Reads(reads) = task else {
        return Task::Reads(Vec::new());
    };
    let first = reads.first().and_then(|read| repository_of(&read.path));
    let reads = reads.iter().filter(|read| repository_of(&read.path) == first);
    Task::Reads(reads.cloned().collect())
}

/// A token for the repository that a task reads.
async fn token_for(target: &Target, task: &Task) -> Result<String, Failure> {
    let repository = match task {
        Task::Reads(reads) => reads.first().and_then(|read| repository_of(&read.path)),
        _ => None,
    };
    let repository = repository
        .ok_or_else(|| Failure::Unready("only reads of a repository are measured with a token".to_owned()))?;
    let path = format!("/token?service=roadstead&scope=repository:{repository}:pull");
    let mut client = BenchClient::new(Arc::new(target.clone()));
    let body = client.get(&path, Take::Keep).await?.body;
    text_of(&body, "token").ok_or_else(|| Failure::Unready("an answer of /token has no token".to_owned()))
}

/// The repository in the path of a blob or a manifest.
fn repository_of(path: &str) -> Option<&str> {
    let rest = path.strip_prefix("/v2/")?;
    let end = rest.find("/blobs/").or_else(|| rest.find("/manifests/"))?;
    rest.get(..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_tokens_are_chosen_by_a_part_of_their_name() {
        assert_eq!(chosen(&[]).len(), ROWS.len());
        assert_eq!(chosen(&["/TOKEN by".to_owned()]).len(), 2);
        assert!(chosen(&["no such row".to_owned()]).is_empty());
    }

    #[test]
    fn a_path_names_its_repository() {
        assert_eq!(repository_of("/v2/bench/a-1/blobs/sha256:00"), Some("bench/a-1"));
        assert_eq!(repository_of("/v2/a/manifests/latest"), Some("a"));
        assert_eq!(repository_of("/v2/_catalog"), None);
    }
}
