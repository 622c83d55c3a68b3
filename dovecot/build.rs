//! Compiles the C shim against Dovecot's headers, and links it into the plugin (the cdylib) only: the rlib, which
//! tests and benchmarks use, gets weak stubs in its place and needs no Dovecot.
//!
//! Link arguments are set here and not in .cargo/config.toml because they concern this one cdylib. Cargo
//! offers no way to ask for `relro-level=partial` from here, but the two flags of the linker that it stands for come
//! after rustc's own on the command line, and the last one counts.

use std::path::{Path, PathBuf};

/// Where `dovecot-config` is, when OPENCHANGE_DOVECOT_CONFIG does not say.
const CONFIGS: [&str; 3] = [
    "/usr/lib/dovecot/dovecot-config",
    "/usr/lib64/dovecot/dovecot-config",
    "/usr/local/lib/dovecot/dovecot-config",
];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=shim");
    println!("cargo::rerun-if-env-changed=OPENCHANGE_DOVECOT_CONFIG");
    match headers().and_then(|include| abi(&include).map(|abi| (include, abi))) {
        Ok((include, abi)) => build(&include, &abi),
        Err(why) => println!("cargo::error={why}: install the package dovecot-dev (Debian, Ubuntu)"),
    }
}

fn build(include: &Path, abi: &str) {
    println!("cargo::rustc-env=OPENCHANGE_DOVECOT_ABI={abi}");
    let mut shim = cc::Build::new();
    if !has_log_reason(include) {
        shim.define("OPENCHANGE_LOG_WITHOUT_REASON", None);
    }
    // Since 2.3.14, and the headers of 2.3 have no number to tell it by.
    let list = std::fs::read_to_string(include.join("mailbox-list.h")).unwrap_or_default();
    if list.contains("char vname_escape_char;") {
        shim.define("OPENCHANGE_VNAME_ESCAPE", None);
    }
    let objects = shim
        .file("shim/openchange-shim.c")
        .define("HAVE_CONFIG_H", None)
        // Dovecot's own headers are not ours to warn about.
        .flag("-isystem")
        .flag(include)
        .flag("-std=gnu99")
        .flag("-fvisibility=hidden")
        .flag_if_supported("-Wall")
        .flag_if_supported("-Wextra")
        .pic(true)
        .compile_intermediates();
    for object in objects {
        println!("cargo::rustc-cdylib-link-arg={}", object.display());
    }
    cc::Build::new().file("shim/openchange-stub.c").pic(true).compile("openchange_stub");
    link_unwinder();
    link_settings(include, since_24(abi));

    // Dovecot resolves the plugin's symbols when they are used, and complains clearly about what is missing (the
    // notify plugin, say). With BIND_NOW it would be "undefined symbol" instead.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,lazy");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,lib90_openchange_plugin.so");
}

/// Links GCC's unwinder statically, where GCC has it: for a short-lived dovecot-lda, libgcc_s.so is half of what it
/// takes to load the plugin. And Dovecot's processes may have another library with the same functions (libunwind)
/// before libgcc_s.so: a panic unwinds by the code that it was built with.
fn link_unwinder() {
    const UNWINDER: &str = "libgcc_eh.a";
    let compiler = cc::Build::new().get_compiler();
    if !compiler.is_like_gnu() || std::env::var_os("CARGO_CFG_TARGET_ENV").is_none_or(|env| env != "gnu") {
        return;
    }
    let Ok(output) = compiler.to_command().arg(format!("-print-file-name={UNWINDER}")).output() else {
        return;
    };
    let path = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    // Where it has none, it prints the bare name.
    if let Some(folder) = path.parent().filter(|_| path.is_file()) {
        println!("cargo::rustc-link-search=native={}", folder.display());
        println!("cargo::rustc-link-lib=static=gcc_eh");
    }
}

