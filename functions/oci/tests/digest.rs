//! Digests and the hasher: which texts parse, known test vectors, and that a restored hasher continues where it was
//! saved.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use oci::{Algorithm, Digest, DigestError, Hasher, UnknownAlgorithm};
use proptest::prelude::*;

const EMPTY_256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const ABC_256: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
const ABC_512: &str = "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
                       2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f";

fn algorithms() -> impl Strategy<Value = Algorithm> {
    prop_oneof![Just(Algorithm::Sha256), Just(Algorithm::Sha512)]
}

#[test]
fn digests_match_known_test_vectors() {
    // FIPS 180-4 example vectors.
    for (algorithm, input, hex) in [
        (Algorithm::Sha256, &b""[..], EMPTY_256),
        (Algorithm::Sha256, b"abc", ABC_256),
        (Algorithm::Sha512, b"abc", ABC_512),
    ] {
        let digest = Digest::of(algorithm, input);
        assert_eq!(digest.hex(), hex);
        assert_eq!(digest.algorithm(), algorithm);
        assert_eq!(digest.to_string(), format!("{algorithm}:{hex}"));
        assert_eq!(digest.as_bytes().len() * 2, algorithm.hex_len());
        assert_eq!(Digest::from_hash(algorithm, digest.as_bytes()), Some(digest));
    }
}

#[test]
fn malformed_digests_are_refused() {
    let upper = ABC_256.to_uppercase();
    let short = &ABC_256[1..];
    for text in [
        String::new(),
        ":".into(),
        "sha256".into(),
        "sha256:".into(),
        ABC_256.into(),
        format!(":{ABC_256}"),
        format!("sha256:{short}"),
        format!("sha256:{ABC_256}0"),
        format!("sha256:{upper}"),
        format!("sha256:{ABC_512}"),
        format!("sha512:{ABC_256}"),
        format!("SHA256:{ABC_256}"),
        format!("Sha256:{ABC_256}"),
        format!(" sha256:{ABC_256}"),
        format!("sha256:{ABC_256}\n"),
        format!("sha256:{ABC_256} "),
        format!("sha256::{short}"),
        format!("sha256:{short}g"),
        format!("sha256:{short}\0"),
        format!("sha256:{short}="),
        format!("sha256:{}é", &short[1..]),
        format!("sha256:{}０", &short[2..]),
        format!("sha256%3A{ABC_256}"),
        format!("sha256:%61{}", &ABC_256[3..]),
        format!("sha256-{ABC_256}"),
        format!("sha256+:{ABC_256}"),
        format!("+sha256:{ABC_256}"),
        format!("sha256..b:{ABC_256}"),
        "sha256:baddigeststring".into(),
        "sha256:../../x".into(),
        "sha256:..%2f..%2fx".into(),
        format!("sha256:../{}", &ABC_256[3..]),
        format!("../sha256:{ABC_256}"),
        format!("sha256/:{ABC_256}"),
        format!("sha256:\u{feff}{ABC_256}"),
    ] {
        assert_eq!(text.parse::<Digest>(), Err(DigestError::Malformed), "{text:?}");
        assert_eq!(Digest::try_from(text.as_str()), Err(DigestError::Malformed));
        let json = serde_json::to_string(&text).unwrap();
        assert!(serde_json::from_str::<Digest>(&json).is_err(), "{text:?}");
    }
}

#[test]
fn digests_of_unsupported_algorithms_are_refused() {
    for text in [
        "md5:d41d8cd98f00b204e9800998ecf8427e",
        "sha384:00",
        "blake3:6c3c624b58dbbcd3c0dd82b4c53f04194d1247c6eebdaab7c610cf7d66709b3b",
        "multihash+base58:QmRZxt2b1FVZPNqd8hsiykDL3TdBDeTSPX9Kv46HmX4Gx8",
        "sha256+b64u:LCa0a2j_xo_5m0U8HTBBNBNCLXBkg7-g-YpeiGJm564",
    ] {
        assert_eq!(text.parse::<Digest>(), Err(DigestError::UnsupportedAlgorithm), "{text}");
    }
}

#[test]
fn algorithms_parse_by_their_exact_name() {
    assert_eq!("sha256".parse(), Ok(Algorithm::Sha256));
    assert_eq!("sha512".parse(), Ok(Algorithm::Sha512));
    for text in ["", "SHA256", "sha-256", "sha1", "sha256 ", "blake3"] {
        assert_eq!(text.parse::<Algorithm>(), Err(UnknownAlgorithm), "{text:?}");
    }
}

#[test]
fn a_hash_of_the_wrong_length_is_refused() {
    for length in [0, 31, 33, 63, 65, 64] {
        assert_eq!(Digest::from_hash(Algorithm::Sha256, &vec![0; length]), None, "{length}");
    }
    for length in [0, 32, 63, 65] {
        assert_eq!(Digest::from_hash(Algorithm::Sha512, &vec![0; length]), None, "{length}");
    }
}

