//! What a row needs in a registry before it can be measured: blobs and manifests to read, repositories full of tags, a
//! catalog to page through.

use crate::client::Failure;
use crate::content::{Blob, digest_of, manifest};
use crate::rows::{How, MIB, Row, Work};
use crate::site::{Plan, Site};
use crate::task::{Gallery, Image, Read, Task, Wanted, blob_path};

/// Bytes of a config.
const CONFIG: u64 = 512;

impl Site {
    /// Makes `row` ready.
    pub(crate) async fn prepare(&mut self, plan: &mut Plan, row: &Row) -> Result<Task, Failure> {
        let fresh = self.fresh();
        match row.work {
            Work::Start(_) => Err(Failure::Unready(
                "a start is measured only where the server can be started".to_owned(),
            )),
            Work::PushBlob(size, how) => Ok(Task::PushBlob {
                repository: fresh.clone(),
                series: plan.series(size),
                how,
                label: fresh,
            }),
            Work::PullBlob(size) => {
                let count = (32 * MIB / plan.scale.size(size)).clamp(1, 16);
                self.blob_reads(plan, &fresh, size, count, false).await
            }
            Work::HeadBlob => self.blob_reads(plan, &fresh, 1024, 16, true).await,
            Work::Manifest { head, by_digest } => {
                let gallery = gallery(plan, &fresh, &[], How::Put);
                let images = self.push(plan, gallery, 0, 16).await?;
                let read = |image| read_manifest(image, head, by_digest);
                Ok(Task::Reads(images.iter().map(read).collect()))
            }
            Work::PutTags(_) => {
                let repository = self.tagged(row.work);
                let manifest = self.manifest(plan, &repository).await?;
                let prefix = "tag".to_owned();
                Ok(Task::PutTags {
                    repository,
                    manifest,
                    prefix,
                })
            }
            Work::TagsPage(count) => {
                let (count, page) = (plan.scale.number(count), plan.scale.page());
                let repository = self.tagged(row.work);
                self.put_tags(plan, &repository, count).await?;
                Ok(Task::Reads(tag_pages(&repository, count, page)))
            }
            Work::CatalogPage(count) => {
                let page = plan.scale.page();
                let query = format!("?n={page}");
                self.catalog(plan, count, &query).await
            }
            Work::Catalog(count) => self.catalog(plan, count, "").await,
            Work::PushImage(mix, how) => Ok(Task::PushImages(gallery(plan, &fresh, mix, how))),
            Work::PullImage(mix) => {
                let mut images = Vec::new();
                for (weight, size) in mix {
                    let prefix = format!("{fresh}-{size}");
                    images.push((*weight, self.one_image(plan, &prefix, *size).await?));
                }
                Ok(Task::PullImages(images))
            }
            Work::PullAndPush(size) => {
                let image = self.one_image(plan, &format!("{fresh}-pull"), size).await?;
                let gallery = gallery(plan, &fresh, &[(1, size)], How::Put);
                Ok(Task::PullAndPush(Box::new(image), gallery))
            }
        }
    }

    /// Sees to it that there is a repository of so many tags, if any.
    pub(crate) async fn fill(&mut self, plan: &mut Plan, tags: u64) -> Result<(), Failure> {
        if tags == 0 {
            return Ok(());
        }
        let repository = self.tagged(Work::Start(tags));
        self.put_tags(plan, &repository, plan.scale.number(tags)).await
    }

    /// The repository that holds the tags a row is about; rows about the same number share it.
    pub(crate) fn tagged(&self, work: Work) -> String {
        match work {
            Work::PutTags(count) | Work::TagsPage(count) | Work::Start(count) => self.named(&format!("tags-{count}")),
            _ => self.named("tags"),
        }
    }

    /// Reads of `count` new blobs in turn.
    async fn blob_reads(
        &self,
        plan: &mut Plan,
        repository: &str,
        size: u64,
        count: u64,
        head: bool,
    ) -> Result<Task, Failure> {
        let blobs = self.blobs(plan, repository, size, count).await?;
        let read = |blob| read_blob(repository, blob, head);
        Ok(Task::Reads(blobs.iter().map(read).collect()))
    }

    /// Reads of the catalog, of at least `count` repositories.
    async fn catalog(&mut self, plan: &mut Plan, count: u64, query: &str) -> Result<Task, Failure> {
        let (count, page) = (plan.scale.number(count), plan.scale.page());
        let prefix = self.named("catalog");
        if count > self.images {
            let gallery = gallery(plan, &prefix, &[], How::Put);
            self.push(plan, gallery, self.images, count - self.images).await?;
            self.images = count;
        }
        Ok(Task::Reads(vec![Read {
            path: format!("/v2/_catalog{query}"),
            head: false,
            wanted: Wanted::Names("repositories", page.min(count)),
        }]))
    }

