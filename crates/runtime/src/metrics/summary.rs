use std::collections::VecDeque;
use std::time::Duration;

use prometheus::proto;
use tokio::time::Instant;

/// What a quantile looks back on.
const MAX_AGE: Duration = Duration::from_secs(10);
/// Kept at most; beyond it the oldest go early.
const MAX_VALUES: usize = 4096;

const QUANTILES: [f64; 3] = [0.5, 0.9, 0.99];

/// Values of the last ten seconds for the quantiles; count and sum of all.
#[derive(Debug, Default)]
pub(super) struct Summary {
    recent: VecDeque<(Instant, f64)>,
    count: u64,
    sum: f64,
}

impl Summary {
    pub(super) fn add(&mut self, value: f64, now: Instant) {
        self.count += 1;
        self.sum += value;
        if self.recent.len() == MAX_VALUES {
            self.recent.pop_front();
        }
        self.recent.push_back((now, value));
    }

    pub(super) fn encode(&mut self, now: Instant) -> proto::Summary {
        let is_old = |at: &Instant| now.duration_since(*at) > MAX_AGE;
        while self.recent.front().is_some_and(|(at, _)| is_old(at)) {
            self.recent.pop_front();
        }
        let mut sorted: Vec<f64> = self.recent.iter().map(|(_, value)| *value).collect();
        sorted.sort_by(f64::total_cmp);
        let mut summary = proto::Summary::default();
        summary.set_sample_count(self.count);
        summary.set_sample_sum(self.sum);
        summary.set_quantile(QUANTILES.map(|q| quantile(&sorted, q)).to_vec());
        summary
    }
}

/// The smallest value that at least the share `q` of all does not exceed; not a number when there is none.
fn quantile(sorted: &[f64], q: f64) -> proto::Quantile {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a small count"
    )]
    let rank = (q * sorted.len() as f64).ceil() as usize;
    let value = sorted.get(rank.saturating_sub(1)).copied();
    let mut quantile = proto::Quantile::default();
    quantile.set_quantile(q);
    quantile.set_value(value.unwrap_or(f64::NAN));
    quantile
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(summary: &proto::Summary) -> Vec<f64> {
        summary
            .get_quantile()
            .iter()
            .map(proto::Quantile::value)
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn quantiles_of_the_last_ten_seconds() {
        let mut summary = Summary::default();
        for value in (1..=100).rev() {
            summary.add(f64::from(value), Instant::now());
        }
        let encoded = summary.encode(Instant::now());
        assert_eq!(values(&encoded), [50.0, 90.0, 99.0]);
        assert_eq!(
            (encoded.sample_count(), encoded.sample_sum()),
            (100, 5050.0)
        );

        tokio::time::advance(MAX_AGE + Duration::from_millis(1)).await;
        let encoded = summary.encode(Instant::now());
        assert!(values(&encoded).iter().all(|value| value.is_nan()));
        assert_eq!(encoded.sample_count(), 100);
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_bounded() {
        let mut summary = Summary::default();
        for _ in 0..MAX_VALUES * 2 {
            summary.add(1.0, Instant::now());
        }
        assert_eq!(summary.recent.len(), MAX_VALUES);
        assert_eq!(summary.count, 2 * MAX_VALUES as u64);
    }
}
