//! The authenticator over a real file. Time is moved by hand where it can be: no test waits for it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tempfile::TempDir;

use super::watched::MAX_FILE;
use super::*;

/// A folder with a file of users, all with the cheapest hashes.
struct Fixture {
    folder: TempDir,
}

impl Fixture {
    fn new(users: &[(&str, &str)]) -> Self {
        let fixture = Self {
            folder: TempDir::new().unwrap(),
        };
        fixture.write(&lines(users));
        fixture
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("users")
    }

    fn write(&self, text: &str) {
        std::fs::write(self.path(), text).unwrap();
    }

    fn open(&self) -> Htpasswd {
        Htpasswd::open(&self.path(), turns()).unwrap()
    }
}

fn turns() -> Arc<PasswordTurns> {
    Arc::new(PasswordTurns::new())
}

/// One turn at a time, for which a request waits so long.
fn one_turn(timeout: Duration) -> Arc<PasswordTurns> {
    let mut turns = PasswordTurns::of(1);
    turns.timeout = timeout;
    Arc::new(turns)
}

fn lines(users: &[(&str, &str)]) -> String {
    use std::fmt::Write as _;
    users.iter().fold(String::new(), |mut text, (user, password)| {
        writeln!(text, "{user}:{}", bcrypt::hash(password, 4).unwrap()).unwrap();
        text
    })
}

/// The line of a user whose hash is of the kind that is made unless another is asked for.
fn argon2id_line(user: &str, password: &str) -> String {
    use argon2::PasswordHasher as _;
    let cheap = argon2::Argon2::from(argon2::Params::new(64, 1, 1, None).unwrap());
    let hash = cheap.hash_password_with_salt(password.as_bytes(), b"a salt of bytes.");
    format!("{user}:{}\n", hash.unwrap())
}

fn basic<'a>(user: &'a str, password: &'a str) -> (&'a str, &'a str) {
    (user, password)
}

const HERE: ClientKey = ClientKey::INTERNAL;

fn elsewhere() -> ClientKey {
    ClientKey::of([192, 0, 2, 1].into())
}

/// The name of the user who is let in, or the status of the refusal.
async fn login(htpasswd: &Htpasswd, credentials: (&str, &str)) -> String {
    login_from(HERE, htpasswd, credentials).await
}

async fn login_from(client: ClientKey, htpasswd: &Htpasswd, (user, password): (&str, &str)) -> String {
    let known = htpasswd.known(client, user, password).await;
    let checked = match known {
        Some(is_right) => Ok(is_right),
        None => htpasswd.verify(client, user, password).await,
    };
    match checked {
        Ok(true) => user.into(),
        Ok(false) => "401".into(),
        Err(AuthenticationError::Unavailable(_) | AuthenticationError::TooManyRequests) => "503".into(),
        Err(error) => panic!("the file has no tokens, and counts no attempts: {error:?}"),
    }
}

/// Makes the next request look at the file, as if a second had passed.
fn a_second_later(htpasswd: &Htpasswd) {
    htpasswd.file.a_second_later();
}

#[tokio::test]
async fn only_users_with_their_passwords_are_let_in() {
    let fixture = Fixture::new(&[("alice", "secret"), ("bob", "pässword:with:colons")]);
    let htpasswd = fixture.open();
    for _ in 0..2 {
        assert_eq!(login(&htpasswd, basic("alice", "secret")).await, "alice");
        assert_eq!(login(&htpasswd, basic("bob", "pässword:with:colons")).await, "bob");
        for wrong in [
            basic("alice", "Secret"),
            basic("alice", ""),
            basic("Alice", "secret"),
            basic("carol", "secret"),
        ] {
            assert_eq!(login(&htpasswd, wrong).await, "401");
        }
        assert_eq!(
            login(&htpasswd, basic("bob", "secret")).await,
            "401",
            "a password of another user"
        );
    }
}

