# ocbus: `make` shows what there is.
# JOBS limits Cargo's parallel compilers (this project is also built on small machines).

JOBS ?= 2
CARGOFLAGS ?= --locked
PREFIX ?= /usr/local
SOAK_MAILS ?= 2000

target := $(or $(CARGO_TARGET_DIR),target)
plugin := lib90_openchange_plugin.so
# Dovecot 2.4 reads by it what our settings are called; built when its headers are 2.4's.
settings := libopenchange_settings.so
# Where the installed Dovecot looks for its plugins; dovecot-dev says it.
moduledir ?= $(or $(shell sed -n 's/^dovecot_moduledir=//p' /usr/lib/dovecot/dovecot-config 2>/dev/null),/usr/lib/dovecot/modules)

# The C library: see capi/link. libdir as Debian has it, where dpkg says so.
libdir ?= $(PREFIX)/lib$(addprefix /,$(if $(filter /usr,$(PREFIX)),$(shell dpkg-architecture -qDEB_HOST_MULTIARCH 2>/dev/null)))
includedir ?= $(PREFIX)/include
# Both are among the folders that systemd looks at, for /usr and for /usr/local.
unitdir ?= $(PREFIX)/lib/systemd/system
sysusersdir ?= $(PREFIX)/lib/sysusers.d
# The commented settings of the daemon, and Dovecot's Lua script.
datadir ?= $(PREFIX)/share/ocbus
mandir ?= $(PREFIX)/share/man
# Where each shell looks for completions, for /usr and for /usr/local.
bashdir ?= $(PREFIX)/share/bash-completion/completions
fishdir ?= $(PREFIX)/share/fish/vendor_completions.d
zshdir ?= $(PREFIX)/share/zsh/site-functions
version := $(shell sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"$$/\1/p' Cargo.toml)
# What `make install` takes: of the user who built it, as root need not have Rust. The tests of it name other folders.
built = $(or $(OCBUS_BUILT),$(target)/release)
capi = $(or $(OCBUS_CAPI),$(target)/release/capi)
LINK = CARGOFLAGS='$(CARGOFLAGS)' capi/link

# rustup's folder, which is not in everybody's PATH.
export PATH := $(or $(CARGO_HOME),$(HOME)/.cargo)/bin:$(PATH)
export CARGO_BUILD_JOBS := $(JOBS)

# The private servers want root. Whoever is not builds as himself, and runs what was built through sudo.
ifneq ($(shell id -u),0)
sudo := sudo -E
host := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p' | tr a-z- A-Z_)
run_as_root = CARGO_TARGET_$(host)_RUNNER='$(sudo)'
endif

.NOTPARALLEL:
.PHONY: help demo test lint bench soak build build-capi install install-ocbus install-capi ocbus-built capi-built fmt advisories clean
.DEFAULT_GOAL := help

help:
	@echo 'ocbus: the notification bus of an OpenChange server'
	@echo
	@echo '  make demo        see it work: a private Dovecot delivers two mails, a subscriber prints them'
	@echo '  make test        the gate: lint, documentation, unit and end-to-end tests (.ci/run calls it)'
	@echo '  make lint        formatting, clippy, rustdoc and cargo deny; warnings are errors'
	@echo '  make soak        $(SOAK_MAILS) deliveries: nothing lost, doubled, crashed or leaked (SOAK_MAILS=n)'
	@echo '  make bench       what the plugin costs a delivery, beside Dovecot alone and its own push driver'
	@echo '  make build       the command, the plugin and libocbus.so, for release'
	@echo '  make install     what make build has built, to $$(DESTDIR)$(PREFIX)/bin, $$(DESTDIR)$(libdir)'
	@echo '                   and $$(DESTDIR)$(moduledir);'
	@echo '                   packaging/ to $(datadir), $(unitdir) and $(sysusersdir);'
	@echo '                   man pages and completions to $(PREFIX)/share;'
	@echo '                   make install-capi: libocbus.so.0, ocbus.h and ocbus.pc alone'
	@echo '  make advisories  asks the RustSec database about our dependencies (needs the network)'
	@echo '  make fmt, make clean'
	@echo
	@echo 'build, demo, test, soak and bench install what is missing on Debian 12 or Ubuntu, or say what to install.'
	@echo 'All but build start servers of their own, on 127.0.0.1 and in a temporary folder; Dovecot wants root for that.'
	@echo 'JOBS=$(JOBS) compilers run at once.'

demo:
	@scripts/setup demo
	cargo build $(CARGOFLAGS) --release -p ocbus -p dovecot-openchange-plugin
	$(sudo) $(target)/release/ocbus demo

# The documentation's examples come first, so that the last lines are nextest's count.
test:
	@scripts/setup test
	$(MAKE) lint
	cargo build $(CARGOFLAGS) -p dovecot-openchange-plugin
	$(LINK)
	cargo test $(CARGOFLAGS) --workspace --doc
	@scripts/dovecot24 test $(if $(CI),--profile ci) || [ $$? = 3 ]
	$(run_as_root) cargo nextest run $(CARGOFLAGS) $(if $(CI),--profile ci) --workspace

lint:
	cargo fmt --all --check
	cargo clippy $(CARGOFLAGS) --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc $(CARGOFLAGS) --workspace --no-deps --document-private-items
	cargo deny --log-level error check licenses bans sources

advisories:
	cargo deny check advisories

bench:
	@scripts/setup bench
	cargo build $(CARGOFLAGS) --release -p dovecot-openchange-plugin
	$(run_as_root) cargo bench $(CARGOFLAGS) --workspace --benches

soak:
	@scripts/setup test
	cargo build $(CARGOFLAGS) --release -p dovecot-openchange-plugin
	$(run_as_root) OCBUS_SOAK_MAILS=$(SOAK_MAILS) cargo nextest run $(CARGOFLAGS) --profile soak --release --test soak --no-capture

build: build-capi
	cargo build $(CARGOFLAGS) --release -p ocbus -p dovecot-openchange-plugin

build-capi:
	@scripts/setup build
	$(LINK) --release

# Takes what is built and builds nothing: by `sudo make install` that would be root's files in the user's folder, if
# root has Rust at all.
install: ocbus-built capi-built install-ocbus install-capi
ocbus-built capi-built:
	@for file in $(needed); do [ -e "$$file" ] || { \
	    echo "make install: $$file is not there: run 'make build' first, as the user who builds" >&2; exit 1; }; done
ocbus-built: needed = '$(built)/ocbus' '$(built)/libopenchange_plugin.so'
capi-built: needed = '$(capi)/libocbus.so.$(version)'

# The plugin is put in place by a rename: writing into a .so that a running lmtp has loaded crashes it.
# Dovecot does not load the temporary, whose name does not end in .so.
install-ocbus: ocbus-built
	install -D -m 0755 '$(built)/ocbus' '$(DESTDIR)$(PREFIX)/bin/.ocbus.new'
	mv -f '$(DESTDIR)$(PREFIX)/bin/.ocbus.new' '$(DESTDIR)$(PREFIX)/bin/ocbus'
	install -D -m 0644 '$(built)/libopenchange_plugin.so' '$(DESTDIR)$(moduledir)/.$(plugin).new'
	mv -f '$(DESTDIR)$(moduledir)/.$(plugin).new' '$(DESTDIR)$(moduledir)/$(plugin)'
	[ ! -e '$(built)/$(settings)' ] || { \
	    install -D -m 0644 '$(built)/$(settings)' '$(DESTDIR)$(moduledir)/settings/.$(settings).new' && \
	    mv -f '$(DESTDIR)$(moduledir)/settings/.$(settings).new' '$(DESTDIR)$(moduledir)/settings/$(settings)'; }

	install -D -m 0644 packaging/ocbus.toml '$(DESTDIR)$(datadir)/ocbus.toml'
	install -D -m 0644 packaging/dovecot/openchange.lua '$(DESTDIR)$(datadir)/openchange.lua'
	install -D -m 0644 packaging/systemd/ocbus.sysusers '$(DESTDIR)$(sysusersdir)/ocbus.conf'
	install -d '$(DESTDIR)$(unitdir)'
	sed -e 's|/usr/local/bin/|$(PREFIX)/bin/|' packaging/systemd/ocbus.service > '$(DESTDIR)$(unitdir)/ocbus.service'
	chmod 0644 '$(DESTDIR)$(unitdir)/ocbus.service'
	install -d '$(DESTDIR)$(mandir)/man1' '$(DESTDIR)$(bashdir)' '$(DESTDIR)$(fishdir)' '$(DESTDIR)$(zshdir)'
	'$(built)/ocbus' man --dir '$(DESTDIR)$(mandir)/man1'
	'$(built)/ocbus' completions bash > '$(DESTDIR)$(bashdir)/ocbus'
	'$(built)/ocbus' completions fish > '$(DESTDIR)$(fishdir)/ocbus.fish'
	'$(built)/ocbus' completions zsh > '$(DESTDIR)$(zshdir)/_ocbus'
	chmod 0644 '$(DESTDIR)$(mandir)'/man1/ocbus*.1 '$(DESTDIR)$(bashdir)/ocbus' '$(DESTDIR)$(fishdir)/ocbus.fish' \
	    '$(DESTDIR)$(zshdir)/_ocbus'

# Into a DESTDIR nothing is to be found by the loader yet. Elsewhere ldconfig is told; it wants root, and does not look
# into every folder.
install-capi: capi-built
	install -d '$(DESTDIR)$(libdir)/pkgconfig' '$(DESTDIR)$(includedir)'
	install -m 0755 '$(capi)/libocbus.so.$(version)' '$(DESTDIR)$(libdir)/.libocbus.so.new'
	mv -f '$(DESTDIR)$(libdir)/.libocbus.so.new' '$(DESTDIR)$(libdir)/libocbus.so.$(version)'
	ln -sfn 'libocbus.so.$(version)' '$(DESTDIR)$(libdir)/libocbus.so.0'
	ln -sfn libocbus.so.0 '$(DESTDIR)$(libdir)/libocbus.so'
	install -m 0644 capi/include/ocbus.h '$(DESTDIR)$(includedir)/ocbus.h'
	sed -e 's|@prefix@|$(PREFIX)|' -e 's|@libdir@|$(libdir)|' -e 's|@includedir@|$(includedir)|' \
	    -e 's|@version@|$(version)|' capi/ocbus.pc.in > '$(DESTDIR)$(libdir)/pkgconfig/ocbus.pc'
	chmod 0644 '$(DESTDIR)$(libdir)/pkgconfig/ocbus.pc'
	@[ -n '$(DESTDIR)' ] || { export PATH="$$PATH:/usr/sbin:/sbin"; \
	    ldconfig && ldconfig -p | grep -qF ' $(libdir)/libocbus.so.0'; } || \
	    echo 'note: the loader does not find $(libdir)/libocbus.so.0 yet: run ldconfig as root, with that folder in /etc/ld.so.conf.d'

fmt:
	cargo fmt --all

clean:
	cargo clean
