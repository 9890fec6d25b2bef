# What one types to set up, build, try, test and install gridgate; `make` alone lists it.

PREFIX ?= /usr/local
DESTDIR ?=
CARGO ?= $(shell command -v cargo || echo $(HOME)/.cargo/bin/cargo)

RELEASE := target/release/gridgate
BIN := $(DESTDIR)$(PREFIX)/bin
SHARE := $(DESTDIR)$(PREFIX)/share
LIB := $(DESTDIR)$(PREFIX)/lib
UNITS := $(LIB)/systemd/system
GENERATED := target/generated
# Scripts that are of use on an installed system.
SCRIPTS := scripts/fetch-uml

.PHONY: help setup build demo test bench lint install uninstall clean

help: ## list what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install what gridgate needs and this machine lacks, by name
	scripts/setup

build: ## build the program
	$(CARGO) build --release

demo: ## bring up four guests from nothing, and say what to type next
	scripts/demo

test: ## run all tests that this machine can run
	scripts/test-image
	$(CARGO) test

bench: ## run the benchmarks
	$(CARGO) bench

lint: ## check format and lints, as CI does
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings

# Everything that is generated comes from the definitions behind --help.
$(GENERATED): $(RELEASE)
	rm -rf $@
	$(RELEASE) generate man $@/man
	$(RELEASE) generate completions $@/completions

$(RELEASE): build

install: $(GENERATED) ## put it in place: PREFIX=/usr/local, DESTDIR= for packages
	install -D -m 0755 $(RELEASE) $(BIN)/gridgate
	install -d $(UNITS) $(SHARE)/gridgate/images $(SHARE)/man/man1 $(LIB)/gridgate
	install -m 0644 images/*.toml $(SHARE)/gridgate/images/
	install -m 0755 $(SCRIPTS) $(LIB)/gridgate/
	install -m 0644 $(GENERATED)/man/*.1 $(SHARE)/man/man1/
	if [ -d profiles ]; then mkdir -p $(SHARE)/gridgate && cp -r profiles $(SHARE)/gridgate/; fi
	for unit in units/*; do \
	    sed 's|@PREFIX@|$(PREFIX)|g' "$$unit" >$(UNITS)/"$${unit##*/}" && chmod 0644 $(UNITS)/"$${unit##*/}" || exit 1; \
	done
	install -D -m 0644 $(GENERATED)/completions/gridgate.bash $(SHARE)/bash-completion/completions/gridgate
	install -D -m 0644 $(GENERATED)/completions/_gridgate $(SHARE)/zsh/site-functions/_gridgate
	install -D -m 0644 $(GENERATED)/completions/gridgate.fish $(SHARE)/fish/vendor_completions.d/gridgate.fish

# By the names that install gave them, and directories only if nothing else is in them.
uninstall: ## remove what install put in place, and nothing else
	rm -f $(BIN)/gridgate $(SHARE)/man/man1/gridgate.1 $(SHARE)/man/man1/gridgate-*.1
	rm -f $(SHARE)/bash-completion/completions/gridgate $(SHARE)/zsh/site-functions/_gridgate
	rm -f $(SHARE)/fish/vendor_completions.d/gridgate.fish
	rm -f $(addprefix $(LIB)/gridgate/,$(notdir $(SCRIPTS)))
	rm -f $(addprefix $(SHARE)/gridgate/images/,$(notdir $(wildcard images/*.toml)))
	rm -f $(addprefix $(UNITS)/,$(notdir $(wildcard units/*)))
	if [ -d profiles ]; then find profiles -type f -exec rm -f $(SHARE)/gridgate/'{}' ';'; fi
	-if [ -d profiles ]; then find profiles -depth -type d -exec rmdir $(SHARE)/gridgate/'{}' ';' 2>/dev/null; fi
	-rmdir $(SHARE)/gridgate/images $(SHARE)/gridgate $(LIB)/gridgate 2>/dev/null

clean: ## remove what was built; a demonstration that is up stays
	$(CARGO) clean
	rm -rf $(GENERATED)
