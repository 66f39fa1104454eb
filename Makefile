# Builds, tests and runs Sandboxed Containers on this machine.

SHELL := /bin/sh
.SHELLFLAGS := -eu -c
.DELETE_ON_ERROR:
.SUFFIXES:

# What is built for use always lands in target/, where tests and scripts look
# for it; cargo's own files go where cargo was told.
CARGO_DIR := $(or $(CARGO_TARGET_DIR),target)
PLATFORM := $(shell uname -m)-unknown-linux-gnu
BINARIES := containerd-shim-kata-v2 kata-agent osc osc-operator machine-config-controller machine-config-daemon

RELEASE := target/release
OSC := $(RELEASE)/osc
VIRTIOFSD := target/tools/bin/virtiofsd
GUEST := target/guest/manifest.json
IMAGES := target/images/busybox.tar target/images/hello-openshift.tar
COMPONENTS := $(addprefix target/images/,osc-operator.tar machine-config.tar sandboxed-containers-payload.tar)

.PHONY: help
help: ## list what can be made
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: up
up: build ## install what is missing, build, and run a sample pod in a sandbox
	scripts/up

.PHONY: down
down: ## stop and remove everything `make up` started
	scripts/down

.PHONY: build
build: $(VIRTIOFSD) $(GUEST) $(IMAGES) $(COMPONENTS) ## build release binaries, virtiofsd, guest image and images

.PHONY: packages
packages: ## install the Debian packages that are missing
	scripts/install-packages

# Static: the shim must not depend on the C library of whatever node it lands
# on, the agent is alone in its guest, and images hold nothing but programs. Cargo decides what is out of date;
# `install -C` keeps the time of what did not change, so that make can.
.PHONY: binaries
binaries: packages
	RUSTFLAGS='-C target-feature=+crt-static' cargo build --release --locked --target $(PLATFORM) \
		--package osc-shim --package osc-agent --package osc-cli \
		--package osc-operator --package osc-machine-config
	mkdir -p $(RELEASE)
	for binary in $(BINARIES); do \
		install -C -m 755 $(CARGO_DIR)/$(PLATFORM)/release/$$binary $(RELEASE)/$$binary; \
	done

$(addprefix $(RELEASE)/,$(BINARIES)): binaries ;

# Linked to the machine's libseccomp and libcap-ng, whose licence asks that they can
# be replaced; so not static, and in a call of its own.
.PHONY: file-server
file-server: packages
	cargo build --release --locked --package osc-share-daemon
	mkdir -p $(dir $(VIRTIOFSD))
	install -C -m 755 $(CARGO_DIR)/release/virtiofsd $(VIRTIOFSD)

$(VIRTIOFSD): file-server ;

$(GUEST): $(OSC) $(RELEASE)/kata-agent
	$(OSC) guest build --out target/guest --cache target/cache

$(IMAGES) &: $(OSC) scripts/sample-images
	scripts/sample-images $(OSC) target/images

.PHONY: images
images: $(COMPONENTS) ## build the images of operator, machine configuration and payload

$(COMPONENTS) &: $(addprefix $(RELEASE)/,$(BINARIES)) $(VIRTIOFSD) $(GUEST) scripts/component-images
	scripts/component-images $(RELEASE) target/guest target/images

.PHONY: test
test: build ## everything continuous integration runs
	cargo fmt --all --check
	cargo xtask graph
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo test --workspace --locked

.PHONY: test-scale
test-scale: build ## many sandboxes at once and one after another; minutes of full load
	cargo test --locked --package osc-testkit --test e2e_scale

# The first time it builds Kubernetes, outside this directory.
.PHONY: e2e-kubernetes
e2e-kubernetes: build ## the end-to-end suite against a real Kubernetes; builds it once, a quarter of an hour
	scripts/kubernetes-e2e

.PHONY: bench
bench: build ## measure against references in the same run; table, and JSON beside it
	cargo run --profile optimised --quiet --locked --package osc-testkit --bin bench

.PHONY: bench-fleet
bench-fleet: ## what 5,000 nodes cost operator and machine-config controller; JSON
	cargo run --profile optimised --quiet --locked --package osc-cli --example fleet

.PHONY: clean
clean: ## remove everything that was built
	rm -rf target