/// Removals are believed at the second look: the file changed just now, and may be half written.
#[tokio::test]
async fn a_changed_file_takes_effect_and_a_revoked_user_is_out_whatever_was_remembered() {
    let fixture = Fixture::new(&[("alice", "secret"), ("bob", "secret")]);
    let htpasswd = fixture.open();
    assert_eq!(login(&htpasswd, basic("alice", "secret")).await, "alice");
    assert!(htpasswd.generation("alice").await.is_some());
    fixture.write(&lines(&[("bob", "secret"), ("carol", "secret")]));
    a_second_later(&htpasswd);
    assert_eq!(login(&htpasswd, basic("alice", "secret")).await, "alice");
    a_second_later(&htpasswd);
    assert_eq!(login(&htpasswd, basic("alice", "secret")).await, "401");
    assert_eq!(htpasswd.generation("alice").await, None);
    assert_eq!(login(&htpasswd, basic("carol", "secret")).await, "carol");
    // A new password ends the old one at once, although the old one was remembered as right.
    assert_eq!(login(&htpasswd, basic("bob", "secret")).await, "bob");
    fixture.write(&lines(&[("carol", "secret"), ("bob", "other")]));
    a_second_later(&htpasswd);
    assert_eq!(login(&htpasswd, basic("bob", "secret")).await, "401");
    assert_eq!(login(&htpasswd, basic("bob", "other")).await, "bob");
    // So does the signal to read it again, which also removes at once.
    fixture.write(&lines(&[("carol", "secret")]));
    htpasswd.reload().await;
    assert_eq!(login(&htpasswd, basic("bob", "other")).await, "401");
    assert_eq!(login(&htpasswd, basic("carol", "secret")).await, "carol");
}

/// A removed user may share a hash, and so a password, with one who stays: lines are copied.
#[tokio::test]
async fn a_revoked_user_with_the_hash_of_another_is_out() {
    let hash = bcrypt::hash("secret", 4).unwrap();
    let fixture = Fixture::new(&[]);
    fixture.write(&format!("alice:{hash}\nbob:{hash}\n"));
    let htpasswd = fixture.open();
    assert_eq!(login(&htpasswd, basic("alice", "secret")).await, "alice");
    fixture.write(&format!("bob:{hash}\n"));
    htpasswd.reload().await;
    assert_eq!(login(&htpasswd, basic("alice", "secret")).await, "401");
    assert_eq!(login(&htpasswd, basic("bob", "secret")).await, "bob");
}

#[tokio::test]
async fn a_change_within_the_grain_of_time_stamps_is_seen() {
    let fixture = Fixture::new(&[("alice", "first1")]);
    let htpasswd = fixture.open();
    // The same length, the same inode, moments later: only reading again tells.
    for password in ["second", "third3", "fourth"] {
        fixture.write(&lines(&[("alice", password)]));
        a_second_later(&htpasswd);
        assert_eq!(login(&htpasswd, basic("alice", password)).await, "alice");
    }
}

/// Makes a file unusable.
type Ruin = fn(&Fixture);

/// Whatever happens to the file, who was in stays in, however often it is looked at, and also when the server is asked
/// to read it again.
#[tokio::test]
async fn a_broken_file_locks_no_user_out() {
    let ruins: [(&str, Ruin, &str); 11] = [
        ("plain text", |fixture| fixture.write("alice:plain"), "line 1"),
        ("no colon", |fixture| fixture.write("# users\nalice"), "line 2"),
        ("cut in a line", |fixture| fixture.write("alice:$2y$05$cut"), "line 1"),
        (
            "binary",
            |fixture| std::fs::write(fixture.path(), [0, 159, 146, 150]).unwrap(),
            "line 1",
        ),
        (
            "Latin-1",
            |fixture| std::fs::write(fixture.path(), b"# caf\xe9").unwrap(),
            "line 1",
        ),
        ("empty", |fixture| fixture.write(""), "no user"),
        ("blank", |fixture| fixture.write(" \n\r\n"), "no user"),
        (
            "removed",
            |fixture| std::fs::remove_file(fixture.path()).unwrap(),
            "cannot be read",
        ),
        (
            "a folder",
            |fixture| {
                std::fs::remove_file(fixture.path()).unwrap();
                std::fs::create_dir(fixture.path()).unwrap();
            },
            "cannot be read",
        ),
        (
            "a link to nothing",
            |fixture| {
                std::fs::remove_file(fixture.path()).unwrap();
                std::os::unix::fs::symlink("nothing", fixture.path()).unwrap();
            },
            "cannot be read",
        ),
        (
            "too large",
            |fixture| {
                std::fs::File::create(fixture.path())
                    .unwrap()
                    .set_len(MAX_FILE + 1)
                    .unwrap();
            },
            "larger",
        ),
    ];
    for (what, ruin, complaint) in ruins {
        let fixture = Fixture::new(&[("alice", "secret")]);
        let htpasswd = fixture.open();
        ruin(&fixture);
        for _ in 0..3 {
            a_second_later(&htpasswd);
            assert_eq!(login(&htpasswd, basic("alice", "secret")).await, "alice", "{what}");
            assert!(htpasswd.generation("alice").await.is_some(), "{what}");
        }
        htpasswd.reload().await;
        assert_eq!(login(&htpasswd, basic("alice", "secret")).await, "alice", "{what}");
        let reported = htpasswd.file.complaint().expect(what);
        assert!(reported.contains(complaint), "{what}: {reported}");
        // Mended, it counts again.
        let _ = std::fs::remove_dir(fixture.path());
        let _ = std::fs::remove_file(fixture.path());
        fixture.write(&lines(&[("bob", "secret")]));
        htpasswd.reload().await;
        assert_eq!(login(&htpasswd, basic("bob", "secret")).await, "bob", "{what}");
        assert_eq!(login(&htpasswd, basic("alice", "secret")).await, "401", "{what}");
        assert_eq!(htpasswd.file.complaint(), None, "{what}");
    }
}

