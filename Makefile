# Signet's doors. `make test` is everything CI runs.
.PHONY: test lint fmt docs
export RUSTDOCFLAGS = -D warnings

test: lint docs
	cargo test --workspace

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

fmt:
	cargo fmt --all

docs:
	cargo doc --workspace --no-deps
