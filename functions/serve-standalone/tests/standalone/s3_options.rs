//! Where the stores in the cloud are looked for, and as whom: by flags, by the SDK's own variables and by its files.
//!
//! What is asked of them is seen by a listener that notes requests and knows next to nothing.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use tempfile::TempDir;

use crate::support::{MAX_WAIT, Server, digest, roadstead};

/// A request as it came, without its body.
#[derive(Clone, Debug)]
pub(crate) struct Noted {
    method: String,
    path: String,
    headers: BTreeMap<String, String>,
}

impl Noted {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// The id of the key that signed it, the region and the service.
    fn signed_for(&self) -> [&str; 3] {
        let rest = self.header("authorization").split_once("Credential=").unwrap().1;
        let scope: Vec<_> = rest.split(',').next().unwrap().split('/').collect();
        assert_eq!((scope.len(), scope[4]), (5, "aws4_request"), "{scope:?}");
        [scope[0], scope[2], scope[3]]
    }
}

/// A listener that takes every object and has none, and that knows no table. It ends when this is dropped.
pub(crate) struct Recorder {
    pub(crate) address: SocketAddr,
    noted: Arc<Mutex<Vec<Noted>>>,
    over: Arc<AtomicBool>,
    listening: Option<JoinHandle<()>>,
}