/// Whether `mail_transaction_log_view_set` says why it fails: since some 2.2, and no number in 2.2's headers tells which.
fn has_log_reason(include: &Path) -> bool {
    let text = std::fs::read_to_string(include.join("mail-transaction-log.h")).unwrap_or_default();
    let call = text.split("mail_transaction_log_view_set(").nth(1).and_then(|rest| rest.split(';').next());
    call.is_none_or(|arguments| arguments.contains("reason_r"))
}

/// Whether this Dovecot reads its settings through modules of their own.
fn since_24(abi: &str) -> bool {
    let mut parts = abi.split('.').map_while(|part| part.parse::<u32>().ok());
    (parts.next(), parts.next()) >= (Some(2), Some(4))
}

/// Dovecot 2.4's second module, `settings/libopenchange_settings.so`. It is put beside the plugin in Cargo's folder:
/// one package has one cdylib, and rustc hides C's symbols in it.
fn link_settings(include: &Path, wanted: bool) {
    const MODULE: &str = "libopenchange_settings.so";
    let Some(out) = std::env::var_os("OUT_DIR").map(PathBuf::from) else { return };
    // target/PROFILE/build/PACKAGE-HASH/out
    let Some(profile) = out.ancestors().nth(3) else { return };
    let module = profile.join(MODULE);
    if !wanted {
        // An older Dovecot's headers than last time: nobody is to install it.
        let _ = std::fs::remove_file(&module);
        return;
    }
    println!("cargo::rerun-if-changed={}", module.display());
    // Renamed into place: whoever has the old one loaded keeps it.
    let made = out.join(MODULE);
    let status = cc::Build::new()
        .get_compiler()
        .to_command()
        .args(["-shared", "-fPIC", "-O2", "-std=gnu99", "-Wall", "-Wextra", "-DHAVE_CONFIG_H", "-isystem"])
        .arg(include)
        .arg("shim/openchange-settings.c")
        .arg("-o")
        .arg(&made)
        .status();
    match status {
        Ok(status) if status.success() => {}
        Ok(status) => return println!("cargo::error={MODULE}: the compiler ended with {status}"),
        Err(error) => return println!("cargo::error={MODULE}: {error}"),
    }
    let staged = profile.join(".libopenchange_settings.so.new");
    if let Err(error) = std::fs::copy(&made, &staged).and_then(|_| std::fs::rename(&staged, &module)) {
        println!("cargo::error={}: {error}", module.display());
    }
}

/// The folder of Dovecot's headers.
fn headers() -> Result<PathBuf, String> {
    let config = match std::env::var_os("OPENCHANGE_DOVECOT_CONFIG") {
        Some(path) => PathBuf::from(path),
        None => CONFIGS
            .iter()
            .map(PathBuf::from)
            .find(|path| path.exists())
            .ok_or_else(|| format!("Dovecot's headers are missing (no {})", CONFIGS[0]))?,
    };
    println!("cargo::rerun-if-changed={}", config.display());
    let text = std::fs::read_to_string(&config).map_err(|error| format!("{}: {error}", config.display()))?;
    let folder = text
        .lines()
        .find_map(|line| {
            line.strip_prefix("LIBDOVECOT_INCLUDE=-I").or(line.strip_prefix("dovecot_pkgincludedir="))
        })
        .map(|folder| PathBuf::from(folder.trim_matches(['"', '\''])))
        .ok_or_else(|| format!("{}: no LIBDOVECOT_INCLUDE", config.display()))?;
    match folder.join("notify-plugin.h").exists() {
        true => Ok(folder),
        false => Err(format!("Dovecot's headers are missing (no {}/notify-plugin.h)", folder.display())),
    }
}

/// What Dovecot compares `openchange_plugin_version` with.
fn abi(include: &Path) -> Result<String, String> {
    let path = include.join("config.h");
    println!("cargo::rerun-if-changed={}", path.display());
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    text.lines()
        .find_map(|line| line.strip_prefix("#define DOVECOT_ABI_VERSION "))
        .map(|value| value.trim().trim_matches('"').to_owned())
        .ok_or_else(|| format!("{}: no DOVECOT_ABI_VERSION", path.display()))
}
