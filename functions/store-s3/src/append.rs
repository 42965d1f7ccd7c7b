//! A body becomes an object, or parts of one.
//!
//! While a body arrives, whole parts of it are sent beside; what is left at its end is joined to the last of them. A
//! body that ends before its first part is full is one object, and no multipart upload is begun for it.
//!
//! What is stored and not saved, because the body is cut or the claim was lost, is in nobody's way: every attempt
//! writes to keys of its own, and parts to an upload of the session only if no other attempt can be writing to it. A body
//! that is cut waits for a moment until its parts are stored, so that the next one can put its own in their place.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};
use registry::budget::ClientKey;
use registry::store::blobs::{AppendError, Appended, Source};
use registry::store::sessions::Attempt;
use registry::store::{Reason, StoreError};

use crate::multipart::{Sent, Target};
use crate::parts::{Begun, Sending};
use crate::plan::{LAST_NUMBER, LEAST, Parts};
use crate::record::{Part, Run};
use crate::room::{Allowance, Held};
use crate::rope::{Content, Rope};
use crate::state::{OpenUpload, State, Tail};
use crate::store::Store;
use crate::time::Span;

/// For how long the parts of a body that was cut are waited for. Its room stays taken, and its session claimed.
const SETTLING: Duration = Duration::from_secs(5);

impl Store {
    pub(crate) async fn append(
        self: &Arc<Self>,
        span: Span,
        client: ClientKey,
        attempt: Attempt,
        state: &[u8],
        source: &mut dyn Source,
    ) -> Result<Appended, AppendError> {
        let state = State::decode(state)?;
        let _open = self.bucket.counters.upload();
        let Some(first) = source.next().await? else {
            return Ok(self.append_nothing(span, attempt, state).await?);
        };
        // A small object before this body is sent again together with it.
        let carried = state.tail.filter(|tail| self.is_carried(&state, *tail));
        let carried_bytes = carried.map_or(0, |tail| usize::try_from(tail.size).unwrap_or(usize::MAX));
        let declared = source
            .remaining()
            .map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        let wanted = declared.map_or(usize::MAX, |bytes| bytes.saturating_add(first.len() + carried_bytes));
        let room = self.room.begin(client, self.parts.base(wanted)).await?;
        let mut writer = Writer::new(self, span, attempt, state, room);
        writer.expected = declared.map(|_| wanted as u64);
        let stored = async {
            if let Some(tail) = carried {
                // It comes all at once, so that there is memory for it first.
                while writer.room.go_on(0).await? {}
                writer.carry(tail).await?;
            }
            writer.take(first).await?;
            while let Some(chunk) = writer.next(source).await? {
                writer.take(chunk).await?;
            }
            // What was carried comes before what was hashed.
            let sha256 = source.sha256().filter(|_| carried.is_none());
            Ok(writer.finish(sha256).await?)
        };
        match stored.await {
            Ok(stored) => {
                writer.keep();
                Ok(stored)
            }
            Err(AppendError::Body(error)) if !writer.settle().await => Err(AppendError::WriteInFlight(error)),
            Err(error) => {
                writer.give_up().await;
                Err(error)
            }
        }
    }

    /// What the state becomes when an attempt has written nothing to the session's upload that could still change: the
    /// next one may write to it.
    pub(crate) fn after_failed_attempt(attempt: Attempt, state: &[u8]) -> Option<Vec<u8>> {
        // One that cannot be read will be refused where it can be told.
        let mut state = State::decode(state).ok()?;
        if state.upload.is_none() || !state.is_followed_by(attempt.number) {
            return None;
        }
        state.last = attempt.number;
        state.encode().ok()
    }

    /// An empty body. Only the first one makes a difference: an object of no bytes.
    async fn append_nothing(&self, span: Span, attempt: Attempt, mut state: State) -> Result<Appended, StoreError> {
        if state.bodies == 0 {
            let key = self.keys.object(attempt);
            self.bucket
                .put(&key, &Rope::default().cut(0), None, span.begin())
                .await?;
            state.bodies = 1;
            state.last = attempt.number;
            state.tail = Some(Tail {
                attempt: attempt.number,
                size: 0,
            });
        } else if state.is_followed_by(attempt.number) {
            state.last = attempt.number;
        }
        Ok(Appended {
            state: state.encode()?,
            part: None,
        })
    }

