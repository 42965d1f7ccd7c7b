//! Blobs in an object store with the S3 protocol: AWS S3, R2, `MinIO`, versitygw, Garage, Ceph.
//!
//! [`S3Blobs`] implements [`BlobStore`](registry::store::blobs::BlobStore). Read the modules in this order: `keys` (the
//! keys of objects), `plan` (the sizes of parts), `state` and `record` (the data that a session saves), `append`
//! (stores a request body as an object or as parts), `seal` (makes an object of parts), then `read`, `presign`,
//! `remove` and `list`. `requests` sends, retries and counts requests; `memory` bounds the memory.
//!
//! # Costs
//!
//! The number of object-store requests when none fails (`n` is the number of parts; the tests compare this table with a
//! real server):
//!
//! | operation | requests |
//! |---|---|
//! | pull of a blob, redirected | 0 |
//! | pull of a blob or of one range through the registry | 1 `GetObject` |
//! | push of a body that fits its buffer, as POST+PUT, PATCH+PUT or with a manifest | 1 `PutObject` |
//! | push of a larger body, as POST+PUT or PATCH+PUT | `CreateMultipartUpload`, n `UploadPart`, `CompleteMultipartUpload` |
//! | each PATCH of 5 MiB or more after the first | n `UploadPart` |
//! | each smaller PATCH | 1 `PutObject`, and 1 `GetObject` if the one before was small too |
//! | the end of an upload whose last body was small | 1 `UploadPartCopy` more |
//! | the first PATCH, if it has 5 MiB or more and is a single object, when another follows | 1 `UploadPartCopy` more |
//! | the end of an upload of several bodies | 1 `HeadObject` and 1 `DeleteObjects` more; collection deletes the remains of all bodies before the last 500 |
//! | a cancelled upload | 1 `DeleteObjects`, and 1 `AbortMultipartUpload` if it had parts |
//! | a refused or empty body | 0 |
//! | a body whose connection was cut, while its server keeps running | the parts sent so far. The next body overwrites them |
//! | the first body after one with an unknown outcome, if parts were stored before | as a first body. At the end of the upload, the earlier bytes are copied inside the store: 1 `ListParts` for 1,000 copies, 1 `UploadPartCopy` for 64 MiB or more, 2 `HeadObject` |
//! | the end of an upload whose entity tags are not MD5 and need more than 256 KiB | 1 `ListParts` more for 1,000 parts |
//!
//! The outcome of a body is unknown in these cases:
//!
//! * Its server has crashed.
//! * Another request has taken over its session.
//! * One of its parts was sent twice, or was not answered in time.
//! * It was the last body, and its upload could not be sealed or published.
//!
//! A part of such a body may still arrive. So the next body uses another multipart upload.
//!
//! A body fits its buffer if it has fewer than 13 MiB (52 MiB with equal parts). If the length of a body is not
//! declared and no memory is free, the body does not wait for the memory of other uploads: it is sent as parts from 5
//! MiB on.
//!
//! # Bodies and checksums
//!
//! The store sends a whole object with its SHA-256 and a part with its CRC-32. The checksum of a part must be kept
//! until the upload is completed. Four bytes for each part let the record of a body of 500 GiB fit one item of any
//! table. Both checksums are headers that are computed before the request is sent, and headers are signed. The bytes
//! themselves are not signed a second time (`UNSIGNED-PAYLOAD`). Nothing is sent in `aws-chunked` encoding with
//! trailers, because stores other than AWS differ most in its support. TLS protects the bytes against changes on the
//! way.
//!
//! A part without a checksum is signed with the SHA-256 of its bytes. Parts have no checksums if the store accepts
//! none, if [`S3Options::part_checksums`] is off, or if their upload begins with bytes copied from another upload (stores
//! differ in the checksum that they return for a copied range).

mod append;
mod chunk_queue;
mod client;
mod codec;
mod credentials;
mod error;
mod keys;
mod list;
mod memory;
mod multipart;
mod network_scope;
mod objects;
mod open;
mod options;
mod parts;
mod plan;
mod presign;
mod read;
mod record;
mod remove;
mod requests;
mod seal;
mod signed;
mod stages;
mod state;
mod statistics;
mod store;
mod time;
mod window;

pub use open::OpenError;
pub use options::{Encryption, PathStyle, S3Options};
pub use plan::Parts;
pub use statistics::{ObjectStoreStatistics, Operation, RequestCounts};
pub use store::{CheckError, S3Blobs};