/// Replaced by what is no file, it must not hold the thread that looks.
#[tokio::test]
async fn a_file_that_has_become_a_pipe_blocks_no_login() {
    let fixture = Fixture::new(&[("alice", "secret")]);
    let htpasswd = fixture.open();
    std::fs::remove_file(fixture.path()).unwrap();
    let made = std::process::Command::new("mkfifo")
        .arg(fixture.path())
        .status()
        .unwrap();
    assert!(made.success());
    htpasswd.reload().await;
    a_second_later(&htpasswd);
    assert_eq!(login(&htpasswd, basic("alice", "secret")).await, "alice");
}

/// An editor that empties the file and writes it again, line by line, with a look after each step.
#[tokio::test]
async fn a_file_that_is_written_in_steps_locks_no_user_out() {
    let fixture = Fixture::new(&[("alice", "secret"), ("bob", "secret")]);
    let htpasswd = fixture.open();
    let whole = lines(&[("alice", "secret"), ("bob", "secret"), ("carol", "secret")]);
    for length in [
        0,
        10,
        whole.find("bob").unwrap(),
        whole.find("carol").unwrap(),
        whole.len(),
    ] {
        fixture.write(&whole[..length]);
        a_second_later(&htpasswd);
        for user in ["alice", "bob"] {
            assert_eq!(login(&htpasswd, basic(user, "secret")).await, user, "{length}");
        }
    }
    assert_eq!(login(&htpasswd, basic("carol", "secret")).await, "carol");
    // Replaced as a whole, by another file with another name before.
    let other = fixture.folder.path().join("other");
    std::fs::write(
        &other,
        lines(&[("alice", "secret"), ("bob", "new"), ("carol", "secret")]),
    )
    .unwrap();
    std::fs::rename(&other, fixture.path()).unwrap();
    a_second_later(&htpasswd);
    assert_eq!(login(&htpasswd, basic("bob", "new")).await, "bob");
}

/// The same, byte by byte, or with a disk that is full: every cut of the last line is met, in each kind of hash. Nothing
/// marks the end of an argon2id hash, and one that is cut can be decoded at every fourth length.
#[tokio::test]
async fn a_line_that_is_cut_anywhere_locks_no_user_out() {
    for (kind, last) in [
        ("argon2id", argon2id_line("bob", "secret")),
        ("bcrypt", lines(&[("bob", "secret")])),
    ] {
        let fixture = Fixture::new(&[]);
        let first = argon2id_line("alice", "secret");
        let whole = format!("{first}{last}");
        fixture.write(&whole);
        let htpasswd = fixture.open();
        for length in first.len() + 1..=whole.len() {
            fixture.write(&whole[..length]);
            a_second_later(&htpasswd);
            for user in ["alice", "bob"] {
                let outcome = login(&htpasswd, basic(user, "secret")).await;
                assert_eq!(outcome, user, "{kind}, cut at {length}: {}", &whole[..length]);
            }
            let usable = length + 1 >= whole.len();
            assert_eq!(htpasswd.file.complaint().is_none(), usable, "{kind}, cut at {length}");
        }
    }
}

