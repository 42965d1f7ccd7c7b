//! S5: every known way to make a reader of JSON web tokens take one for another.

use hmac::{Hmac, KeyInit as _, Mac as _};
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::json;
use sha2::Sha256;

use super::*;
use crate::jws::JwsError;
use crate::signing_key::thumbprint;

/// A token with another header, signed by the right key.
fn with_header(server: &TokenServer, header: &str) -> String {
    let signed = format!("{}.{}", encode(header), server.token().split('.').nth(1).unwrap());
    let signature = server.signer.sign(signed.as_bytes());
    format!("{signed}.{}", encode(signature))
}

const HEADER: TokenRefused = TokenRefused::Frame(JwsError::Header);

#[test]
fn s05_the_right_header_is_accepted() {
    let server = TokenServer::new();
    let kid = server.signer.kid();
    let header = format!(r#"{{"alg":"EdDSA","kid":"{kid}","typ":"JWT"}}"#);
    assert!(
        server.verify(&with_header(&server, &header)).is_ok(),
        "so the refusals below are those of the header"
    );
}

#[test]
fn s05_alg_none_in_any_case() {
    let server = TokenServer::new();
    let kid = server.signer.kid();
    let payload = server.token().split('.').nth(1).unwrap().to_owned();
    for bits in 0..16_u32 {
        let letter = |(index, letter): (usize, char)| {
            if bits >> index & 1 == 1 {
                letter.to_ascii_uppercase()
            } else {
                letter
            }
        };
        let alg: String = "none".chars().enumerate().map(letter).collect();
        for header in [
            format!(r#"{{"alg":"{alg}","kid":"{kid}","typ":"JWT"}}"#),
            format!(r#"{{"alg":"{alg}","typ":"JWT"}}"#),
            format!(r#"{{"alg":"{alg}"}}"#),
        ] {
            assert_eq!(server.verify(&with_header(&server, &header)), Err(HEADER), "{header}");
            let unsigned = format!("{}.{payload}", encode(&header));
            for token in [format!("{unsigned}."), format!("{unsigned}.AA"), unsigned] {
                assert!(server.verify(&token).is_err(), "{token}");
            }
        }
    }
    // The right header without a signature.
    let token = server.token();
    let unsigned = token.rsplit_once('.').unwrap().0;
    for token in [
        format!("{unsigned}."),
        unsigned.to_owned(),
        format!("{unsigned}.{}", encode([0; 64])),
    ] {
        assert!(server.verify(&token).is_err(), "{token}");
    }
}

#[test]
fn s05_hs256_with_every_public_text() {
    let server = TokenServer::new();
    let (kid, x) = (server.signer.kid(), server.signer.public_bytes());
    let text = String::from(x);
    let pem = {
        let der = [&b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00"[..], &x.0].concat();
        let body = base64::engine::general_purpose::STANDARD.encode(der);
        format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n")
    };
    let secrets = [
        x.0.to_vec(),
        text.clone().into_bytes(),
        kid.as_str().as_bytes().to_vec(),
        thumbprint(x).into_bytes(),
        server.keys.to_json(NOW).into_bytes(),
        format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{text}"}}"#).into_bytes(),
        pem.trim_end().as_bytes().to_vec(),
        pem.into_bytes(),
        SERVICE.as_bytes().to_vec(),
        Vec::new(),
    ];
    let payload = server.token().split('.').nth(1).unwrap().to_owned();
    for alg in ["HS256", "HS384", "HS512", "hs256", "EdDSA"] {
        for secret in &secrets {
            let header = format!(r#"{{"alg":"{alg}","kid":"{kid}","typ":"JWT"}}"#);
            let signed = format!("{}.{payload}", encode(header));
            let mut mac = Hmac::<Sha256>::new_from_slice(secret).unwrap();
            mac.update(signed.as_bytes());
            let mac = mac.finalize().into_bytes();
            let twice = [mac.as_slice(), mac.as_slice()].concat();
            for signature in [mac.to_vec(), twice] {
                assert!(
                    server.verify(&format!("{signed}.{}", encode(signature))).is_err(),
                    "{alg}"
                );
            }
        }
    }
}

#[test]
fn s05_other_algorithms_and_headers_that_bring_keys() {
    let server = TokenServer::new();
    let (kid, x) = (server.signer.kid(), String::from(server.signer.public_bytes()));
    let jwk = format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}"}}"#);
    for members in [
        format!(r#""alg":"EdDSA","kid":"{kid}","typ":"JWT","jwk":{jwk}"#),
        format!(r#""alg":"EdDSA","jwk":{jwk},"typ":"JWT""#),
        format!(r#""alg":"EdDSA","jku":"https://example.com/jwks.json","kid":"{kid}","typ":"JWT""#),
        format!(r#""alg":"EdDSA","kid":"{kid}","typ":"JWT","x5u":"https://example.com/""#),
        format!(r#""alg":"EdDSA","kid":"{kid}","typ":"JWT","x5c":["MIIB"]"#),
        format!(r#""alg":"EdDSA","kid":"{kid}","typ":"JWT","x5t":"AAAA""#),
        format!(r#""alg":"EdDSA","crit":["exp"],"exp":1,"kid":"{kid}","typ":"JWT""#),
        format!(r#""alg":"EdDSA","crit":[],"kid":"{kid}","typ":"JWT""#),
        format!(r#""alg":"EdDSA","b64":false,"crit":["b64"],"kid":"{kid}","typ":"JWT""#),
        format!(r#""alg":"EdDSA","kid":"{kid}","typ":"JWT","zip":"DEF""#),
        format!(r#""alg":"EdDSA","kid":"{kid}","typ":"JWT","cty":"JWT""#),
        format!(r#""alg":"EdDSA","kid":"{kid}","typ":"JWT","unknown":null"#),
        // A name twice, in any order.
        format!(r#""alg":"EdDSA","alg":"EdDSA","kid":"{kid}","typ":"JWT""#),
        format!(r#""alg":"none","alg":"EdDSA","kid":"{kid}","typ":"JWT""#),
        format!(r#""alg":"EdDSA","kid":"{kid}","typ":"JWT","alg":"none""#),
        format!(r#""alg":"EdDSA","kid":"{kid}","typ":"JWT","kid":"{kid}""#),
        // Other algorithms and types.
        format!(r#""alg":"Ed25519","kid":"{kid}","typ":"JWT""#),
        format!(r#""alg":"eddsa","kid":"{kid}","typ":"JWT""#),
        format!(r#""alg":"ES256","kid":"{kid}","typ":"JWT""#),
        format!(r#""alg":"RS256","kid":"{kid}","typ":"JWT""#),
        format!(r#""alg":["EdDSA"],"kid":"{kid}","typ":"JWT""#),
        format!(r#""alg":"EdDSA","kid":"{kid}","typ":"at+jwt""#),
        format!(r#""alg":"EdDSA","kid":"{kid}""#),
        // Without a key, or with what is none.
        r#""alg":"EdDSA","typ":"JWT""#.to_owned(),
        r#""alg":"EdDSA","kid":"","typ":"JWT""#.to_owned(),
        r#""alg":"EdDSA","kid":"../../../secret1","typ":"JWT""#.to_owned(),
        format!(r#""alg":"EdDSA","kid":["{kid}"],"typ":"JWT""#),
        format!(r#""alg":"EdDSA","kid":"{kid}A","typ":"JWT""#),
        // Another spelling of the same members.
        format!(r#""kid":"{kid}","alg":"EdDSA","typ":"JWT""#),
        format!(r#" "alg":"EdDSA","kid":"{kid}","typ":"JWT""#),
        format!(r#""\u0061lg":"EdDSA","kid":"{kid}","typ":"JWT""#),
        String::new(),
    ] {
        let header = format!("{{{members}}}");
        assert_eq!(server.verify(&with_header(&server, &header)), Err(HEADER), "{header}");
    }
    for header in ["", "null", "[]", "{", "\"EdDSA\"", "\u{feff}{}"] {
        assert_eq!(server.verify(&with_header(&server, header)), Err(HEADER), "{header}");
    }
}

#[test]
fn s05_the_right_kid_with_another_key() {
    let server = TokenServer::new();
    let other = TokenSigner::from_seed(&[8; 32]);
    let token = server.token();
    let signed = token.rsplit_once('.').unwrap().0;
    let forged = format!("{signed}.{}", encode(other.sign(signed.as_bytes())));
    assert_eq!(server.verify(&forged), Err(TokenRefused::Frame(JwsError::Signature)));
    // Also if the other key is one of ours.
    let both = KeySet::new(&[server.signer.public(Timestamp(0)), other.public(Timestamp(0))]);
    assert_eq!(
        verify(&forged, &both, SERVICE, NOW),
        Err(TokenRefused::Frame(JwsError::Signature))
    );
    // A key that is not ours, under its own id.
    let foreign = jws::sign(&other, &parts(&token)[1]);
    assert_eq!(server.verify(&foreign), Err(TokenRefused::UnknownKey(other.kid())));
    assert!(verify(&foreign, &both, SERVICE, NOW).is_ok());
}

#[test]
fn s05_another_issuer_or_audience() {
    let server = TokenServer::new();
    let token = server.token();
    for service in [
        "",
        "registry.example.com:443",
        "registry.example.co",
        "REGISTRY.EXAMPLE.COM",
        "roadstead",
    ] {
        assert_eq!(
            verify(&token, &server.keys, service, NOW),
            Err(TokenRefused::Audience),
            "{service}"
        );
    }
    for (member, value, expected) in [
        ("aud", json!("other.example.com"), TokenRefused::Audience),
        ("aud", json!("registry.example.com/session"), TokenRefused::Audience),
        ("iss", json!("other.example.com"), TokenRefused::Audience),
        ("aud", json!(["registry.example.com"]), TokenRefused::Claims),
        ("aud", json!(null), TokenRefused::Claims),
        ("iss", json!(1), TokenRefused::Claims),
    ] {
        let mut claims = claims(&token);
        claims[member] = value;
        assert_eq!(
            server.verify(&server.sign(&claims.to_string())),
            Err(expected),
            "{claims}"
        );
    }
}

#[test]
fn s05_expired_and_from_the_future() {
    let server = TokenServer::new();
    let token = server.token();
    let issued = 1_796_000_000_000;
    for (now, expected) in [
        (issued - 60_001, Err(TokenRefused::Future)),
        (issued - 60_000, Ok(())),
        (issued, Ok(())),
        // The answer said 600 seconds, and the token has 60 more.
        (issued + 659_999, Ok(())),
        (issued + 660_000, Err(TokenRefused::Expired)),
        (0, Err(TokenRefused::Future)),
        (u64::MAX, Err(TokenRefused::Expired)),
    ] {
        let verified = verify(&token, &server.keys, SERVICE, Timestamp(now));
        assert_eq!(verified.map(|_| ()), expected, "{now}");
    }
    let iat = issued / 1000;
    for (issued, expires, expected) in [
        // No token lives longer than an hour and its slack: what was withdrawn is not remembered for longer.
        (json!(iat), json!(iat + 3660), Ok(())),
        (json!(iat), json!(iat + 3661), Err(TokenRefused::Claims)),
        (json!(0), json!(iat + 60), Err(TokenRefused::Claims)),
        (json!(iat), json!(u64::MAX), Err(TokenRefused::Claims)),
        (json!(iat), json!(iat - 1), Err(TokenRefused::Claims)),
        (json!(u64::MAX), json!(u64::MAX), Err(TokenRefused::Future)),
        (json!(iat), json!("1796000660"), Err(TokenRefused::Claims)),
        (json!(iat), json!(1_796_000_660.5), Err(TokenRefused::Claims)),
        (json!(-1), json!(60), Err(TokenRefused::Claims)),
        (json!(null), json!(iat + 60), Err(TokenRefused::Claims)),
    ] {
        let mut claims = claims(&token);
        (claims["iat"], claims["exp"]) = (issued, expires);
        let verified = server.verify(&server.sign(&claims.to_string()));
        assert_eq!(verified.map(|_| ()), expected, "{claims}");
    }
}

#[test]
fn s05_names_twice_and_unknown_members_of_the_claims() {
    let server = TokenServer::new();
    let payload = String::from_utf8(parts(&server.token())[1].clone()).unwrap();
    assert!(server.verify(&server.sign(&payload)).is_ok());
    for (from, to) in [
        (r#"{"iss""#, r#"{"sub":"alice","iss""#),
        (r#""sub":"robot:ci""#, r#""sub":"robot:ci","sub":"robot:ci""#),
        (r#""exp":"#, r#""exp":9999999999,"exp":"#),
        (r#"{"gen""#, r#"{"gen":"9","gen""#),
        (r#"{"type""#, r#"{"type":"repository","type""#),
        (r#""rs":"#, r#""rs":{"gen":"1","groups":["admins"],"grants":[]},"rs":"#),
        (r#""groups":["#, r#""groups":["admins"],"groups":["#),
        (r#"{"iss""#, r#"{"\u0073ub":"alice","iss""#),
        // Members that nobody knows, at every level.
        (r#"{"iss""#, r#"{"nbf":1,"iss""#),
        (r#"{"iss""#, r#"{"":1,"iss""#),
        (r#"{"gen""#, r#"{"admin":true,"gen""#),
        (r#"{"type""#, r#"{"class":"image","type""#),
        // Other texts for what has one.
        (r#""robot:ci""#, r#"":anonymous""#),
        (r#""robot:ci""#, r#""robot:CI""#),
        (r#""robot:ci""#, r#""""#),
        (r#""robot:ci""#, r#""workload:a:b""#),
        (r#""actions":["pull","push"]"#, r#""actions":["push","pull"]"#),
        (r#""actions":["pull","push"]"#, r#""actions":["pull","pull"]"#),
        (r#""actions":["pull","push"]"#, r#""actions":["*"]"#),
        (r#""actions":["pull","push"]"#, r#""actions":["pull","other"]"#),
        (r#""actions":["pull","push"]"#, r#""actions":[]"#),
        (r#""name":"payments/api""#, r#""name":"payments/*""#),
        (r#""name":"payments/api""#, r#""name":"**""#),
        (r#""type":"repository""#, r#""type":"registry""#),
        (r#""type":"repository""#, r#""type":"repository(x)""#),
        (r#""1795000000123""#, "1795000000123"),
        (r#""1795000000123""#, r#""01795000000123""#),
        (r#""3f9aK2dQ""#, r#""3f9aK2d""#),
        (r#""groups":["ci"]"#, r#""groups":["CI"]"#),
        (
            r#"["payments/**","pull","create"]"#,
            r#"["payments/**","create","pull"]"#,
        ),
        (
            r#"["payments/**","pull","create"]"#,
            r#"["payments/**","pull","everything"]"#,
        ),
        (r#"["payments/**","pull","create"]"#, "[]"),
        // One resource twice.
        (
            r#"[{"type""#,
            r#"[{"type":"repository","name":"payments/api","actions":["delete"]},{"type""#,
        ),
        // Not one object.
        ("{\"iss\"", "[{\"iss\""),
        ("}}", "}}}"),
        ("}}", "}} {}"),
        ("}}", "}"),
    ] {
        let changed = payload.replacen(from, to, 1);
        assert_ne!(changed, payload, "{from}");
        assert_eq!(
            server.verify(&server.sign(&changed)),
            Err(TokenRefused::Claims),
            "{changed}"
        );
    }
    for payload in ["", "null", "{}", "[]", "\u{0}", "\"x\""] {
        assert_eq!(
            server.verify(&server.sign(payload)),
            Err(TokenRefused::Claims),
            "{payload:?}"
        );
    }
    let deep = format!(r#"{{"iss":{}"#, "[".repeat(2000));
    assert_eq!(server.verify(&server.sign(&deep)), Err(TokenRefused::Claims));
}

#[test]
fn s05_two_four_and_five_parts() {
    let server = TokenServer::new();
    let token = server.token();
    let parts: Vec<&str> = token.split('.').collect();
    let [header, payload, signature] = parts[..] else {
        panic!("three parts")
    };
    for changed in [
        String::new(),
        ".".into(),
        "..".into(),
        "....".into(),
        header.to_owned(),
        format!("{header}.{payload}"),
        format!("{payload}.{signature}"),
        format!("{token}."),
        format!(".{token}"),
        format!("{token}.{signature}"),
        format!("{header}.{header}.{payload}.{signature}"),
        format!("{header}..{payload}.{signature}"),
        // The form of an encrypted token.
        format!("{header}.{payload}.{payload}.{payload}.{signature}"),
        format!("{header}....{signature}"),
        token.replace('.', " ."),
        token.replace('.', "%2e"),
        token.to_ascii_lowercase(),
    ] {
        assert!(server.verify(&changed).is_err(), "{changed:?}");
    }
}

#[test]
fn s05_one_bit_flipped_anywhere() {
    let server = TokenServer::new();
    let token = server.token();
    // In the text: what is not UTF-8 afterwards does not come out of a header.
    for bit in 0..token.len() * 8 {
        let mut bytes = token.clone().into_bytes();
        bytes[bit / 8] ^= 1 << (bit % 8);
        if let Ok(text) = std::str::from_utf8(&bytes) {
            assert!(server.verify(text).is_err(), "bit {bit}");
        }
    }
    // And in what the text stands for.
    let decoded = parts(&token);
    for part in 0..3 {
        for bit in 0..decoded[part].len() * 8 {
            let mut flipped = decoded.clone();
            flipped[part][bit / 8] ^= 1 << (bit % 8);
            assert!(
                server.verify(&flipped.map(encode).join(".")).is_err(),
                "part {part}, bit {bit}"
            );
        }
    }
}

#[test]
fn s05_a_session_token_and_an_upload_token_are_no_access_tokens() {
    let server = TokenServer::new();
    // A session token: the same frame and the same key, another audience, nothing granted.
    let session = json!({
        "iss": SERVICE, "aud": format!("{SERVICE}/session"), "sub": "workload:main:acme/app",
        "iat": 1_796_000_000, "exp": 1_796_003_600, "jti": "q2o0Yk3nT1xW",
    });
    assert_eq!(
        server.verify(&server.sign(&session.to_string())),
        Err(TokenRefused::Claims)
    );
    let mut with_everything = claims(&server.token());
    with_everything["aud"] = json!(format!("{SERVICE}/session"));
    assert_eq!(
        server.verify(&server.sign(&with_everything.to_string())),
        Err(TokenRefused::Audience)
    );
    // A service cannot be named so that its access tokens are the session tokens of another one.
    let other = server
        .issue(SCOPE, |token| token.service = "registry.example.com/session".into())
        .unwrap();
    assert_eq!(server.verify(&other.token), Err(TokenRefused::Audience));
    // Upload tokens as they are issued: base64url without parts.
    for token in [
        "AQAAAAcAAAAAAAAD6VVVVVVVVVVVVVVVVVVVVVUB7VprLnlG4aPYVNHO_Kr_WtqLv-iiu_4tK5z5pFn6cwk",
        "AQAAAAcAAAAAAAAD6VVVVVVVVVVVVVVVVVVVVVUBYWxpY2XY1G_hWM9oNZxeGyNYcUzf7nBj7urM8fOfTPgDMnVSuQ",
    ] {
        assert_eq!(server.verify(token), Err(TokenRefused::Frame(JwsError::Malformed)));
    }
    let key = crate::key::Key::generate(&"ci".parse().unwrap(), &server.environment);
    assert!(server.verify(key.expose()).is_err());
}

#[test]
fn s05_a_token_of_one_byte_more_is_not_read() {
    let server = TokenServer::new();
    let longest = format!("{}.", "A".repeat(jws::MAX_LEN - 1));
    assert_eq!(server.verify(&longest), Err(TokenRefused::Frame(JwsError::Malformed)));
    assert_eq!(
        server.verify(&format!("{longest}.")),
        Err(TokenRefused::Frame(JwsError::TooLong))
    );
}

proptest! {
    #[test]
    fn s05_any_text_is_refused(text in "\\PC{0,300}|[A-Za-z0-9_-]{0,50}(\\.[A-Za-z0-9_-]{0,50}){0,4}") {
        prop_assert!(TokenServer::new().verify(&text).is_err());
    }

    /// With another character anywhere, and with one more or one less, a token is refused.
    #[test]
    fn s05_one_changed_character_is_refused(
        scope in "repository:[a-z]{1,20}(/[a-z]{1,20}){0,3}:(pull|push|delete|pull,push)",
        generation in 0..1_000_000_000_000_000_u64,
        at in any::<Index>(),
        other in "[A-Za-z0-9_.= -]",
    ) {
        let server = TokenServer::new();
        let issued = server.issue(&scope, |token| token.generation = Generation::Account(generation)).unwrap();
        prop_assert!(server.verify(&issued.token).is_ok());
        let at = at.index(issued.token.len());
        let mut changed = issued.token.clone();
        changed.replace_range(at..=at, &other);
        prop_assert_eq!(server.verify(&changed).is_ok(), changed == issued.token, "{}", changed);
        let mut longer = issued.token.clone();
        longer.insert_str(at, &other);
        prop_assert!(server.verify(&longer).is_err(), "{}", longer);
        let mut shorter = issued.token;
        shorter.remove(at);
        prop_assert!(server.verify(&shorter).is_err(), "{}", shorter);
    }

    /// Whatever is signed is read without a panic, and only what the registry writes is accepted.
    #[test]
    fn s05_any_signed_payload_is_refused(payload in "\\PC{0,200}|\\{(\"(iss|aud|sub|exp)\":\"?[a-z0-9]{0,5}\"?,?){0,6}\\}") {
        let server = TokenServer::new();
        prop_assert!(server.verify(&server.sign(&payload)).is_err());
    }
}
