//! `tbot copy-binaries` (surface §A.13): an init container hands the agent to a container whose image has none.

use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

/// Copies this program as `tbot`, mode 0755, into `directory`, 0755, which is created where it is missing.
pub(crate) fn copy(directory: &Path) -> Result<(), String> {
    let target = directory.join("tbot");
    let failed = |e: std::io::Error| format!("{} cannot be written: {e}", target.display());
    let program = std::env::current_exe().map_err(|e| format!("where this program lies: {e}"))?;
    std::fs::DirBuilder::new().recursive(true).mode(0o755).create(directory).map_err(failed)?;
    // A program that runs cannot be overwritten, but it can be replaced.
    let mut staged = tempfile::Builder::new().prefix(".tbot-").tempfile_in(directory).map_err(failed)?;
    let mut source = std::fs::File::open(&program).map_err(|e| format!("{}: {e}", program.display()))?;
    std::io::copy(&mut source, &mut staged).map_err(failed)?;
    staged.as_file().set_permissions(PermissionsExt::from_mode(0o755)).map_err(failed)?;
    staged.persist(&target).map_err(|e| failed(e.error))?;
    println!("Copied {} to {}", program.display(), target.display());
    Ok(())
}