/// What `roadstead htpasswd --delete` leaves of the last user.
#[tokio::test]
async fn a_file_that_says_that_there_is_no_user_is_believed() {
    let fixture = Fixture::new(&[("alice", "secret")]);
    let htpasswd = fixture.open();
    let text = std::fs::read_to_string(fixture.path()).unwrap();
    fixture.write(&edit::remove(&text, "alice").text);
    for _ in 0..2 {
        a_second_later(&htpasswd);
        let _ = htpasswd.generation("alice").await;
    }
    assert_eq!(login(&htpasswd, basic("alice", "secret")).await, "401");
    assert!(matches!(
        Htpasswd::open(&fixture.path(), turns()),
        Err(FileError::NoUsers)
    ));
}

#[tokio::test]
async fn the_file_is_looked_at_only_now_and_then() {
    let fixture = Fixture::new(&[("alice", "secret")]);
    let htpasswd = fixture.open();
    htpasswd.file.never_look();
    std::fs::remove_file(fixture.path()).unwrap();
    assert_eq!(login(&htpasswd, basic("alice", "secret")).await, "alice");
    assert_eq!(htpasswd.file.complaint(), None);
}

/// Everything that must be checked waits for its turn; what was right or just wrong before does not. An unknown user
/// waits like a known one: what they cost does not show which of the two it was.
#[tokio::test]
async fn s20_checks_are_bounded_and_unknown_users_cost_what_known_ones_cost() {
    let fixture = Fixture::new(&[("alice", "secret"), ("bob", "secret")]);
    let mut htpasswd = fixture.open();
    htpasswd.turns = one_turn(Duration::from_millis(20));
    assert_eq!(login(&htpasswd, basic("alice", "secret")).await, "alice");
    assert_eq!(login(&htpasswd, basic("alice", "wrong")).await, "401");
    let turn = htpasswd.turns.wait("somebody", elsewhere()).await.unwrap();
    // Also from where alice never was, and however many guess.
    for origin in [HERE, elsewhere()] {
        assert_eq!(login_from(origin, &htpasswd, basic("alice", "secret")).await, "alice");
    }
    assert_eq!(login(&htpasswd, basic("alice", "wrong")).await, "401");
    assert_eq!(login_from(elsewhere(), &htpasswd, basic("alice", "wrong")).await, "503");
    assert_eq!(login(&htpasswd, basic("bob", "secret")).await, "503");
    assert_eq!(login(&htpasswd, basic("bob", "wrong")).await, "503");
    assert_eq!(login(&htpasswd, basic("nobody", "secret")).await, "503");
    drop(turn);
    assert_eq!(login(&htpasswd, basic("bob", "secret")).await, "bob");
    assert_eq!(login(&htpasswd, basic("nobody", "secret")).await, "401");
}

/// As long as the line stands, and only that long.
#[tokio::test]
async fn a_right_password_stays_right_until_its_line_changes() {
    let fixture = Fixture::new(&[("alice", "secret"), ("bob", "secret")]);
    let mut htpasswd = fixture.open();
    htpasswd.turns = one_turn(Duration::from_millis(20));
    assert_eq!(login(&htpasswd, basic("alice", "secret")).await, "alice");
    let turn = htpasswd.turns.wait("somebody", elsewhere()).await.unwrap();
    // The lines of others change, the order, and everything around them.
    let text = std::fs::read_to_string(fixture.path()).unwrap();
    let (alice, _) = text.split_once('\n').unwrap();
    fixture.write(&format!(
        "{}# new\n{alice}\n",
        lines(&[("bob", "new"), ("carol", "secret")])
    ));
    htpasswd.reload().await;
    assert_eq!(login(&htpasswd, basic("alice", "secret")).await, "alice");
    // The same password with a new salt is a new line.
    fixture.write(&lines(&[("alice", "secret"), ("bob", "new"), ("carol", "secret")]));
    htpasswd.reload().await;
    assert_eq!(login(&htpasswd, basic("alice", "secret")).await, "503");
    drop(turn);
    assert_eq!(login(&htpasswd, basic("alice", "secret")).await, "alice");
}

/// The file may change while a request waits for its turn, and what it says then counts.
#[tokio::test]
async fn a_user_who_is_removed_while_waiting_for_a_turn_is_out() {
    let fixture = Fixture::new(&[("alice", "secret"), ("bob", "old"), ("carol", "secret")]);
    let mut htpasswd = fixture.open();
    htpasswd.turns = Arc::new(PasswordTurns::of(1));
    let turn = htpasswd.turns.wait("somebody", elsewhere()).await.unwrap();
    let asked = async {
        tokio::join!(
            login(&htpasswd, basic("alice", "secret")),
            login(&htpasswd, basic("bob", "old")),
            login(&htpasswd, basic("bob", "new")),
            login(&htpasswd, basic("carol", "secret")),
        )
    };
    let changed = async {
        // The requests are polled first, and wait.
        tokio::task::yield_now().await;
        fixture.write(&lines(&[("bob", "new"), ("carol", "secret")]));
        htpasswd.reload().await;
        drop(turn);
    };
    let (outcomes, ()) = tokio::join!(asked, changed);
    assert_eq!(outcomes, ("401".into(), "401".into(), "bob".into(), "carol".into()));
}

