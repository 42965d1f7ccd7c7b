//! The flags of the commands for accounts, keys, groups and signing keys.

use std::str::FromStr;

use clap::{Args, Subcommand};
use registry::auth::{AccountName, CredentialId, GroupName, RepositoryGrant};
use shell::values::Span;

use super::StoreArgs;
use super::examples;
use super::operate::ReadArgs;

#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// Add a user; the password is read from the terminal or from standard input
    #[command(after_help = examples::USER_ADD)]
    Add(UserAddArgs),
    /// List the users
    #[command(after_help = examples::USER_LIST)]
    List(ReadArgs),
    /// Show a user, with groups and keys
    #[command(after_help = examples::USER_SHOW)]
    Show(ShowArgs),
    /// Change the groups of a user
    #[command(after_help = examples::USER_SET)]
    Set(UserSetArgs),
    /// Refuse a user's password, keys and tokens until the user is enabled again
    #[command(after_help = examples::USER_DISABLE)]
    Disable(ForcedArgs),
    /// Accept the credentials of a disabled user again
    #[command(after_help = examples::USER_ENABLE)]
    Enable(NameArgs),
    /// Remove a user and the user's keys
    #[command(after_help = examples::USER_REMOVE)]
    Remove(ForcedArgs),
    /// Set the password of a user; it is read from the terminal or from standard input
    #[command(after_help = examples::USER_PASSWD)]
    Passwd(PasswdArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum RobotCommand {
    /// Add a robot, and print its key; the key is not shown again
    #[command(after_help = examples::ROBOT_ADD)]
    Add(RobotAddArgs),
    /// List the robots
    #[command(after_help = examples::ROBOT_LIST)]
    List(ReadArgs),
    /// Show a robot, with grants, groups and keys
    #[command(after_help = examples::ROBOT_SHOW)]
    Show(ShowArgs),
    /// Change the grants and groups of a robot
    #[command(after_help = examples::ROBOT_SET)]
    Set(RobotSetArgs),
    /// Refuse a robot's keys and tokens until the robot is enabled again
    #[command(after_help = examples::ROBOT_DISABLE)]
    Disable(ForcedArgs),
    /// Accept the keys of a disabled robot again
    #[command(after_help = examples::ROBOT_ENABLE)]
    Enable(NameArgs),
    /// Remove a robot and its keys
    #[command(after_help = examples::ROBOT_REMOVE)]
    Remove(ForcedArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Add a key to a user or robot, and print it; it is not shown again
    #[command(after_help = examples::KEY_ADD)]
    Add(KeyAddArgs),
    /// List the keys of a user or robot
    #[command(after_help = examples::KEY_LIST)]
    List(ShowArgs),
    /// Add a key with the scope of another one, which ends later, and print the new one
    #[command(after_help = examples::KEY_ROTATE)]
    Rotate(KeyRotateArgs),
    /// Remove a key
    #[command(after_help = examples::KEY_REMOVE)]
    Remove(KeyRemoveArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum GroupCommand {
    /// List the groups of all accounts, with their members
    #[command(after_help = examples::GROUP_LIST)]
    List(ReadArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum SigningKeyCommand {
    /// List the keys that sign and verify tokens
    #[command(after_help = examples::SIGNING_KEY_LIST)]
    List(ReadArgs),
    /// Sign tokens with a new key
    #[command(after_help = examples::SIGNING_KEY_ROTATE)]
    Rotate(SigningKeyRotateArgs),
}

#[derive(Args, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
pub(crate) struct UserAddArgs {
    /// The user's name
    pub(crate) name: AccountName,
    /// Make the user an administrator: a member of the group admins
    #[arg(long)]
    pub(crate) admin: bool,
    /// A group of the user. May be repeated, or separated by commas
    #[arg(long, value_name = "GROUP", value_delimiter = ',')]
    pub(crate) group: Vec<GroupName>,
    /// Read the password from standard input, even if that is a terminal
    #[arg(long, conflicts_with = "no_password")]
    pub(crate) password_stdin: bool,
    /// Add the user without a password; `roadstead key add` makes a key, `roadstead user passwd` sets a password
    #[arg(long)]
    pub(crate) no_password: bool,
    /// Print the user as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) stores: StoreArgs,
}

#[derive(Args, Debug)]
pub(crate) struct RobotAddArgs {
    /// The robot's name
    pub(crate) name: AccountName,
    /// What the robot may do besides what the policy allows, as ACTIONS:REPOSITORIES: pull, create (a push that moves no
    /// tag), push and delete, with commas between them, and a pattern. May be repeated
    #[arg(long, value_name = "GRANT", value_parser = auth::grant::parse)]
    pub(crate) allow: Vec<RepositoryGrant>,
    /// A group of the robot. May be repeated, or separated by commas
    #[arg(long, value_name = "GROUP", value_delimiter = ',')]
    pub(crate) group: Vec<GroupName>,
    /// When the key ends: a duration such as 90d, at most 365d, or `never`
    #[arg(long, value_name = "DURATION")]
    pub(crate) expires: Expiry,
    /// Print the robot and its key as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) stores: StoreArgs,
}

#[derive(Args, Debug)]
pub(crate) struct NameArgs {
    /// The account's name
    pub(crate) name: AccountName,
    /// Print the account as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) stores: StoreArgs,
}

#[derive(Args, Debug)]
pub(crate) struct ShowArgs {
    /// The account's name
    pub(crate) name: AccountName,
    #[command(flatten)]
    pub(crate) read: ReadArgs,
}

#[derive(Args, Debug)]
pub(crate) struct ForcedArgs {
    #[command(flatten)]
    pub(crate) account: NameArgs,
    /// Do it even if this is the last enabled administrator
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Args, Debug)]
pub(crate) struct UserSetArgs {
    #[command(flatten)]
    pub(crate) account: NameArgs,
    #[command(flatten)]
    pub(crate) groups: GroupArgs,
}

#[derive(Args, Debug)]
pub(crate) struct RobotSetArgs {
    #[command(flatten)]
    pub(crate) account: NameArgs,
    /// A grant that the robot gets, as ACTIONS:REPOSITORIES. May be repeated
    #[arg(long, value_name = "GRANT", value_parser = auth::grant::parse)]
    pub(crate) allow: Vec<RepositoryGrant>,
    /// A grant that the robot loses: the actions are taken from its grant for the same pattern. May be repeated
    #[arg(long, value_name = "GRANT", value_parser = auth::grant::parse)]
    pub(crate) disallow: Vec<RepositoryGrant>,
    #[command(flatten)]
    pub(crate) groups: GroupArgs,
}

#[derive(Args, Debug)]
pub(crate) struct GroupArgs {
    /// A group that the account joins. May be repeated, or separated by commas
    #[arg(long, value_name = "GROUP", value_delimiter = ',')]
    pub(crate) add_group: Vec<GroupName>,
    /// A group that the account leaves. May be repeated, or separated by commas
    #[arg(long, value_name = "GROUP", value_delimiter = ',')]
    pub(crate) remove_group: Vec<GroupName>,
    /// Do it even if the last enabled administrator leaves the group admins
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Args, Debug)]
pub(crate) struct PasswdArgs {
    #[command(flatten)]
    pub(crate) account: NameArgs,
    /// Read the password from standard input, even if that is a terminal
    #[arg(long)]
    pub(crate) password_stdin: bool,
}

#[derive(Args, Debug)]
pub(crate) struct KeyAddArgs {
    /// The user or robot
    pub(crate) account: AccountName,
    /// When the key ends: a duration such as 90d, at most 365d, or `never`
    #[arg(long, value_name = "DURATION")]
    pub(crate) expires: Expiry,
    /// What the key may be used for, at most, as ACTIONS:REPOSITORIES; it never allows more than the account may do. May be
    /// repeated [default: whatever the account may do]
    #[arg(long, value_name = "SCOPE", value_parser = auth::grant::parse)]
    pub(crate) scope: Vec<RepositoryGrant>,
    /// Print the key as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) stores: StoreArgs,
}

#[derive(Args, Debug)]
pub(crate) struct KeyRotateArgs {
    /// The user or robot
    pub(crate) account: AccountName,
    /// The id of the key to replace [default: the account's only key]
    pub(crate) id: Option<CredentialId>,
    /// When the new key ends: a duration such as 90d, at most 365d, or `never`
    #[arg(long, value_name = "DURATION")]
    pub(crate) expires: Expiry,
    /// For how long the old key still works; `0` removes it at once
    #[arg(long, value_name = "DURATION", default_value = "24h")]
    pub(crate) overlap: Overlap,
    /// Print the new key as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) stores: StoreArgs,
}

#[derive(Args, Debug)]
pub(crate) struct KeyRemoveArgs {
    /// The user or robot
    pub(crate) account: AccountName,
    /// The id of the key
    pub(crate) id: CredentialId,
    /// Print the removed key as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) stores: StoreArgs,
}

#[derive(Args, Debug)]
pub(crate) struct SigningKeyRotateArgs {
    /// Refuse all tokens that older keys have signed. For a key that others may know
    #[arg(long)]
    pub(crate) now: bool,
    /// For how long the new key is published before it signs; 2s to 24h. More than the default is for programs that verify
    /// tokens themselves and read the public keys rarely
    #[arg(long, value_name = "DURATION", default_value = "30s", conflicts_with = "now")]
    pub(crate) publish_ahead: PublishAhead,
    /// Print the new key as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) stores: StoreArgs,
}

/// When a key ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expiry {
    /// It does not end.
    Never,
    /// After this time.
    After(Span),
}

impl FromStr for Expiry {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "never" => Ok(Self::Never),
            _ => text
                .parse()
                .map(Self::After)
                .map_err(|_| "expected a duration from 1s to 365d, such as 90d, or never".into()),
        }
    }
}

/// For how long a key works beside its successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Overlap {
    /// The time in milliseconds; 0: not at all.
    pub(crate) millis: u64,
}

