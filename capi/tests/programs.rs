//! C programs against libocbus.so: every function, both examples, the header in C and C++, what the library shows.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod support;

use std::process::Command;

use support::{Program, STRICT, built, folder, succeed, text};

const VERSION: &str = concat!("-DOCBUS_EXPECTED_VERSION=\"", env!("CARGO_PKG_VERSION"), "\"");

/// `tests/api/`, whose files are one program.
fn every_function(valgrind: bool) -> Program {
    let mut files: Vec<String> = std::fs::read_dir(folder().join("tests/api"))
        .unwrap()
        .map(|file| file.unwrap().path().to_str().unwrap().to_owned())
        .filter(|path| path.ends_with(".c") && !path.ends_with("/main.c"))
        .collect();
    files.sort();
    let under = format!("-DOCBUS_UNDER_VALGRIND={}", u8::from(valgrind));
    let mut more = vec![VERSION, &under, "-lpthread"];
    more.extend(files.iter().map(String::as_str));
    Program::build("tests/api/main.c", &more)
}

#[test]
fn every_function_does_what_the_header_says() {
    let program = every_function(false);
    let output = succeed(program.command());
    assert!(text(&output.stdout).ends_with("all is well\n"), "{output:?}");
    assert_eq!(text(&output.stderr), "", "the library writes nothing there");
}

#[test]
fn every_function_is_clean_under_valgrind() {
    let program = every_function(true);
    let output = succeed(program.valgrind());
    assert!(text(&output.stdout).ends_with("all is well\n"), "{output:?}");
    assert_eq!(text(&output.stderr), "", "no errors, no leaks");
}

#[test]
fn the_poll_loop_fetches_the_replies_of_a_mail() {
    let program = Program::build("examples/poll_loop.c", &["-D_POSIX_C_SOURCE=200809L"]);
    for command in [program.command(), program.valgrind()] {
        let output = succeed(command);
        let lines: Vec<&str> = text(&output.stdout).lines().collect();
        let new_mail = "4 replies: 2a 29 00 00 00 00 02 80 01 00 00 00 00 00 12 34 01 00 00 00 07 00 12 34 02 00 00 00 00";
        assert_eq!(lines.len(), 5, "{lines:?}");
        assert_eq!(lines[3], "the wait is answered: result 0x0, flags 1");
        assert!(
            lines[4].starts_with(new_mail) && lines[4].ends_with("2a 32 00 00 00 00 00 81 01 00"),
            "{lines:?}"
        );
        assert_eq!(text(&output.stderr), "");
    }
}

#[test]
fn the_header_is_right_in_c_and_in_cpp_alone() {
    for (compiler, language, standard) in [("cc", "c", "-std=c99"), ("c++", "c++", "-std=c++11")] {
        let mut command = Command::new(compiler);
        command.args(["-x", language, standard]).args(&STRICT[1..]).args(["-pedantic", "-fsyntax-only"]);
        succeed({
            command.arg(folder().join("include/ocbus.h"));
            command
        });
    }
}

#[test]
fn nothing_is_exported_but_the_functions_each_with_its_version() {
    let mut command = Command::new("nm");
    command.args(["-D", "--defined-only", "--with-symbol-versions"]).arg(built().join("libocbus.so"));
    let output = succeed(command);
    let names: Vec<&str> =
        text(&output.stdout).lines().filter_map(|line| line.split_whitespace().nth(2)).collect();
    assert!(names.len() > 30, "{names:?}");
    for name in names {
        let right = name == "OCBUS_0.1" || (name.starts_with("ocbus_") && name.ends_with("@@OCBUS_0.1"));
        assert!(right, "{name}");
    }
}

