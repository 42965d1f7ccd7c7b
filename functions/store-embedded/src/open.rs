//! Checks a data directory before anything is stored in it, and refuses what cannot be used.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Access, AtFlags};

use crate::blobs::DiskBlobs;
use crate::sqlite::{SchemaError, SqliteStore};
use crate::{Embedded, EmbeddedOptions, Sync};

/// Why a data directory cannot be used. Each text says what the operator can do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Nothing exists at the path, and the caller did not ask to create it.
    #[error("there is no registry in {0}: check the path, or start the server once to create one there")]
    Absent(PathBuf),
    /// The path leads to something that is not a directory.
    #[error("{0} is not a directory: give the path of a directory, or of a directory that does not exist yet")]
    NotADirectory(PathBuf),
    /// The directory could not be created.
    #[error("cannot create {path}: {cause}; create it yourself and make it writable for this user")]
    NotCreated {
        /// The data directory.
        path: PathBuf,
        /// The error of the operating system.
        #[source]
        cause: io::Error,
    },
    /// This user may not write there.
    #[error(
        "cannot write to {path}: {cause}; make it and everything in it writable for this user, or choose another \
         directory"
    )]
    NotWritable {
        /// The data directory or a file in it.
        path: PathBuf,
        /// The error of the operating system.
        #[source]
        cause: io::Error,
    },
    /// The directory lies on a file system that several hosts can share.
    #[error(
        "{path} is on a network file system ({name}), where locks and syncs are not reliable: choose a directory on \
         a local disk"
    )]
    NetworkFileSystem {
        /// The data directory.
        path: PathBuf,
        /// The type of the file system.
        name: String,
    },
    /// A newer version of this program wrote the metadata.
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
    /// The file at the path of the metadata belongs to another program.
    #[error("{0} does not belong to this program: choose another data directory, or move the file away")]
    Foreign(PathBuf),
    /// Any other error of the file system.
    #[error("cannot open {path}: {cause}")]
    Io {
        /// The path that was opened.
        path: PathBuf,
        /// The error of the operating system.
        #[source]
        cause: io::Error,
    },
    /// SQLite cannot use the metadata file.
    #[error("cannot open the metadata in {path}: {cause}; if another process has locked it, stop that process")]
    Metadata {
        /// The metadata file.
        path: PathBuf,
        /// The error of SQLite.
        #[source]
        cause: Box<dyn std::error::Error + Send + std::marker::Sync>,
    },
}

/// The directory of the blobs, in the data directory.
const BLOBS: &str = "blobs";

/// What to do when the data directory does not exist.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum IfAbsent {
    Create,
    Refuse,
}

pub(crate) fn open(options: &EmbeddedOptions, if_absent: IfAbsent) -> Result<Embedded, OpenError> {
    let data = options.data.as_path();
    let file = data.join("metadata.db");
    let tree = prepare(options, if_absent, &file)?;
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
    let blobs = DiskBlobs::open(&tree, options).map_err(|cause| not_opened(&tree, cause))?;
    if options.sync == Sync::Full {
        // In every case, because the process that created the files may have been stopped before this line. Only the
        // directory is synced: SQLite syncs its own files, and `create_private` explains why no other code may open
        // them.
        sync_path(data).map_err(|cause| not_opened(data, cause))?;
    }
    let store = Arc::new(store);
    Ok(Embedded {
        blobs: Arc::new(blobs),
        metadata: Arc::clone(&store),
        sessions: store,
    })
}

/// Opens only the blobs, for a registry whose metadata is in another store.
pub(crate) fn open_blobs(options: &EmbeddedOptions, if_absent: IfAbsent) -> Result<DiskBlobs, OpenError> {
    let data = options.data.as_path();
    let tree = prepare(options, if_absent, &data.join(BLOBS))?;
    let blobs = DiskBlobs::open(&tree, options).map_err(|cause| not_opened(&tree, cause))?;
    if options.sync == Sync::Full {
        sync_path(data).map_err(|cause| not_opened(data, cause))?;
    }
    Ok(blobs)
}

/// Makes sure that the data directory can be used, and returns the path of the blobs in it. With [`IfAbsent::Refuse`],
/// a directory without `proof` counts as absent.
fn prepare(options: &EmbeddedOptions, if_absent: IfAbsent, proof: &Path) -> Result<PathBuf, OpenError> {
    let data = options.data.as_path();
    match std::fs::metadata(data) {
        Ok(found) if !found.is_dir() => return Err(OpenError::NotADirectory(data.to_owned())),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return Err(OpenError::NotADirectory(data.to_owned()));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if if_absent == IfAbsent::Refuse {
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
    let tree = data.join(BLOBS);
    if tree.exists() {
        // It may be a symbolic link or a mount.
        refuse_network(&tree)?;
    }
    if if_absent == IfAbsent::Refuse && !proof.exists() {
        return Err(OpenError::Absent(data.to_owned()));
    }
    require_writable(data)?;
    Ok(tree)
}

/// Creates the directory with access for this user only. Its parents get the modes of the user's mask.
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
        // Another process starts at the same time.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => made.map_err(not_created)?,
    }
    if sync == Sync::Full {
        sync_path(parent).map_err(not_created)?;
    }
    Ok(())
}

