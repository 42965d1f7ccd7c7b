//! Objects that are lost by accident, and those who find out.

use registry::store::Location;
use registry::store::metadata::{Content, Defect, MetadataStore};
use registry::store::records::{RecordStore, RecordedObject};

use super::super::cast::CAST;
use super::super::world::SIZE;
use super::Actor;

impl Actor {
    pub(super) async fn lose(&self, name: u8) {
        self.turn().await;
        self.world.lose(name);
    }

    pub(super) async fn bring_back(&self, name: u8) {
        self.turn().await;
        self.world.bring_back(name);
    }

    /// As the core opens an object.
    pub(super) async fn pull(&self, r: u8, name: u8) {
        let (repository, digest) = (&CAST.repositories[usize::from(r)], CAST.digest(name));
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
        let (repository, digest) = (&CAST.repositories[usize::from(r)], CAST.digest(name));
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
        let digest = CAST.digest(name);
        let place = self.store.place(self.world.cx(), digest).await.expect("place");
        let Some(RecordedObject { location, .. }) = place else {
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

    /// What whoever has published `offered` does about the bytes that lie elsewhere.
    pub(super) async fn make_sure(&self, name: u8, offered: &Location, mut location: Location) {
        while location != *offered {
            self.turn().await;
            if self.world.is_whole(&location.key) {
                return;
            }
            let replaced = self
                .store
                .replace_location(self.world.cx(), CAST.digest(name), &location, offered, SIZE);
            match replaced.await.expect("replace_location") {
                Some(now) => location = now,
                None => return,
            }
        }
    }
}