#[test]
fn the_library_has_a_soname_is_not_unloaded_and_needs_what_it_says() {
    let mut command = Command::new("readelf");
    command.args(["-d", "-W"]).arg(built().join("libocbus.so"));
    let output = succeed(command);
    let dynamic = text(&output.stdout);
    assert!(dynamic.contains("Library soname: [libocbus.so.0]"), "{dynamic}");
    for word in ["SYMBOLIC", "NODELETE", "BIND_NOW"] {
        assert!(dynamic.contains(word), "{word}: {dynamic}");
    }
    let needed: Vec<&str> = dynamic.lines().filter(|line| line.contains("NEEDED")).collect();
    let known = ["libnng", "libgcc_s", "libm.", "libc.", "ld-linux"];
    let strange: Vec<_> =
        needed.iter().filter(|line| !known.iter().any(|name| line.contains(name))).collect();
    assert!(strange.is_empty(), "{strange:?}");
}

/// A host may have Rust of its own, and nng of its own: here another Rust library, which panics and has another
/// runtime's symbols, loaded in front of and behind ours.
#[test]
fn another_rust_library_and_nng_in_the_process_do_not_clash() {
    let temporary = tempfile::TempDir::new().unwrap();
    let source = temporary.path().join("other.rs");
    let library = temporary.path().join("libother.so");
    std::fs::write(
        &source,
        "#[unsafe(no_mangle)] pub extern \"C\" fn other() -> i32 {\n    \
         std::panic::set_hook(Box::new(|_| {}));\n    \
         let caught = std::panic::catch_unwind(|| panic!(\"theirs\"));\n    \
         std::thread::spawn(move || if caught.is_err() { 7 } else { 0 }).join().unwrap_or(0)\n}\n",
    )
    .unwrap();
    let mut rustc = Command::new("rustc");
    rustc.args(["--edition=2024", "--crate-type=cdylib", "-o"]).arg(&library).arg(&source);
    succeed(rustc);
    let folder = format!("-L{}", temporary.path().display());
    let rpath = format!("-Wl,-rpath,{}", temporary.path().display());
    let program = Program::build("tests/neighbours.c", &[&folder, &rpath, "-lother", "-lnng"]);
    assert_eq!(text(&succeed(program.command()).stdout), "7 and a mail\n");
}

/// `make install` puts everything in place, and pkg-config finds it there.
#[test]
fn what_is_installed_compiles_an_example_by_pkg_config() {
    let root = tempfile::TempDir::new().unwrap();
    let mut make = Command::new("make");
    make.arg("-C").arg(folder().parent().unwrap()).args(["--no-print-directory", "install-capi"]);
    make.args(["PREFIX=/usr", "libdir=/usr/lib/somewhere"]).arg(format!("DESTDIR={}", root.path().display()));
    // What is built here already; a release build would take minutes.
    make.arg(format!("OCBUS_CAPI={}", built().display()));
    // Run by a make, this one is not part of it.
    make.env_remove("MAKEFLAGS").env_remove("MAKELEVEL").env_remove("MFLAGS");
    succeed(make);
    let libdir = root.path().join("usr/lib/somewhere");
    for (link, target) in [
        ("libocbus.so", "libocbus.so.0"),
        ("libocbus.so.0", concat!("libocbus.so.", env!("CARGO_PKG_VERSION"))),
    ] {
        assert_eq!(std::fs::read_link(libdir.join(link)).unwrap().to_str(), Some(target));
    }
    let pkg_config = |argument: &str| {
        let mut command = Command::new("pkg-config");
        command.arg(argument).arg("ocbus");
        command.env("PKG_CONFIG_LIBDIR", libdir.join("pkgconfig")).env("PKG_CONFIG_SYSROOT_DIR", root.path());
        text(&succeed(command).stdout).trim().to_owned()
    };
    assert_eq!(pkg_config("--modversion"), env!("CARGO_PKG_VERSION"));
    let flags = format!("{} {}", pkg_config("--cflags"), pkg_config("--libs"));
    let program = root.path().join("poll_loop");
    let mut compile = Command::new("cc");
    compile.args(STRICT).arg("-D_POSIX_C_SOURCE=200809L").arg(folder().join("examples/poll_loop.c"));
    compile.args(flags.split_whitespace()).arg("-o").arg(&program);
    succeed(compile);
    // By the soname, in the installed folder and nowhere else.
    let mut run = Command::new(&program);
    run.env("LD_LIBRARY_PATH", &libdir);
    assert!(text(&succeed(run).stdout).contains("the wait is answered: result 0x0, flags 1"));
}