    /// Whether an object is read back and sent again before the next bytes, rather than copied as a part.
    fn is_carried(&self, state: &State, tail: Tail) -> bool {
        state.upload.is_some() || self.parts == Parts::Equal || tail.size < LEAST as u64
    }
}

/// Stores one body.
struct Writer<'a> {
    store: &'a Arc<Store>,
    span: Span,
    attempt: Attempt,
    /// What was stored before.
    before: State,
    /// How many bytes will follow that, if the client has told.
    expected: Option<u64>,
    room: Allowance,
    /// How many bytes were received, and read back.
    arrived: u64,
    rope: Rope,
    /// The upload that takes this body's parts, once there is one.
    open: Option<Open>,
    sending: Sending,
    parts: Vec<Part>,
    /// Whether each part was sent once, so that none of an earlier sending can still arrive.
    sent_once: bool,
    /// Whether there may be uploads that nobody knows, begun by requests whose answers were lost.
    littered: bool,
}

struct Open {
    upload: OpenUpload,
    target: Target,
    /// Whether this attempt has begun it.
    begun: Option<Begun>,
    /// Whether a part of this body has reached it.
    proven: bool,
}

impl<'a> Writer<'a> {
    fn new(store: &'a Arc<Store>, span: Span, attempt: Attempt, before: State, room: Allowance) -> Self {
        Self {
            sending: Sending::new(&store.bucket, span),
            littered: before.littered,
            store,
            span,
            attempt,
            before,
            expected: None,
            room,
            arrived: 0,
            rope: Rope::default(),
            open: None,
            parts: Vec::new(),
            sent_once: true,
        }
    }

    fn key(&self, attempt: u32) -> String {
        self.store.keys.object(self.attempt_of(attempt))
    }

    fn attempt_of(&self, number: u32) -> Attempt {
        Attempt {
            session: self.attempt.session,
            number,
        }
    }

    /// Reads back what an earlier attempt has stored.
    async fn carry(&mut self, tail: Tail) -> Result<(), AppendError> {
        if tail.size == 0 {
            return Ok(());
        }
        let object = self.attempt_of(tail.attempt);
        let key = if self.before.upload.is_some() {
            self.store.keys.staged(object)
        } else {
            self.store.keys.object(object)
        };
        for chunk in self
            .store
            .bucket
            .fetch(&key, tail.size, self.span.begin())
            .await
            .map_err(StoreError::from)?
        {
            self.take(chunk).await?;
        }
        Ok(())
    }

    /// Waits for a chunk, unless this body has to give way because it arrives too slowly while others wait for memory.
    async fn next(&mut self, source: &mut dyn Source) -> Result<Option<Bytes>, AppendError> {
        let must_give_way = std::pin::pin!(self.room.must_give_way(self.arrived));
        match select(source.next(), must_give_way).await {
            Either::Left((chunk, _)) => Ok(chunk?),
            Either::Right(_) => {
                let gave_way = "memory is short: an upload that arrived too slowly gave way to others";
                Err(StoreError::because(Reason::Memory, gave_way).into())
            }
        }
    }

    /// Takes a chunk, and sends what is full. Waits while there is no room for another.
    async fn take(&mut self, chunk: Bytes) -> Result<(), AppendError> {
        self.arrived += chunk.len() as u64;
        self.rope.push(chunk);
        while let Some(stored) = self.sending.stored_already() {
            self.stored(stored?);
        }
        loop {
            if let Some(bytes) = self.store.parts.cut(self.next_number(), self.rope.len()) {
                self.send(bytes).await?;
            } else if self.room.has_room_behind(self.rope.len()) {
                return Ok(());
            } else if self.room.go_on(self.arrived).await? {
                // It had only begun.
            } else if self.room.grow() {
                // Perhaps more is needed.
            } else if let Some(stored) = self.sending.stored().await {
                self.stored(stored?);
            } else if let Some(bytes) = self.store.parts.cut_early(self.rope.len()) {
                self.send(bytes).await?;
            } else {
                self.room.wait(self.store.parts).await?;
            }
        }
    }

