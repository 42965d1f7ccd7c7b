//! The data that the server stores.

use std::collections::{BTreeMap, VecDeque};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use store_s3::Operation;

use super::answers::FakeAnswer;
use super::{BUCKET, SeenRequest};

/// Minimum size of a part that is not the last one.
const MINIMUM_PART: usize = 5 << 20;

/// Objects and uploads, and the properties of the simulated store.
#[derive(Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "stores lack these features in any combination"
)]
pub(crate) struct FakeState {
    pub(crate) objects: BTreeMap<String, FakeObject>,
    pub(crate) uploads: BTreeMap<String, FakeUpload>,
    begun: u64,
    /// The store supports neither conditions, nor checksums of parts, nor deletes of many objects.
    pub(crate) lacks_features: bool,
    /// Responses to copies contain no checksums.
    pub(crate) copies_without_checksums: bool,
    /// A completed upload can be completed again, whatever the parts in the request.
    pub(crate) accepts_repeated_completion: bool,
    /// The deviation in the responses to reads.
    pub(crate) quirk: Option<Quirk>,
    /// Uploads are listed only by their whole key, as `MinIO` does: a prefix matches no longer keys.
    pub(crate) lists_whole_keys: bool,
    /// The entity tags of parts have this number of characters and are not MD5.
    pub(crate) tag_length: usize,
    /// The codes of the next responses to deletes of many objects, each for all keys of one request.
    pub(crate) delete_errors: VecDeque<&'static str>,
}

/// How some stores, or a proxy before them, deviate when an object is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quirk {
    /// The response contains the whole object, whatever the range.
    WholeObjects,
    /// The response contains as many bytes as requested, but from the beginning of the object.
    FirstBytes,
    /// The response contains half of the range.
    HalfRanges,
    /// The response ignores the condition, and contains the object as it is now.
    NoConditions,
    /// The response contains no checksum.
    NoChecksums,
}

pub(crate) struct FakeObject {
    pub(crate) bytes: Bytes,
    pub(crate) etag: String,
    sha256: Option<String>,
}

pub(crate) struct FakeUpload {
    pub(crate) key: String,
    checksums: bool,
    parts: BTreeMap<u16, FakePart>,
}

#[derive(Clone)]
struct FakePart {
    bytes: Bytes,
    etag: String,
    crc32: String,
}

fn etag_of(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes)[..16])
}

fn hex(bytes: &[u8]) -> String {
    let digits: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    digits.concat()
}

fn crc32_of(bytes: &[u8]) -> String {
    STANDARD.encode(crc32fast::hash(bytes).to_be_bytes())
}

/// The texts between `<name>` and `</name>`.
fn elements<'a>(xml: &'a str, name: &str) -> Vec<&'a str> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    xml.split(open.as_str())
        .skip(1)
        .filter_map(|rest| rest.split(close.as_str()).next())
        .collect()
}

