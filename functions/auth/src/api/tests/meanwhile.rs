//! What happens while the registry works.

use std::sync::{Arc, Mutex};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use registry::store::StoreError;
use registry::store::wrapped::{Hook, StoreMethod};

/// Before which put it happens, and what.
type Interruption = (usize, BoxFuture<'static, ()>);

/// Something that happens once, just before the registry puts a manifest. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Meanwhile(Arc<Mutex<Option<Interruption>>>);

impl Meanwhile {
    /// It happens before the put with this number, from now on. The first one is 1.
    pub(super) fn before_put(&self, number: usize, work: impl Future<Output = ()> + Send + 'static) {
        *self.0.lock().unwrap() = Some((number, work.boxed()));
    }

    /// Whether it has happened.
    pub(super) fn is_over(&self) -> bool {
        self.0.lock().unwrap().is_none()
    }
}

impl Hook for Meanwhile {
    fn before(&self, _: StoreMethod) -> Result<(), StoreError> {
        Ok(())
    }

    fn after(&self, _: StoreMethod) -> Result<(), StoreError> {
        Ok(())
    }

    fn gate(&self, method: StoreMethod) -> BoxFuture<'static, ()> {
        let mut next = self.0.lock().unwrap();
        match next.take() {
            Some((1, work)) if method == StoreMethod::PutManifest => return work,
            Some((number, work)) if method == StoreMethod::PutManifest => *next = Some((number - 1, work)),
            other => *next = other,
        }
        std::future::ready(()).boxed()
    }
}