    fn stored(&mut self, (part, base): (Sent, Held)) {
        self.room.take_back(base);
        self.sent_once &= part.once;
        self.parts.push(part.part);
    }

    /// The number that the next part gets, or would get if the session's upload takes it.
    fn next_number(&self) -> u16 {
        let open = self.open.as_ref().map(|open| open.upload.next);
        open.or(self.before.upload.as_ref().map(|upload| upload.next))
            .unwrap_or(1)
    }

    /// Sends the first bytes as a part.
    async fn send(&mut self, bytes: usize) -> Result<(), StoreError> {
        let content = self.rope.cut(bytes);
        let lent = self.room.lend(content.len());
        let (number, is_proven) = {
            let open = self.open().await?;
            open.has_numbers()?;
            (open.upload.next, open.proven)
        };
        if is_proven {
            let open = self.open().await?;
            let target = open.target.clone();
            open.count(&content);
            self.sending.start(&target, number, content, lent);
            return Ok(());
        }
        // The first part that follows an earlier body is sent alone: should the upload have been sealed in the
        // meantime, nothing of this body is lost yet, and another upload can take it.
        let mut part = self.send_alone(number, &content).await?;
        if part.is_none() {
            self.begin().await?;
            part = self.send_alone(self.next_number(), &content).await?;
        }
        let part = part.ok_or_else(|| StoreError::failed("an upload that was just begun is gone"))?;
        self.room.take_back(lent.base);
        self.parts.push(part);
        let open = self.open().await?;
        open.proven = true;
        open.count(&content);
        Ok(())
    }

    /// Sends a part and waits for it. `None`: the upload is gone.
    async fn send_alone(&mut self, number: u16, content: &Content) -> Result<Option<Part>, StoreError> {
        let deadline = self.span.begin();
        let bucket = Arc::clone(&self.store.bucket);
        let target = self.open().await?.target.clone();
        match bucket.upload_part(&target, number, content, deadline).await {
            Ok(sent) => {
                self.sent_once &= sent.once;
                Ok(Some(sent.part))
            }
            Err(fault) if fault.is_absent() => Ok(None),
            Err(fault) => Err(fault.into()),
        }
    }

    /// The upload that takes this body's parts: the session's if nobody else can be using it, else a new one.
    async fn open(&mut self) -> Result<&mut Open, StoreError> {
        if self.open.is_none() {
            match self.usable() {
                Some(upload) => {
                    let target = Target {
                        key: self.key(upload.attempt),
                        id: upload.id.clone(),
                        checksums: upload.checksums,
                    };
                    self.open = Some(Open {
                        upload,
                        target,
                        begun: None,
                        proven: false,
                    });
                }
                None => self.begin().await?,
            }
        }
        self.open
            .as_mut()
            .ok_or_else(|| StoreError::failed("an upload was opened and is not there"))
    }

    fn usable(&self) -> Option<OpenUpload> {
        let upload = self.before.upload.as_ref()?;
        let is_crowded = self.store.parts.is_crowded(upload.next, self.expected);
        let is_usable = self.before.is_followed_by(self.attempt.number) && !is_crowded;
        is_usable.then(|| upload.clone())
    }

    /// Begins an upload behind what was stored before.
    async fn begin(&mut self) -> Result<(), StoreError> {
        let key = self.key(self.attempt.number);
        let bucket = &self.store.bucket;
        // Stores differ in the checksums that they answer for what is copied from other uploads.
        let may_have_checksums = self.before.upload.is_none();
        let (target, repeated) = bucket.begin(&key, may_have_checksums, self.span.begin()).await?;
        self.littered |= repeated;
        let begun = Begun {
            bucket: Arc::clone(bucket),
            target: Some(target.clone()),
            span: self.span,
        };
        let (prefix, first) = match &self.before.upload {
            Some(before) => {
                let copies = self.store.parts.copies(before.end(), before.next - 1);
                (before.end(), copies + 1)
            }
            None => (0, 1),
        };
        let upload = OpenUpload {
            attempt: self.attempt.number,
            id: target.id.clone(),
            prefix,
            first,
            next: first,
            own: 0,
            checksums: target.checksums,
        };
        self.open = Some(Open {
            upload,
            target: target.clone(),
            begun: Some(begun),
            proven: true,
        });
        match self.before.tail {
            Some(tail) if !self.store.is_carried(&self.before, tail) => self.copy(&target, tail).await,
            _ => Ok(()),
        }
    }