impl Recorder {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.2:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (noted, over) = (Arc::<Mutex<Vec<Noted>>>::default(), Arc::<AtomicBool>::default());
        let listening = thread::spawn({
            let (noted, over) = (noted.clone(), over.clone());
            move || {
                for stream in listener.incoming() {
                    if over.load(Ordering::SeqCst) {
                        return;
                    }
                    let noted = noted.clone();
                    // It ends with its connection, at the latest when the program under test does.
                    thread::spawn(move || serve(stream.unwrap(), &noted));
                }
            }
        });
        Self {
            address,
            noted,
            over,
            listening: Some(listening),
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The requests since this was last asked.
    pub(crate) fn noted(&self) -> Vec<Noted> {
        std::mem::take(&mut self.noted.lock().unwrap())
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        // Wakes it.
        let _ = TcpStream::connect(self.address);
        if let Some(listening) = self.listening.take() {
            let _ = listening.join();
        }
    }
}

fn serve(stream: TcpStream, noted: &Mutex<Vec<Noted>>) {
    stream.set_read_timeout(Some(MAX_WAIT)).unwrap();
    let mut reader = BufReader::new(stream);
    while let Some(request) = head(&mut reader) {
        let length: usize = request.header("content-length").parse().unwrap_or(0);
        let mut body = vec![0; length];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        let answer = if request.path.contains("list-type=2") {
            let text = "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>";
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len())
        } else if request.header("x-amz-target").is_empty() {
            "HTTP/1.1 200 OK\r\nETag: \"0\"\r\nContent-Length: 0\r\n\r\n".to_owned()
        } else {
            let text =
                "{\"__type\":\"com.amazonaws.dynamodb.v20120810#ResourceNotFoundException\",\"message\":\"none\"}";
            format!(
                "HTTP/1.1 400 Bad Request\r\nContent-Type: application/x-amz-json-1.0\r\nContent-Length: {}\r\n\r\n{text}",
                text.len()
            )
        };
        noted.lock().unwrap().push(request);
        if reader.get_mut().write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// The head of the next request; `None` when there is no other.
fn head(reader: &mut BufReader<TcpStream>) -> Option<Noted> {
    let mut line = String::new();
    if reader.read_line(&mut line).ok()? == 0 {
        return None;
    }
    let mut words = line.split(' ').map(ToOwned::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let mut headers = BTreeMap::new();
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    Some(Noted { method, path, headers })
}

pub(crate) type Variables = Vec<(String, String)>;

type Ask = fn(&Recorder, &[&str], &[(String, String)]) -> Noted;

fn variables<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Variables {
    let pairs = pairs.into_iter();
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Credentials and a region, and no search for either on the network.
pub(crate) fn known() -> Variables {
    variables([
        ("AWS_ACCESS_KEY_ID", "AKFROMVARIABLES"),
        ("AWS_SECRET_ACCESS_KEY", "a secret"),
        ("AWS_REGION", "eu-west-1"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ])
}

/// A server with its bytes in a bucket.
fn over_bucket(flags: &[&str], variables: &[(String, String)]) -> Server {
    let flags = [&["--blobs", "s3://bucket/registry"], flags].concat();
    Server::start_on(Arc::new(TempDir::new().unwrap()), &flags, variables)
}

/// Has a server look for its bucket; it finds it at `recorder`.
fn asks_for_bucket(recorder: &Recorder, flags: &[&str], variables: &[(String, String)]) -> Noted {
    let server = over_bucket(flags, variables);
    let ready = server.request("GET", "/readyz", &[], b"");
    assert_eq!(ready.status, 200, "{variables:?} {flags:?}: {}", server.log());
    // At its start it looks for the bucket and for what lies in it, and then for the bucket again.
    let noted = recorder.noted();
    let methods: Vec<_> = noted.iter().map(|noted| &*noted.method).collect();
    assert_eq!(methods, ["GET"; 3], "{noted:?}");
    noted[2].clone()
}

/// Has a command look for its table; `recorder` does not have it.
fn asks_for_table(recorder: &Recorder, flags: &[&str], variables: &[(String, String)]) -> Noted {
    let output = roadstead()
        .args(["repo", "list", "--metadata", "dynamodb://table"])
        .args(flags)
        .envs(variables.iter().cloned())
        .output()
        .unwrap();
    let reported = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{variables:?} {flags:?}: {reported}");
    assert!(
        reported.contains("there is no table table"),
        "{variables:?} {flags:?}: {reported}"
    );
    let noted = recorder.noted();
    assert_eq!(noted.len(), 1, "{noted:?}");
    assert!(noted[0].header("x-amz-target").starts_with("DynamoDB_"), "{noted:?}");
    noted[0].clone()
}

/// The first of these that is given counts: a flag (or its own variable), the SDK's variable of the service, that of
/// all services, and the profile.
#[test]
fn endpoints_come_from_flags_or_from_where_the_sdk_looks() {
    let (right, wrong) = (Recorder::start(), Recorder::start());
    let folder = TempDir::new().unwrap();
    let config = |endpoint: &Recorder| {
        let file = folder.path().join(format!("config-{}", endpoint.address.port()));
        std::fs::write(&file, format!("[default]\nendpoint_url = {}\n", endpoint.url())).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let (right_config, wrong_config) = (config(&right), config(&wrong));
    let (right_url, wrong_url) = (right.url(), wrong.url());
    for (flag, own, service, ask) in [
        (
            "--s3-endpoint",
            "ROADSTEAD_S3_ENDPOINT",
            "AWS_ENDPOINT_URL_S3",
            asks_for_bucket as Ask,
        ),
        (
            "--dynamodb-endpoint",
            "ROADSTEAD_DYNAMODB_ENDPOINT",
            "AWS_ENDPOINT_URL_DYNAMODB",
            asks_for_table,
        ),
    ] {
        let by_file = ("AWS_CONFIG_FILE", right_config.as_str());
        let not_by_file = ("AWS_CONFIG_FILE", wrong_config.as_str());
        let (by_all, not_by_all) = (("AWS_ENDPOINT_URL", &*right_url), ("AWS_ENDPOINT_URL", &*wrong_url));
        let (by_service, not_by_service) = ((service, &*right_url), (service, &*wrong_url));
        for (flags, pairs) in [
            (&[][..], &[by_file][..]),
            (&[], &[by_all, not_by_file]),
            (&[], &[by_service, not_by_all, not_by_file]),
            (&[], &[(own, &*right_url), not_by_service, not_by_all, not_by_file]),
            (
                &[flag, &*right_url],
                &[(own, &*wrong_url), not_by_service, not_by_all, not_by_file],
            ),
        ] {
            let noted = ask(&right, flags, &[known(), variables(pairs.iter().copied())].concat());
            assert_eq!(noted.header("host"), right.address.to_string());
            let [key, region, _] = noted.signed_for();
            assert_eq!((key, region), ("AKFROMVARIABLES", "eu-west-1"));
            assert!(wrong.noted().is_empty(), "{flags:?} {pairs:?}");
        }
    }
    let noted = asks_for_bucket(&right, &["--s3-endpoint", &right_url], &known());
    assert!(noted.path.starts_with("/bucket/registry/"), "{}", noted.path);
}

fn write_profiles(folder: &Path) {
    let aws = folder.join(".aws");
    std::fs::create_dir(&aws).unwrap();
    let credentials = |profile: &str, key: &str| {
        format!("[{profile}]\naws_access_key_id = {key}\naws_secret_access_key = a secret of {key}\n")
    };
    let all = [credentials("default", "AKDEFAULT"), credentials("work", "AKWORK")].concat();
    std::fs::write(aws.join("credentials"), all).unwrap();
    let config = "[default]\nregion = eu-south-1\n[profile work]\nregion = eu-north-1\n[profile asks]\nregion = sa-east-1\n\
        credential_process = echo '{\"Version\": 1, \"AccessKeyId\": \"AKPROCESS\", \"SecretAccessKey\": \"a secret\"}'\n";
    std::fs::write(aws.join("config"), config).unwrap();
}

/// Credentials and region are found as other AWS tools find them; no flag takes a credential.
#[test]
fn credentials_and_region_come_from_variables_and_profiles() {
    let recorder = Recorder::start();
    let folder = TempDir::new().unwrap();
    write_profiles(folder.path());
    let home = folder.path().to_str().unwrap();
    let files = ["credentials", "config"].map(|name| format!("{home}/.aws/{name}"));
    let at_home = [
        ("HOME", home),
        ("PATH", "/usr/bin:/bin"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ];
    let elsewhere = [
        ("AWS_SHARED_CREDENTIALS_FILE", &*files[0]),
        ("AWS_CONFIG_FILE", &files[1]),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ];
    let by_variables = [
        ("AWS_ACCESS_KEY_ID", "AKFROMVARIABLES"),
        ("AWS_SECRET_ACCESS_KEY", "a secret"),
    ];
    let work = ("AWS_PROFILE", "work");
    for (flags, pairs, key, region) in [
        (&[][..], at_home.to_vec(), "AKDEFAULT", "eu-south-1"),
        (&[], [&at_home[..], &[work]].concat(), "AKWORK", "eu-north-1"),
        (&[], [&elsewhere[..], &[work]].concat(), "AKWORK", "eu-north-1"),
        (&["--aws-profile", "work"], at_home.to_vec(), "AKWORK", "eu-north-1"),
        (
            &["--aws-profile", "default"],
            [&at_home[..], &[work]].concat(),
            "AKDEFAULT",
            "eu-south-1",
        ),
        (
            &[],
            [&at_home[..], &[work, ("ROADSTEAD_AWS_PROFILE", "asks")]].concat(),
            "AKPROCESS",
            "sa-east-1",
        ),
        (
            &[],
            [&at_home[..], &[work, ("AWS_REGION", "ap-east-1")]].concat(),
            "AKWORK",
            "ap-east-1",
        ),
        (
            &["--aws-region", "us-west-2"],
            [&at_home[..], &[work, ("AWS_REGION", "ap-east-1")]].concat(),
            "AKWORK",
            "us-west-2",
        ),
        (
            &[],
            [&at_home[..], &[work], &by_variables].concat(),
            "AKFROMVARIABLES",
            "eu-north-1",
        ),
    ] {
        let pairs = variables(pairs);
        let url = recorder.url();
        let with = |flag| [&[flag, &*url], flags].concat();
        let bucket = asks_for_bucket(&recorder, &with("--s3-endpoint"), &pairs);
        assert_eq!(bucket.signed_for(), [key, region, "s3"], "{flags:?} {pairs:?}");
        let table = asks_for_table(&recorder, &with("--dynamodb-endpoint"), &pairs);
        assert_eq!(table.signed_for(), [key, region, "dynamodb"], "{flags:?} {pairs:?}");
    }
}

/// The flags about a bucket reach the requests that store its objects, and the URLs under which clients fetch them.
#[test]
fn flags_about_the_bucket_reach_its_requests_and_redirects() {
    let recorder = Recorder::start();
    let url = recorder.url();
    let how = "x-amz-server-side-encryption";
    let key = "x-amz-server-side-encryption-aws-kms-key-id";
    for (flags, headers, host, path) in [
        (&[][..], &[][..], recorder.address.to_string(), "/bucket/registry/"),
        (
            &[
                "--s3-encryption",
                "aes256",
                "--s3-public-endpoint",
                "https://s3.example.org",
            ],
            &[(how, "AES256")],
            "s3.example.org".into(),
            "/bucket/registry/",
        ),
        (
            &[
                "--s3-encryption",
                "kms:alias/ours",
                "--s3-expected-bucket-owner",
                "111122223333",
                "--s3-public-endpoint",
                "https://s3.example.org",
                "--s3-path-style",
                "never",
            ],
            &[
                (how, "aws:kms"),
                (key, "alias/ours"),
                ("x-amz-expected-bucket-owner", "111122223333"),
            ],
            "bucket.s3.example.org".into(),
            "/registry/",
        ),
    ] {
        let flags = [&["--s3-endpoint", &*url, "--pull", "redirect"], flags].concat();
        let temporary = variables([("AWS_SESSION_TOKEN", "a+token/of=theirs")]);
        let server = over_bucket(&flags, &[known(), temporary].concat());
        recorder.noted();
        server.push_blob("app", b"a layer");
        let noted = recorder.noted();
        assert_eq!((noted.len(), &*noted[0].method), (1, "PUT"), "{noted:?}");
        assert!(noted[0].path.starts_with("/bucket/registry/"), "{}", noted[0].path);
        assert_eq!(noted[0].header("x-amz-security-token"), "a+token/of=theirs");
        for name in [how, key, "x-amz-expected-bucket-owner"] {
            let expected = headers.iter().find(|(expected, _)| *expected == name);
            assert_eq!(noted[0].header(name), expected.map_or("", |(_, value)| value), "{name}");
        }
        let answer = server.request("GET", &format!("/v2/app/blobs/{}", digest(b"a layer")), &[], b"");
        assert_eq!(answer.status, 307);
        assert!(recorder.noted().is_empty(), "nothing is asked for a redirect");
        let (_, location) = answer.header("location").unwrap().split_once("://").unwrap();
        let (authority, rest) = location.split_at(location.find('/').unwrap());
        assert_eq!(authority, host);
        assert!(rest.starts_with(path), "{rest}");
        for parameter in [
            "X-Amz-Credential=AKFROMVARIABLES%2F",
            "%2Feu-west-1%2Fs3%2Faws4_request&",
            "X-Amz-Security-Token=a%2Btoken%2Fof%3Dtheirs",
        ] {
            assert!(rest.contains(parameter), "{parameter}: {rest}");
        }
        assert!(!rest.contains("secret"), "{rest}");
    }
}

/// The flags about pulls decide who is redirected, and for how long the URL works: by the address of the client, as far as
/// it is known, and of the store.
#[test]
fn flags_about_pulls_reach_redirects() {
    const NEAR: &str = "127.0.0.1";
    const FAR: &str = "203.0.113.9";
    let recorder = Recorder::start();
    let url = recorder.url();
    let public = ["--s3-public-endpoint", "https://s3.example.org"];
    let short = ["--presign-lifetime", "2m"];
    for (flags, lifetime, redirected) in [
        (&["--pull", "auto"][..], 900, &[NEAR][..]),
        (&[], 900, &[NEAR]),
        (&short, 120, &[NEAR]),
        (&[&public[..], &short].concat(), 120, &[NEAR, FAR, "unknown"]),
        (
            &["--pull", "redirect", "--presign-lifetime", "1h"],
            3600,
            &[NEAR, FAR, "unknown"],
        ),
        (&["--pull", "proxy"], 0, &[]),
    ] {
        let own = [
            "--s3-endpoint",
            &*url,
            "--trusted-proxy",
            NEAR,
            "--allow-anonymous",
            "all",
        ];
        let server = over_bucket(&[&own, flags].concat(), &known());
        server.push_blob("app", b"a layer");
        let path = format!("/v2/app/blobs/{}", digest(b"a layer"));
        for client in [NEAR, FAR, "unknown"] {
            recorder.noted();
            let answer = server.request("GET", &path, &[("X-Forwarded-For", client)], b"");
            let asked = recorder.noted();
            if !redirected.contains(&client) {
                assert_ne!(answer.status, 307, "{flags:?} {client}");
                assert_eq!(
                    (!asked.is_empty(), &*asked[0].method),
                    (true, "GET"),
                    "{flags:?} {client}"
                );
                continue;
            }
            assert_eq!((answer.status, asked.len()), (307, 0), "{flags:?} {client}");
            let expires = format!("X-Amz-Expires={lifetime}&");
            let location = answer.header("location").unwrap();
            assert!(location.contains(&expires), "{flags:?}: {location}");
        }
    }
}