    /// Pushes `count` blobs of `size` bytes.
    async fn blobs(&self, plan: &mut Plan, repository: &str, size: u64, count: u64) -> Result<Vec<Blob>, Failure> {
        let series = plan.series(size);
        let blobs = (0..count)
            .map(|number| series.blob(&format!("{repository}-{number}")))
            .collect();
        let label = repository.to_owned();
        let task = Task::PushBlob {
            repository: repository.to_owned(),
            series,
            how: How::Put,
            label,
        };
        self.complete(plan, task, 0, count).await?;
        Ok(blobs)
    }

    /// Pushes `count` images from number `first` on.
    async fn push(&self, plan: &Plan, gallery: Gallery, first: u64, count: u64) -> Result<Vec<Image>, Failure> {
        let images = (first..first + count).map(|number| gallery.image(number)).collect();
        self.complete(plan, Task::PushImages(gallery), first, count).await?;
        Ok(images)
    }

    /// A manifest whose config lies in `repository`.
    async fn manifest(&self, plan: &mut Plan, repository: &str) -> Result<bytes::Bytes, Failure> {
        let config = self.blobs(plan, repository, CONFIG, 1).await?.pop();
        let config = config.ok_or_else(|| Failure::Unready("no config for the tags".to_owned()))?;
        Ok(manifest(&config, None))
    }

    /// Sees to it that `repository` has `count` tags.
    async fn put_tags(&mut self, plan: &mut Plan, repository: &str, count: u64) -> Result<(), Failure> {
        let have = self.tags.get(repository).copied().unwrap_or(0);
        if have < count {
            let manifest = self.manifest(plan, repository).await?;
            let task = Task::PutTags {
                repository: repository.to_owned(),
                manifest,
                prefix: "tag".to_owned(),
            };
            self.complete(plan, task, have, count - have).await?;
            self.tags.insert(repository.to_owned(), count);
        }
        Ok(())
    }

    /// Pushes one image with a layer of `size` bytes.
    async fn one_image(&self, plan: &mut Plan, prefix: &str, size: u64) -> Result<Image, Failure> {
        let gallery = gallery(plan, prefix, &[(1, size)], How::Put);
        let image = self.push(plan, gallery, 0, 1).await?.pop();
        image.ok_or_else(|| Failure::Unready("no image to pull".to_owned()))
    }
}

fn gallery(plan: &mut Plan, prefix: &str, mix: &[(u64, u64)], how: How) -> Gallery {
    let layer = |(weight, size): &(u64, u64)| (*weight, plan.series(*size).blob("layer"));
    let layers = mix.iter().map(layer).collect();
    Gallery {
        prefix: prefix.to_owned(),
        layers,
        configs: plan.series(CONFIG),
        how,
    }
}

/// Pages of `page` tags all over a repository of `count`, except the last, whose length would differ.
fn tag_pages(repository: &str, count: u64, page: u64) -> Vec<Read> {
    let pages = (count / page).saturating_sub(1).clamp(1, 64);
    let read = |turn: u64| {
        let last = match count.checked_sub(page + 1) {
            Some(room) => format!("&last=tag-{:05}", turn * room / pages),
            None => String::new(),
        };
        Read {
            path: format!("/v2/{repository}/tags/list?n={page}{last}"),
            head: false,
            wanted: Wanted::Names("tags", page.min(count)),
        }
    };
    (0..pages).map(read).collect()
}

fn read_blob(repository: &str, blob: &Blob, head: bool) -> Read {
    let wanted = Wanted::Content(blob.size, blob.digest.clone());
    Read {
        path: blob_path(repository, &blob.digest),
        head,
        wanted,
    }
}

fn read_manifest(image: &Image, head: bool, by_digest: bool) -> Read {
    let digest = digest_of(&image.manifest);
    let reference = if by_digest { &digest } else { &image.tag };
    let path = format!("/v2/{}/manifests/{reference}", image.repository);
    Read {
        path,
        head,
        wanted: Wanted::Content(image.manifest.len() as u64, digest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_tags_are_whole() {
        let small = tag_pages("r", 100, 100);
        assert_eq!(small.len(), 1);
        assert_eq!(small[0].path, "/v2/r/tags/list?n=100");
        let large = tag_pages("r", 10_000, 100);
        assert_eq!(large.len(), 64);
        for read in large {
            let last = read.path.split("last=tag-").nth(1);
            let last: u64 = last.and_then(|text| text.parse().ok()).unwrap_or(u64::MAX);
            assert!(last < 10_000 - 100, "{}", read.path);
        }
    }
}
