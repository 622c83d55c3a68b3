//! Compiles C programs against the libocbus.so that `capi/link` has built, and runs them.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::SystemTime;

use tempfile::TempDir;

pub const STRICT: [&str; 4] = ["-std=c99", "-Wall", "-Wextra", "-Werror"];

/// `capi/`.
pub fn folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The folder with libocbus.so, which must be newer than its sources.
pub fn built() -> PathBuf {
    let executable = std::env::current_exe().unwrap();
    let profile = executable.parent().and_then(Path::parent).unwrap();
    let library = profile.join("capi/libocbus.so");
    let how = "run capi/link (make test does)";
    let modified = |path: &Path| path.metadata().and_then(|found| found.modified());
    let Ok(time) = modified(&library) else { panic!("{} is missing: {how}", library.display()) };
    let newest =
        std::fs::read_dir(folder().join("src")).unwrap().map(|file| modified(&file.unwrap().path()).unwrap());
    assert!(newest.max().unwrap_or(SystemTime::UNIX_EPOCH) <= time, "{} is stale: {how}", library.display());
    profile.join("capi")
}

/// A C program of this folder, compiled.
pub struct Program {
    folder: TempDir,
    pub path: PathBuf,
}

impl Program {
    /// `source` is a path below `capi/`.
    pub fn build(source: &str, more: &[&str]) -> Program {
        let temporary = TempDir::new().unwrap();
        let path = temporary.path().join("program");
        let library = built();
        let mut command = Command::new("cc");
        command.args(STRICT).args(["-pedantic", "-g", "-o"]).arg(&path).arg(folder().join(source));
        command.arg("-I").arg(folder().join("include")).arg("-L").arg(&library);
        command.arg(format!("-Wl,-rpath,{}", library.display())).arg("-locbus").args(more);
        succeed(command);
        Program { folder: temporary, path }
    }

    pub fn command(&self) -> Command {
        Command::new(&self.path)
    }

    /// Under valgrind: any error and any memory that is definitely lost is status 99, and told on standard error.
    pub fn valgrind(&self) -> Command {
        let mut command = Command::new("valgrind");
        // The library's threads and the program's take turns: without that, one of them may never run.
        command.args(["-q", "--fair-sched=yes", "--leak-check=full", "--show-leak-kinds=definite"]);
        command.args(["--errors-for-leak-kinds=definite", "--error-exitcode=99"]).arg(&self.path);
        command
    }
}

/// Runs it, which must end with 0; gives what it printed.
pub fn succeed(mut command: Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{out}\n{err}", output.status);
    output
}

pub fn text(octets: &[u8]) -> &str {
    std::str::from_utf8(octets).unwrap()
}
