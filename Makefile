# Forebay. `make demo` shows the main job, `make test` proves it; both install what they need and say so.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# The static file for this machine.
TARGET ?= $(shell uname -m)-unknown-linux-musl
TARGET_DIR := $(shell cargo metadata --format-version 1 --no-deps --offline 2>/dev/null | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
TARGET_DIR := $(or $(TARGET_DIR),target)
# Without the ONNX engine: FEATURES=--no-default-features
FEATURES ?=
TOOLS := $(TARGET_DIR)/tools
PYTHON := $(TOOLS)/python/bin/python

.PHONY: help demo test explore prove power-cuts interop check bench doc clean deny release order static delegate tools-test tools-bench tools-release

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

demo: release ## build the file that ships, then show a reading become a verdict with the cable cut on the way (ONCE=1 ends by itself)
	$(TARGET_DIR)/$(TARGET)/release/forebay demo --dir $(TARGET_DIR)/demo $(if $(ONCE),--once)

test: tools-test ## every test, with real brokers, clients, disks and a real browser
	@echo "== cargo test"
	FOREBAY_PYTHON=$(abspath $(PYTHON)) cargo test --locked --features delegate-host
	bash tests/interop.sh $(TARGET_DIR) $(PAHO_TESTING)
	bash tests/triton-examples.sh $(TARGET_DIR) $(TRITON_CLIENT)

explore: ## the property tests with new cases each round: MINUTES=30, or SEED= for one that failed
	bash tests/explore.sh $(or $(MINUTES),30) $(SEED)

# The account remembers what is done, so that an interrupted or too short proof goes on where it was.
prove: release ## that what was acknowledged survives, in full and for an hour: crash states, controls, kills, guests, three weeks (DIR=a folder on the disk in question)
	$(TARGET_DIR)/$(TARGET)/release/forebay prove --dir $(or $(DIR),.) --seconds 1200 --states 50000 --kills 1000 --negative-controls \
	  --account $(TARGET_DIR)/prove-account.json
	$(MAKE) power-cuts
	@echo "== three weeks without a link at full size: 181 million readings"
	FOREBAY_THREE_WEEKS=1 cargo test --profile bench --no-default-features --locked --test suite three_weeks -- --nocapture

power-cuts: ## a whole guest whose plug is pulled under load: CUTS=20, and both negative controls (QEMU, by emulation)
	bash hil-tests/power-cuts.sh $(TARGET_DIR)

interop: tools-test ## only the public MQTT interoperability clients and NVIDIA's examples; PAHO_TESTING=, TRITON_CLIENT= a checkout where there is no way to GitHub
	cargo build --locked
	bash tests/interop.sh $(TARGET_DIR) $(PAHO_TESTING)
	bash tests/triton-examples.sh $(TARGET_DIR) $(TRITON_CLIENT)

check: ## formatting and lints, warnings are errors
	cargo fmt --check
	cargo clippy --locked --all-targets --features delegate-host -- -D warnings
	cargo clippy --locked --all-targets --no-default-features -- -D warnings

bench: tools-bench ## the numbers in the README, side by side with mosquitto
	cargo bench --locked --bench durable
	cargo bench --locked --bench broker
	cargo bench --locked --bench gateway
	cargo bench --locked --bench custody
	cargo bench --locked --bench collector
	FOREBAY_PEERS=$(abspath $(TOOLS))/peers cargo bench --locked --bench answer
	cargo bench --locked --bench reloads
	FOREBAY_PYTHON=$(abspath $(PYTHON)) cargo bench --locked --bench engines
	FOREBAY_PYTHON=$(abspath $(PYTHON)) cargo bench --locked --features delegate-host --bench delegate
	FOREBAY_PYTHON=$(abspath $(PYTHON)) FOREBAY_PEERS=$(abspath $(TOOLS))/peers \
		cargo bench --locked --features delegate-host --bench serving
	ONE_CORE=1 FOREBAY_PYTHON=$(abspath $(PYTHON)) FOREBAY_PEERS=$(abspath $(TOOLS))/peers \
		cargo bench --locked --features delegate-host --bench serving

doc: ## API documentation
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items

order: tools-release ## find the order in which the static file's code is laid out anew (half an hour): cross/order.ld
	bash cross/order.sh $(TARGET_DIR)

deny: ## licences, bans and sources of every dependency
	command -v cargo-deny >/dev/null || cargo install --locked cargo-deny
	cargo deny check licenses bans sources

release: tools-release ## one static file (the first time takes some ten minutes): TARGET=x86_64-unknown-linux-musl or aarch64-unknown-linux-musl
	@echo "== building one static file, linked as a whole: the first time takes some ten minutes"
	rustup target add $(TARGET)
	PATH="$(abspath $(TOOLS))/python/bin:$$PATH" cargo zigbuild --release --locked --target $(TARGET) $(FEATURES)
	@file=$(TARGET_DIR)/$(TARGET)/release/forebay; \
	  printf '%s\n  %s bytes, %s as xz\n' "$$file" "$$(stat -c %s $$file)" "$$(xz -9 --stdout $$file | wc -c)"; \
	  file $$file | grep -oE '(statically linked|static-pie linked)'; \
	  case '$(TARGET)$(FEATURES)' in x86_64-unknown-linux-musl) $(PYTHON) cross/order.py check $$file;; esac

# For this machine's C library: a vendor's libraries are shared objects, which a static file cannot load.
delegate: ## the second program, which computes models with ONNX Runtime on GPUs and NPUs, and the library that it needs (docs/delegate.md)
	bash tests/tools.sh delegate $(TOOLS)
	cargo build --release --locked --no-default-features --features delegate-host --bin forebay-delegate
	@library=$$(echo $(abspath $(TOOLS))/python/lib/python3*/site-packages/onnxruntime/capi/libonnxruntime.so.1.28.0); \
	  printf '[delegate]\nprogram = "%s"\nlibrary = "%s"\n' "$(abspath $(TARGET_DIR))/release/forebay-delegate" "$$library"

static: ## both static files, tried: x86 runs the demo in an empty chroot, ARM answers under emulation
	bash tests/static.sh $(TARGET_DIR)

clean: ## remove what was built
	cargo clean

tools-test:
	bash tests/tools.sh test $(TOOLS)

tools-bench:
	bash tests/tools.sh bench $(TOOLS)

tools-release:
	bash tests/tools.sh release $(TOOLS)
