//! `roadstead policy`.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use auth::administration::policies::{AccountCondition, MadeFrom, NewPolicy, PolicyInForce, parse};
use auth::administration::{AdministrationError, Author};
use auth::explain::{Explanation, Question, Wish, explain, look_up};
use oci::{RepositoryName, Tag};
use registry::auth::Principal;
use registry::policy::tree::Position;
use registry::policy::{KnownNames, Mistake, Policy, Warning};
use registry::store::access::{PolicyForm, PolicyVersion};
use serde_json::{Value, json};
use shell::clock;
use shell::stores::Absent;
use shell::text::count;
use shell::timestamp::seconds;

use super::accounts::{administer, administration_of};
use super::output::{Form, Output};
use super::store::{PAGE, cx, with_records};
use crate::cli::{
    FormWord, IfVersion, PolicyCheckArgs, PolicyCommand, PolicyExplainArgs, PolicyFileArgs, PolicySetArgs,
    PolicyShowArgs, ReadArgs,
};
use crate::failure::Failure;

mod version_line;

const VERSIONS: &[(&str, usize)] = &[("VERSION", 7), ("SET AT", 20), ("BY", 16), ("NOTE", 0)];
/// The default policy, as it would be written.
const DEFAULT: &str = "\
syntax = 1

[[allow]]
name = \"default\"
who = [\"users\"]
repositories = [\"**\"]
actions = [\"pull\", \"push\", \"delete\"]
";
/// The file name of standard input.
const STANDARD_INPUT: &str = "-";

/// Runs a command.
pub(super) fn run(command: &PolicyCommand) -> Result<(), Failure> {
    match command {
        PolicyCommand::Show(args) => show(args),
        PolicyCommand::Versions(args) => versions(args),
        PolicyCommand::Set(args) => set(args),
        PolicyCommand::Check(args) => check(args),
        PolicyCommand::Explain(args) => explain_one(args),
    }
}

fn show(args: &PolicyShowArgs) -> Result<(), Failure> {
    administer(&args.stores, async |administration| {
        let in_force = administration.state().await?.policy;
        let version = match args.version.or(in_force) {
            Some(number) => Some(administration.policy(number).await?),
            None => None,
        };
        let mut stdout = io::stdout();
        if args.json {
            let value = version.as_ref().map_or_else(default_json, version_json);
            writeln!(stdout, "{value}")?;
            return Ok(());
        }
        let Some(version) = &version else {
            eprintln!("no policy was set; this is the default policy");
            return Ok(print_source(&version_line::add(DEFAULT, 0))?);
        };
        let number = version.version;
        let (note, source) = match (in_force == Some(number), version.form) {
            (true, PolicyForm::Toml) => (String::new(), version_line::add(&version.source, number)),
            // JSON has no comments.
            (true, PolicyForm::Json) => (
                format!("; set a changed one with --if-version {number}"),
                version.source.clone(),
            ),
            // Who sets an earlier version wants it in place of the one in force.
            // A text that was set over the API may have the line.
            (false, PolicyForm::Toml) => ("; it is not in force".to_owned(), version_line::take(&version.source).0),
            (false, PolicyForm::Json) => ("; it is not in force".to_owned(), version.source.clone()),
        };
        eprintln!("{}{note}", description(version));
        Ok(print_source(&source)?)
    })
}

fn print_source(source: &str) -> io::Result<()> {
    let mut stdout = io::stdout();
    stdout.write_all(source.as_bytes())?;
    stdout.flush()
}

fn versions(args: &ReadArgs) -> Result<(), Failure> {
    administer(&args.stores, async |administration| {
        let mut output = Output::new(args.json, VERSIONS)?;
        let mut before = None;
        loop {
            let page = administration.policies(before, PAGE).await?;
            for version in &page.items {
                if output.form() == Form::Json {
                    output.json(&listed_json(version))?;
                    continue;
                }
                let note = version.note.as_deref().unwrap_or("-");
                output.columns(&[
                    version.version.to_string(),
                    seconds(version.at),
                    version.principal.escape_debug().to_string(),
                    note.escape_debug().to_string(),
                ])?;
            }
            before = page.items.last().map(|version| version.version);
            if !page.more || before.is_none() {
                return Ok(output.finish()?);
            }
        }
    })
}

fn set(args: &PolicySetArgs) -> Result<(), Failure> {
    let written = read(&args.file)?;
    let made_from = match (args.if_version, written.version) {
        (Some(IfVersion::Any), _) | (None, None) => MadeFrom::Any,
        // No policy has the version 0.
        (Some(IfVersion::Version(version)), _) | (None, Some(version)) => {
            MadeFrom::Version(Some(version).filter(|version| *version > 0))
        }
    };
    let new = NewPolicy {
        form: written.form,
        source: written.source,
        note: args.note.clone(),
        made_from,
    };
    administer(&args.stores, async |administration| {
        let set = match administration.set_policy(&Author::operator(), &new).await {
            Ok(set) => set,
            Err(AdministrationError::Mistakes(mistakes)) => {
                return Err(refused(&args.file.file, &mistakes, args.json, "nothing was changed"));
            }
            Err(error) => return Err(error.into()),
        };
        let mut stdout = io::stdout();
        if args.json {
            let mut value = listed_json(&set.version);
            value["replaced"] = json!(set.replaced);
            writeln!(stdout, "{value}")?;
            for warning in &set.warnings {
                print_finding("warning", &args.file.file, warning.at, &warning.message)?;
            }
            return Ok(());
        }
        warn(&args.file.file, &set.warnings);
        let relation = match made_from {
            MadeFrom::Any => "in place of",
            MadeFrom::Version(_) => "made from",
        };
        let replaced = match set.replaced {
            None => "the default policy".to_owned(),
            Some(version) => format!("version {version}"),
        };
        writeln!(
            stdout,
            "set version {} of the policy, {relation} {replaced}; every server follows within 10 seconds",
            set.version.version
        )?;
        Ok(())
    })
}

fn check(args: &PolicyCheckArgs) -> Result<(), Failure> {
    let written = read(&args.file)?;
    let file = &args.file.file;
    let policy = parse(written.form, &written.source)
        .map_err(|mistakes| refused(file, &mistakes, args.json, "a server would refuse it"))?;
    if args.accounts {
        administer(&args.stores, async |administration| {
            warn_of(args, &policy.warnings(&administration.known_names().await?))
        })?;
    } else {
        warn_of(args, &policy.warnings(&names_of(&policy)))?;
    }
    if !args.json {
        let rules = policy.document().allow.len() + policy.document().deny.len() + policy.document().immutable.len();
        writeln!(
            io::stdout(),
            "{} in {}, no mistakes",
            count(rules as u64, "rule", "rules"),
            name(file)
        )?;
    }
    Ok(())
}

/// Every name that a policy has, as if it existed: nobody is warned of names that were not looked up.
fn names_of(policy: &Policy) -> KnownNames {
    use registry::policy::who::Who;

    let mut known = KnownNames::default();
    let document = policy.document();
    for who in document.allow.iter().chain(&document.deny).flat_map(|rule| &rule.who) {
        match who {
            Who::User(name) => known.users.extend([name.clone()]),
            Who::Robot(name) => known.robots.extend([name.to_string()]),
            Who::Group(group) => known.groups.extend([group.clone()]),
            Who::Anyone | Who::SignedIn | Who::Users | Who::Robots | Who::Workloads | Who::Workload(_) => {}
        }
    }
    known
}

fn explain_one(args: &PolicyExplainArgs) -> Result<(), Failure> {
    let principal = principal(&args.principal)?;
    let wish: Wish = args
        .action
        .parse()
        .map_err(|error| Failure::Usage(format!("{:?} is {error}", args.action)))?;
    let (repository, tag) = target(&args.target)?;
    let candidate = match &args.file {
        None => None,
        Some(file) => Some(candidate(file, args.form, args.json)?),
    };
    with_records(&args.stores, Absent::Refuse, async |records| {
        let administration = administration_of(&records);
        let (subject, account) = administration.subject(&principal).await?;
        let policy = match candidate {
            Some(policy) => PolicyInForce { version: None, policy },
            None => administration.policy_in_force().await?,
        };
        let found = look_up(&*records.metadata, cx(), &repository, tag.as_ref()).await;
        let (existence, condition) = found.map_err(|error| Failure::failed("cannot read the metadata", error))?;
        let question = Question {
            wish,
            repository: repository.clone(),
            existence,
            tag: tag.map(|tag| (tag, condition)),
            now: clock::now(),
        };
        let answer = match account {
            AccountCondition::Disabled => Explanation::of_disabled(&principal),
            AccountCondition::Enabled => explain(&policy.policy, &subject, &question),
            AccountCondition::None => explain(&policy.policy, &subject, &question).without_account(&principal),
        };
        let mut stdout = io::stdout();
        let decision = if answer.allowed { "allowed" } else { "denied" };
        if args.json {
            let value = json!({
                "decision": decision,
                "principal": principal.as_str(),
                "action": wish.as_str(),
                "repository": repository.as_str(),
                "tag": question.tag.as_ref().map(|(tag, _)| tag.as_str()),
                "rule": answer.rule.as_deref(),
                "line": answer.line,
                "reason": answer.reason,
                "version": policy.version.as_ref().map(|version| version.version),
            });
            writeln!(stdout, "{value}")?;
        } else {
            writeln!(stdout, "{decision}: {}", answer.reason)?;
        }
        Ok(())
    })
}

/// A principal as an operator writes it.
fn principal(text: &str) -> Result<Principal, Failure> {
    if text == "anonymous" {
        return Ok(Principal::ANONYMOUS);
    }
    text.parse().map_err(|error| {
        Failure::Usage(format!(
            "{text:?} is {error}; expected a user such as alice, robot:ci, workload:RULE:NAME, or anonymous"
        ))
    })
}

/// A repository, and a tag in it if there is a colon.
fn target(text: &str) -> Result<(RepositoryName, Option<Tag>), Failure> {
    let (repository, tag) = match text.split_once(':') {
        Some((repository, tag)) => (repository, Some(tag)),
        None => (text, None),
    };
    let name = repository
        .parse()
        .map_err(|error| Failure::Usage(format!("{repository:?} is not a valid name of a repository: {error}")))?;
    let tag = tag.map(|tag| {
        tag.parse()
            .map_err(|error| Failure::Usage(format!("{tag:?} is not a valid name of a tag: {error}")))
    });
    Ok((name, tag.transpose()?))
}

/// A policy from a file, in place of the one in force.
fn candidate(file: &Path, form: Option<FormWord>, json: bool) -> Result<Policy, Failure> {
    let args = PolicyFileArgs {
        file: file.to_owned(),
        form,
    };
    let written = read(&args)?;
    parse(written.form, &written.source).map_err(|mistakes| refused(file, &mistakes, json, "a server would refuse it"))
}

/// A policy in a file.
struct Written {
    form: PolicyForm,
    /// Its text, without the line that `policy show` adds.
    source: String,
    /// The version that the line names.
    version: Option<u64>,
}

/// Reads a file with a policy. If it is longer than a policy may be, only so much is read that the checker says so.
fn read(args: &PolicyFileArgs) -> Result<Written, Failure> {
    let file = args.file.as_path();
    let cannot = |error: &dyn Display| Failure::failed(format!("cannot read {}", name(file)), error);
    let mut bytes = Vec::new();
    let limit = (Policy::MAX_BYTES + version_line::MAX_BYTES) as u64 + 1;
    let done = if file == Path::new(STANDARD_INPUT) {
        io::stdin().lock().take(limit).read_to_end(&mut bytes)
    } else {
        let opened = File::open(file).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Failure::NotFound(format!("{} does not exist", file.display())),
            _ => cannot(&error),
        })?;
        opened.take(limit).read_to_end(&mut bytes)
    };
    done.map_err(|error| cannot(&error))?;
    let source = match String::from_utf8(bytes) {
        Ok(source) => source,
        // The limit may have cut a character.
        Err(error) if error.as_bytes().len() > Policy::MAX_BYTES => {
            String::from_utf8_lossy(error.as_bytes()).into_owned()
        }
        Err(error) => return Err(cannot(&error.utf8_error())),
    };
    let is_json = file.extension().is_some_and(|extension| extension == "json");
    let form = match args.form {
        Some(word) => word.into(),
        None if is_json => PolicyForm::Json,
        None => PolicyForm::Toml,
    };
    let (source, version) = match form {
        PolicyForm::Toml => version_line::take(&source),
        PolicyForm::Json => (source, None),
    };
    Ok(Written { form, source, version })
}

fn name(file: &Path) -> String {
    if file == Path::new(STANDARD_INPUT) {
        "standard input".to_owned()
    } else {
        file.display().to_string()
    }
}

/// Prints all mistakes, and sums them up as a failure.
fn refused(file: &Path, mistakes: &[Mistake], json: bool, consequence: &str) -> Failure {
    for mistake in mistakes {
        if !json {
            eprintln!("{}", located(file, mistake.at, "", &mistake.message));
        } else if let Err(error) = print_finding("mistake", file, mistake.at, &mistake.message) {
            return error.into();
        }
    }
    let number = count(mistakes.len() as u64, "mistake", "mistakes");
    Failure::Failed(format!("the policy has {number}; {consequence}"))
}

fn warn(file: &Path, warnings: &[Warning]) {
    for warning in warnings {
        eprintln!("{}", located(file, warning.at, "warning: ", &warning.message));
    }
}

fn warn_of(args: &PolicyCheckArgs, warnings: &[Warning]) -> Result<(), Failure> {
    if !args.json {
        warn(&args.file.file, warnings);
        return Ok(());
    }
    for warning in warnings {
        print_finding("warning", &args.file.file, warning.at, &warning.message)?;
    }
    Ok(())
}

/// `FILE:LINE:COLUMN: TEXT`, as compilers write it and editors read it.
fn located(file: &Path, at: Position, kind: &str, message: &str) -> String {
    format!("{}:{}:{}: {kind}{message}", name(file), at.line, at.column)
}

fn print_finding(kind: &str, file: &Path, at: Position, message: &str) -> io::Result<()> {
    let value = json!({
        "kind": kind,
        "file": name(file),
        "line": at.line,
        "column": at.column,
        "message": message,
    });
    writeln!(io::stdout(), "{value}")
}

fn description(version: &PolicyVersion) -> String {
    let by = version.principal.escape_debug();
    let note = version.note.as_ref().map(|note| format!(": {}", note.escape_debug()));
    format!(
        "version {}, set at {} by {by}{}",
        version.version,
        seconds(version.at),
        note.unwrap_or_default()
    )
}

/// A version without its document.
fn listed_json(version: &PolicyVersion) -> Value {
    json!({
        "version": version.version,
        "at": seconds(version.at),
        "principal": version.principal,
        "note": version.note,
        "form": version.form,
    })
}

fn version_json(version: &PolicyVersion) -> Value {
    let mut value = listed_json(version);
    value["source"] = json!(version.source);
    // It was written by a program that may be newer: its text then.
    value["document"] = serde_json::from_str(&version.document).unwrap_or_else(|_| json!(version.document));
    value
}

fn default_json() -> Value {
    let document = Policy::default_policy().to_canonical_json();
    json!({
        "version": null,
        "form": PolicyForm::Toml,
        "source": DEFAULT,
        "document": serde_json::from_str::<Value>(&document).unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn the_default_policy_is_what_is_printed() {
        let printed = parse(PolicyForm::Toml, DEFAULT).unwrap();
        assert_eq!(
            printed.to_canonical_json(),
            Policy::default_policy().to_canonical_json()
        );
    }

    #[test]
    fn a_target_is_a_repository_or_a_tag() {
        let read = |text: &str| {
            let (repository, tag) = target(text).ok()?;
            Some((repository.to_string(), tag.map(|tag| tag.to_string())))
        };
        assert_eq!(read("team/app"), Some(("team/app".into(), None)));
        assert_eq!(read("team/app:1.0"), Some(("team/app".into(), Some("1.0".into()))));
        for wrong in ["", "A", "a:", "a:b:c", ":a"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
        assert!(principal("anonymous").unwrap().is_anonymous());
        assert!(principal("robot:ci").is_ok() && principal("robots:ci").is_err());
    }
}
