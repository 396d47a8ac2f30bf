# Signet's doors. `make test` is everything CI runs.
.PHONY: test lint fmt docs bench
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

# The figures, each beside its limit; also in bench-report.json. `make bench ROWS="c e"` for some.
bench:
	cargo build --release --workspace --bins
	SIGNET_BIN=target/release/signet target/release/bench $(ROWS)
