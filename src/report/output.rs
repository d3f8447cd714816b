//! The files that a run leaves for GitLab to upload. Nothing cleans up for a job with
//! `GIT_STRATEGY: none`: a file of an earlier run must be gone before anything can fail, and a new
//! one is whole or not there.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// The variables that name one.
const VARIABLES: [&str; 3] = ["ROTATOR_REPORT", "ROTATOR_DOTENV", "ROTATOR_ANNOTATIONS"];

/// Removes what an earlier run has left, before the configuration is read: it may be wrong.
pub fn remove_earlier_files() {
    for variable in VARIABLES {
        let Some(path) = env::var_os(variable).map(trimmed).filter(|path| !path.is_empty()) else {
            continue;
        };
        if let Err(error) = remove(Path::new(&path)) {
            eprintln!("warning: the file in {variable} of an earlier run is still there: {error}");
        }
    }
}

/// As the configuration reads it.
fn trimmed(path: OsString) -> OsString {
    path.to_str().map(|text| text.trim().into()).unwrap_or(path)
}

fn remove(path: &Path) -> io::Result<()> {
    if is_device(path) || path.is_dir() {
        return Ok(());
    }
    let _ = fs::remove_file(part(path));
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // In a directory that this user may not write to, it is at least emptied.
        Err(_) => fs::File::create(path).map(drop),
        Ok(()) => Ok(()),
    }
}

/// Whether the file could be written.
pub(super) fn can_be_written(path: &Path) -> bool {
    if is_device(path) {
        return fs::OpenOptions::new().append(true).open(path).is_ok();
    }
    let part = part(path);
    !path.is_dir() && fs::File::create(&part).is_ok() && fs::remove_file(part).is_ok()
}

/// Beside its place first: whoever reads there finds the whole text or nothing.
pub(super) fn write(path: &Path, text: &str) -> io::Result<()> {
    if is_device(path) {
        return fs::write(path, text);
    }
    let part = part(path);
    fs::write(&part, text).and_then(|()| fs::rename(&part, path)).inspect_err(|_| {
        let _ = fs::remove_file(&part);
    })
}

fn part(path: &Path) -> PathBuf {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    part.into()
}

/// `/dev/stdout`, for example: nothing that can be removed or replaced.
fn is_device(path: &Path) -> bool {
    ["/dev", "/proc"].iter().any(|folder| path.starts_with(folder))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.json");
        fs::write(&path, "yesterday").unwrap();
        let mut reader = fs::File::open(&path).unwrap();
        write(&path, "today").unwrap();
        let mut seen = String::new();
        reader.read_to_string(&mut seen).unwrap();
        assert_eq!(seen, "yesterday", "who reads already is not cut short");
        assert_eq!(fs::read_to_string(&path).unwrap(), "today");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn removing_takes_the_file_and_its_part_and_no_directory_or_device() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rotation.env");
        fs::write(&path, "yesterday").unwrap();
        fs::write(part(&path), "yest").unwrap();
        for _ in 0..2 {
            remove(&path).unwrap();
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        }
        for kept in [folder.path(), Path::new("/dev/null")] {
            remove(kept).unwrap();
            assert!(kept.exists());
        }
    }

    #[test]
    fn a_place_that_cannot_hold_a_file_is_found_out_before() {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("report.json");
        assert!(can_be_written(&inside) && !inside.exists());
        assert!(can_be_written(Path::new("/dev/null")));
        for bad in [folder.path().to_owned(), folder.path().join("none/report.json")] {
            assert!(!can_be_written(&bad), "{}", bad.display());
        }
    }
}
