//! The authenticator over a real file. Time is moved by hand where it can be: no test waits for it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use tempfile::TempDir;

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
        Htpasswd::open(&self.path(), None).unwrap()
    }
}

fn lines(users: &[(&str, &str)]) -> String {
    use std::fmt::Write as _;
    users.iter().fold(String::new(), |mut text, (user, password)| {
        writeln!(text, "{user}:{}", bcrypt::hash(password, 4).unwrap()).unwrap();
        text
    })
}

fn basic(user: &str, password: &str) -> Credentials {
    Credentials::Basic {
        user: user.into(),
        password: password.into(),
    }
}

/// Who is let in, as a word.
async fn verdict(htpasswd: &Htpasswd, credentials: Credentials) -> String {
    match htpasswd.authenticate(&credentials).await {
        Ok(identity) => identity.principal().to_string(),
        Err(AuthenticationError::Unauthenticated) => "401".into(),
        Err(AuthenticationError::Unavailable(_)) => "503".into(),
    }
}

/// Makes the next request look at the file, as if a second had passed.
fn a_second_later(htpasswd: &Htpasswd) {
    htpasswd.look_at.store(0, Ordering::Release);
}

#[tokio::test]
async fn users_are_let_in_with_their_passwords_and_nobody_else() {
    let fixture = Fixture::new(&[("alice", "secret"), ("bob", "pässword:with:colons")]);
    let htpasswd = fixture.open();
    for _ in 0..2 {
        assert_eq!(verdict(&htpasswd, basic("alice", "secret")).await, "alice");
        assert_eq!(verdict(&htpasswd, basic("bob", "pässword:with:colons")).await, "bob");
        for wrong in [
            basic("alice", "Secret"),
            basic("alice", ""),
            basic("Alice", "secret"),
            basic("carol", "secret"),
        ] {
            assert_eq!(verdict(&htpasswd, wrong).await, "401");
        }
        assert_eq!(
            verdict(&htpasswd, basic("bob", "secret")).await,
            "401",
            "a password of somebody else"
        );
        assert_eq!(verdict(&htpasswd, Credentials::Absent).await, "401");
        assert_eq!(verdict(&htpasswd, Credentials::Unreadable).await, "401");
    }
    assert_eq!(
        htpasswd.challenge().unwrap(),
        r#"Basic realm="roadstead", charset="UTF-8""#
    );
}

#[tokio::test]
async fn requests_without_credentials_may_do_what_was_allowed_and_wrong_ones_nothing() {
    let fixture = Fixture::new(&[("alice", "secret")]);
    let htpasswd = Htpasswd::open(&fixture.path(), Some(Ceiling::PullOnly)).unwrap();
    let nobody = htpasswd.authenticate(&Credentials::Absent).await.unwrap();
    assert_eq!(nobody.principal(), &Principal::Anonymous);
    assert!(!nobody.is_unrestricted());
    assert!(
        htpasswd
            .authenticate(&basic("alice", "secret"))
            .await
            .unwrap()
            .is_unrestricted()
    );
    assert_eq!(verdict(&htpasswd, basic("alice", "wrong")).await, "401");
    assert_eq!(htpasswd.recall(&Principal::Anonymous).await.unwrap(), nobody);
}

#[tokio::test]
async fn a_changed_file_takes_effect_and_a_revoked_user_is_out_whatever_was_remembered() {
    let fixture = Fixture::new(&[("alice", "secret"), ("bob", "secret")]);
    let htpasswd = fixture.open();
    let alice = Principal::User("alice".into());
    assert_eq!(verdict(&htpasswd, basic("alice", "secret")).await, "alice");
    assert!(htpasswd.recall(&alice).await.is_ok());
    fixture.write(&lines(&[("bob", "secret"), ("carol", "secret")]));
    a_second_later(&htpasswd);
    assert_eq!(verdict(&htpasswd, basic("alice", "secret")).await, "401");
    assert!(matches!(
        htpasswd.recall(&alice).await,
        Err(AuthenticationError::Unauthenticated)
    ));
    assert_eq!(verdict(&htpasswd, basic("carol", "secret")).await, "carol");
    // A new password ends the old one, although the old one was remembered as right.
    assert_eq!(verdict(&htpasswd, basic("bob", "secret")).await, "bob");
    fixture.write(&lines(&[("bob", "other")]));
    a_second_later(&htpasswd);
    assert_eq!(verdict(&htpasswd, basic("bob", "secret")).await, "401");
    assert_eq!(verdict(&htpasswd, basic("bob", "other")).await, "bob");
}

#[tokio::test]
async fn a_change_within_the_grain_of_time_stamps_is_seen() {
    let fixture = Fixture::new(&[("alice", "first1")]);
    let htpasswd = fixture.open();
    // The same length, the same inode, moments later: only reading again tells.
    for password in ["second", "third3", "fourth"] {
        fixture.write(&lines(&[("alice", password)]));
        a_second_later(&htpasswd);
        assert_eq!(verdict(&htpasswd, basic("alice", password)).await, "alice");
    }
}

#[tokio::test]
async fn a_broken_file_changes_nothing() {
    let fixture = Fixture::new(&[("alice", "secret")]);
    let htpasswd = fixture.open();
    for broken in ["alice:plain", "alice", "alice:{SHA}xxx", "alice:$2y$05$cut"] {
        fixture.write(broken);
        a_second_later(&htpasswd);
        assert_eq!(verdict(&htpasswd, basic("alice", "secret")).await, "alice", "{broken}");
        assert!(htpasswd.known().complaint.is_some(), "{broken}");
    }
    std::fs::write(fixture.path(), [0xff, 0xfe]).unwrap();
    a_second_later(&htpasswd);
    assert_eq!(verdict(&htpasswd, basic("alice", "secret")).await, "alice");
    fixture.write(&lines(&[("bob", "secret")]));
    a_second_later(&htpasswd);
    assert_eq!(verdict(&htpasswd, basic("alice", "secret")).await, "401");
    assert_eq!(htpasswd.known().complaint, None);
}