impl FakeState {
    pub(crate) fn answer(&mut self, seen: &SeenRequest, body: &Bytes) -> FakeAnswer {
        let header = |name: &str| seen.headers.get(name).map(String::as_str);
        if !header("authorization").is_some_and(|value| value.starts_with("AWS4-HMAC-SHA256"))
            && !seen.query.contains_key("X-Amz-Signature")
        {
            return FakeAnswer::refused(403, "AccessDenied");
        }
        if header("content-encoding").is_some() || header("x-amz-trailer").is_some() {
            return FakeAnswer::refused(501, "NotImplemented");
        }
        if header("x-amz-checksum-crc32").is_some_and(|sum| sum != crc32_of(body))
            || header("x-amz-checksum-sha256").is_some_and(|sum| sum != STANDARD.encode(Sha256::digest(body)))
        {
            return FakeAnswer::refused(400, "BadDigest");
        }
        let signed = header("x-amz-content-sha256").unwrap_or_default();
        let hash = hex(&Sha256::digest(body));
        if signed != "UNSIGNED-PAYLOAD" && signed != hash {
            return FakeAnswer::refused(400, "XAmzContentSHA256Mismatch");
        }
        if let Some("*") = header("if-none-match") {
            if self.lacks_features {
                return FakeAnswer::refused(501, "NotImplemented");
            }
            if self.objects.contains_key(&seen.key) && !self.accepts_repeated_completion {
                return FakeAnswer::refused(412, "PreconditionFailed");
            }
        }
        match seen.operation {
            Operation::PutObject => {
                let object = FakeObject {
                    bytes: body.clone(),
                    etag: etag_of(body),
                    sha256: header("x-amz-checksum-sha256").map(str::to_owned),
                };
                self.objects.insert(seen.key.clone(), object);
                FakeAnswer::new(200, "")
            }
            Operation::GetObject | Operation::HeadObject => self.get(seen),
            Operation::DeleteObject => {
                self.objects.remove(&seen.key);
                FakeAnswer::new(204, "")
            }
            Operation::DeleteObjects if self.lacks_features => FakeAnswer::refused(501, "NotImplemented"),
            Operation::DeleteObjects if !self.delete_errors.is_empty() => {
                let code = self.delete_errors.pop_front().unwrap();
                let errors: Vec<_> = elements(&String::from_utf8_lossy(body), "Key")
                    .into_iter()
                    .map(|key| format!("<Error><Key>{key}</Key><Code>{code}</Code></Error>"))
                    .collect();
                FakeAnswer::xml(&format!("<DeleteResult>{}</DeleteResult>", errors.concat()))
            }
            Operation::DeleteObjects => {
                for key in elements(&String::from_utf8_lossy(body), "Key") {
                    self.objects.remove(key);
                }
                FakeAnswer::xml("<DeleteResult></DeleteResult>")
            }
            Operation::CreateMultipartUpload if self.lacks_features && header("x-amz-checksum-algorithm").is_some() => {
                FakeAnswer::refused(501, "NotImplemented")
            }
            Operation::CreateMultipartUpload => {
                self.begun += 1;
                let id = format!("upload-{}", self.begun);
                let upload = FakeUpload {
                    key: seen.key.clone(),
                    checksums: header("x-amz-checksum-algorithm").is_some(),
                    parts: BTreeMap::new(),
                };
                self.uploads.insert(id.clone(), upload);
                FakeAnswer::xml(&format!(
                    "<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
                ))
            }
            Operation::UploadPart => self.part(seen, body.clone(), |part| {
                FakeAnswer::new(200, "").with("etag", format!("\"{}\"", part.etag))
            }),
            Operation::UploadPartCopy => self.copy(seen),
            Operation::CompleteMultipartUpload => self.complete(seen, &String::from_utf8_lossy(body)),
            Operation::AbortMultipartUpload => match self.uploads.remove(&seen.query["uploadId"]) {
                Some(_) => FakeAnswer::new(204, ""),
                None => FakeAnswer::refused(404, "NoSuchUpload"),
            },
            Operation::ListMultipartUploads => self.list_uploads(seen),
            Operation::ListParts => self.list_parts(seen),
            Operation::ListObjectsV2 => self.list(seen),
            other => panic!("unexpected operation {other:?}"),
        }
    }

    /// Replaces the bytes of a part of every upload.
    pub(crate) fn replace_parts(&mut self, number: u16) {
        for upload in self.uploads.values_mut() {
            let part = upload.parts.get_mut(&number).unwrap();
            part.bytes = vec![0; part.bytes.len()].into();
            part.etag = etag_of(&part.bytes);
        }
    }