    /// Makes a single object the first part.
    async fn copy(&mut self, target: &Target, tail: Tail) -> Result<(), StoreError> {
        let source = self.key(tail.attempt);
        let number = self.next_number();
        let copied = self
            .store
            .bucket
            .copy_small(target, number, (&source, tail.size), None, self.span.begin());
        let part = copied.await?;
        if let Some(open) = &mut self.open {
            open.upload.next += 1;
            open.upload.own += part.size;
        }
        self.parts.push(part);
        Ok(())
    }

    /// Stores what is left, and tells what the session holds now.
    async fn finish(&mut self, sha256: Option<[u8; 32]>) -> Result<Appended, StoreError> {
        let follows_large = |tail: Tail| !self.store.is_carried(&self.before, tail);
        let is_object =
            self.open.is_none() && self.before.upload.is_none() && !self.before.tail.is_some_and(follows_large);
        let rest = self.rope.len();
        let mut tail = None;
        if is_object {
            tail = Some(self.put(self.store.keys.object(self.attempt), sha256).await?);
        } else if self.store.parts.is_part(rest) {
            self.send(rest).await?;
        } else if rest > 0 {
            // What is sealed in the end gets the name of an attempt that no other can have sealed.
            self.open().await?;
            tail = Some(self.put(self.store.keys.staged(self.attempt), None).await?);
        }
        while let Some(stored) = self.sending.stored().await {
            self.stored(stored?);
        }
        self.parts.sort_unstable_by_key(|part| part.number);
        let upload = self.open.as_ref().map(|open| open.upload.clone());
        let upload = upload.or_else(|| self.before.upload.clone());
        let part = match &upload {
            Some(upload) if !self.parts.is_empty() => {
                let run = Run {
                    attempt: upload.attempt,
                    id: upload.id.clone(),
                    prefix: upload.prefix,
                    first: upload.first,
                    parts: std::mem::take(&mut self.parts),
                };
                Some(run.encode()?)
            }
            _ => None,
        };
        let state = State {
            bodies: self.before.bodies + 1,
            last: self.attempt.number,
            upload,
            tail,
            littered: self.littered,
        };
        Ok(Appended {
            state: state.encode()?,
            part,
        })
    }

    /// Stores what is left as an object.
    async fn put(&mut self, key: String, sha256: Option<[u8; 32]>) -> Result<Tail, StoreError> {
        let content = self.rope.cut(usize::MAX);
        let deadline = self.span.begin();
        self.store.bucket.put(&key, &content, sha256, deadline).await?;
        Ok(Tail {
            attempt: self.attempt.number,
            size: content.len() as u64,
        })
    }

    /// The body is stored.
    fn keep(&mut self) {
        if let Some(begun) = self.open.as_mut().and_then(|open| open.begun.as_mut()) {
            begun.target = None;
        }
    }

    /// The body is lost. Whether nothing of it can reach the session's upload any more: then the next one may write to
    /// it. What is under way is waited for, and not broken off: its bytes may all be with the store.
    async fn settle(&mut self) -> bool {
        let is_shared = self.open.as_ref().is_some_and(|open| open.begun.is_none());
        let mut settled = true;
        if is_shared {
            let stored = tokio::time::timeout(SETTLING, self.sending.all_stored_once()).await;
            settled = self.sent_once && stored == Ok(true);
        }
        self.give_up().await;
        settled
    }

    /// The body is lost; what this attempt has begun goes with it. An answer to somebody may be waiting for this, so
    /// that it is done beside.
    async fn give_up(&mut self) {
        self.sending.stop().await;
        self.open = None;
    }
}

impl Open {
    /// Whether another part can be sent.
    fn has_numbers(&self) -> Result<(), StoreError> {
        if self.upload.next > LAST_NUMBER {
            return Err(StoreError::failed(
                "an upload has used up the 10,000 parts that the protocol allows",
            ));
        }
        Ok(())
    }

    /// Counts a part that is on its way.
    fn count(&mut self, content: &Content) {
        self.upload.next += 1;
        self.upload.own += content.len() as u64;
    }
}