/// Makes a file unusable.
type Ruin = fn(&Fixture);

#[tokio::test]
async fn a_file_that_is_gone_or_empty_is_waited_for_and_then_nobody_is_let_in() {
    let fixture = Fixture::new(&[("alice", "secret")]);
    let htpasswd = fixture.open();
    let ruins: [Ruin; 2] = [
        |fixture| std::fs::remove_file(fixture.path()).unwrap(),
        |fixture| fixture.write("# none\n"),
    ];
    for ruin in ruins {
        ruin(&fixture);
        a_second_later(&htpasswd);
        assert_eq!(verdict(&htpasswd, basic("alice", "secret")).await, "alice");
        let since = htpasswd.known().gone.unwrap();
        htpasswd.known.write().unwrap().gone = Some(since.checked_sub(GRACE).unwrap());
        a_second_later(&htpasswd);
        assert_eq!(verdict(&htpasswd, basic("alice", "secret")).await, "503");
        assert!(htpasswd.recall(&Principal::User("alice".into())).await.is_err());
        assert_eq!(verdict(&htpasswd, Credentials::Absent).await, "401");
        fixture.write(&lines(&[("alice", "secret")]));
        a_second_later(&htpasswd);
        assert_eq!(verdict(&htpasswd, basic("alice", "secret")).await, "alice");
    }
}

#[tokio::test]
async fn the_file_is_looked_at_only_now_and_then() {
    let fixture = Fixture::new(&[("alice", "secret")]);
    let htpasswd = fixture.open();
    htpasswd.look_at.store(u64::MAX, Ordering::Release);
    std::fs::remove_file(fixture.path()).unwrap();
    assert_eq!(verdict(&htpasswd, basic("alice", "secret")).await, "alice");
    assert!(htpasswd.known().gone.is_none());
}

/// Everything that must be verified waits for its turn; what is remembered does not. An unknown user waits like a
/// known one: the two are not told apart by what they cost.
#[tokio::test]
async fn s20_verifications_are_bounded_and_unknown_users_cost_what_known_ones_cost() {
    let fixture = Fixture::new(&[("alice", "secret"), ("bob", "secret")]);
    let mut htpasswd = fixture.open();
    htpasswd.patience = Duration::from_millis(20);
    let cores = u32::try_from(htpasswd.verifications.available_permits()).unwrap();
    assert_eq!(cores as usize, std::thread::available_parallelism().unwrap().get());
    assert_eq!(verdict(&htpasswd, basic("alice", "secret")).await, "alice");
    assert_eq!(verdict(&htpasswd, basic("alice", "wrong")).await, "401");
    let turns = htpasswd.verifications.clone().acquire_many_owned(cores).await.unwrap();
    assert_eq!(verdict(&htpasswd, basic("alice", "secret")).await, "alice");
    assert_eq!(verdict(&htpasswd, basic("alice", "wrong")).await, "401");
    assert_eq!(verdict(&htpasswd, basic("bob", "secret")).await, "503");
    assert_eq!(verdict(&htpasswd, basic("bob", "wrong")).await, "503");
    assert_eq!(verdict(&htpasswd, basic("nobody", "secret")).await, "503");
    drop(turns);
    htpasswd.patience = PATIENCE;
    assert_eq!(verdict(&htpasswd, basic("bob", "secret")).await, "bob");
    assert_eq!(verdict(&htpasswd, basic("nobody", "secret")).await, "401");
}

/// A request that is given up while its password is verified must not make room for another verification: the work
/// goes on all the same.
#[tokio::test]
async fn a_verification_keeps_its_turn_when_its_client_leaves() {
    let fixture = Fixture {
        folder: TempDir::new().unwrap(),
    };
    // Expensive enough that it cannot have ended when this test looks.
    fixture.write(&format!(
        "alice:{}\n",
        bcrypt::hash("secret", 4).unwrap().replacen("$04$", "$13$", 1)
    ));
    let htpasswd = fixture.open();
    let cores = htpasswd.verifications.available_permits();
    {
        let credentials = basic("alice", "secret");
        let asked = htpasswd.authenticate(&credentials);
        let given_up = tokio::time::timeout(Duration::from_millis(20), asked).await;
        assert!(given_up.is_err());
    }
    assert_eq!(htpasswd.verifications.available_permits(), cores - 1);
    let all = htpasswd
        .verifications
        .acquire_many(u32::try_from(cores).unwrap())
        .await
        .unwrap();
    drop(all);
}

#[test]
fn a_file_without_users_or_that_is_absent_does_not_open() {
    let fixture = Fixture::new(&[]);
    assert!(matches!(Htpasswd::open(&fixture.path(), None), Err(FileError::NoUsers)));
    let absent = fixture.folder.path().join("absent");
    assert!(matches!(Htpasswd::open(&absent, None), Err(FileError::Io(_))));
    std::fs::File::create(fixture.path())
        .unwrap()
        .set_len(MAX_FILE + 1)
        .unwrap();
    assert!(matches!(
        Htpasswd::open(&fixture.path(), None),
        Err(FileError::TooLarge)
    ));
}