impl FromStr for Overlap {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "0" {
            return Ok(Self { millis: 0 });
        }
        let Span(duration) = text
            .parse()
            .map_err(|_| "expected 0, or a duration from 1s to 365d, such as 24h")?;
        let millis = u64::try_from(duration.as_millis()).map_err(|_| "too long")?;
        Ok(Self { millis })
    }
}

/// For how long a signing key is published before it signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PublishAhead {
    /// The time in milliseconds.
    pub(crate) millis: u64,
}

impl PublishAhead {
    /// The minimum in milliseconds: a server reads the keys for an unknown one at most once a second.
    const MIN_MS: u64 = 2_000;
    const MAX_MS: u64 = 24 * 60 * 60 * 1000;
}

impl FromStr for PublishAhead {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = "expected a duration from 2s to 24h";
        let Span(duration) = text.parse().map_err(|_| expected)?;
        match u64::try_from(duration.as_millis()) {
            Ok(millis @ Self::MIN_MS..=Self::MAX_MS) => Ok(Self { millis }),
            _ => Err(expected.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::time::Duration;

    use auth::administration::signing_keys::Rotation;

    use super::*;

    #[test]
    fn the_end_of_a_key_is_a_duration_or_never() {
        let days = |days: u64| Ok(Expiry::After(Span(Duration::from_hours(24 * days))));
        assert_eq!("90d".parse(), days(90));
        assert_eq!("never".parse(), Ok(Expiry::Never));
        for wrong in ["", "0", "Never", "366d", "-1d", "1y"] {
            assert!(wrong.parse::<Expiry>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_overlap_may_be_nothing() {
        assert_eq!("0".parse::<Overlap>().unwrap().millis, 0);
        assert_eq!("24h".parse::<Overlap>().unwrap().millis, 86_400_000);
        for wrong in ["", "never", "0s", "366d"] {
            assert!(wrong.parse::<Overlap>().is_err(), "{wrong}");
        }
    }

    /// The default of the flag is that of the API.
    #[test]
    fn a_signing_key_is_published_for_two_seconds_to_a_day() {
        for (text, millis) in [("2s", 2_000), ("30s", Rotation::PUBLISHED_MS), ("24h", 86_400_000)] {
            assert_eq!(text.parse(), Ok(PublishAhead { millis }), "{text}");
        }
        for wrong in ["", "0", "1s", "1999ms", "25h", "never"] {
            assert!(wrong.parse::<PublishAhead>().is_err(), "{wrong}");
        }
    }
}
