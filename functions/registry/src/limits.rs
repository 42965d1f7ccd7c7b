//! The limits, with their defaults.

/// The limits of the registry. Each limit is tested at its value and one past it.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of a manifest; more is 413. The specification requires at least 4 MB.
    pub manifest_bytes: usize,
    /// Descriptors in a manifest; more is 400.
    pub manifest_references: usize,
    /// Nesting depth of JSON; deeper is 400.
    pub json_depth: usize,
    /// Bytes of the form of a request for a token; more is 413.
    pub token_form_bytes: usize,
    /// Bytes of the body of a request to the API, for instance of a policy; more is 413.
    pub api_body_bytes: usize,
    /// Tags in one push; more is 414. The specification requires at least 10.
    pub tags_per_push: usize,
    /// Bytes of a manifest that are stored in the metadata table; a larger manifest becomes an object.
    pub inline_manifest_bytes: usize,
    /// Bytes of annotations (as JSON) that are stored in a referrer's row; larger annotations are read from the
    /// manifest when referrers are listed.
    pub referrer_annotations_bytes: usize,
    /// Bytes of one page of referrers. Clients expect an index that they could also push.
    pub referrers_page_bytes: usize,
    /// Bytes of memory for a response that is read from the store while it is sent; it is never in memory as a whole.
    pub stream_bytes: usize,
    /// Ranges in one request; more is 416.
    pub ranges: usize,
    /// Bytes of a blob, or of ranges of one, in an answer of the registry itself, for shells whose door lets no larger answer
    /// out. `None`: answers have no limit. If an answer would be larger, the client is redirected to the whole blob, and a server
    /// fault (500) says that it cannot be. So such a shell refuses settings by which pulls go through the registry.
    pub blob_answer_bytes: Option<u64>,
    /// Items in a page; a larger `n` is capped.
    pub page: usize,
    /// Rows that a request for the list of repositories reads at most, including those that the client may not see; then the
    /// list ends with a warning.
    pub catalog_rows: usize,
    /// Bytes of a blob; more is 413.
    pub blob_bytes: u64,
    /// Request bodies of one upload, including failed ones; one more is 400. The upload can then still be finished by a
    /// PUT without a body, or cancelled. Each body leaves something to delete, however small it is. PUTs without a body
    /// have the same limit again, since clients repeat a PUT whose response was lost. Less than half a million.
    pub upload_bodies: u32,
    /// Repositories considered for a mount without `from`.
    pub mount_candidates: usize,
    /// Validity of an upload token, in milliseconds.
    pub upload_token_ms: u64,
    /// Duration of a body's claim of its session, in milliseconds; the claim is renewed while the body streams.
    pub claim_ms: u64,
    /// The maximum time, in milliseconds, that the last request of an upload waits while another request has the
    /// claim; then the answer is 429. Less than a minute, which is a common timeout of proxies.
    pub upload_wait_ms: u64,
    /// The maximum time, in milliseconds, to wait in total for the client of a manifest or a form, since received bytes stay in
    /// memory meanwhile. It begins when the memory permit is granted, and stops while the request waits for more
    /// memory.
    pub manifest_ms: u64,
    /// The timeout of one store operation in milliseconds, including retries.
    pub store_ms: u64,
    /// The timeout in milliseconds for making one object of an upload, and for each copy inside the store, if the store
    /// makes copies.
    pub seal_ms: u64,
    /// Hint to clients that upload in chunks (`OCI-Chunk-Min-Length`). Smaller chunks are accepted.
    pub chunk_min_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            manifest_bytes: 4 << 20,
            manifest_references: 4096,
            json_depth: 64,
            token_form_bytes: 16 << 10,
            api_body_bytes: 64 << 10,
            tags_per_push: 20,
            inline_manifest_bytes: 32 << 10,
            referrer_annotations_bytes: 32 << 10,
            referrers_page_bytes: 4 << 20,
            stream_bytes: 64 << 10,
            ranges: 100,
            blob_answer_bytes: None,
            page: 1000,
            catalog_rows: 10_000,
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