    fn get(&self, seen: &SeenRequest) -> FakeAnswer {
        let Some(object) = self.objects.get(&seen.key) else {
            return FakeAnswer::refused(404, "NoSuchKey");
        };
        let quoted = format!("\"{}\"", object.etag);
        let quirk = self.quirk;
        let is_other = seen.headers.get("if-match").is_some_and(|tag| *tag != quoted);
        if is_other && quirk != Some(Quirk::NoConditions) {
            return FakeAnswer::refused(412, "PreconditionFailed");
        }
        let size = object.bytes.len();
        let range = seen.headers.get("range");
        let answer = match range.filter(|_| quirk != Some(Quirk::WholeObjects)) {
            None => FakeAnswer::new(200, object.bytes.clone()).with("content-length", size.to_string()),
            Some(range) => {
                let (first, last) = range
                    .strip_prefix("bytes=")
                    .and_then(|range| range.split_once('-'))
                    .unwrap();
                let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
                if first >= size {
                    return FakeAnswer::refused(416, "InvalidRange");
                }
                let (first, end) = match quirk {
                    Some(Quirk::FirstBytes) => (0, size.min(last + 1) - first),
                    Some(Quirk::HalfRanges) => (first, first + (size.min(last + 1) - first).div_ceil(2)),
                    _ => (first, size.min(last + 1)),
                };
                FakeAnswer::new(206, object.bytes.slice(first..end))
                    .with("content-range", format!("bytes {first}-{}/{size}", end - 1))
            }
        };
        let answer = answer.with("etag", quoted);
        match &object.sha256 {
            Some(sum) if quirk != Some(Quirk::NoChecksums) => answer.with("x-amz-checksum-sha256", sum),
            _ => answer,
        }
    }

    fn part(&mut self, seen: &SeenRequest, bytes: Bytes, answer: impl FnOnce(&FakePart) -> FakeAnswer) -> FakeAnswer {
        let number: u16 = seen.query["partNumber"].parse().unwrap();
        let Some(upload) = self.uploads.get_mut(&seen.query["uploadId"]) else {
            return FakeAnswer::refused(404, "NoSuchUpload");
        };
        if !(1..=10_000).contains(&number) || upload.key != seen.key {
            return FakeAnswer::refused(400, "InvalidArgument");
        }
        let mut etag = etag_of(&bytes);
        if self.tag_length > 0 {
            etag = format!("W-{etag:0>width$}", width = self.tag_length - 2);
        }
        let part = FakePart {
            etag,
            crc32: crc32_of(&bytes),
            bytes,
        };
        let answer = answer(&part);
        upload.parts.insert(number, part);
        answer
    }

    fn copy(&mut self, seen: &SeenRequest) -> FakeAnswer {
        let source = &seen.headers["x-amz-copy-source"];
        let source = source.strip_prefix(&format!("{BUCKET}/")).unwrap();
        let Some(object) = self.objects.get(source) else {
            return FakeAnswer::refused(404, "NoSuchKey");
        };
        let range = seen.headers["x-amz-copy-source-range"].strip_prefix("bytes=").unwrap();
        let (first, last) = range.split_once('-').unwrap();
        let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
        if last >= object.bytes.len() {
            return FakeAnswer::refused(416, "InvalidRange");
        }
        let bytes = object.bytes.slice(first..=last);
        let blind = self.copies_without_checksums;
        self.part(seen, bytes, |part| {
            let sum = if blind {
                String::new()
            } else {
                format!("<ChecksumCRC32>{}</ChecksumCRC32>", part.crc32)
            };
            FakeAnswer::xml(&format!(
                "<CopyPartResult><ETag>&quot;{}&quot;</ETag>{sum}</CopyPartResult>",
                part.etag
            ))
        })
    }

    fn complete(&mut self, seen: &SeenRequest, body: &str) -> FakeAnswer {
        let Some(upload) = self.uploads.get(&seen.query["uploadId"]) else {
            if self.accepts_repeated_completion && self.objects.contains_key(&seen.key) {
                return FakeAnswer::xml("<CompleteMultipartUploadResult></CompleteMultipartUploadResult>");
            }
            return FakeAnswer::refused(404, "NoSuchUpload");
        };
        let (mut whole, mut before) = (Vec::new(), 0);
        let listed = elements(body, "Part");
        for (index, text) in listed.iter().enumerate() {
            let number: u16 = elements(text, "PartNumber")[0].parse().unwrap();
            if number <= before {
                return FakeAnswer::refused(400, "InvalidPartOrder");
            }
            before = number;
            let etag = elements(text, "ETag")[0].replace("&quot;", "").replace('"', "");
            let Some(part) = upload.parts.get(&number).filter(|part| part.etag == etag) else {
                return FakeAnswer::refused(400, "InvalidPart");
            };
            if upload.checksums && elements(text, "ChecksumCRC32").first() != Some(&part.crc32.as_str()) {
                return FakeAnswer::refused(400, "InvalidPart");
            }
            if part.bytes.len() < MINIMUM_PART && index + 1 < listed.len() {
                return FakeAnswer::refused(400, "EntityTooSmall");
            }
            whole.extend_from_slice(&part.bytes);
        }
        let object = FakeObject {
            etag: format!("{}-{}", etag_of(&whole), listed.len()),
            bytes: whole.into(),
            sha256: None,
        };
        self.objects.insert(seen.key.clone(), object);
        self.uploads.remove(&seen.query["uploadId"]);
        FakeAnswer::xml("<CompleteMultipartUploadResult></CompleteMultipartUploadResult>")
    }

