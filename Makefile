# What one types to set up, build, try, test and install gridgate; `make` alone lists it.

PREFIX ?= /usr/local
DESTDIR ?=
CARGO ?= $(shell command -v cargo || echo $(HOME)/.cargo/bin/cargo)
# What is installed. Another one than cargo's is taken as it is.
GRIDGATE ?= target/release/gridgate

BIN := $(DESTDIR)$(PREFIX)/bin
SHARE := $(DESTDIR)$(PREFIX)/share
LIB := $(DESTDIR)$(PREFIX)/lib
UNITS := $(LIB)/systemd/system
GENERATORS := $(LIB)/systemd/system-generators
# Where the units look, whatever the prefix.
DEFAULTS := $(DESTDIR)/etc/default/gridgate
# Scripts that are of use on an installed system.
SCRIPTS := scripts/fetch-uml
PROFILE_DIRS := profiles profiles/features profiles/templates

.PHONY: help setup build demo test test-lab bench lint install uninstall clean

help: ## list what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install what gridgate needs and this machine lacks, by name
	scripts/setup

build: ## build the program
	$(CARGO) build --release

demo: ## bring up four guests from nothing, and say what to type next
	scripts/demo

test: ## run all tests that this machine can run
	scripts/setup --test
	scripts/test-image
	$(CARGO) test --lib --bins --tests

test-lab: ## run the tests on a whole machine, emulated: Debian with guests in it; takes minutes
	scripts/setup --test
	scripts/lab-image
	GRIDGATE_LAB=$(CURDIR)/build/lab $(CARGO) test --test lab --test image_build

bench: ## run the benchmarks
	scripts/setup --bench
	$(CARGO) bench --bench "*"

lint: ## check format and lints, as CI does
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings

target/release/gridgate: Cargo.toml Cargo.lock $(shell find src images profiles -type f)
	$(CARGO) build --release

# What is generated comes from the definitions behind --help. The defaults are the administrator's once they are there.
install: $(GRIDGATE) ## put it in place: PREFIX=/usr/local, DESTDIR= for packages, GRIDGATE= for another binary
	install -D -m 0755 $(GRIDGATE) $(BIN)/gridgate
	install -D -m 0644 -t $(UNITS) $(wildcard units/*.service units/*.target)
	install -d $(GENERATORS) && ln -sfn ../../../bin/gridgate $(GENERATORS)/gridgate-generator
	install -D -m 0644 -t $(SHARE)/gridgate/images $(wildcard images/*.toml)
	for dir in $(PROFILE_DIRS); do \
	install -D -m 0644 -t $(SHARE)/gridgate/$$dir $$(find $$dir -maxdepth 1 -type f); done
	install -D -m 0755 -t $(LIB)/gridgate $(SCRIPTS)
	[ -e $(DEFAULTS) ] || install -D -m 0644 units/defaults $(DEFAULTS)
	made=$$(mktemp -d) && trap 'rm -rf "$$made"' EXIT && \
	$(GRIDGATE) generate man "$$made/man" && $(GRIDGATE) generate completions "$$made" && \
	install -D -m 0644 -t $(SHARE)/man/man1 "$$made"/man/*.1 && \
	install -D -m 0644 "$$made/gridgate.bash" $(SHARE)/bash-completion/completions/gridgate && \
	install -D -m 0644 "$$made/_gridgate" $(SHARE)/zsh/site-functions/_gridgate && \
	install -D -m 0644 "$$made/gridgate.fish" $(SHARE)/fish/vendor_completions.d/gridgate.fish

# By the names that install gave them, directories only if nothing else is in them, and the defaults only as they came.
uninstall: ## remove what install put in place, and nothing else
	rm -f $(BIN)/gridgate $(SHARE)/man/man1/gridgate.1 $(SHARE)/man/man1/gridgate-*.1
	rm -f $(SHARE)/bash-completion/completions/gridgate $(SHARE)/zsh/site-functions/_gridgate
	rm -f $(SHARE)/fish/vendor_completions.d/gridgate.fish
	rm -f $(addprefix $(LIB)/gridgate/,$(notdir $(SCRIPTS)))
	rm -f $(addprefix $(SHARE)/gridgate/images/,$(notdir $(wildcard images/*.toml)))
	rm -f $(addprefix $(SHARE)/gridgate/,$(shell find profiles -type f))
	rm -f $(GENERATORS)/gridgate-generator
	rm -f $(addprefix $(UNITS)/,$(notdir $(wildcard units/*.service units/*.target)))
	if cmp -s units/defaults $(DEFAULTS); then rm -f $(DEFAULTS); fi
	rmdir $(SHARE)/gridgate/profiles/features $(SHARE)/gridgate/profiles/templates $(SHARE)/gridgate/profiles 2>/dev/null || true
	rmdir $(SHARE)/gridgate/images $(SHARE)/gridgate $(LIB)/gridgate 2>/dev/null || true

clean: ## remove what was built; a demonstration that is up stays
	$(CARGO) clean
