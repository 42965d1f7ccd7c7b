//! The methods of the stores, and what each does to its store.

/// What a call does to its store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Makes no request to it.
    NoRequest,
    /// Reads, and writes nothing.
    Reads,
    /// Changes or deletes existing data.
    Changes,
    /// Stores new data, which needs free space.
    Stores,
}

/// Each row is a variant, the method that it stands for, and the effect.
macro_rules! methods {
    ($($module:ident::$store:ident { $($(#[$about:meta])* $variant:ident $method:ident $effect:ident)* })*) => {
        /// The methods of all stores that a [`Hook`](super::Hook) sees. No two stores have a method of the same name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum StoreMethod {
            $($(
                #[doc = concat!(
                    "[`", stringify!($store), "::", stringify!($method), "`](crate::store::",
                    stringify!($module), "::", stringify!($store), "::", stringify!($method), ")."
                )]
                $(#[$about])*
                $variant,
            )*)*
        }

        impl StoreMethod {
            /// What the method does to its store.
            #[must_use]
            pub const fn effect(self) -> Effect {
                match self {
                    $($(Self::$variant => Effect::$effect,)*)*
                }
            }
        }
    };
}

methods! {
    blobs::BlobStore {
        Append append Stores
        Seal seal Changes
        Discard discard Changes
        Read read Reads
        Redirect redirect NoRequest
        Delete delete Changes
        Tidy tidy Changes
        Stat stat Reads
        Objects objects Reads
    }
    sessions::SessionStore {
        Get get Reads
        /// Of a session that the caller expects to be new.
        Claim claim Stores
        /// Of a session that the caller expects to exist, so that both can be counted apart.
        ClaimExisting claim Stores
        Renew renew Changes
        Save save Changes
        Release release Changes
        Parts parts Reads
        Commit commit Changes
        Finish finish Changes
        FinishCommitting finish_committing Changes
        Cancel cancel Changes
        Expired expired Reads
        SigningKeys signing_keys Changes
    }
    metadata::MetadataStore {
        /// Also [`MetadataStore::marked_link`](crate::store::metadata::MetadataStore::marked_link), which is the same
        /// read.
        Link link Reads
        /// Called by each HEAD of a client that may push. It writes only if it finds a mark: see
        /// [`Hook::may_keep`](super::Hook::may_keep).
        LinkAndUnmark link_and_unmark Reads
        Manifest manifest Reads
        Tag tag Reads
        TaggedManifest tagged_manifest Reads
        Tags tags Reads
        History history Reads
        Repository repository Reads
        Repositories repositories Reads
        CreateRepository create_repository Stores
        Manifests manifests Reads
        Referrers referrers Reads
        CommitBlob commit_blob Stores
        ReplaceLocation replace_location Changes
        RecordDefect record_defect Changes
        ClearMissing clear_missing Changes
        RecordDamagedManifest record_damaged_manifest Changes
        Mount mount Stores
        LinkingRepositories linking_repositories Reads
        PutManifest put_manifest Stores
        DeleteTag delete_tag Changes
        DeleteManifest delete_manifest Changes
        Unlink unlink Changes
    }
    collection::CollectionStore {
        BeginPass begin_pass Changes
        Checkpoint checkpoint Changes
        CollectMetadata collect_metadata Changes
        Sweep sweep Changes
        PendingDeletions pending_deletions Reads
        CheckPendingDeletion check_pending_deletion Reads
        RemovePendingDeletions remove_pending_deletions Changes
    }
    records::RecordStore {
        Walk walk Reads
        RecordedObject recorded_object Reads
        MissingBackReferences missing_back_references Reads
        Insert insert Stores
    }
    access::AccessStore {
        State state Reads
        Account account Reads
        StateAndAccount state_and_account Reads
        Accounts accounts Reads
        PolicyDocument policy_document Reads
        Policy policy Reads
        Policies policies Reads
        /// Allowed on a full disk: it may take a permission away.
        Apply apply Changes
        Audit audit Reads
        TokenSeeds token_seeds Reads
        AddTokenSeed add_token_seed Changes
        RemoveTokenSeed remove_token_seed Changes
        Failures failures Reads
        PutFailures put_failures Changes
        ClearFailures clear_failures Changes
        RecordUse record_use Changes
        LastUses last_uses Reads
    }
}
