//! What is looked at before anything is stored, and what is refused.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Access, AtFlags};

use crate::blobs::DiskBlobs;
use crate::sqlite::{SchemaError, SqliteStore};
use crate::{Embedded, Options, Sync};

/// Why a data directory cannot be used. The texts say what to do next.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// There is nothing at the path, and nothing was to be made.
    #[error("there is no registry in {0}: check the path, or start the server once to create one there")]
    Absent(PathBuf),
    /// The path names something else.
    #[error("{0} is not a directory: give the path of a directory, or of one that is to be created")]
    NotADirectory(PathBuf),
    /// The directory could not be made.
    #[error("cannot create {path}: {cause}; create it yourself and make it writable for this user")]
    NotCreated {
        /// The data directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// This user must not write there.
    #[error("cannot write to {path}: {cause}; make it and everything in it writable for this user, or choose another")]
    NotWritable {
        /// The data directory or a file in it.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// The directory lies on a file system that several hosts can share.
    #[error(
        "{path} is on a network file system ({name}), where locks and syncs cannot be relied on: choose a directory on \
         a local disk"
    )]
    NetworkFileSystem {
        /// The data directory.
        path: PathBuf,
        /// The kind of file system.
        name: &'static str,
    },
    /// The metadata was written by a newer version.
    #[error(
        "{path} has the schema version {found}, and this version knows versions up to {known}: run the version of this \
         program that last used it, or a newer one"
    )]
    NewerSchema {
        /// The metadata file.
        path: PathBuf,
        /// Its schema version.
        found: i64,
        /// The newest version that this program knows.
        known: i64,
    },
    /// The file at the place of the metadata belongs to another program.
    #[error("{0} was not made by this program: choose another data directory, or move the file away")]
    Foreign(PathBuf),
    /// Anything else that the file system refused.
    #[error("cannot open {path}: {cause}")]
    Io {
        /// What was to be opened.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// SQLite cannot use the metadata file.
    #[error("cannot open the metadata in {path}: {cause}; if another process holds it, stop that process")]
    Metadata {
        /// The metadata file.
        path: PathBuf,
        /// What SQLite said.
        #[source]
        cause: Box<dyn std::error::Error + Send + std::marker::Sync>,
    },
}

/// What to do when there is no data directory.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Absent {
    Create,
    Refuse,
}

pub(crate) fn open(options: &Options, absent: Absent) -> Result<Embedded, OpenError> {
    let data = options.data.as_path();
    let file = data.join("metadata.db");
    match std::fs::metadata(data) {
        Ok(found) if !found.is_dir() => return Err(OpenError::NotADirectory(data.to_owned())),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return Err(OpenError::NotADirectory(data.to_owned()));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if absent == Absent::Refuse {
                return Err(OpenError::Absent(data.to_owned()));
            }
            create(data, options.sync)?;
        }
        Err(cause) => {
            return Err(OpenError::Io {
                path: data.to_owned(),
                cause,
            });
        }
    }
    refuse_network(data)?;
    if absent == Absent::Refuse && !file.is_file() {
        return Err(OpenError::Absent(data.to_owned()));
    }
    require_writable(data)?;
    create_private(&file).map_err(|cause| not_opened(&file, cause))?;
    let store = SqliteStore::open(&file, options.sync).map_err(|error| match error {
        SchemaError::Newer { found, known } => OpenError::NewerSchema {
            path: file.clone(),
            found,
            known,
        },
        SchemaError::Foreign => OpenError::Foreign(file.clone()),
        SchemaError::Sqlite(cause) => OpenError::Metadata {
            path: file.clone(),
            cause: cause.into(),
        },
    })?;
    let tree = data.join("blobs");
    let blobs =
        DiskBlobs::open(&tree, options.sync, options.upload_memory).map_err(|cause| not_opened(&tree, cause))?;
    if options.sync == Sync::Full {
        sync_directory(data).map_err(|cause| not_opened(data, cause))?;
    }
    let store = Arc::new(store);
    Ok(Embedded {
        blobs: Arc::new(blobs),
        metadata: Arc::clone(&store),
        sessions: store,
    })
}

/// Makes the directory for this user alone, with its parents as the user's mask says.
fn create(data: &Path, sync: Sync) -> Result<(), OpenError> {
    let not_created = |cause| OpenError::NotCreated {
        path: data.to_owned(),
        cause,
    };
    let parent = match data.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    std::fs::create_dir_all(parent).map_err(not_created)?;
    match DirBuilder::new().mode(0o700).create(data) {
        // Another process that starts at the same time.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => made.map_err(not_created)?,
    }
    if sync == Sync::Full {
        sync_directory(parent).map_err(not_created)?;
    }
    Ok(())
}

/// Makes the metadata file for this user alone before SQLite opens it: SQLite would make it readable for others, and
/// gives the log the same mode.
fn create_private(file: &Path) -> io::Result<()> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(file) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            // To find out now, with a plain cause, whether it can be written.
            OpenOptions::new().read(true).write(true).open(file).map(drop)
        }
        made => made.map(drop),
    }
}

fn require_writable(data: &Path) -> Result<(), OpenError> {
    rustix::fs::accessat(
        rustix::fs::CWD,
        data,
        Access::WRITE_OK | Access::EXEC_OK,
        AtFlags::EACCESS,
    )
    .map_err(|error| not_opened(data, error.into()))
}

fn not_opened(path: &Path, cause: io::Error) -> OpenError {
    let path = path.to_owned();
    match cause.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => OpenError::NotWritable { path, cause },
        io::ErrorKind::NotADirectory => OpenError::NotADirectory(path),
        _ => OpenError::Io { path, cause },
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(target_os = "linux")]
fn refuse_network(data: &Path) -> Result<(), OpenError> {
    let system = rustix::fs::statfs(data).map_err(|error| OpenError::Io {
        path: data.to_owned(),
        cause: error.into(),
    })?;
    // The field's width and sign differ between machines; the numbers are all below 2^32.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "only the low 32 bits count"
    )]
    let magic = system.f_type as u32;
    match network_file_system(magic) {
        Some(name) => Err(OpenError::NetworkFileSystem {
            path: data.to_owned(),
            name,
        }),
        None => Ok(()),
    }
}

#[cfg(not(target_os = "linux"))]
fn refuse_network(_: &Path) -> Result<(), OpenError> {
    Ok(())
}

/// The name of a file system that several hosts may share, by the number that `statfs(2)` answers. FUSE is among them:
/// what is behind it cannot be told, and mostly it is a network.
#[cfg(target_os = "linux")]
fn network_file_system(magic: u32) -> Option<&'static str> {
    Some(match magic {
        0x6969 => "NFS",
        0x517B => "SMB",
        0xFF53_4D42 => "CIFS",
        0xFE53_4D42 => "SMB2",
        0x6573_5546 => "FUSE",
        0x0102_1997 => "9P",
        0x00C3_6400 => "Ceph",
        0x0BD0_0BD0 => "Lustre",
        0x0116_1970 => "GFS2",
        0x7461_636F => "OCFS2",
        0x4750_4653 => "GPFS",
        0x1983_0326 => "BeeGFS",
        0x5346_414F | 0x6B41_4653 => "AFS",
        0x7375_7245 => "Coda",
        0x564C => "NCP",
        0x2003_0528 => "OrangeFS",
        0xAAD7_AAEA => "PanFS",
        0x7886_1B50 => "VirtualBox shared folder",
        0xBACB_ACBC => "VMware shared folder",
        _ => return None,
    })
}