/// Creates the metadata file with access for this user only, before SQLite opens it. SQLite would let other users read
/// the file. SQLite gives its log the same mode as the file.
///
/// An existing file is not opened here. Only SQLite and the `PathWatch` over it open the file, and the watch never
/// closes it. POSIX releases every lock that a process has on a file when the process closes any descriptor of that
/// file. Another process could then believe that it is the last user, and remove the log.
fn create_private(file: &Path) -> io::Result<()> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(file) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            // Find out now, with a clear cause, whether the file can be written.
            let wanted = Access::READ_OK | Access::WRITE_OK;
            rustix::fs::accessat(rustix::fs::CWD, file, wanted, AtFlags::EACCESS)?;
            // A restored copy can have any mode. The file contains the keys that sign upload tokens, and so does the
            // log.
            ["", "-wal", "-shm"].iter().try_for_each(|ending| {
                let mut path = file.as_os_str().to_owned();
                path.push(ending);
                make_private(path.as_ref())
            })
        }
        made => made.map(drop),
    }
}

/// Removes the access of other users, without opening the file. A missing file needs no change.
fn make_private(file: &Path) -> io::Result<()> {
    match std::fs::metadata(file) {
        Ok(found) if found.permissions().mode() & 0o077 != 0 => {
            std::fs::set_permissions(file, Permissions::from_mode(0o600))
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
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

fn sync_path(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(target_os = "linux")]
fn refuse_network(data: &Path) -> Result<(), OpenError> {
    let failed = |error: io::Error| OpenError::Io {
        path: data.to_owned(),
        cause: error,
    };
    let system = rustix::fs::statfs(data).map_err(|error| failed(error.into()))?;
    // The field's width and sign differ between machines; all the numbers are below 2^32.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "only the low 32 bits count"
    )]
    let magic = system.f_type as u32;
    let name = match network_file_system(magic) {
        Some("FUSE") => {
            let device = rustix::fs::stat(data).map_err(|error| failed(error.into()))?.st_dev;
            let device = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
            // If the list of mounts cannot be read, the type is unknown and the directory is refused.
            let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
            match mounted_type(&mounts, &device) {
                Some(kind) if LOCAL_FUSE.contains(&kind) => None,
                kind => Some(kind.unwrap_or("FUSE").to_owned()),
            }
        }
        name => name.map(ToOwned::to_owned),
    };
    match name {
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

/// FUSE file systems that belong to one host: file systems on a disk of their own, the layers of a container, and a
/// directory that a virtual machine shares with its host.
#[cfg(target_os = "linux")]
const LOCAL_FUSE: &[&str] = &["fuseblk", "fuse.fuse-overlayfs", "virtiofs"];

/// The type of the file system that is mounted from a device. `mounts` has the format of `/proc/self/mountinfo`
/// (proc(5)): the third field is the device, the first field after the dash is the type.
#[cfg(target_os = "linux")]
fn mounted_type<'a>(mounts: &'a str, device: &str) -> Option<&'a str> {
    mounts
        .lines()
        .filter(|line| line.split(' ').nth(2) == Some(device))
        .find_map(|line| line.split_once(" - ")?.1.split(' ').next())
}

/// The name of a file system that several hosts may share, for the number that `statfs(2)` returns. FUSE is included:
/// its number does not say what serves the file system, and in most cases it is a network.
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

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn network_file_systems_are_recognized_by_their_number() {
        let networks = [
            (0x6969, "NFS"),
            (0xFF53_4D42, "CIFS"),
            (0xFE53_4D42, "SMB2"),
            (0x6573_5546, "FUSE"),
            (0x0102_1997, "9P"),
            (0x00C3_6400, "Ceph"),
            (0x0BD0_0BD0, "Lustre"),
            (0x0116_1970, "GFS2"),
        ];
        for (magic, name) in networks {
            assert_eq!(network_file_system(magic), Some(name), "{magic:x}");
        }
        // ext4, XFS, Btrfs, tmpfs, overlayfs, ZFS, F2FS, bcachefs.
        let local = [
            0xEF53,
            0x5846_5342,
            0x9123_683E,
            0x0102_1994,
            0x794C_7630,
            0x2FC1_2FC1,
            0xF2F5_2010,
            0xCA45_1A4E,
        ];
        for magic in local {
            assert_eq!(network_file_system(magic), None, "{magic:x}");
        }
        refuse_network(Path::new(".")).unwrap();
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_file_system_behind_fuse_is_read_from_the_mounts() {
        let mounts = "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
            36 22 0:50 / /mnt/remote rw,nosuid - fuse.sshfs host:/data rw,user_id=0\n\
            37 22 0:51 / /mnt/usb rw - fuseblk /dev/sdb1 rw\n";
        assert_eq!(mounted_type(mounts, "0:50"), Some("fuse.sshfs"));
        assert_eq!(mounted_type(mounts, "0:51"), Some("fuseblk"));
        assert_eq!(mounted_type(mounts, "0:5"), None);
        assert!(LOCAL_FUSE.contains(&"fuseblk") && !LOCAL_FUSE.contains(&"fuse.sshfs"));
    }

    #[test]
    fn a_refusal_contains_the_path_and_the_next_step() {
        let path = Path::new("/srv/data");
        for kind in [io::ErrorKind::PermissionDenied, io::ErrorKind::ReadOnlyFilesystem] {
            let error = not_opened(path, kind.into());
            assert!(matches!(error, OpenError::NotWritable { .. }), "{error:?}");
            assert!(error.to_string().contains("/srv/data"), "{error}");
        }
        assert!(matches!(
            not_opened(path, io::ErrorKind::NotADirectory.into()),
            OpenError::NotADirectory(_)
        ));
        assert!(matches!(
            not_opened(path, io::ErrorKind::NotFound.into()),
            OpenError::Io { .. }
        ));
    }
}