/// The same while the password is checked, which takes a while too.
#[tokio::test]
async fn a_user_who_is_removed_while_the_password_is_checked_is_out() {
    let fixture = Fixture::new(&[]);
    let costly = bcrypt::hash("secret", 11).unwrap();
    fixture.write(&format!("alice:{costly}\nbob:{costly}\n"));
    let mut htpasswd = fixture.open();
    htpasswd.turns = Arc::new(PasswordTurns::of(1));
    let checking = AtomicBool::new(true);
    let asked = async {
        let outcome = login(&htpasswd, basic("alice", "secret")).await;
        checking.store(false, Ordering::Relaxed);
        outcome
    };
    let removed = async {
        while htpasswd.turns.free() > 0 {
            tokio::task::yield_now().await;
        }
        fixture.write(&format!("bob:{costly}\n"));
        htpasswd.reload().await;
        assert!(
            checking.load(Ordering::Relaxed),
            "it was checked before the file was read"
        );
    };
    let (outcome, ()) = tokio::join!(asked, removed);
    assert_eq!(outcome, "401");
}

/// A request that ends early while its password is checked must not free a turn for another check: the work goes on
/// all the same.
#[tokio::test]
async fn a_check_keeps_its_turn_when_its_client_leaves() {
    let fixture = Fixture::new(&[]);
    // Expensive enough that it cannot have ended when this test looks.
    fixture.write(&format!(
        "alice:{}\n",
        bcrypt::hash("secret", 4).unwrap().replacen("$04$", "$13$", 1)
    ));
    let mut htpasswd = fixture.open();
    htpasswd.turns = Arc::new(PasswordTurns::of(1));
    {
        let asked = htpasswd.verify(HERE, "alice", "secret");
        let given_up = tokio::time::timeout(Duration::from_millis(20), asked).await;
        assert!(given_up.is_err());
    }
    assert_eq!(htpasswd.turns.free(), 0);
    let turns = Arc::get_mut(&mut htpasswd.turns).unwrap();
    turns.timeout = Duration::from_mins(1);
    let turn = htpasswd.turns.wait("bob", elsewhere()).await;
    assert!(turn.is_ok());
}

#[test]
fn a_file_without_users_or_that_is_absent_does_not_open() {
    let fixture = Fixture::new(&[]);
    assert!(matches!(
        Htpasswd::open(&fixture.path(), turns()),
        Err(FileError::NoUsers)
    ));
    fixture.write("# nobody\n");
    assert!(matches!(
        Htpasswd::open(&fixture.path(), turns()),
        Err(FileError::NoUsers)
    ));
    let absent = fixture.folder.path().join("absent");
    assert!(matches!(Htpasswd::open(&absent, turns()), Err(FileError::Io(_))));
    std::fs::File::create(fixture.path())
        .unwrap()
        .set_len(MAX_FILE + 1)
        .unwrap();
    assert!(matches!(
        Htpasswd::open(&fixture.path(), turns()),
        Err(FileError::TooLarge)
    ));
}

/// What stands for a password in tokens changes with the line, and with nothing else.
#[tokio::test]
async fn the_generation_of_a_user_changes_with_the_line() {
    let fixture = Fixture::new(&[("alice", "secret"), ("bob", "secret")]);
    let htpasswd = fixture.open();
    let before = htpasswd.generation("alice").await.unwrap();
    assert_ne!(htpasswd.generation("bob").await, Some(before));
    assert_eq!(htpasswd.generation("nobody").await, None);
    let text = std::fs::read_to_string(fixture.path()).unwrap();
    fixture.write(&format!("# a comment\n{text}"));
    htpasswd.reload().await;
    assert_eq!(htpasswd.generation("alice").await, Some(before));
    fixture.write(&lines(&[("alice", "secret"), ("bob", "secret")]));
    htpasswd.reload().await;
    assert_ne!(htpasswd.generation("alice").await, Some(before), "a new salt");
}
