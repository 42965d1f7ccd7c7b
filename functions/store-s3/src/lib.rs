//! Blobs in an object store that speaks S3: AWS S3, R2, `MinIO`, versitygw, Garage, Ceph.
//!
//! [`S3Blobs`] implements [`BlobStore`](registry::store::blobs::BlobStore). Read in this order: `keys` (what objects
//! are called), `plan` (how large parts are), `state` and `record` (what a session keeps), `append` (a body
//! becomes an object or parts), `seal` (parts become an object), then `read`, `presign`, `remove` and `list`.
//! `requests` sends, retries and counts; `room` bounds memory.
//!
//! # What it costs
//!
//! Object-store requests, when none fails (`n` parts; the tests hold this table against a real server):
//!
//! | what | requests |
//! |---|---|
//! | pull of a blob, redirected | 0 |
//! | pull of a blob or of one range through the registry | 1 `GetObject` |
//! | push of a body that fits its buffer, as POST+PUT, PATCH+PUT or with a manifest | 1 `PutObject` |
//! | push of a larger one, as POST+PUT or PATCH+PUT | `CreateMultipartUpload`, n `UploadPart`, `CompleteMultipartUpload` |
//! | each PATCH of 5 MiB or more, behind others | n `UploadPart` |
//! | each smaller PATCH | 1 `PutObject`, and 1 `GetObject` if the one before was small too |
//! | the end of an upload whose last body was small | 1 `UploadPartCopy` more |
//! | the first PATCH, if 5 MiB or more and a single object, when another follows | 1 `UploadPartCopy` more |
//! | the end of an upload of several bodies | 1 `HeadObject` and 1 `DeleteObjects` more; what more than 500 bodies have left is deleted by collection |
//! | an upload that is cancelled | 1 `DeleteObjects`, and 1 `AbortMultipartUpload` if it had parts |
//! | a body that is refused or empty | 0 |
//! | a body that was cut off while its server lives | the parts sent so far; the next body puts its own in their place, and nothing is copied |
//! | going on behind a body of which it is not known what became, after parts were stored | as the first; the end copies what came before, in the store: 1 `ListParts` for 1,000 copies, 1 `UploadPartCopy` for 64 MiB or more, 2 `HeadObject` |
//! | the end of an upload with entity tags that are no MD5, if they are more than 256 KiB | 1 `ListParts` more for 1,000 parts |
//!
//! What became of a body is not known when its server has crashed, when another request took its session over, when a part
//! of it was sent twice or was not answered in time, and when it was the last one and its upload could not be sealed or
//! published. Then something of it may still arrive, and the next body must not share an upload with it.
//!
//! A body that fits its buffer is one of fewer than 13 MiB (52 MiB with equal parts). One whose length was not declared, and
//! which finds no room in the memory of all uploads to grow to that, becomes parts as soon as it has 5 MiB, since the rest
//! of its room must not wait for others'.
//!
//! # Bodies and checksums
//!
//! A whole object is sent with its SHA-256, a part with its CRC-32 (a part's checksum has to be kept until the upload
//! is completed, and four bytes of it let the record of a body of 500 GiB fit one item of any table). Both are headers,
//! computed before the request is sent, and headers are signed. The bytes themselves are not signed a second time
//! (`UNSIGNED-PAYLOAD`), and nothing is sent in `aws-chunked` encoding with trailers: that is what stores that are
//! not AWS disagree about most. Whoever can change bytes on the way is kept out by TLS.
//!
//! Parts without checksums, because the store takes none or [`Options::part_checksums`] is off, or because their upload
//! begins with what is copied
//! from another one (stores differ in what they answer for a copied range), are signed with the SHA-256 of their bytes.

mod append;
mod client;
mod codec;
mod credentials;
mod fault;
mod keys;
mod list;
mod multipart;
mod objects;
mod open;
mod options;
mod parts;
mod plan;
mod presign;
mod reach;
mod read;
mod record;
mod remove;
mod requests;
mod room;
mod rope;
mod seal;
mod signed;
mod stages;
mod state;
mod statistics;
mod store;
mod time;
mod window;

pub use open::OpenError;
pub use options::{Encryption, Options, PathStyle};
pub use plan::Parts;
pub use statistics::{Counts, Operation, Statistics};
pub use store::{CheckError, S3Blobs};
