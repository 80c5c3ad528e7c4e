//! Which file is being read: what a disk, or a pipe in the place of a file, keeps waiting is named.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

thread_local! {
    /// The reading that runs on this thread.
    static OWN: RefCell<Option<Reading>> = const { RefCell::new(None) };
}

/// A reading of the settings, as others see it while it lasts; a clone is the same one.
#[derive(Clone, Default)]
pub struct Reading(Arc<Mutex<Option<PathBuf>>>);

impl Reading {
    /// Reads on this thread, as this reading.
    pub fn carry<T>(self, read: impl FnOnce() -> T) -> T {
        OWN.set(Some(self));
        let done = read();
        OWN.set(None);
        done
    }

    /// The file that was begun last; `None` before the first one.
    pub fn file(&self) -> Option<PathBuf> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<PathBuf>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// This thread begins with this file. Where nobody looks on, this does nothing.
pub(super) fn begin(file: &Path) {
    OWN.with_borrow(|own| {
        if let Some(reading) = own {
            *reading.lock() = Some(file.to_owned());
        }
    });
}
