//! `ocbus completions` and `ocbus man`: made from the command's own description.

use std::path::PathBuf;

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::failure::Failure;
use super::{Cli, output};

/// Prints a shell's completions.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  ocbus completions bash > /etc/bash_completion.d/ocbus
  ocbus completions zsh > /usr/local/share/zsh/site-functions/_ocbus")]
pub(super) struct Completions {
    /// Which shell.
    shell: Shell,
}

/// Prints the manual page, or writes one page for each subcommand.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  ocbus man | man -l -
  ocbus man --dir /usr/local/share/man/man1")]
pub(super) struct Man {
    /// Write all pages into this folder instead: ocbus.1, ocbus-watch.1 and so on.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl Completions {
    pub(super) fn run(self) -> Result<(), Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "ocbus", &mut script);
        output::octets(&script)
    }
}

impl Man {
    pub(super) fn run(self) -> Result<(), Failure> {
        let Some(dir) = self.dir else {
            let mut page = Vec::new();
            clap_mangen::Man::new(Cli::command()).render(&mut page)?;
            return output::octets(&page);
        };
        let failed = |error| Failure::failed(format!("--dir {}: {error}", dir.display()));
        if !dir.is_dir() {
            return Err(failed(std::io::Error::other("expected a folder that is there")));
        }
        clap_mangen::generate_to(Cli::command(), &dir).map_err(failed)
    }
}
