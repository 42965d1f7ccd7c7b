//! Lost and damaged objects, and the calls that detect them.

use registry::store::Location;
use registry::store::metadata::{Content, Defect, MetadataStore};
use registry::store::records::{RecordStore, RecordedObject};

use super::super::fixtures::FIXTURES;
use super::super::world::SIZE;
use super::Caller;

impl Caller {
    pub(super) async fn lose(&self, name: u8) {
        self.turn().await;
        self.world.lose(name);
    }

    pub(super) async fn bring_back(&self, name: u8) {
        self.turn().await;
        self.world.bring_back(name);
    }

    /// Opens an object as the core does.
    pub(super) async fn pull(&self, r: u8, name: u8) {
        let (repository, digest) = (&FIXTURES.repositories[usize::from(r)], FIXTURES.digest(name));
        let store = &self.store;
        let link = store.link(self.world.cx(), repository, digest).await.expect("link");
        let mut found: Vec<(Location, Option<Defect>)> =
            link.into_iter().map(|link| (link.location, link.defect)).collect();
        let record = store.manifest(self.world.cx(), repository, digest).await;
        match record.expect("manifest").map(|record| record.content) {
            Some(Content::Stored(location)) => found.push((location, None)),
            Some(Content::Defective(location, defect)) => found.push((location, Some(defect))),
            Some(Content::Inline(_) | Content::Damaged(_)) | None => {}
        }
        for (location, defect) in found {
            self.open(r, name, location, defect).await;
        }
    }

    async fn open(&self, r: u8, name: u8, mut location: Location, mut defect: Option<Defect>) {
        let (repository, digest) = (&FIXTURES.repositories[usize::from(r)], FIXTURES.digest(name));
        let store = &self.store;
        loop {
            self.turn().await;
            if defect != Some(Defect::Damaged) && self.world.is_whole(&location.key) {
                if defect.is_some() {
                    let cleared = store.clear_missing(self.world.cx(), digest, &location).await;
                    cleared.expect("clear_missing");
                }
                return;
            }
            let found = defect.unwrap_or(Defect::Missing);
            let moved = store
                .record_defect(self.world.cx(), Some(repository), digest, &location, found)
                .await;
            match moved.expect("record_defect") {
                Some(moved) => (location, defect) = (moved, None),
                None => return,
            }
        }
    }

    pub(super) async fn repair(&self, name: u8) {
        let digest = FIXTURES.digest(name);
        let recorded = self
            .store
            .recorded_object(self.world.cx(), digest)
            .await
            .expect("recorded_object");
        let Some(RecordedObject { location, .. }) = recorded else {
            return;
        };
        self.turn().await;
        if !self.world.is_whole(&location.key) {
            let recorded = self
                .store
                .record_defect(self.world.cx(), None, digest, &location, Defect::Missing);
            recorded.await.expect("record_defect");
        }
    }

    /// What a caller that has published `offered` does when the bytes have another location.
    pub(super) async fn make_sure(&self, name: u8, offered: &Location, mut location: Location) {
        while location != *offered {
            self.turn().await;
            if self.world.is_whole(&location.key) {
                return;
            }
            let replaced =
                self.store
                    .replace_location(self.world.cx(), FIXTURES.digest(name), &location, offered, SIZE);
            match replaced.await.expect("replace_location") {
                Some(now) => location = now,
                None => return,
            }
        }
    }
}
