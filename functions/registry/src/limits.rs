//! The named limits, with their defaults.

/// Every bound of the registry. Each is tested at its value and one past it.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of a manifest; more is 413. The specification asks for at least 4 MB.
    pub manifest_bytes: usize,
    /// Descriptors in a manifest; more is 400.
    pub manifest_references: usize,
    /// Nesting of JSON; deeper is 400.
    pub json_depth: usize,
    /// Tags in one push; more is 414. The specification asks for at least 10.
    pub tags_per_push: usize,
    /// Bytes of a manifest that are kept in the metadata table; a larger one becomes an object.
    pub inline_manifest_bytes: usize,
    /// Bytes of annotations (as JSON) kept in a referrer's row; more are read from the manifest when listed.
    pub referrer_annotations_bytes: usize,
    /// Bytes of one page of referrers: the specification's clients expect an index that they could also push.
    pub referrers_page_bytes: usize,
    /// Bytes of memory that are granted to an answer whose bytes are read as they are sent; it is never held whole.
    pub stream_bytes: usize,
    /// Ranges in one request; more is 416.
    pub ranges: usize,
    /// Items in a page; a larger `n` is capped.
    pub page: usize,
    /// Bytes of a blob; more is 413.
    pub blob_bytes: u64,
    /// Request bodies of one upload, also those that came to nothing; one more is 400, and the upload can still be ended
    /// by a PUT without a body, or cancelled. Each leaves something to tidy up, however small it was. PUTs without a
    /// body may come as often again, since one whose answer was lost is repeated. Less than half a million.
    pub upload_bodies: u32,
    /// Repositories considered for a mount without `from`.
    pub mount_candidates: usize,
    /// Milliseconds for which an upload token is valid.
    pub upload_token_ms: u64,
    /// Milliseconds for which a body claims its session; renewed while it streams.
    pub claim_ms: u64,
    /// Milliseconds for which the last request of an upload waits while another one holds the session; then it is 429.
    /// Less than a minute, after which proxies commonly give up.
    pub upload_wait_ms: u64,
    /// Milliseconds for which a manifest's client may be waited for in all, since what has arrived is held in memory
    /// meanwhile. It begins when there is memory, and does not pass while more is waited for.
    pub manifest_ms: u64,
    /// Milliseconds that a store may spend on one operation, retries included.
    pub store_ms: u64,
    /// Milliseconds that a store may spend on making one object of an upload, and on each copy inside the store, if that
    /// takes some.
    pub seal_ms: u64,
    /// Hint to clients that upload in chunks (`OCI-Chunk-Min-Length`); smaller chunks are accepted.
    pub chunk_min_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            manifest_bytes: 4 << 20,
            manifest_references: 4096,
            json_depth: 64,
            tags_per_push: 20,
            inline_manifest_bytes: 32 << 10,
            referrer_annotations_bytes: 32 << 10,
            referrers_page_bytes: 4 << 20,
            stream_bytes: 64 << 10,
            ranges: 100,
            page: 1000,
            blob_bytes: 500 << 30,
            // 500 GiB in bodies of 5 MiB.
            upload_bodies: 102_400,
            mount_candidates: 100,
            upload_token_ms: 24 * 3_600_000,
            claim_ms: 60_000,
            upload_wait_ms: 50_000,
            manifest_ms: 30_000,
            store_ms: 30_000,
            seal_ms: 300_000,
            chunk_min_bytes: 5 << 20,
        }
    }
}