/// The next release must restore a state that this release saved, or refuse it: uploads continue across an upgrade.
#[test]
fn a_state_saved_by_an_earlier_release_still_restores() {
    for (algorithm, saved) in [(Algorithm::Sha256, SAVED_256), (Algorithm::Sha512, SAVED_512)] {
        let whole: Vec<u8> = (0..=255).collect();
        let mut hasher = Hasher::new(algorithm);
        hasher.update(&whole[..200]);
        let bytes: Vec<u8> = (0..saved.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&saved[at..at + 2], 16).unwrap())
            .collect();
        assert_eq!(hasher.save(), bytes, "the layout changed: raise SAVED_FORMAT");
        let mut restored = Hasher::restore(&bytes).unwrap();
        restored.update(&whole[200..]);
        assert_eq!(restored.finish(), Digest::of(algorithm, &whole));
    }
}

#[test]
fn a_damaged_state_is_refused() {
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(b"some content");
        let saved = hasher.save();
        for length in 0..saved.len() {
            assert!(Hasher::restore(&saved[..length]).is_none(), "{length}");
        }
        for bit in 0..saved.len() * 8 {
            let mut damaged = saved.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Hasher::restore(&damaged).is_none(), "bit {bit}");
        }
        let mut longer = saved;
        longer.push(0);
        assert!(Hasher::restore(&longer).is_none());
    }
}

proptest! {
    #[test]
    fn text_and_json_round_trip(algorithm in algorithms(), content: Vec<u8>) {
        let digest = Digest::of(algorithm, &content);
        prop_assert_eq!(digest.to_string().parse(), Ok(digest));
        let json = serde_json::to_string(&digest).unwrap();
        prop_assert_eq!(&json, &format!("\"{digest}\""));
        prop_assert_eq!(serde_json::from_str::<Digest>(&json).unwrap(), digest);
    }

    #[test]
    fn digests_sort_as_their_texts(a: [u8; 32], b: [u8; 64], c: [u8; 32]) {
        let mut digests = [
            Digest::from_hash(Algorithm::Sha256, &a).unwrap(),
            Digest::from_hash(Algorithm::Sha512, &b).unwrap(),
            Digest::from_hash(Algorithm::Sha256, &c).unwrap(),
        ];
        digests.sort();
        let mut texts: Vec<_> = digests.iter().map(ToString::to_string).collect();
        let sorted = texts.clone();
        texts.sort();
        prop_assert_eq!(texts, sorted);
    }

    #[test]
    fn a_parsed_digest_prints_its_original_text(text in "(sha256|sha512|md5)?:?[0-9a-fA-F]{0,130}|\\PC*") {
        if let Ok(digest) = text.parse::<Digest>() {
            prop_assert_eq!(digest.to_string(), text);
        }
    }

    #[test]
    fn a_restored_hasher_continues_where_it_was_saved(
        algorithm in algorithms(),
        content in proptest::collection::vec(any::<u8>(), 0..600),
        mut cuts in proptest::collection::vec(0usize..600, 0..5),
    ) {
        for cut in &mut cuts {
            *cut = (*cut).min(content.len());
        }
        cuts.sort_unstable();
        cuts.push(content.len());
        let mut hasher = Hasher::new(algorithm);
        let mut start = 0;
        for cut in cuts {
            hasher.update(&content[start..cut]);
            start = cut;
            hasher = Hasher::restore(&hasher.save()).unwrap();
        }
        prop_assert_eq!(hasher.algorithm(), algorithm);
        prop_assert_eq!(hasher.finish(), Digest::of(algorithm, &content));
    }

    #[test]
    fn arbitrary_bytes_are_refused_and_never_panic(saved: Vec<u8>) {
        prop_assert!(Hasher::restore(&saved).is_none());
    }
}

/// Tests every split of the content around the block boundaries of both algorithms, not only those that a generator
/// picks.
#[test]
fn a_hasher_can_be_saved_at_every_split_around_block_boundaries() {
    let content: Vec<u8> = (0..300_u16).map(|n| n.to_le_bytes()[0]).collect();
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        let whole = Digest::of(algorithm, &content);
        for cut in 0..=content.len() {
            let mut hasher = Hasher::new(algorithm);
            hasher.update(&content[..cut]);
            let mut restored = Hasher::restore(&hasher.save()).unwrap();
            restored.update(&content[cut..]);
            assert_eq!(restored.finish(), whole, "{algorithm} cut at {cut}");
        }
    }
}

const SAVED_256: &str = "0101b968ed2be4ca8799b0b28381d093d349e46808053037bae8082b11e9b7295976030000000000000008c0c1c2c3c4\
    c5c6c7000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000\
    000000000000000000004b0cc1296db11224";
const SAVED_512: &str = "010287d67cd53c95038e82c570fa0a272193018f9ae59bb6b57b7bdfaef2947e1430a83c34926cc501dc5a8f20f0b77b\
    83bdf1b616456955e12351b1301a499d09470100000000000000000000000000000048808182838485868788898a8b8c\
    8d8e8f909192939495969798999a9b9c9d9e9fa0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbc\
    bdbebfc0c1c2c3c4c5c6c700000000000000000000000000000000000000000000000000000000000000000000000000\
    00000000000000000000000000000000000042db8a442d90d818";
