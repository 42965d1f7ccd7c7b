//! `roadstead signing-key`.

use std::io::{self, Write as _};

use auth::administration::Author;
use auth::administration::signing_keys::{Rotation, SigningKeyCondition, SigningKeyEntry};
use serde_json::{Value, json};
use shell::timestamp::seconds;

use super::accounts::administer;
use super::output::{Form, Output};
use crate::cli::{ReadArgs, SigningKeyCommand, SigningKeyRotateArgs};
use crate::failure::Failure;

const LIST: &[(&str, usize)] = &[("KEY", 16), ("CONDITION", 9), ("SIGNS FROM", 20), ("VERIFIES UNTIL", 0)];

/// Runs a command.
pub(super) fn run(command: &SigningKeyCommand) -> Result<(), Failure> {
    match command {
        SigningKeyCommand::List(read) => list(read),
        SigningKeyCommand::Rotate(args) => rotate(args),
    }
}

fn list(args: &ReadArgs) -> Result<(), Failure> {
    administer(&args.stores, async |administration| {
        let mut output = Output::new(args.json, LIST)?;
        for entry in administration.signing_keys().await? {
            if output.form() == Form::Json {
                output.json(&entry_json(&entry))?;
                continue;
            }
            let until = entry.key.until.map_or("-".to_owned(), seconds);
            output.columns(&[
                entry.key.kid.to_string(),
                entry.condition.as_str().to_owned(),
                seconds(entry.key.from),
                until,
            ])?;
        }
        Ok(output.finish()?)
    })
}

fn rotate(args: &SigningKeyRotateArgs) -> Result<(), Failure> {
    let rotation = if args.now {
        Rotation::Now
    } else {
        Rotation::Published(args.publish_ahead.millis)
    };
    administer(&args.stores, async |administration| {
        let entry = administration
            .rotate_signing_keys(&Author::operator(), rotation)
            .await?;
        let mut stdout = io::stdout();
        if args.json {
            writeln!(stdout, "{}", entry_json(&entry))?;
        } else if args.now {
            writeln!(
                stdout,
                "the key {} signs now; all tokens of older keys are refused within 10 seconds, unless servers have their keys \
                 in a file (--token-key-file)",
                entry.key.kid
            )?;
        } else if entry.condition == SigningKeyCondition::Signing {
            writeln!(stdout, "the key {} signs now; there was no other key", entry.key.kid)?;
        } else {
            writeln!(
                stdout,
                "the key {} signs from {}; older keys verify their tokens until these have ended",
                entry.key.kid,
                seconds(entry.key.from)
            )?;
        }
        Ok(())
    })
}

fn entry_json(entry: &SigningKeyEntry) -> Value {
    json!({
        "kid": entry.key.kid,
        "x": entry.key.x,
        "condition": entry.condition.as_str(),
        "from": seconds(entry.key.from),
        "until": entry.key.until.map(seconds),
    })
}
