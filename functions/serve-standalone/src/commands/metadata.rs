//! `roadstead metadata`: creates tables, and moves metadata from one store to another.

mod access_record;
mod export;
mod format;
mod import;

pub(super) use export::run as export;
pub(crate) use format::VERSION as EXPORT_VERSION;
pub(super) use import::run as import;

use shell::stores;

use super::store::run;
use crate::cli::InitArgs;
use crate::failure::Failure;

/// Creates the tables of `--metadata`, if they do not exist.
pub(super) fn init(args: &InitArgs) -> Result<(), Failure> {
    args.stores.check(false).map_err(Failure::Usage)?;
    let made = run(async { Ok(stores::init(&args.stores.config()).await?) })?;
    eprintln!("{made}");
    Ok(())
}
