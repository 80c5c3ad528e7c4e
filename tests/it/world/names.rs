//! What the daemons of a world find when they look names up: their own hosts file, if the world was wished so.

use std::path::PathBuf;
use std::process::Command;

use super::{Daemon, World, write_private};

impl World {
    pub(super) fn hosts(&self) -> PathBuf {
        self.directory.join("hosts")
    }

    /// From now on this name leads to this machine, for the daemons of this world.
    pub(crate) fn name_host(&self, name: &str) {
        let text = std::fs::read_to_string(self.hosts()).unwrap();
        // The daemons see this very file, so it is not replaced by another one.
        write_private(&self.hosts(), &format!("{text}127.0.0.1 {name}\n"));
    }

    /// Daemons that are started from now on get no answer to any look-up of a name: they read their hosts file first,
    /// and it is a pipe into which nobody writes.
    pub(crate) fn hang_names(&self) {
        assert!(self.wish.own_hosts);
        std::fs::remove_file(self.hosts()).unwrap();
        let made = Command::new("mkfifo").arg(self.hosts()).status();
        assert!(made.unwrap().success());
    }

    /// These names lead to this machine from now on, for this daemon. What [`World::hang_names`] has brought to hang hangs
    /// for ever.
    pub(crate) fn mend_names(&self, daemon: &Daemon, names: &[&str]) {
        let mended = self.directory.join("mended-hosts");
        let names = names.join(" ");
        write_private(&mended, &format!("127.0.0.1 localhost {names}\n"));
        daemon.see_hosts(&mended);
    }
}