    fn list(&self, seen: &SeenRequest) -> FakeAnswer {
        let prefix = seen.query.get("prefix").map_or("", String::as_str);
        let after = seen.query.get("start-after").map_or("", String::as_str);
        let limit: usize = seen.query.get("max-keys").map_or(1000, |limit| limit.parse().unwrap());
        let mut keys = self
            .objects
            .iter()
            .filter(|(key, _)| key.starts_with(prefix) && key.as_str() > after);
        let listed: Vec<_> = keys
            .by_ref()
            .take(limit)
            .map(|(key, object)| {
                format!(
                    "<Contents><Key>{key}</Key><Size>{}</Size></Contents>",
                    object.bytes.len()
                )
            })
            .collect();
        let (more, listed) = (keys.next().is_some(), listed.concat());
        FakeAnswer::xml(&format!(
            "<ListBucketResult><IsTruncated>{more}</IsTruncated>{listed}</ListBucketResult>"
        ))
    }

    fn list_uploads(&self, seen: &SeenRequest) -> FakeAnswer {
        let prefix = seen.query.get("prefix").map_or("", String::as_str);
        let after = seen.query.get("key-marker").map_or("", String::as_str);
        let mut found: Vec<_> = self
            .uploads
            .iter()
            .filter(|(_, upload)| upload.key.starts_with(prefix) && upload.key.as_str() > after)
            .filter(|(_, upload)| !self.lists_whole_keys || upload.key == prefix)
            .map(|(id, upload)| (upload.key.clone(), id.clone()))
            .collect();
        found.sort();
        // Pages are small, so that tests need several.
        let more = found.len() > 3;
        found.truncate(3);
        let listed: Vec<_> = found
            .iter()
            .map(|(key, id)| format!("<Upload><Key>{key}</Key><UploadId>{id}</UploadId></Upload>"))
            .collect();
        let (next, listed) = (found.last().map_or("", |(key, _)| key), listed.concat());
        FakeAnswer::xml(&format!(
            "<ListMultipartUploadsResult><IsTruncated>{more}</IsTruncated><NextKeyMarker>{next}</NextKeyMarker>{listed}</ListMultipartUploadsResult>"
        ))
    }

    fn list_parts(&self, seen: &SeenRequest) -> FakeAnswer {
        let Some(upload) = self.uploads.get(&seen.query["uploadId"]) else {
            return FakeAnswer::refused(404, "NoSuchUpload");
        };
        let number = |name: &str| seen.query.get(name).map(|text| text.parse::<usize>().unwrap());
        let after = number("part-number-marker").unwrap_or(0);
        // Pages are small, so that tests need several.
        let limit = number("max-parts").unwrap_or(1000).min(3);
        let mut parts = upload.parts.iter().filter(|(number, _)| usize::from(**number) > after);
        let listed: Vec<_> = parts
            .by_ref()
            .take(limit)
            .map(|(number, FakePart { bytes, etag, .. })| {
                let size = bytes.len();
                format!(
                    "<Part><PartNumber>{number}</PartNumber><ETag>&quot;{etag}&quot;</ETag><Size>{size}</Size></Part>"
                )
            })
            .collect();
        let (more, listed) = (parts.next().is_some(), listed.concat());
        FakeAnswer::xml(&format!(
            "<ListPartsResult><IsTruncated>{more}</IsTruncated>{listed}</ListPartsResult>"
        ))
    }
}
